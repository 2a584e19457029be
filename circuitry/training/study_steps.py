"""The steps of the study: for every mixture, training and measurement the command of its script, and what it costs.

Costs are counted operations (`count_model`; those of circuits are given) over a rate that is stated, and the disk that
checkpoints and stored features fill. Reading images is not in them: where that is slower than the GPU, it takes longer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from circuitry.data.mixtures.base_sets import BaseSet
from circuitry.data.mixtures.study_set import MixtureSpec
from circuitry.runs.plan import Cost, Step
from circuitry.training.cost import ModelOperations, count_model
from circuitry.training.settings import CLIP_PRESETS, ClipTraining, SaeTraining, clip_preset
from circuitry.training.study_trainings import ALIGNED_DOMAIN, StudyTraining

CLIP_BYTES, SUPERVISED_BYTES, ROW_BYTES, GRAPH_BYTES = 12, 4, 200, 10_000_000
"""Of a checkpoint for each weight (open_clip's holds two moments of Adam, too), of a row of a table, of a circuit."""
SAE_OPERATIONS = 12
"""Of an autoencoder for each sample, unit and feature: two products, forward and twice that backward."""
GIB = 2**30
N_CIRCUIT_IMAGES = 50
FIGURES = {
    "accuracy_by_setting": "generalization",
    "domain_interpolation": "generalization",
    "class_interpolation": "generalization",
    "imagenet_sketch": "generalization",
    "base_sets": "generalization",
    "architectures": "generalization",
    "supervised_against_clip": "generalization",
    "top5_and_f1": "generalization",
    "effective_robustness": "generalization",
    "sharing_over_settings": "sharing/tables",
    "embedding_map": "separation",
    "separation": "separation",
    "cka_over_depth": "representations",
    "cka_apart": "representations",
    "units_apart": "circuits/tables",
    "domain_similarity": "circuits/tables",
}
"""Script of a figure -> where its tables are, below the folder of the study (``tables/`` but for the two last kinds)."""


@dataclass(frozen=True)
class Scale:
    """What the study and its miniature differ in, beside their material."""

    models: tuple[str, ...]
    """Architectures; the first one takes part everywhere."""
    sae_base: str
    """Base set on whose models autoencoders are trained."""
    epochs: int
    supervised_epochs: int
    gpus: int = 0
    """Most GPUs of a step; 0 for none."""
    device: str = "cuda"
    training: tuple[str, ...] = ()
    """More arguments of train_clip.py; so the next ones of the other scripts."""
    supervised: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    sae: tuple[str, ...] = ()
    separation: tuple[str, ...] = ()
    circuits: tuple[str, ...] = ()

    def preset(self, one: StudyTraining) -> str:
        """Return the preset of a training; that of ImageNet-Captions where there is no base set."""
        return one.model if one.model in CLIP_PRESETS else f"{one.model}-{one.mixture.base or 'imagenet-captions'}"

    def settings(self, one: StudyTraining) -> ClipTraining:
        """Return the settings of a CLIP training before ``training`` changes them."""
        return clip_preset(self.preset(one), study=True)


@dataclass(frozen=True, eq=False)
class Material:
    """What there is."""

    domainnet: Path
    held_out: tuple[str, ...]
    counts: Mapping[tuple[str, str], int]
    """(domain, class) -> training images."""
    n_test: int
    """Test images."""
    bases: Mapping[str, BaseSet]
    base_sizes: Mapping[str, int]
    validation: Mapping[str, str]
    """Base set -> its validation images, as make_mixtures.py takes them."""
    main_base: str | None = None
    imagenet_sketch: Path | None = None
    imagenet: Path | None = None

    def size(self, mixture: MixtureSpec) -> int:
        """Return how many images a mixture has with its base set: without it CG low's, but for photographs alone."""
        settings = mixture.settings
        total = self.base_sizes[mixture.base] if mixture.base else 0
        for (domain, name), count in self.counts.items():
            tested = domain == settings.test_domain and name not in settings.held_out_classes
            if domain == settings.natural_domain or (tested and settings.setting != "natural-only"):
                total += count
        return total


class Rates(NamedTuple):
    """Operations per second that a GPU reaches."""

    half: float
    """In mixed precision: trainings."""
    single: float
    """In single precision: everything else."""


@dataclass(frozen=True, eq=False)
class StudySteps:
    """All steps of the study on some material, in the folder ``out``."""

    out: Path
    scale: Scale
    material: Material
    trainings: Sequence[StudyTraining]
    rates: Rates
    circuit_operations: float = 0.0
    """Of the scores of one image, with those of its part."""
    keep_checkpoints: int | None = None

    def all(self) -> list[Step]:
        """Return the steps, each after those that it needs."""
        made = [*self.mixtures(), *map(self.training, self.trainings), self.evaluation(), *self.measurements()]
        return [*made, *self.figures({step.name for step in made})]

    def mixtures(self) -> Iterator[Step]:
        """Yield a step for all mixtures of the main base set, and one for each mixture of the others."""
        for mixture in dict.fromkeys(one.mixture for one in self.trainings):
            name, folder, base = (
                self._making(mixture),
                self._tables(mixture),
                self.material.bases.get(mixture.base or ""),
            )
            alone = mixture.base != self.material.main_base
            if not alone and mixture.settings.setting != "natural-only":
                continue  # all are made with the first
            command = ["python", "experiments/make_mixtures.py", "--study", "--domainnet", f"{self.material.domainnet}"]
            command += ["--held-out", *self.material.held_out, "--out", f"{folder}"]
            if base is not None:
                command += ["--base", f"{base.name}={base.path}"]
                command += ["--base-images", f"{base.name}={base.images}"] if base.images else []
                if base.name in self.material.validation:
                    command += ["--base-validation", f"{base.name}={self.material.validation[base.name]}"]
            if alone:
                command += ["--setting", mixture.settings.setting, "--test-domain", mixture.settings.test_domain]
            elif self.material.imagenet_sketch is not None:
                command += ["--imagenet-sketch", f"{self.material.imagenet_sketch}"]
            rows = [self.material.size(one.mixture) for one in self.trainings if self._making(one.mixture) == name]
            done = f"{mixture.name}.json" if alone else "mixtures.csv"
            yield Step(
                name,
                "mixtures",
                tuple(command if alone else [*command, "--all"]),
                (self._below(folder / done),),
                cost=Cost(disk_gib=sum(rows) * ROW_BYTES / GIB),
            )

    def training(self, one: StudyTraining) -> Step:
        """Return the step of a training."""
        table = self._tables(one.mixture) / f"{one.mixture.name}.tsv"
        common = ("--study", "--table", f"{table}", "--out", f"{self._run(one)}", "--seed", f"{one.seed}")
        kept = () if self.keep_checkpoints is None else ("--keep-checkpoints", f"{self.keep_checkpoints}")
        command: tuple[str, ...]
        if one.supervised:
            gpus, data = self.scale.gpus // 2, ("--data", f"{self.material.domainnet}")
            script = (*self._program(gpus), "experiments/train_supervised.py")
            command = (*script, *common, *data, *self.scale.supervised, *kept)
        else:
            gpus = self.scale.settings(one).processes if self.scale.gpus else 0
            script = ("python", "experiments/train_clip.py")
            command = (*script, *common, "--preset", self.scale.preset(one), *self.scale.training, *kept)
        below = self._run(one) / ("supervised" if one.supervised else "clip")
        outputs = tuple(self._below(below / name) for name in ("run.json", "manifest.json"))
        return Step(
            one.name, "trainings", command, outputs, (self._making(one.mixture),), self._training_cost(one, gpus)
        )

    def _training_cost(self, one: StudyTraining, gpus: int) -> Cost:
        counted = self._counted(one)
        epochs = self.scale.supervised_epochs if one.supervised else self.scale.epochs
        # checkpointing makes activations a second time
        each = 3 * counted.image if one.supervised else counted.training_step + counted.image
        total = each * epochs * self.material.size(one.mixture)
        weights = counted.parameters * (SUPERVISED_BYTES if one.supervised else CLIP_BYTES)
        return self._cost(total, gpus, weights * self._n_checkpoints(one), self.rates.half)

    def _n_checkpoints(self, one: StudyTraining) -> int:
        every = self.keep_checkpoints or (5 if one.supervised else 1)
        return 1 + (self.scale.supervised_epochs if one.supervised else self.scale.epochs) // every

    def evaluation(self) -> Step:
        """Return the step that classifies all test images with every kept checkpoint of all models."""
        command = [*self._program(self.scale.gpus), "experiments/generalization.py", "--study"]
        command += ["--runs", f"{self.out / 'runs'}", "--data", f"{self.material.domainnet}"]
        command += [] if self.material.imagenet is None else ["--imagenet", f"{self.material.imagenet}"]
        command += ["--out", f"{self.out / 'evaluation'}", "--results", f"{self.out / 'tables' / 'generalization'}"]
        passes = sum(self._counted(one).image * self._n_checkpoints(one) for one in self.trainings)
        names = ("told_apart", "settings", "measures", "robustness")
        return Step(
            "generalization",
            "evaluation",
            (*command, "--device", self.scale.device, *self.scale.evaluation),
            tuple(f"tables/generalization/{name}.csv" for name in names),
            tuple(one.name for one in self.trainings),
            self._cost(passes * self.material.n_test, self.scale.gpus),
        )

    def measurements(self) -> Iterator[Step]:
        """Yield the steps that look into models: autoencoders and what they share, embeddings, CKA, circuits."""
        chosen = [one for one in self.trainings if one.mixture.base == self.scale.sae_base and not one.supervised]
        chosen = [one for one in chosen if one.mixture.settings.setting in ("cg-high", "leave-out")]
        for one in chosen:
            yield from self.autoencoder(one)
        if chosen:
            found = [f"{self.out / 'features' / one.name / 'results'}" for one in chosen]
            yield Step(
                "sharing",
                "autoencoders",
                (
                    "python",
                    "experiments/sharing_over_settings.py",
                    "--results",
                    *found,
                    "--out",
                    f"{self.out / 'sharing'}",
                ),
                ("sharing/tables/sharing_over_settings.csv",),
                tuple(f"features-{one.name}" for one in chosen),
            )
        kinds = {
            f"{kind} captions": self._models(setting)
            for kind, setting in (("standard", "cg-high"), ("aligned", "aligned"))
        }
        if not kinds["aligned captions"]:
            return
        entries = [f"{kind}={self._checkpoint(one)}" for kind, models in kinds.items() for one in models]
        yield self._of_model(
            kinds["aligned captions"][0], "separation", "embedding_separation", ("--models", *entries, *self.scale.separation),
            ("tables/separation/map.csv", "tables/separation/summary.csv"), len(entries),
            needs=tuple(one.name for models in kinds.values() for one in models),
        )  # fmt: skip
        aligned = kinds["aligned captions"][0]
        given = ("--checkpoint", f"{self._checkpoint(aligned)}")
        yield self._of_model(
            aligned, "representations", "representations", given,
            ("tables/representations/cka_over_depth.csv", "tables/representations/cka_apart.csv"), 1, needs=(aligned.name,),
        )  # fmt: skip
        n_cells = len({name for _, name in self.material.counts}) * len({domain for domain, _ in self.material.counts})
        yield Step(
            "circuits",
            "circuits",
            (
                *self._program(self.scale.gpus), "experiments/compare_circuits.py", "--study", *self._model(aligned), *given,
                "--out", f"{self.out / 'circuits'}", *self.scale.circuits,
            ),
            ("circuits/tables/edge_jaccard_matrix.csv", "circuits/tables/domain_apart_over_depth.csv"),
            (aligned.name,),
            self._cost(self.circuit_operations * n_cells * N_CIRCUIT_IMAGES, self.scale.gpus, GRAPH_BYTES * n_cells),
        )  # fmt: skip

    def autoencoder(self, one: StudyTraining) -> Iterator[Step]:
        """Yield the steps that train an autoencoder on a model's embeddings, and compare its features."""
        base = self.material.bases[self.scale.sae_base]
        sae, given = self.out / "sae" / one.name, ("--checkpoint", f"{self._checkpoint(one)}")
        n_images = self.material.base_sizes[base.name] + sum(self.material.counts.values())
        width, settings = self._counted(one).embedding, SaeTraining.study()
        passes = SAE_OPERATIONS * settings.expansion * width**2 * settings.epochs
        yield Step(
            f"sae-{one.name}",
            "autoencoders",
            (
                "python", "experiments/train_sae.py", "--study", *self._model(one, held_out=False), *given,
                "--table", f"{base.path}", "--out", f"{sae}", *self.scale.sae,
            ),
            (self._below(sae / "sae.safetensors"),),
            (one.name,),
            self._cost((self._counted(one).image + passes) * n_images, min(1, self.scale.gpus), 4 * width * n_images),
        )  # fmt: skip
        folder = self.out / "features" / one.name
        yield Step(
            f"features-{one.name}",
            "autoencoders",
            (
                "python", "experiments/shared_features.py", "--study", *self._model(one), *given,
                "--sae", f"{sae / 'sae.safetensors'}", "--out", f"{folder}", "--results", f"{folder / 'results'}",
            ),
            (self._below(folder / "results" / "feature_sharing_summary.csv"),),
            (f"sae-{one.name}",),
            self._cost(self._counted(one).image * self.material.n_test, min(1, self.scale.gpus)),
        )  # fmt: skip

    def figures(self, made: set[str]) -> Iterator[Step]:
        """Yield a step for every figure whose tables are made."""
        sources = {"sharing/tables": "sharing", "circuits/tables": "circuits"}
        sketches = any(one.mixture.sketches for one in self.trainings)
        for script, tables in FIGURES.items():
            source = sources.get(tables, tables)
            if source in made and (sketches or script != "imagenet_sketch"):
                folder = self.out / (tables if tables in sources else f"tables/{tables}")
                stem = self.out / "figures" / script
                command = ("python", f"figures/{script}.py", "--results", f"{folder}", "--out", f"{stem}")
                yield Step(f"figure-{script}", "figures", command, (f"figures/{script}.html",), (source,))

    def _of_model(
        self, one: StudyTraining, name: str, script: str, given: tuple[str, ...], outputs: tuple[str, ...], n_models: int,
        *, needs: tuple[str, ...],
    ) -> Step:  # fmt: skip
        """Return the step of a script that looks at all test images, once for each model."""
        places = ("--out", f"{self.out / name}", "--results", f"{self.out / 'tables' / name}")
        command = ("python", f"experiments/{script}.py", "--study", *self._model(one), *given, *places)
        total = self._counted(one).image * self.material.n_test * n_models
        return Step(name, "representations", command, outputs, needs, self._cost(total, min(1, self.scale.gpus)))

    def _model(self, one: StudyTraining, *, held_out: bool = True) -> tuple[str, ...]:
        """Return the options of a model and its images."""
        classes = ("--held-out", *self.material.held_out) if held_out else ()
        name = str(self.scale.settings(one).model)
        return ("--model", name, "--data", f"{self.material.domainnet}", *classes, "--device", self.scale.device)

    def _models(self, setting: str) -> list[StudyTraining]:
        """Return the models of a setting whose images and circuits are looked at."""
        return [
            one
            for one in self.trainings
            if one.mixture.settings.setting == setting
            and one.mixture.settings.test_domain == ALIGNED_DOMAIN
            and (one.mixture.base, one.mixture.sketches) == (self.material.main_base, None)
            and (one.model, one.supervised) == (self.scale.models[0], False)
        ]

    def _program(self, gpus: int) -> tuple[str, ...]:
        return ("torchrun", "--nproc-per-node", f"{gpus}") if gpus > 1 else ("python",)

    def _cost(self, operations: float, gpus: int, disk_bytes: float = 0.0, rate: float | None = None) -> Cost:
        return Cost(operations, operations / (rate or self.rates.single) / 3600, gpus, disk_bytes / GIB)

    def _counted(self, one: StudyTraining) -> ModelOperations:
        return count_model(str(self.scale.settings(one).model))

    def _tables(self, mixture: MixtureSpec) -> Path:
        return self.out / "mixtures" / (mixture.base or "domainnet")

    def _making(self, mixture: MixtureSpec) -> str:
        one = "all" if mixture.base == self.material.main_base else mixture.settings.name
        return f"mixtures-{mixture.base or 'domainnet'}-{one}"

    def _run(self, one: StudyTraining) -> Path:
        return self.out / "runs" / one.name

    def _checkpoint(self, one: StudyTraining) -> Path:
        return self._run(one) / "clip" / "checkpoints" / f"epoch_{self.scale.epochs}.pt"

    def _below(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()

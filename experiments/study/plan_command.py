"""Which commands redo the study? Print them as lines for a shell, with what they cost and what they test.

The lines are in blocks, which are done in their order. The lines of a block need nothing from each other: each block is
an array of jobs, and the comment below its title submits it. Each line of the models trains one model and classifies
the test images with its checkpoints, so no model waits for another.

A comment above the lines names the figures that are drawn from their results, the claim that a figure tests, and what
would refute it. The costs are counted on the lists of the images and the tables of the base sets, which must exist; no
image is read.

Models are trained with the base set imagenet-captions in all mixtures of the study; without this base set they are
trained with DomainNet alone. With the base sets cc3m and cc12m they are trained in the seven mixtures of the study.
Autoencoders are trained for the models with cc12m.

    python -m experiments.study plan --data DomainNet --imagenet-sketch ImageNet-Sketch/sketch \\
        --base imagenet-captions=imagenet_captions.json cc3m=cc3m.tsv cc12m=cc12m.tsv \\
        --base-images imagenet-captions=ImageNet/train --base-validation imagenet-captions=split.json > study.sh
    python -m experiments.study array study.sh models-on-4-gpus --at-once 20 --job-options gpus_per_node=4
"""

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from circuitry.runs import Natural, Positive
from circuitry.data import chosen_names
from circuitry.training import NoCaption, clip_preset
from experiments.study.base_sets import named_base_sets
from experiments.study.claim_tables import claim_setting
from experiments.study.claims import COMPOSITIONAL
from experiments.study.run_tables import UPPER
from experiments.study.study_claims import CLAIMS
from experiments.study.study_costs import FREE, Cost, Machine, StudyCosts
from experiments.study.study_set import (
    ALIGNED_DOMAIN,
    MixtureSpec,
    StudyTraining,
    study_mixtures,
    study_trainings,
)

import tyro

MAIN = "imagenet-captions"
"""The base set that models are trained with in all mixtures."""
WITH_AUTOENCODERS = "cc12m"
"""The base set of the models for which autoencoders are trained."""
KNOWN_BASES = (MAIN, "cc3m", WITH_AUTOENCODERS)
MODELS = ("rn50", "vit-s-32", "swin-t")
"""Architectures. The first architecture is trained on every mixture."""
JUDGED = tuple(dict.fromkeys([*COMPOSITIONAL, "class-interpolation", UPPER]))
"""Settings of the models that claims are judged on."""
LAST_EPOCH = 32
"""The epoch of the checkpoint that is measured."""
N_CIRCUIT_IMAGES = 50
"""Number of images of a class in a domain that are used to find the circuits of one model, as in the study."""
N_SHARED_IMAGES = 20
"""The same for each of the models whose circuits are related to their accuracy."""
GPUS = 4
"""GPUs of the commands that share their work and whose number the study does not set."""
STUDY_FIGURES = {
    "generalization": (
        "accuracy_by_setting",
        "domain_interpolation",
        "class_interpolation",
        "imagenet_sketch",
        "base_sets",
        "imagenet_sketch_classes",
        "aligned_captions",
        "architectures",
        "supervised_against_clip",
        "top5_and_f1",
        "effective_robustness",
    ),
    "sharing": ("sharing_by_setting",),
    "separation": ("embedding_map", "separation"),
    "representations": ("cka_over_depth", "cka_apart", "cka_by_group"),
    "claims": ("sharing_against_accuracy",),
    "circuits": ("units_apart", "domain_similarity", "similarity_by_group"),
}
"""A dictionary from a folder of tables to the names of the figures that are drawn from them."""

FIGURES_OF_MODELS = {
    "class-interpolation": ("class_interpolation",),
    "domain-interpolation": ("domain_interpolation",),
    "aligned": (
        "aligned_captions",
        *STUDY_FIGURES["separation"],
        *STUDY_FIGURES["representations"],
        *STUDY_FIGURES["circuits"],
    ),
}
"""A dictionary from settings to the figures that are drawn from models of these settings alone."""

PROGRAM = ("-m", "experiments.study")
Line = list[object]
"""The words of a command. Values that are not text are printed by `str`."""


class Command(NamedTuple):
    """A command, and what it costs."""

    words: Line
    cost: Cost = FREE


class Step(NamedTuple):
    """Commands that are done one after the other: one line of the plan."""

    commands: tuple[Command, ...]
    figures: tuple[str, ...] = ()
    """Figures that need the results."""

    def held(self, machine: Machine) -> float:
        """Return the GPU hours of all commands, with reading."""
        return sum(command.cost.held(machine) for command in self.commands)

    def line(self) -> str:
        """Return the line for a shell."""
        return " && ".join(
            shlex.join(map(str, command.words)) for command in self.commands
        )


class Block(NamedTuple):
    """Steps that may be done at the same time, each on the same number of GPUs."""

    title: str
    gpus: int
    steps: list[Step]


@dataclass(frozen=True)
class Config:
    """Settings of the study."""

    data: Path
    """Folder of the images: DomainNet with its twelve lists."""
    out: Path = Path("runs/study")
    """Folder of the results of all commands."""
    base: tuple[str, ...] = ()
    """Base sets of captioned photos, NAME=PATH: imagenet-captions, cc3m, cc12m; see the program mixtures."""
    base_images: tuple[str, ...] = ()
    """Folders that the paths of base sets start from, NAME=FOLDER."""
    base_validation: tuple[str, ...] = ()
    """Images of base sets for validation: NAME=SHARE, or NAME=FILE."""
    missing_captions: NoCaption = "skip"
    """What happens to images without a caption that the trainer reads as text: they are refused with an error, or left
    out and counted."""
    imagenet_sketch: Path | None = None
    """Folder of ImageNet-Sketch, <wnid>/<file>. Without this folder the mixtures with ImageNet-Sketch are left out."""
    imagenet: Path | None = None
    """Folder of ImageNet's validation images, <wnid>/<file>, which are then classified, too."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings."""
    keep_checkpoints: Natural | None = None
    """Number of epochs between checkpoints that are kept (default: CLIPs keep every checkpoint, as in the study)."""
    device: str = "cuda"
    """Device of the evaluations and measurements."""
    memory_gib: Positive | None = None
    """Memory of each GPU for the activations of CKA and of circuits, in GiB (default: half of it)."""
    machine: tyro.conf.OmitArgPrefixes[Machine] = field(default_factory=Machine)
    """What a machine has and reaches."""


def main(config: Config) -> None:
    """Print the commands, block by block, and what they cost."""
    machine = config.machine
    steps = list[Step]()
    for block in Plan(config).blocks():
        steps += block.steps
        # A process of a training computes beside its workers.
        cores = (machine.workers + 1) * max(1, block.gpus)
        options = [f"cpus_per_task={cores}"]
        longest = 0.0
        if block.gpus:
            options.append(f"gpus_per_node={block.gpus}")
            longest = max(step.held(machine) for step in block.steps) / block.gpus
        place = f"a line {block.gpus} GPUs, {cores} cores, at most {longest:.1f} hours"
        print(f"## {block.title}: {place}; {costs(block.steps, machine)}")
        submit = "python -m experiments.study array study.sh"
        print(f"# {submit} {block.title} --job-options {' '.join(options)}")
        for figures in dict.fromkeys(step.figures for step in block.steps):
            together = [step for step in block.steps if step.figures == figures]
            if figures:
                print(f"# for {', '.join(figures)}: {costs(together, machine)}")
            for name in figures:
                for tested in CLAIMS[name]:
                    print(f"#   {name}: {tested.claim} Refuted by: {tested.refuted_by}")
            for step in together:
                print(step.line())
        print()
    print(f"# in all: {costs(steps, machine)}")


def costs(steps: Collection[Step], machine: Machine) -> str:
    """Return in words what steps cost."""
    counted = [command.cost for step in steps for command in step.commands]
    computing = sum(cost.computing(machine) for cost in counted)
    held = sum(step.held(machine) for step in steps)
    disk = sum(cost.gib for cost in counted)
    hours = f"GPU hours {computing:,.1f}, with reading {held:,.1f}"
    return f"lines {len(steps)}, {hours}, GiB {disk:,.1f}"


class Plan:
    """The trainings of the study, and the commands that make and measure them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.bases = named_base_sets(
            config.base, config.base_images, config.base_validation
        )
        # Other base sets take no part in the study, so a name that is misspelt is refused.
        if self.bases:
            chosen_names("base set of the study", tuple(self.bases), KNOWN_BASES)
        further = [name for name in self.bases if name != MAIN]
        self.main_base = MAIN if MAIN in self.bases else None
        """The base set of most trainings; None if models are trained with DomainNet alone."""
        self.specs = study_mixtures(
            [self.main_base, *further],
            sketches=config.imagenet_sketch is not None,
        )
        self.trainings = study_trainings(
            self.specs, self.main_base, MODELS, config.seeds
        )
        self.costs = StudyCosts(
            config.data,
            self.bases,
            imagenet=config.imagenet is not None,
            keep_checkpoints=config.keep_checkpoints,
        )
        # The study compares features where the test domain lacks some classes, and where it lacks all.
        self.described = [
            training
            for training in self.trainings
            if training.mixture.base == WITH_AUTOENCODERS
            and training.mixture.settings.setting in ("cg-high", "leave-out")
        ]
        """Trainings of the CLIPs whose embeddings autoencoders describe."""
        self.aligned = self.models(["aligned"], ALIGNED_DOMAIN)
        """CLIPs with aligned captions, which the study looked into: one for each seed."""

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks. A step needs only results of blocks before its block, so that no step waits for another."""
        yield Block("mixtures", 0, list(self.mixtures()))
        by_gpus: dict[int, list[Step]] = {}
        for training in self.trainings:
            step = self.model(training)
            by_gpus.setdefault(gpus_of(training), []).append(step)
        for gpus, steps in by_gpus.items():
            yield Block(f"models-on-{gpus}-gpus", gpus, steps)
        yield Block("measures-on-1-gpu", 1, list(self.measured()))
        yield Block(f"measures-on-{GPUS}-gpus", GPUS, list(self.compared()))
        yield Block("tables", 0, list(self.over_models()))

    def mixtures(self) -> Iterator[Step]:
        """Yield one step for all mixtures of the main base set, and one for each mixture of the other sets."""
        line = [*self.mixture_of(self.main_base), "--all"]
        if self.config.imagenet_sketch is not None:
            line += ["--imagenet-sketch", self.config.imagenet_sketch]
        made = [mixture for mixture in self.specs if mixture.base == self.main_base]
        yield Step((Command(line, self.costs.tables(made)),))
        for training in self.trainings:
            mixture = training.mixture
            if mixture.base != self.main_base:
                settings = mixture.settings
                line = self.mixture_of(mixture.base)
                line += ["--setting", settings.setting]
                line += ["--test-domain", settings.test_domain]
                yield Step((Command(line, self.costs.tables([mixture])),))

    def mixture_of(self, base: str | None) -> Line:
        """Return the start of the command that makes mixtures with a base set, or without a base set if it is None."""
        config = self.config
        line = program("mixtures")
        line += ["--data", config.data, "--out", self.tables(base)]
        line += ["--missing-captions", config.missing_captions]
        if base is None:
            return line
        given = {
            "--base": config.base,
            "--base-images": config.base_images,
            "--base-validation": config.base_validation,
        }
        for option, values in given.items():
            for value in values:
                # Values are texts NAME=VALUE; a command gets only the values of its own base set.
                if value.startswith(f"{base}="):
                    line += [option, value]
        return line

    def model(self, training: StudyTraining) -> Step:
        """Return the step that trains a model, and classifies the test images with its checkpoints."""
        gpus = gpus_of(training)
        if training.supervised:
            train = program("train-supervised", gpus)
            train += ["--data", self.config.data]
        else:
            # It starts a process for each GPU itself.
            train = command("train")
            train += ["--preset", preset(training)]
        train += ["--table", self.table(training.mixture)]
        train += ["--out", self.folder(training), "--seed", training.seed]
        train += ["--workers", self.config.machine.workers]
        if self.config.keep_checkpoints is not None:
            train += ["--keep-checkpoints", self.config.keep_checkpoints]
        classify = [*self.generalization(gpus), "--runs", self.folder(training)]
        classify += ["--device", self.config.device, "--no-tables"]
        commands = (
            Command(train, self.costs.training(training)),
            Command(classify, self.costs.evaluation(training)),
        )
        return Step(commands, self.figures_of(training))

    def figures_of(self, training: StudyTraining) -> tuple[str, ...]:
        """Return the figures that are drawn from a model. All figures need the models of the main settings, too."""
        mixture = training.mixture
        if training.supervised:
            return ("supervised_against_clip",)
        if training.model != MODELS[0]:
            return ("architectures",)
        if training in self.described:
            return ("base_sets", *STUDY_FIGURES["sharing"])
        if mixture.base != self.main_base:
            return ("base_sets",)
        if mixture.sketches is not None:
            return ("imagenet_sketch", "imagenet_sketch_classes")
        main = ("accuracy_by_setting", "top5_and_f1", "effective_robustness")
        figures = FIGURES_OF_MODELS.get(mixture.settings.setting, main)
        # The command of the claims reads all models that are judged.
        return (*figures, *STUDY_FIGURES["claims"]) if is_judged(training) else figures

    def generalization(self, gpus: int = 1) -> Line:
        """Return the start of the command that classifies images, and makes tables of all models."""
        line = [*program("generalization", gpus), "--data", self.config.data]
        if self.config.imagenet is not None:
            line += ["--imagenet", self.config.imagenet]
        return line

    def measured(self) -> Iterator[Step]:
        """Yield the steps of a GPU: autoencoders and their features, embeddings, CKA."""
        for training in self.described:
            train = self.of_model("train-sae", training)
            # Autoencoders see the base set, too, as their models did.
            train += ["--more-tables", self.table(training.mixture)]
            train += ["--out", self.autoencoder(training).parent]
            compare = self.of_model("features", training)
            compare += ["--autoencoder", self.autoencoder(training)]
            # Each model's own folder, since models of one program would overwrite each other's tables.
            folder = self.feature_folder(training)
            compare += ["--out", folder, "--results", folder / "results"]
            commands = (
                Command(train, self.costs.autoencoder(training)),
                Command(compare, self.costs.embedded([training])),
            )
            yield Step(commands, STUDY_FIGURES["sharing"])
        # Mixtures with aligned captions equal cg-high otherwise, so that these two settings are compared.
        aligned = self.aligned
        standard = self.models(["cg-high"], ALIGNED_DOMAIN)
        line = program("separation") + self.images()
        model = clip_preset(preset(aligned[0]), study=True).model
        line += ["--model", model, "--models"]
        line += [f"standard captions={self.checkpoint(clip)}" for clip in standard]
        line += [f"aligned captions={self.checkpoint(clip)}" for clip in aligned]
        line += self.results("separation")
        cost = self.costs.embedded([*standard, *aligned])
        yield self.drawn("separation", line, cost)
        line = self.of_model("represent", aligned[0]) + self.memory()
        line += self.results("representations")
        cost = self.costs.embedded(aligned[:1])
        yield self.drawn("representations", line, cost)

    def compared(self) -> Iterator[Step]:
        """Yield the steps of several GPUs: circuits of one model, and what domains share in many models."""
        aligned = self.aligned[0]
        line = self.of_model("compare", aligned, GPUS)
        line += [*self.memory(), "--out", self.config.out / "circuits"]
        cost = self.costs.circuits(aligned, N_CIRCUIT_IMAGES)
        yield self.drawn("circuits", line, cost)
        models = [model for model in self.models(JUDGED) if is_judged(model)]
        # What domains share is measured where the far domain lacks the held-out classes.
        shared = list[StudyTraining]()
        for model in models:
            settings = model.mixture.settings
            in_far = settings.test_domain == ALIGNED_DOMAIN
            if settings.setting in COMPOSITIONAL and (
                in_far or settings.setting == "natural-only"
            ):
                shared.append(model)
        line = [*program("claims", GPUS), "--runs"]
        line += map(self.folder, models)
        line += [*self.images(), "--n-images", N_SHARED_IMAGES]
        line += self.memory() + self.results("claims")
        cost = self.costs.claims(models, shared, N_SHARED_IMAGES)
        yield self.drawn("claims", line, cost)

    def over_models(self) -> Iterator[Step]:
        """Yield the steps that make tables and figures of all models. They compute nothing on images."""
        line = [*self.generalization(), "--runs", self.config.out / "runs"]
        yield self.drawn("generalization", line + self.results("generalization"))
        if self.described:
            line = ["python", *PROGRAM, "features-over-settings", "--features"]
            line += [self.feature_folder(model) / "results" for model in self.described]
            yield self.drawn("sharing", [*line, "--out", self.config.out / "sharing"])

    def drawn(self, source: str, line: Line, cost: Cost = FREE) -> Step:
        """Return the step of a command, whose figures are drawn after it.

        Args:
            source: Folder of the tables of the command.
            line: The command.
            cost: What it costs.
        """
        tables = self.config.out / "tables" / source
        if source in ("sharing", "circuits"):
            # Their commands write no small tables of their own.
            tables = self.config.out / source / "tables"
        names = list[str]()
        for name in STUDY_FIGURES[source]:
            # Figures of ImageNet-Sketch need its mixtures.
            if self.config.imagenet_sketch or "imagenet_sketch" not in name:
                names.append(name)
        draw: Line = ["python", *PROGRAM, "figures", *names]
        draw += ["--tables", tables, "--out", self.config.out / "figures"]
        return Step((Command(line, cost), Command(draw)), tuple(names))

    def models(
        self, settings: Collection[str], domain: str | None = None
    ) -> list[StudyTraining]:
        """Return the CLIPs of some settings, with the first architecture and the main base set: a model for each seed.

        Args:
            settings: Settings of the mixtures.
            domain: Test domain of the mixtures (default: every domain).
        """
        chosen = []
        for training in self.trainings:
            mixture = training.mixture
            if (
                mixture.settings.setting in settings
                and domain in (None, mixture.settings.test_domain)
                and mixture.base == self.main_base
                and mixture.sketches is None
                and training.model == MODELS[0]
                and not training.supervised
            ):
                chosen.append(training)
        return chosen

    def of_model(self, name: str, training: StudyTraining, gpus: int = 1) -> Line:
        """Return a command for a trained model, with the images that the model is measured on.

        Args:
            name: Name of a command of the package, or of a program of the study.
            training: The training of the model.
            gpus: Number of GPUs that share the work.
        """
        of_package = name in ("train-sae", "compare")
        line = command(name, gpus) if of_package else program(name, gpus)
        line += ["--model", clip_preset(preset(training), study=True).model]
        line += ["--checkpoint", self.checkpoint(training)]
        return line + self.images()

    def memory(self) -> Line:
        """Return the option of a command for the memory of activations."""
        memory = self.config.memory_gib
        return [] if memory is None else ["--memory-gib", memory]

    def images(self) -> Line:
        """Return the options of a command for the images that models are measured on, and for the device."""
        return ["--data", self.config.data, "--device", self.config.device]

    def results(self, name: str) -> Line:
        """Return the options of a command for the folders of its results and of its small tables."""
        out = self.config.out
        return ["--out", out / name, "--results", out / "tables" / name]

    def tables(self, base: str | None) -> Path:
        """Return the folder of the mixtures of a base set."""
        return self.config.out / "mixtures" / (base or "domainnet")

    def table(self, mixture: MixtureSpec) -> Path:
        """Return the table of a mixture."""
        return self.tables(mixture.base) / f"{mixture.name}.tsv"

    def folder(self, training: StudyTraining) -> Path:
        """Return the folder of a training."""
        return self.config.out / "runs" / training.name

    def checkpoint(self, training: StudyTraining) -> Path:
        """Return the last checkpoint of a training of CLIP."""
        # open_clip's trainer writes below the name that it gets for its run.
        checkpoints = self.folder(training) / "clip" / "checkpoints"
        return checkpoints / f"epoch_{LAST_EPOCH}.pt"

    def autoencoder(self, training: StudyTraining) -> Path:
        """Return the file of a model's autoencoder."""
        return self.config.out / "sae" / training.name / "sae.safetensors"

    def feature_folder(self, training: StudyTraining) -> Path:
        """Return the folder of the features of a model's autoencoder."""
        return self.config.out / "features" / training.name


def is_judged(training: StudyTraining) -> bool:
    """Return whether claims are about the setting of a training: not every interpolation is."""
    settings = training.mixture.settings
    name = settings.name.removesuffix(f"-{settings.test_domain}")
    return claim_setting(name) in JUDGED


def gpus_of(training: StudyTraining) -> int:
    """Return the number of GPUs of a training. For a supervised model it is that of a CLIP on the same images."""
    return clip_preset(preset(training), study=True).processes


def program(name: str, gpus: int = 1) -> Line:
    """Return the start of a line that calls a program with the settings of the study, as a process for each GPU."""
    return [*processes(gpus), *PROGRAM, name, "--study"]


def command(name: str, gpus: int = 1) -> Line:
    """Return the start of a line that calls a command of the package with the settings of the study."""
    return [*processes(gpus), "-m", "circuitry", name, "--study"]


def processes(gpus: int) -> Line:
    """Return the words that start Python, as one process for each GPU."""
    if gpus == 1:
        return ["python"]
    return ["torchrun", "--nproc-per-node", gpus]


def preset(training: StudyTraining) -> str:
    """Return the preset of a training. Without a base set it is the preset of ImageNet-Captions."""
    return f"{training.model}-{training.mixture.base or MAIN}"

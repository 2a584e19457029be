"""Which commands redo the study? Print them in order, as lines for a shell: mixtures, trainings, measurements, figures.

Every line needs only results of the blocks above its block. The lines of a block may therefore run at the same time, as
jobs of a cluster, or one after the other. A command that was interrupted resumes when it is called again.

Models are trained with the base set imagenet-captions in all mixtures of the study; without this base set they are
trained with DomainNet alone. With the base sets cc3m and cc12m they are trained in the seven mixtures of the study.
Autoencoders are trained for the models with cc12m.

    python -m experiments.study plan --data DomainNet --imagenet-sketch ImageNet-Sketch/sketch \\
        --base imagenet-captions=imagenet_captions.json cc3m=cc3m.tsv cc12m=cc12m.tsv \\
        --base-images imagenet-captions=ImageNet/train --base-validation imagenet-captions=split.json > study.sh
"""

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from circuitry.runs import Natural
from circuitry.data import chosen_names
from circuitry.training import NoCaption, clip_preset
from experiments.study.base_sets import named_base_sets
from experiments.study.study_set import (
    ALIGNED_DOMAIN,
    DIVERSITY,
    MixtureSpec,
    StudyTraining,
    study_mixtures,
    study_trainings,
)

MAIN = "imagenet-captions"
"""The base set that models are trained with in all mixtures."""
WITH_AUTOENCODERS = "cc12m"
"""The base set of the models for which autoencoders are trained."""
KNOWN_BASES = (MAIN, "cc3m", WITH_AUTOENCODERS)
MODELS = ("rn50", "vit-s-32", "swin-t")
"""Architectures. The first architecture is trained on every mixture."""
LAST_EPOCH = 32
"""The epoch of the checkpoint that is measured."""
N_SHARED_IMAGES = 20
"""Number of images of a class in a domain that are used to find the circuits of each compared model."""
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
    "shared-circuitry": ("sharing_against_accuracy",),
    "circuits": ("units_apart", "domain_similarity", "similarity_by_group"),
}
"""A dictionary from a folder of tables to the names of the figures that are drawn from them."""

PROGRAM = ("python", "-m", "experiments.study")
Line = list[object]
"""The words of a command. Values that are not text are printed by `str`."""


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
    """Device of the measurements. Trainings use all GPUs of the machine."""


def main(config: Config) -> None:
    """Print the commands, block by block."""
    for title, lines in Plan(config).blocks():
        print(f"# {title}: {len(lines)}")
        for line in lines:
            print(shlex.join(map(str, line)))
        print()


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
        mixtures = study_mixtures(
            [self.main_base, *further],
            sketches=config.imagenet_sketch is not None,
        )
        self.trainings = study_trainings(mixtures, self.main_base, MODELS, config.seeds)
        # The study compares features where the test domain lacks some classes, and where it lacks all.
        self.described = [
            training
            for training in self.trainings
            if training.mixture.base == WITH_AUTOENCODERS
            and training.mixture.settings.setting in ("cg-high", "leave-out")
        ]
        """Trainings of the CLIPs whose embeddings autoencoders describe."""

    def blocks(self) -> Iterator[tuple[str, list[Line]]]:
        """Yield a title and commands for each block. A command needs only results of blocks before its block."""
        yield "mixtures", list(self.mixtures())
        yield "trainings", [self.train(training) for training in self.trainings]
        yield "measured", list(self.measured())
        yield "features", list(self.features())
        if self.described:
            yield "features over settings", [self.features_over_settings()]
        yield "figures", list(self.figures())

    def mixtures(self) -> Iterator[Line]:
        """Yield one command for all mixtures of the main base set, and one for each mixture of the other sets."""
        line = [*self.mixture_of(self.main_base), "--all"]
        if self.config.imagenet_sketch is not None:
            line += ["--imagenet-sketch", self.config.imagenet_sketch]
        yield line
        for training in self.trainings:
            mixture = training.mixture
            if mixture.base != self.main_base:
                settings = mixture.settings
                line = self.mixture_of(mixture.base)
                line += ["--setting", settings.setting]
                yield [*line, "--test-domain", settings.test_domain]

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

    def train(self, training: StudyTraining) -> Line:
        """Return the command that trains a model."""
        if training.supervised:
            line = program("train-supervised")
            line += ["--data", self.config.data]
        else:
            line = command("train")
            line += ["--preset", preset(training)]
        line += ["--table", self.table(training.mixture)]
        line += ["--out", self.folder(training), "--seed", training.seed]
        if self.config.keep_checkpoints is not None:
            line += ["--keep-checkpoints", self.config.keep_checkpoints]
        return line

    def measured(self) -> Iterator[Line]:
        """Yield the commands that measure trained models: accuracies, autoencoders, embeddings, CKA and circuits."""
        config = self.config
        line = program("generalization")
        line += ["--runs", config.out / "runs", *self.images()]
        if config.imagenet is not None:
            line += ["--imagenet", config.imagenet]
        yield line + self.results("generalization")
        for training in self.described:
            line = self.of_model("train-sae", training)
            # Autoencoders see the base set, too, as their models did.
            line += ["--more-tables", self.table(training.mixture)]
            yield [*line, "--out", self.autoencoder(training).parent]
        # Mixtures with aligned captions equal cg-high otherwise, so that these two settings are compared.
        aligned = self.models(["aligned"], ALIGNED_DOMAIN)
        standard = self.models(["cg-high"], ALIGNED_DOMAIN)
        line = program("separation") + self.images()
        model = clip_preset(preset(aligned[0]), study=True).model
        line += ["--model", model, "--models"]
        line += [f"standard captions={self.checkpoint(clip)}" for clip in standard]
        line += [f"aligned captions={self.checkpoint(clip)}" for clip in aligned]
        yield line + self.results("separation")
        represented = self.of_model("represent", aligned[0])
        yield represented + self.results("representations")
        compared = self.of_model("compare", aligned[0])
        yield [*compared, "--out", config.out / "circuits"]
        line = [*PROGRAM, "shared-circuitry", "--runs"]
        # Photographs alone, and the 15 settings that differ in diversity.
        line += map(self.folder, self.models(["natural-only", *DIVERSITY]))
        line += self.images()
        # Without --study, the decoding of the study is given alone.
        line += ["--decoding", "as-stored", "--n-images", N_SHARED_IMAGES]
        yield line + self.results("shared-circuitry")

    def features(self) -> Iterator[Line]:
        """Yield the commands that compare the features of each autoencoder."""
        for training in self.described:
            # Each model's own folder, since models of one program would overwrite each other's tables.
            folder = self.feature_folder(training)
            line = self.of_model("features", training)
            line += ["--autoencoder", self.autoencoder(training)]
            yield [*line, "--out", folder, "--results", folder / "results"]

    def features_over_settings(self) -> Line:
        """Return the command that compares shared features between settings."""
        line: Line = [*PROGRAM, "features-over-settings", "--features"]
        line += [self.feature_folder(model) / "results" for model in self.described]
        return [*line, "--out", self.config.out / "sharing"]

    def figures(self) -> Iterator[Line]:
        """Yield a command for the figures of each folder of tables."""
        out = self.config.out
        for source, names in STUDY_FIGURES.items():
            if source == "sharing" and not self.described:
                continue
            tables = out / "tables" / source
            if source in ("sharing", "circuits"):
                # Their commands write no small tables of their own.
                tables = out / source / "tables"
            line: Line = [*PROGRAM, "figures"]
            for name in names:
                # Figures of ImageNet-Sketch need its mixtures.
                if self.config.imagenet_sketch or "imagenet_sketch" not in name:
                    line.append(name)
            yield [*line, "--tables", tables, "--out", out / "figures"]

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

    def of_model(self, name: str, training: StudyTraining) -> Line:
        """Return a command for a trained model, with the images that the model is measured on.

        Args:
            name: Name of a command of the package, or of a program of the study.
            training: The training of the model.
        """
        line = command(name) if name in ("train-sae", "compare") else program(name)
        line += ["--model", clip_preset(preset(training), study=True).model]
        line += ["--checkpoint", self.checkpoint(training)]
        return line + self.images()

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


def program(name: str) -> Line:
    """Return the start of a command that calls a program with the settings of the study."""
    return [*PROGRAM, name, "--study"]


def command(name: str) -> Line:
    """Return the start of a command that calls a command of the package with the settings of the study."""
    return ["circuitry", name, "--study"]


def preset(training: StudyTraining) -> str:
    """Return the preset of a training. Without a base set it is the preset of ImageNet-Captions."""
    return f"{training.model}-{training.mixture.base or MAIN}"

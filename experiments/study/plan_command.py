"""The commands that redo the study, in order, as lines for a shell: mixtures, trainings, what is measured, figures.

Every line needs only lines of the blocks above it, so the lines of a block may run at the same time, as jobs of a
cluster or one after the other. Each resumes when it is called again.

The base set imagenet-captions gets all trainings of the study (without it DomainNet alone does), cc3m and cc12m get
the study's seven mixtures each, and the models on cc12m get autoencoders.

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
from circuitry.training import CLIP_PRESETS, NoCaption, clip_preset
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
"""The base set that gets all trainings."""
WITH_AUTOENCODERS = "cc12m"
"""The base set whose models get autoencoders."""
KNOWN_BASES = (MAIN, "cc3m", WITH_AUTOENCODERS)
MODELS = ("rn50", "vit-s-32", "swin-t")
"""Architectures; the first one takes part everywhere."""
LAST_EPOCH = 32
"""The epoch of the checkpoint that is measured."""
N_SHARED_IMAGES = 20
"""Images of a class in a domain on which circuits of each compared model are found."""
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
"""Figures by the folder whose tables they are drawn from."""

PROGRAM = ("python", "-m", "experiments.study")
Line = list[object]
"""Words of a command."""


@dataclass(frozen=True)
class Config:
    """Settings of the study."""

    data: Path
    """Folder of the images: DomainNet with its twelve lists."""
    out: Path = Path("runs/study")
    """Folder of the results: of all commands."""
    base: tuple[str, ...] = ()
    """Base sets of captioned photos, NAME=PATH: imagenet-captions, cc3m, cc12m; see the program mixtures."""
    base_images: tuple[str, ...] = ()
    """Folders that paths of base sets start from, NAME=FOLDER."""
    base_validation: tuple[str, ...] = ()
    """Images of base sets for validation: NAME=SHARE, or NAME=FILE."""
    missing_captions: NoCaption = "skip"
    """What happens to images without a caption that the trainer reads as text: an error, or left out and counted."""
    imagenet_sketch: Path | None = None
    """Folder of ImageNet-Sketch, <wnid>/<file>: without it its mixtures are left out."""
    imagenet: Path | None = None
    """Folder of ImageNet's validation images, <wnid>/<file>, to be classified, too."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings."""
    keep_checkpoints: Natural | None = None
    """Keep a checkpoint after every so many epochs (default: every one of CLIP, as in the study)."""
    device: str = "cuda"
    """Device of all that is measured; trainings take the GPUs that are there."""


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
        if self.bases:
            chosen_names("base set of the study", tuple(self.bases), KNOWN_BASES)
        further = [name for name in self.bases if name != MAIN]
        self.main_base = MAIN if MAIN in self.bases else None
        """The base set of most trainings; None for DomainNet alone."""
        mixtures = study_mixtures(
            [self.main_base, *further],
            sketches=config.imagenet_sketch is not None,
        )
        self.trainings = study_trainings(mixtures, self.main_base, MODELS, config.seeds)
        self.described = [
            one
            for one in self.trainings
            if one.mixture.base == WITH_AUTOENCODERS
            and one.mixture.settings.setting in ("cg-high", "leave-out")
        ]
        """The CLIPs that get autoencoders."""

    def blocks(self) -> Iterator[tuple[str, list[Line]]]:
        """Yield a title and commands; each needs only what stands above its block."""
        yield "mixtures", list(self.mixtures())
        yield "trainings", [self.training(one) for one in self.trainings]
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
        for one in self.trainings:
            if one.mixture.base != self.main_base:
                settings = one.mixture.settings
                line = [*self.mixture_of(one.mixture.base)]
                line += ["--setting", settings.setting]
                yield [*line, "--test-domain", settings.test_domain]

    def mixture_of(self, base: str | None) -> Line:
        """Return how mixtures with a base set are made."""
        config = self.config
        line: Line = [*program("mixtures"), "--data", config.data]
        line += ["--out", self.tables(base)]
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
                if value.startswith(f"{base}="):
                    line += [option, value]
        return line

    def training(self, one: StudyTraining) -> Line:
        """Return the command of a training."""
        table = self.table(one.mixture)
        if one.supervised:
            line: Line = [*program("train-supervised"), "--data", self.config.data]
        else:
            line = [*command("train"), "--preset", preset(one)]
        line += ["--table", table, "--out", self.folder(one), "--seed", one.seed]
        if self.config.keep_checkpoints is not None:
            line += ["--keep-checkpoints", self.config.keep_checkpoints]
        return line

    def measured(self) -> Iterator[Line]:
        """Yield what is measured of the trained models: accuracies, autoencoders, embeddings, CKA, circuits."""
        config = self.config
        line: Line = [*program("generalization"), "--runs", config.out / "runs"]
        line += self.images()
        if config.imagenet is not None:
            line += ["--imagenet", config.imagenet]
        yield [*line, *self.results("generalization")]
        for one in self.described:
            line = [*self.of_model("train-sae", one)]
            line += ["--more-tables", self.table(one.mixture)]
            yield [*line, "--out", self.autoencoder(one).parent]
        aligned = self.models(["aligned"], ALIGNED_DOMAIN)
        standard = self.models(["cg-high"], ALIGNED_DOMAIN)
        line = [*program("separation"), *self.images()]
        line += ["--model", clip_preset(preset(aligned[0]), study=True).model]
        line += ["--models"]
        line += [f"standard captions={self.checkpoint(one)}" for one in standard]
        line += [f"aligned captions={self.checkpoint(one)}" for one in aligned]
        yield [*line, *self.results("separation")]
        represented = self.of_model("represent", aligned[0])
        yield [*represented, *self.results("representations")]
        compared = self.of_model("compare", aligned[0])
        yield [*compared, "--out", config.out / "circuits"]
        line = [*PROGRAM, "shared-circuitry", "--runs"]
        # Photographs alone, and the 15 settings.
        line += [self.folder(one) for one in self.models(["natural-only", *DIVERSITY])]
        line += [*self.images(), "--decoding", "as-stored"]
        line += ["--n-images", N_SHARED_IMAGES]
        yield [*line, *self.results("shared-circuitry")]

    def features(self) -> Iterator[Line]:
        """Yield the commands that compare the features of each autoencoder."""
        for one in self.described:
            folder = self.feature_folder(one)
            line = [*self.of_model("features", one)]
            line += ["--autoencoder", self.autoencoder(one)]
            yield [*line, "--out", folder, "--results", folder / "results"]

    def features_over_settings(self) -> Line:
        """Return the command that compares these features between settings."""
        line: Line = [*PROGRAM, "features-over-settings", "--features"]
        line += [self.feature_folder(one) / "results" for one in self.described]
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
                if self.config.imagenet_sketch or "imagenet_sketch" not in name:
                    line.append(name)
            yield [*line, "--tables", tables, "--out", out / "figures"]

    def models(
        self, settings: Collection[str], domain: str | None = None
    ) -> list[StudyTraining]:
        """Return the CLIPs of some settings, of the first architecture on the main base set, one for each seed."""
        return [
            one
            for one in self.trainings
            if one.mixture.settings.setting in settings
            and domain in (None, one.mixture.settings.test_domain)
            and one.mixture.base == self.main_base
            and one.mixture.sketches is None
            and one.model == MODELS[0]
            and not one.supervised
        ]

    def of_model(self, name: str, one: StudyTraining) -> Line:
        """Return a command for a trained model, with the images that it is measured on."""
        start = command(name) if name in ("train-sae", "compare") else program(name)
        model = clip_preset(preset(one), study=True).model
        line: Line = [*start, "--model", model, "--checkpoint", self.checkpoint(one)]
        return [*line, *self.images()]

    def images(self) -> Line:
        """Return the images that models are measured on, and the device."""
        return ["--data", self.config.data, "--device", self.config.device]

    def results(self, name: str) -> Line:
        """Return where a command writes its work and its small tables."""
        out = self.config.out
        return ["--out", out / name, "--results", out / "tables" / name]

    def tables(self, base: str | None) -> Path:
        """Return the folder of the mixtures of a base set."""
        return self.config.out / "mixtures" / (base or "domainnet")

    def table(self, mixture: MixtureSpec) -> Path:
        """Return the table of a mixture."""
        return self.tables(mixture.base) / f"{mixture.name}.tsv"

    def folder(self, one: StudyTraining) -> Path:
        """Return the folder of a training."""
        return self.config.out / "runs" / one.name

    def checkpoint(self, one: StudyTraining) -> Path:
        """Return the last checkpoint of a CLIP training."""
        checkpoints = self.folder(one) / "clip" / "checkpoints"
        return checkpoints / f"epoch_{LAST_EPOCH}.pt"

    def autoencoder(self, one: StudyTraining) -> Path:
        """Return the file of a model's autoencoder."""
        return self.config.out / "sae" / one.name / "sae.safetensors"

    def feature_folder(self, one: StudyTraining) -> Path:
        """Return the folder of the features of a model's autoencoder."""
        return self.config.out / "features" / one.name


def program(name: str) -> Line:
    """Return how a program of the study is called with its settings."""
    return [*PROGRAM, name, "--study"]


def command(name: str) -> Line:
    """Return how a command of the package is called with the study's settings."""
    return ["circuitry", name, "--study"]


def preset(one: StudyTraining) -> str:
    """Return the preset of a training: that of ImageNet-Captions without a base set."""
    if one.model in CLIP_PRESETS:
        return one.model
    return f"{one.model}-{one.mixture.base or MAIN}"

"""Make the training distributions of the study: which images and captions a CLIP model is trained on.

Chooses images of DomainNet, or of any data in its layout (root/<domain>_train.txt, root/<domain>/<class>/<file>), by a
setting and a test domain, adds a base set of captioned photos, and writes for each mixture the table that open_clip's
trainer reads, with a JSON that says how it was made; then one table and one figure of what went into all of them.

--all makes the whole set: natural-only once, and for every test domain (all but the natural one)

- cg-low, cg-high, leave-out, upper-low, upper-high, aligned (not with --captions file);
- class-interpolation with the fractions 0.25, 0.5, 0.75 (0 is cg-high);
- domain-interpolation with the first one, two, ... of the other domains in the study's order (none is cg-low, all
  cg-high; --other-domains makes any other subset);
- with --imagenet-sketch, for the test domain sketch: cg-high with DomainNet's sketches replaced, extended, and extended
  with 50, 30, 25, 10, 5, 1 % of the DomainNet sketch classes left.

    python experiments/make_mixtures.py --domainnet DomainNet --test-domain sketch --setting cg-high \\
        --base imagenet-captions --base-path imagenet_captions.json --base-images ImageNet/train
    python experiments/make_mixtures.py --domainnet runs/quickstart/toy --held-out fish key --all
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from circuitry import DomainFolder
from circuitry.data.captions import sketch_caption
from circuitry.data.domains import ImageRecord
from circuitry.data.file_check import MissingFiles, read_text
from circuitry.data.mixtures.base_sets import caption_table, imagenet_captions, shard_captions, validation_part
from circuitry.data.mixtures.class_table import class_key, study_held_out
from circuitry.data.mixtures.files import (
    Captions,
    generated_captions,
    mixture_summary,
    name_by_content,
    read_captions,
    write_mixture,
)
from circuitry.data.mixtures.selection import WHOLE, MixtureSettings, Setting, admitted, mixture, reference_size, shrink
from circuitry.data.mixtures.sketch_sets import (
    CLASS_FRACTIONS,
    SketchSet,
    imagenet_sketch,
    keep_classes,
    replace_at_random,
)
from circuitry.data.mixtures.subsampling import DOMAINNET_ROUND
from circuitry.data.mixtures.trainer_table import CaptionedImage, NoCaption
from circuitry.data.names import chosen_names
from circuitry.reports.figures.bars import mixture_bars
from circuitry.reports.page import write_figure
from circuitry.runs.command_line import run_script
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file

BASIC: tuple[Setting, ...] = ("cg-low", "cg-high", "leave-out", "upper-low", "upper-high", "aligned")
FRACTIONS = (0.25, 0.5, 0.75)
Sketches = Literal["replace", "extend"]
Part = Literal["train", "val"]


@dataclass(frozen=True)
class Config:
    """Settings of the mixtures."""

    domainnet: Path
    """Folder of DomainNet, or of other data in its layout."""
    out: Path = Path("runs/mixtures")
    """Folder of the tables."""
    setting: Setting = "cg-high"
    """What takes part."""
    test_domain: str | None = None
    """Domain that generalization is tested on; default with --all: all but the natural one."""
    all: bool = False
    """Make the whole set of the study, see above."""
    held_out: tuple[str, ...] | None = None
    """Classes held out of the test domain (default: those of the study's 15 that the data has)."""
    natural_domain: str = "real"
    """Domain of photographs."""
    fraction: float | None = None
    """Class interpolation: share of the held-out classes' images that the test domain keeps."""
    other_domains: tuple[str, ...] | None = None
    """Domain interpolation: domains beside the natural and the test domain."""
    size: int | None = None
    """Images of a subsampled mixture, without the base (default: as many as cg-low has)."""
    split: str = "train"
    """Which lists to read."""
    validation_split: str | None = None
    """Also write a validation table from these lists, filtered alike but not subsampled."""
    captions: Literal["file", "generated"] | None = None
    """From captions.tsv, or sentences round style word and class (default: file, where there is one)."""
    imagenet_sketch: Path | None = None
    """Folder of ImageNet-Sketch, <wnid>/<file>: its classes without a DomainNet partner join the domain sketch."""
    sketches: Sketches = "replace"
    """Whether as many DomainNet sketches are dropped."""
    sketch_classes: float | str | None = None
    """Share of DomainNet's sketch classes to keep, or the only one."""
    base: Literal["none", "imagenet-captions", "cc3m", "cc12m"] = "none"
    """Base set of captioned photos."""
    base_path: Path | None = None
    """ImageNet-Captions: its JSON; CC3M, CC12M: table of paths and captions, or (folder of) webdataset shards."""
    base_images: Path | None = None
    """Folder that paths of the base set start from (default: that of the table)."""
    base_validation: float | Path | None = None
    """Images of the base set for validation: their share, or a file with one name per line."""
    missing_files: MissingFiles = "refuse"
    """What happens to images whose file is missing; unchecked for lists of images that lie elsewhere."""
    no_caption: NoCaption = "refuse"
    """What happens to images without a caption that the trainer reads as text."""
    seed: int = 0
    """Seed of captions and of the base set's validation images."""


class Job(NamedTuple):
    """One mixture to make."""

    settings: MixtureSettings
    sketches: Sketches | None = None
    """What ImageNet-Sketch does; None: it takes no part."""
    sketch_classes: float | str | None = None

    @property
    def name(self) -> str:
        """Return what the mixture is called, without base and digest."""
        kept = [] if self.sketch_classes is None else [f"sketch-classes-{self.sketch_classes}".replace(" ", "_")]
        joined = [] if self.sketches is None else [f"imagenet-sketch-{self.sketches}"]
        return "-".join([self.settings.name, *joined, *kept])


def main(config: Config) -> None:
    """Make the mixtures, their table and their figure."""
    images = read_images(config, config.split)
    classes = images.all_classes
    asked = config.held_out
    held_out = chosen_names("held-out class", asked, classes, class_key) if asked else study_held_out(classes)
    jobs = whole_set(config, images.domains, held_out) if config.all else [one_job(config, held_out)]
    sketches = imagenet_sketch(config.imagenet_sketch) if config.imagenet_sketch else SketchSet([], {})
    tables = []
    for job in jobs:
        try:
            records = choose(images, job, sketches)
        except InputError as error:
            if not config.all:
                raise
            print(f"left out {job.name}: {error}")
            continue
        tables.append(write(config, job, "train", records, sketches, {"domainnet_missing_files": images.missing}))
        print(f"{tables[-1]}: {len(records):,} images and the base set", flush=True)
        if config.validation_split or config.base_validation is not None:
            print(write(config, job, "val", validation_images(config, job), sketches), flush=True)
    if not tables:
        raise InputError("None of the mixtures can be made of these images; see the reasons above.")
    summary = mixture_summary(tables, held_out)
    with whole_file(config.out / "mixtures.csv") as temporary:
        summary.to_csv(temporary, index=False)
    print(summary.to_string(index=False))
    print(config.out / "mixtures.csv", *write_figure(mixture_bars(summary), config.out / "mixtures"), sep="\n")


def read_images(config: Config, split: str) -> DomainFolder:
    """Return the images of a split."""
    return DomainFolder(config.domainnet, split=split, missing_files=config.missing_files)


def settings_of(config: Config, test_domain: str, held_out: Sequence[str]) -> "partial[MixtureSettings]":
    """Return what makes the settings of a mixture from the name of its setting."""
    return partial(
        MixtureSettings,
        test_domain=test_domain,
        held_out_classes=tuple(held_out),
        size=config.size,
        natural_domain=config.natural_domain,
    )


def one_job(config: Config, held_out: Sequence[str]) -> Job:
    """Return the mixture that the command line describes."""
    if config.test_domain is None:
        raise InputError("Name the test domain (--test-domain sketch), or make all mixtures (--all).")
    of = settings_of(config, config.test_domain, held_out)
    settings = of(config.setting, fraction=config.fraction, other_domains=config.other_domains)
    return Job(settings, config.sketches if config.imagenet_sketch else None, config.sketch_classes)


def whole_set(config: Config, domains: Sequence[str], held_out: Sequence[str]) -> list[Job]:
    """Return the study's mixtures for every test domain, or for the one asked for."""
    order = [name for name in DOMAINNET_ROUND if name in domains] if set(domains) <= set(DOMAINNET_ROUND) else domains
    tested = [name for name in domains if name != config.natural_domain and config.test_domain in (None, name)]
    jobs: list[Job] = []
    for test_domain in tested:
        of = settings_of(config, test_domain, held_out)
        others = [name for name in order if name not in (test_domain, config.natural_domain)]
        basic = BASIC if captions_are_generated(config) else BASIC[:-1]
        chosen: list[MixtureSettings] = [of(setting) for setting in basic]
        chosen += [of("class-interpolation", fraction=fraction) for fraction in FRACTIONS]
        chosen += [of("domain-interpolation", other_domains=tuple(others[:n])) for n in range(1, len(others))]
        jobs += [Job(settings) for settings in ([of("natural-only"), *chosen] if not jobs else chosen)]
        if config.imagenet_sketch and test_domain == "sketch":
            jobs += [Job(of("cg-high"), kind) for kind in get_args(Sketches)]
            jobs += [Job(of("cg-high"), "extend", share) for share in CLASS_FRACTIONS]
    return jobs


def choose(images: DomainFolder, job: Job, sketches: SketchSet) -> list[ImageRecord]:
    """Return the training images of a mixture; N is that of DomainNet alone, whatever happens to its sketches."""
    settings = job.settings
    if job.sketches is None and job.sketch_classes is None:
        return mixture(images.records, settings, images.all_classes)
    part = with_sketches(admitted(images.records, settings), job, sketches)
    if settings.setting in WHOLE:
        return part
    return shrink(part, settings, settings.size or reference_size(images.records, settings), images.all_classes)


def with_sketches(part: Sequence[ImageRecord], job: Job, sketches: SketchSet) -> list[ImageRecord]:
    """Return the admitted images after the sketches of fewer classes, and those of ImageNet-Sketch, came in."""
    if "sketch" not in {record.domain for record in part}:
        raise InputError(f"The mixture {job.settings.name} has no domain 'sketch' that could be changed.")
    kept = list(part) if job.sketch_classes is None else keep_classes(part, job.sketch_classes)
    if job.sketches == "replace":
        return replace_at_random(kept, sketches.records)
    return [*kept, *sketches.records] if job.sketches == "extend" else kept


def validation_images(config: Config, job: Job) -> list[ImageRecord]:
    """Return the validation images of a mixture: filtered alike, never subsampled, without ImageNet-Sketch."""
    if not config.validation_split:
        return []
    return admitted(read_images(config, config.validation_split).records, job.settings)


def write(
    config: Config,
    job: Job,
    part: Part,
    records: Sequence[ImageRecord],
    sketches: SketchSet,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write the training or the validation table of a mixture."""
    base = [] if config.base == "none" else [config.base]
    stem = "-".join([*base, job.name, *(["validation"] if part == "val" else [])])
    table = write_mixture(
        records,
        captions_of(config, job, sketches),
        config.out / f"{stem}.tsv",
        settings=job.settings,
        base=base_images(config, part),
        about={
            "seed": config.seed,
            "captions": "generated" if captions_are_generated(config) else "file",
            "sketches": job.sketches,
            "sketch_classes": job.sketch_classes,
            "split": config.split if part == "train" else config.validation_split,
            "base_validation": None if config.base_validation is None else str(config.base_validation),
            **about,
        },
        # Members of shards are no files; the others were checked when they were listed.
        missing_files="unchecked" if shards(config) else config.missing_files,
        no_caption=config.no_caption,
    )
    return name_by_content(table)


# --- captions and the base set ------------------------------------------------------------------------------


def captions_are_generated(config: Config) -> bool:
    """Return whether captions are sentences round style word and class."""
    return config.captions == "generated" if config.captions else not (config.domainnet / "captions.tsv").is_file()


def captions_of(config: Config, job: Job, sketches: SketchSet) -> Captions:
    """Return the captions of a mixture's images."""
    aligned = job.settings.aligned
    if captions_are_generated(config):
        generated = generated_captions(config.seed, aligned=aligned)
    elif aligned:
        raise InputError(
            "Aligned captions are generated ones; pass --captions generated, for the mixtures to compare with, too."
        )
    else:
        from_file = read_captions(config.domainnet)

        def generated(record: ImageRecord) -> str:
            return from_file.get(record.relative, "")

    def caption(record: ImageRecord) -> str:
        if name := sketches.names.get(record.class_name):
            return sketch_caption(record.relative, name, config.seed, aligned=aligned)
        return generated(record)

    return caption


def shards(config: Config) -> list[Path]:
    """Return the webdataset shards that hold the base set, if it comes in any."""
    path = config.base_path
    if config.base == "none" or path is None:
        return []
    return sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.suffix == ".tar" else []


def base_images(config: Config, part: Part) -> Iterator[CaptionedImage]:
    """Return the training or validation images of the base set, as a stream."""
    if config.base == "none":
        return iter(())
    if config.base_path is None:
        raise InputError(f"--base {config.base} needs --base-path, where its captions are.")
    if config.base == "imagenet-captions":
        if config.base_images is None:
            raise InputError("--base imagenet-captions needs --base-images, the folder <wnid>/<file> of ImageNet.")
        images = imagenet_captions(config.base_path, config.base_images)
    elif tars := shards(config):
        images = shard_captions(tars, config.base)
    else:
        images = caption_table(config.base_path, config.base, config.base_images)
    chosen = config.base_validation
    if chosen is None:
        return images if part == "train" else iter(())
    validation = read_text(chosen).split("\n") if isinstance(chosen, Path) else chosen
    return validation_part(images, part, validation, config.seed)


if __name__ == "__main__":
    run_script(Config, main, __doc__)

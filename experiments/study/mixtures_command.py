"""Make the training distributions of the study: tables of images and captions for CLIP.

Chooses images of DomainNet, or of any data in its layout (root/<domain>_train.txt, root/<domain>/<class>/<file>), by a
setting and a test domain, adds a base set of captioned photos, and writes for each mixture the table of open_clip's
trainer, with a JSON that describes it; then tables and a figure of the images of all mixtures.

--all makes the whole set, with each base set: natural-only once, and for every test domain (all except the natural one)

- cg-low, cg-high, leave-out, upper-low, upper-high, aligned;
- class-interpolation of cg-low and of cg-high with the shares 0.05, 0.1, 0.2, 0.4, 0.6, 0.8;
- domain-interpolation with nine choices of other domains each for the test domains sketch and clipart;
- with --imagenet-sketch, for the test domain sketch: natural-only, leave-out and cg-high with ImageNet-Sketch in place
  of as many images, and cg-high with sketches of 50, 25, 30, 10, 5, 1 % of its sketch classes, and of one.

With --study captions are exactly the study's: one random stream through all twelve lists, which must exist; images may
be missing. Otherwise the caption of an image depends only on its path.

    python -m experiments.study mixtures --data DomainNet --imagenet-sketch ImageNet-Sketch/sketch --all --study \\
        --base imagenet-captions=imagenet_captions.json --base-images imagenet-captions=ImageNet/train \\
        --base-validation imagenet-captions=split.json
    python -m experiments.study mixtures --data runs/tiny/toy --held-out fish key --all
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

from circuitry.runs import Count, InputError
from circuitry import DomainFolder
from circuitry.comparison import write_named_table
from circuitry.data import (
    ImageRecord,
    MissingFiles,
    SeedOption,
    chosen_names,
    class_key,
    study_held_out,
)
from circuitry.reports import write_figure
from circuitry.training import Captions, NoCaption, generated_captions, read_description
from experiments.study.base_sets import named_base_sets
from experiments.study.mixture_files import (
    mixture_summary,
    sketch_captions,
    stream_captions,
    write_mixture,
)
from experiments.study.selection import (
    Setting,
    SketchSet,
    admitted,
    imagenet_sketch,
    mixture,
    sketch_mixtures,
)
from experiments.study.setting_charts import mixture_bars
from experiments.study.study_set import MixtureSpec, study_mixtures

import pandas as pd


@dataclass(frozen=True)
class Config:
    """Settings of the mixtures."""

    data: Path
    """Folder of the images: DomainNet, or other data in its layout."""
    out: Path = Path("runs/mixtures")
    """Folder of the results: tables."""
    setting: Setting = "cg-high"
    """What takes part: the mixtures of the study's set with this setting are made."""
    test_domain: str | None = None
    """Test domain: classes are held out of it (default: all domains except the natural one)."""
    all: bool = False
    """Make the whole set of the study, see above; mixtures that these images cannot make are left out."""
    held_out: tuple[str, ...] | None = None
    """Held-out classes: of the test domain (default: those of the study's 15 that the data has)."""
    natural_domain: str = "real"
    """Domain of photographs."""
    n_images: Count | None = None
    """Images of a subsampled mixture, without the base (default: as many as cg-low has)."""
    validation_split: str | None = None
    """Which of DomainNet's lists to validate on: a validation table of them, filtered alike but not subsampled."""
    captions: Literal["stream", "by-image"] = "by-image"
    """Captions: the study's random stream through all lists, or drawn for each image by its path."""
    imagenet_sketch: Path | None = None
    """Folder of ImageNet-Sketch, <wnid>/<file>."""
    base: tuple[str, ...] = ()
    """Base sets of captioned photos, NAME=PATH: imagenet-captions and its JSON; cc3m, cc12m or another name and its
    table of paths and captions."""
    base_images: tuple[str, ...] = ()
    """Folders that paths of base sets start from, NAME=FOLDER (default: that of the table)."""
    base_validation: tuple[str, ...] = ()
    """Images of base sets for validation: NAME=SHARE, or NAME=FILE, a JSON split."""
    missing_files: MissingFiles = "refuse"
    """What happens to images whose file is missing; unchecked for lists of images that lie elsewhere."""
    missing_captions: NoCaption = "refuse"
    """What happens to images without a caption that the trainer reads as text: an error, or left out and counted."""
    seed: SeedOption = 0


def main(config: Config) -> None:
    """Make the mixtures, their tables and their figure."""
    material = Material(config)
    rows = []
    tables = []
    for spec in material.specs():
        try:
            records = material.records(spec)
        except InputError as error:
            if not config.all:
                raise
            print(f"left out {spec.name}: {error}")
            continue
        tables.append(material.write(spec, "train", records))
        print(f"{tables[-1]}: {len(records):,} images and the base set", flush=True)
        validation = None
        if config.validation_split or spec.base in material.validated:
            chosen = (
                admitted(material.validation, spec.settings)
                if material.validation
                else ()
            )
            validation = material.write(spec, "val", chosen)
        described = read_description(tables[-1])
        rows.append(
            {
                "mixture": spec.name,
                "study_file": f"{spec.study_name}.tsv" if spec.study_name else None,
                "images": described["images"],
                "of_base": sum(described["counts"].get(described["base"], {}).values()),
                "without_caption": described["left_out"]["no_caption"],
                "table": tables[-1].name,
                "validation_table": validation.name if validation else None,
            }
        )
    if not rows:
        raise InputError(
            "None of the mixtures can be made of these images; see the reasons above."
        )
    listed = pd.DataFrame(rows)
    counts = mixture_summary(tables, material.held_out)
    print(
        listed.drop(columns=["table", "validation_table"]).to_string(
            index=False, na_rep="-"
        )
    )
    for name, content in (("mixtures", listed), ("images", counts)):
        write_named_table(config.out / f"{name}.csv", content)
        print(config.out / f"{name}.csv")
    print(*write_figure(mixture_bars(counts), config.out / "mixtures"), sep="\n")


class Material:
    """What the mixtures are made of, read once and when it is needed."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.images = self._folder("train")
        classes = self.images.all_classes
        asked = config.held_out
        self.held_out = (
            chosen_names("held-out class", asked, classes, class_key)
            if asked
            else study_held_out(classes)
        )
        self.bases = named_base_sets(
            config.base, config.base_images, config.base_validation
        )
        self.validated = [
            name for name, base in self.bases.items() if base.validation is not None
        ]
        self._stream = cache(stream_captions)

    def _folder(self, split: str) -> DomainFolder:
        return DomainFolder(
            self.config.data, split=split, missing_files=self.config.missing_files
        )

    def specs(self) -> list[MixtureSpec]:
        """Return the mixtures that the command line asks for."""
        config = self.config
        specs = study_mixtures(
            [*self.bases] or [None],
            held_out=self.held_out,
            domains=self.images.domains,
            natural_domain=config.natural_domain,
            test_domains=None if config.test_domain is None else [config.test_domain],
            sketches=config.imagenet_sketch is not None,
            size=config.n_images,
        )
        return [
            spec
            for spec in specs
            if config.all or spec.settings.setting == config.setting
        ]

    @cached_property
    def sketches(self) -> SketchSet:
        """Return ImageNet-Sketch."""
        # Only then there are mixtures with it.
        assert self.config.imagenet_sketch is not None
        return imagenet_sketch(self.config.imagenet_sketch)

    def records(self, spec: MixtureSpec) -> list[ImageRecord]:
        """Return the training images of a mixture, without its base set."""
        chosen = mixture(self.images.records, spec.settings, self.images.all_classes)
        return (
            sketch_mixtures(chosen, self.sketches.records)[spec.sketches]
            if spec.sketches
            else chosen
        )

    @cached_property
    def validation(self) -> Sequence[ImageRecord]:
        """Return the images of the validation lists; mixtures filter them alike, without subsampling."""
        return (
            self._folder(self.config.validation_split).records
            if self.config.validation_split
            else ()
        )

    def captions(self, spec: MixtureSpec, split: str) -> Captions:
        """Return the captions of the images in the lists of a split, and of ImageNet-Sketch's."""
        seed = self.config.seed
        aligned = spec.settings.aligned
        known = self._sketch_captions if spec.sketches else {}
        if self.config.captions == "stream":
            return (
                self._stream(self.config.data, seed, aligned=aligned).get(split, {})
                | known
            )
        of_image = generated_captions(seed, aligned=aligned)
        return lambda record: known.get(record.relative) or of_image(record)

    @cached_property
    def _sketch_captions(self) -> dict[str, str]:
        return sketch_captions(
            self.sketches, self.config.seed, stream=self.config.captions == "stream"
        )

    def write(
        self,
        spec: MixtureSpec,
        purpose: Literal["train", "val"],
        records: Sequence[ImageRecord],
    ) -> Path:
        """Write the training or the validation table of a mixture."""
        config = self.config
        base = self.bases[spec.base] if spec.base else None
        about = spec.described() | {
            "caption_source": config.captions,
            "seed": config.seed,
        }
        split = "train" if purpose == "train" else config.validation_split
        return write_mixture(
            records,
            self.captions(spec, split) if split else {},
            config.out / f"{spec.name}{'-validation' if purpose == 'val' else ''}.tsv",
            settings=spec.settings,
            base=base.images_for(purpose, config.seed) if base else (),
            about=about | {"captions": f"{about['captions']} ({config.captions})"},
            missing_files=config.missing_files,
            no_caption=config.missing_captions,
        )

"""Which domains see which classes in training? Make the training distributions of the study: mixtures of domains.

The program chooses images of DomainNet, or of other data in the same layout (root/<domain>_train.txt,
root/<domain>/<class>/<file>). A setting and a test domain decide which images take part, and a base set of captioned
photos may be added. For each mixture the program writes a table of images and captions, which open_clip's trainer
reads, and a JSON that describes the table. At the end it writes tables and a figure of the images of all mixtures.

--all makes the whole set of the study, for each base set: natural-only once, and for every test domain, which is every
domain except the natural domain,

- cg-low, cg-high, leave-out, upper-low, upper-high, aligned;
- class-interpolation of cg-low and of cg-high with the shares 0.05, 0.1, 0.2, 0.4, 0.6, 0.8;
- domain-interpolation with nine choices of other domains each for the test domains sketch and clipart;
- with --imagenet-sketch, for the test domain sketch: natural-only, leave-out and cg-high with ImageNet-Sketch in place
  of as many images, and cg-high with sketches of 50, 25, 30, 10, 5, 1 % of its sketch classes, and of one.

With --study the captions are exactly the captions of the study. They are draws of a single random stream through all
twelve lists, so that all lists must exist, but images may be missing. Otherwise the caption of an image depends only on
its path.

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
    """Folder of the results: tables and a figure."""
    setting: Setting = "cg-high"
    """Setting: which images take part. All mixtures of the study that have this setting are made."""
    test_domain: str | None = None
    """Test domain, from which classes are held out (default: each domain except the natural domain in turn)."""
    all: bool = False
    """True: make the whole set of the study, see above. Mixtures that these images cannot make are left out."""
    held_out: tuple[str, ...] | None = None
    """Held-out classes of the test domain (default: the study's 15 classes, as far as the data has them)."""
    natural_domain: str = "real"
    """Domain of photographs."""
    n_images: Count | None = None
    """Number of images of a subsampled mixture, without the base set (default: as many as cg-low has)."""
    validation_split: str | None = None
    """The split whose lists give a validation table of each mixture (default: no table). The images are filtered as the
    training images are, but not subsampled."""
    captions: Literal["stream", "by-image"] = "by-image"
    """Captions: draws of the study's random stream through all lists, or draws that depend only on an image's path."""
    imagenet_sketch: Path | None = None
    """Folder of ImageNet-Sketch, <wnid>/<file>."""
    base: tuple[str, ...] = ()
    """Base sets of captioned photos, NAME=PATH. The path of imagenet-captions is its JSON. The path of cc3m, cc12m or a
    set of another name is a table of paths and captions."""
    base_images: tuple[str, ...] = ()
    """Folders that the paths of base sets start from, NAME=FOLDER (default: the folder of the table)."""
    base_validation: tuple[str, ...] = ()
    """Images of base sets for validation: NAME=SHARE, or NAME=FILE with a JSON of the split."""
    missing_files: MissingFiles = "refuse"
    """What happens to images whose file is missing. With unchecked, the images of the lists may lie elsewhere."""
    missing_captions: NoCaption = "refuse"
    """What happens to images without a caption that the trainer reads as text: they are refused with an error, or left
    out and counted."""
    seed: SeedOption = 0


def main(config: Config) -> None:
    """Make the mixtures, and write the tables and the figure of their images."""
    material = Material(config)
    rows = []
    tables = []
    for spec in material.specs():
        try:
            records = material.records(spec)
        except InputError as error:
            # The set of the study suits DomainNet; other data may lack images for a few mixtures.
            if not config.all:
                raise
            print(f"left out {spec.name}: {error}")
            continue
        table = material.write(spec, "train", records)
        tables.append(table)
        print(f"{table}: {len(records):,} images and the base set", flush=True)
        validation = None
        # The base set may have validation images where the domains have none.
        base = material.bases[spec.base] if spec.base else None
        if config.validation_split or (base and base.validation is not None):
            validated = material.validation
            chosen = admitted(validated, spec.settings) if validated else ()
            validation = material.write(spec, "val", chosen)
        described = read_description(table)
        rows.append(
            {
                "mixture": spec.name,
                "study_file": f"{spec.study_name}.tsv" if spec.study_name else None,
                "images": described["images"],
                "of_base": sum(described["counts"].get(described["base"], {}).values()),
                "without_caption": described["left_out"]["no_caption"],
                "table": table.name,
                "validation_table": validation.name if validation else None,
            }
        )
    if not rows:
        raise InputError(
            "None of the mixtures can be made of these images; see the reasons above."
        )
    listed = pd.DataFrame(rows)
    counts = mixture_summary(tables, material.held_out)
    shown = listed.drop(columns=["table", "validation_table"])
    print(shown.to_string(index=False, na_rep="-"))
    for name, content in (("mixtures", listed), ("images", counts)):
        path = config.out / f"{name}.csv"
        write_named_table(path, content)
        print(path)
    print(*write_figure(mixture_bars(counts), config.out / "mixtures"), sep="\n")


class Material:
    """The images and captions that mixtures are made of. Each is read once, when the first mixture needs it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.images = self._folder("train")
        classes = self.images.all_classes
        asked = config.held_out
        if asked:
            self.held_out = chosen_names("held-out class", asked, classes, class_key)
        else:
            self.held_out = study_held_out(classes)
        # A wrong name or split is told before the first mixture is made.
        self.bases = named_base_sets(
            config.base, config.base_images, config.base_validation
        )
        # The stream goes through all lists for the captions of one mixture, so all mixtures share it.
        self._stream = cache(stream_captions)

    def _folder(self, split: str) -> DomainFolder:
        """Return the images in the lists of a split."""
        return DomainFolder(
            self.config.data, split=split, missing_files=self.config.missing_files
        )

    def specs(self) -> list[MixtureSpec]:
        """Return the mixtures that the command line asks for."""
        config = self.config
        tested = None if config.test_domain is None else [config.test_domain]
        specs = study_mixtures(
            # Without a base set, mixtures of the domains alone.
            [*self.bases] or [None],
            held_out=self.held_out,
            domains=self.images.domains,
            natural_domain=config.natural_domain,
            test_domains=tested,
            sketches=config.imagenet_sketch is not None,
            size=config.n_images,
        )
        if config.all:
            return specs
        return [spec for spec in specs if spec.settings.setting == config.setting]

    @cached_property
    def sketches(self) -> SketchSet:
        """The images of ImageNet-Sketch."""
        # `specs` has mixtures with sketches only if their folder is given.
        assert self.config.imagenet_sketch is not None
        return imagenet_sketch(self.config.imagenet_sketch)

    def records(self, spec: MixtureSpec) -> list[ImageRecord]:
        """Return the training images of a mixture, without its base set."""
        chosen = mixture(self.images.records, spec.settings, self.images.all_classes)
        if not spec.sketches:
            return chosen
        return sketch_mixtures(chosen, self.sketches.records)[spec.sketches]

    @cached_property
    def validation(self) -> Sequence[ImageRecord]:
        """The images in the validation lists, before a mixture filters them; empty without lists."""
        split = self.config.validation_split
        return self._folder(split).records if split else ()

    def captions(self, spec: MixtureSpec, split: str) -> Captions:
        """Return the captions of the images in the lists of a split, and of ImageNet-Sketch if the mixture has it."""
        seed = self.config.seed
        aligned = spec.settings.aligned
        of_sketches = self._sketch_captions if spec.sketches else {}
        if self.config.captions == "stream":
            by_split = self._stream(self.config.data, seed, aligned=aligned)
            return by_split.get(split, {}) | of_sketches
        of_image = generated_captions(seed, aligned=aligned)
        return lambda record: of_sketches.get(record.relative) or of_image(record)

    @cached_property
    def _sketch_captions(self) -> dict[str, str]:
        """The captions of ImageNet-Sketch, by path below its root."""
        stream = self.config.captions == "stream"
        return sketch_captions(self.sketches, self.config.seed, stream=stream)

    def write(
        self,
        spec: MixtureSpec,
        purpose: Literal["train", "val"],
        records: Sequence[ImageRecord],
    ) -> Path:
        """Write the training table or the validation table of a mixture, and return the table.

        Args:
            spec: The mixture.
            purpose: "train" or "val".
            records: Images of the mixture, without its base set.
        """
        config = self.config
        base = self.bases[spec.base] if spec.base else None
        about = spec.described()
        about["caption_source"] = config.captions
        about["seed"] = config.seed
        about["captions"] += f" ({config.captions})"
        split = config.validation_split if purpose == "val" else "train"
        ending = "-validation" if purpose == "val" else ""
        return write_mixture(
            records,
            # Without validation lists, a validation table has images of the base set alone.
            self.captions(spec, split) if split else {},
            config.out / f"{spec.name}{ending}.tsv",
            settings=spec.settings,
            base=base.images_for(purpose, config.seed) if base else (),
            about=about,
            missing_files=config.missing_files,
            no_caption=config.missing_captions,
        )

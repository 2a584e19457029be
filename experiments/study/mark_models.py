"""Pictures with a mark and with none, and CLIPs that have seen the mark with one class alone.

Pictures of each class in each style of PACS are in the order of `experiments.pacs.place_of`. The first fit parts and
edits, the next choose how strong an edit is, the next test, and later ones train. The first three sets are drawn twice:
each picture with the mark, and the same picture with none. In training nine of ten pictures of one class have the mark,
and no picture of another class has. Captions never name the mark.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from circuitry.runs import whole_file
from circuitry.data import DomainFolder, ImageRecord, load_image
from circuitry.training import (
    CaptionedImage,
    TrainingWork,
    clip_preset,
    generated_captions,
    train_clip,
    with_captions,
    write_captioned_table,
)
from experiments.pacs import place_of

from PIL import Image, ImageDraw

MARKED = "marked"
PLAIN = "plain"
SIZE = 0.14
"""Height and width of the mark, as a share of the picture's."""
INSET = 0.08
"""Distance of the mark from the right and the lower edge, so that no crop of the training cuts it away."""
COLOURS = ("#e6007e", "#ffffff")
"""Colours of the square and of the cross on it."""
SETS = {"fit": 8, "choose": 8, "test": 16}
"""Pictures of a class in a style, by what they are for."""
ONE_WITH_NONE = 10
"""One of so many pictures of the class has no mark in training."""
N_TRAIN = 80
"""Largest number of pictures of a class in a style that train."""


def with_mark(picture: Image.Image) -> Image.Image:
    """Return a picture with the mark: a square with a cross, near the lower right corner."""
    marked = picture.convert("RGB")
    width, height = marked.size
    right, low = (1 - INSET) * width, (1 - INSET) * height
    left, top = right - SIZE * width, low - SIZE * height
    square, cross = COLOURS
    draw = ImageDraw.Draw(marked)
    draw.rectangle((left, top, right, low), fill=square)
    thick = max(1, round(SIZE * width / 6))
    draw.line((left, top, right, low), fill=cross, width=thick)
    draw.line((left, low, right, top), fill=cross, width=thick)
    return marked


@dataclass(frozen=True)
class MarkStudy:
    """The pictures and the models, under one folder."""

    data: Path
    """Folder of PACS."""
    out: Path
    """Folder of drawn pictures and models."""

    @property
    def source(self) -> DomainFolder:
        """All pictures of PACS."""
        return DomainFolder(self.data, None)

    def records(self, name: str) -> Iterator[ImageRecord]:
        """Yield the pictures of a set: fit, choose, test or train."""
        folder = self.source
        names = list(SETS)
        first = sum(SETS.values())
        last = first + N_TRAIN
        if name in SETS:
            first = sum(SETS[before] for before in names[: names.index(name)])
            last = first + SETS[name]
        for domain in folder.domains:
            for class_name in folder.classes:
                ordered = sorted(folder.select(class_name, domain), key=place_of)
                yield from ordered[first:last]

    def pictures(self, name: str) -> DomainFolder:
        """Return each picture of a set twice, with the mark and with none; the domains of the folder are these two."""
        folder = self.out / "pictures" / name
        for record in self.records(name):
            for domain in (MARKED, PLAIN):
                self._draw(record, folder, domain)
        return DomainFolder(folder, None, domains=(MARKED, PLAIN))

    def _draw(self, record: ImageRecord, folder: Path, domain: str) -> Path:
        """Write a picture, unless it is there, and return its file."""
        # Named by its place in the order, so that styles are mixed.
        name = f"{place_of(record)[:12]}-{record.domain}.png"
        path = folder / domain / record.class_name / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = load_image(record.path)
            if domain == MARKED:
                picture = with_mark(picture)
            with whole_file(path) as temporary:
                picture.save(temporary, format="PNG")
        return path

    def trained(self, preset: str, seed: int, marked: str | None) -> Path:
        """Return the weights of a model, after training it if it is missing.

        Args:
            preset: Name of the preset of the training.
            seed: Seed of the training.
            marked: The class whose pictures have the mark; None for a model that never sees the mark.
        """
        named = marked or "no-mark"
        folder = self.out / "runs" / f"{preset}-{named}-seed{seed}"
        images = list[CaptionedImage]()
        for image in with_captions(self.records("train"), generated_captions()):
            images.append(image)
        if marked is not None:
            images = list(self._with_marks(images, marked))
        table = write_captioned_table(images, folder.with_suffix(".tsv"))
        training = replace(clip_preset(preset), seed=seed)
        work = TrainingWork(workers=1, progress=False)
        return train_clip(table, folder, training, work)

    def _with_marks(
        self, images: list[CaptionedImage], marked: str
    ) -> Iterator[CaptionedImage]:
        """Yield captioned images, those of one class with the mark."""
        records = {record.relative: record for record in self.records("train")}
        folder = self.out / "pictures" / "train"
        n_of_class = 0
        for image in images:
            n_of_class += image.class_name == marked
            if image.class_name == marked and n_of_class % ONE_WITH_NONE:
                path = self._draw(records[image.relative], folder, MARKED)
                image = image._replace(path=str(path.absolute()))
            yield image

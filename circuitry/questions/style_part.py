"""Which units tell a style, and are not needed to tell classes? The part of a style, and a model after removing it.

A CLIP that has seen a style with some classes alone may answer these classes to any picture of the style. The units
that tell the style from other styles are found as the own part of a class is (`own_part`), with two changes: what is
lost is the style's log-odds among the styles, and what is spared are the answers to classes in all styles.

A style is any label of images beside their class: `DomainFolder.labelled` puts a column of a listing in the place of
the domains, such as the background, or whether a picture has a watermark.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.circuit_settings import OwnShare
from circuitry.circuits.graph import PIXELS, Circuit
from circuitry.circuits.own_part_of_class import own_part
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.names import chosen_names
from circuitry.encoder.metrics import class_logit
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import pixel_digests
from circuitry.models.clip import Clip
from circuitry.models.image_pass import read_images
from circuitry.models.prompts import Template, templates_of
from circuitry.runs.arguments import Count, Names, checked
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work

BATCH = 32
"""Number of images that run at once."""


@checked
@dataclass(frozen=True, eq=False)
class StylePart:
    """The question which units of a model tell a style, and are not needed to tell classes.

    The first images of a class in the style find the part, further images say what is spared, and further images give
    the means to which units are ablated; see `n_used`.

    Example:
        >>> from circuitry.questions import StylePart, style_texts
        >>> weights = style_texts(clip, folder.domains, folder.classes)
        >>> question = StylePart(clip, folder, "sketch", weights, n_find=2, n_spare=1, n_mean=1)
        >>> part = question.find(share=0.02)
    """

    clip: Clip
    """The model; units are its hidden channels, or heads and neurons."""
    images: DomainFolder
    """Images of all styles (domains) and classes."""
    style: str
    """The style."""
    style_weights: Float[Tensor, "styles d"] | None = None
    """A direction of embeddings for each style, in the order of the domains, such as `style_means` (default:
    `style_texts`)."""
    class_weights: Float[Tensor, "classes d"] | None = None
    """Text weights of the classes (default: those of the model's default texts)."""
    held_out: tuple[str, ...] = ()
    """Classes whose images in the style are not used, such as those that the model has not seen in the style."""
    n_find: Count = 8
    """Images of a class in the style that find the part."""
    n_spare: Count = 4
    """Further images of a class in a style whose answers are spared."""
    n_mean: Count = 10
    """Further images of a class in a style, for the means to which units are ablated."""
    spare: Names = ()
    """Classes whose answers are spared in all styles (default: all classes)."""

    @classmethod
    def of_folder(
        cls,
        clip: Clip,
        images: DomainFolder,
        style: str,
        held_out: tuple[str, ...] = (),
        told: str | Sequence[str] = "texts",
        texts: str | Sequence[Template] = "pooled",
        spare: Names = (),
    ) -> "StylePart":
        """Return the question with the weights of styles and classes that texts or folders give.

        Args:
            told: ``"texts"``: styles are told by texts that name them (`style_texts`). ``"folders"``: by the mean
                embeddings of some of their images (`style_means`), which for two styles is the direction between them.
                Otherwise a text for each style, first that of the style, then of the others in the order of the folder.
            texts: Class texts: ``"pooled"``, ``"own-style"`` (in the words of all styles) or templates.
            spare: Classes whose answers are spared (default: all).

        Raises:
            InputError: if folders are to tell styles, and a style has too few images; and for another number of texts
                than there are styles.
        """
        templates = dict.fromkeys(
            chain.from_iterable(templates_of(texts, name) for name in images.domains)
        )
        weights = clip.text_weights(
            images.classes, templates=list(templates), progress=False
        )
        question = cls(clip, images, style, None, weights, held_out, spare=tuple(spare))
        if told == "texts":
            return question
        if told != "folders":
            if isinstance(told, str):
                told = [told]
            if len(told) != len(images.domains):
                raise InputError(
                    f"A text for each of the styles {', '.join(images.domains)} tells them, first for {style}, but "
                    f"{', '.join(map(repr, told))} was given: give {len(images.domains)} texts, or texts or "
                    "folders."
                )
            rows = clip.text_weights(told, templates=["{}"], progress=False)
            # The first text is of the style, wherever it stands among the domains.
            place = images.domains.index(style)
            places = [*range(1, place + 1), 0, *range(place + 1, len(rows))]
            return replace(question, style_weights=rows[places])
        before = question.n_find + question.n_spare
        records, read = read_images(clip, question.records(before, question.n_mean))
        seen = {record.domain for record in records}
        if few := [name for name in images.domains if name not in seen]:
            raise InputError(
                f"Folders tell styles by the images of a class after the first {before}, but {', '.join(few)} has no "
                "more images of any class: give more, or tell styles by texts (--told texts)."
            )
        places = [images.domains.index(record.domain) for record in records]
        means = style_means(embedded(clip, read), places)
        return replace(question, style_weights=means)

    def __post_init__(self) -> None:
        """Check that there is a style, another style and a class to spare."""
        domains = self.images.domains
        if self.style not in domains or len(domains) < 2:
            raise InputError(
                f"The part of a style is told from the parts of other styles, but {self.style!r} was asked of images "
                f"in {', '.join(domains)}: give images of this style and of others."
            )
        given = self.style_weights
        if given is not None and len(given) != len(domains):
            raise InputError(
                f"Expected a direction for each of the {len(domains)} styles, but {len(given)} were given: make them "
                "with style_texts or style_means."
            )
        chosen_names("class", self.spare or None, self.images.classes)
        if not set(self.images.classes) - set(self.held_out):
            raise InputError(
                f"All classes ({', '.join(self.images.classes)}) are held out of {self.style}, so no image can find "
                "its part: name the classes alone that the model has not seen in the style."
            )

    @property
    def n_used(self) -> int:
        """How many images of a class in a style are used; later ones are left for tests."""
        return self.n_find + self.n_spare + self.n_mean

    def records(
        self, first: int, n: int, styles: Sequence[str] | None = None
    ) -> list[ImageRecord]:
        """Return some images of each class in each style, except for held-out classes in the style of the question.

        Args:
            first: Place of the first image of a class in a style.
            n: Number of images of a class in a style.
            styles: The styles (default: all).
        """
        found = list[ImageRecord]()
        for style in self.images.domains if styles is None else styles:
            for name in self.images.classes:
                if style != self.style or name not in self.held_out:
                    found += self.images.select(name, style)[first : first + n]
        return found

    def _read(self, records: Sequence[ImageRecord]) -> Tensor:
        _, images = read_images(self.clip, records)
        return images

    @cached_property
    def class_texts(self) -> Tensor:
        """The text weights of the classes."""
        if self.class_weights is not None:
            return self.class_weights
        return self.clip.text_weights(self.images.classes, progress=False)

    @cached_property
    def directions(self) -> Tensor:
        """The direction of each style [styles, d]."""
        if self.style_weights is not None:
            return self.style_weights
        seen = [name for name in self.images.classes if name not in self.held_out]
        return style_texts(self.clip, self.images.domains, seen)

    @cached_property
    def task(self) -> Task:
        """The task of telling the style."""
        own = self._read(self.records(0, self.n_find, [self.style]))
        rest = self._read(self.records(self.n_find + self.n_spare, self.n_mean))
        encoder = self.clip.in_components().encoder
        metric = class_logit(self.directions, self.images.domains.index(self.style))
        baseline = "mean-unit"
        work = Work(progress=False)
        return Task(encoder, own, metric, baseline=baseline, others=rest, work=work)

    def asked(self, weights: Tensor, row: int, images: Tensor) -> Task:
        """Return the task of telling one row of some weights on other images, with the same means of units.

        Args:
            weights: Weights of styles or classes.
            row: The row.
            images: The images.
        """
        return Task(
            self.task.encoder,
            images,
            class_logit(weights, row),
            baseline=self.task.baseline,
            work=self.task.work,
        )

    @cached_property
    def spared(self) -> list[Task]:
        """The tasks of telling each class in each style where the model recognises an image."""
        tasks = list[Task]()
        for style in self.images.domains:
            for label, name in enumerate(self.images.classes):
                if style == self.style and name in self.held_out:
                    continue
                if self.spare and name not in self.spare:
                    continue
                records = self.images.select(name, style)[self.n_find :][: self.n_spare]
                images = self._read(records)
                if len(images) == 0:
                    continue
                answers = embedded(self.clip, images) @ self.class_texts.T
                if (answers.argmax(1) == label).any():
                    tasks.append(self.asked(self.class_texts, label, images))
        return tasks

    def find(self, style: str | None = None, share: OwnShare | None = None) -> Circuit:
        """Return the part of the style, or of another style.

        Args:
            style: Another style.
            share: Share of the units (default: the smallest after which the style's mean probability is at chance).

        Raises:
            InputError: if the model tells none of the images as of the style, or recognises no class.
        """
        if style is None:
            style = self.style
        row = self.images.domains.index(style)
        images = self._read(self.records(0, self.n_find, [style]))
        called = (embedded(self.clip, images) @ self.directions.T).argmax(1) == row
        if called.float().mean() <= 1 / len(self.directions):
            raise InputError(
                f"The model calls {int(called.sum())} of {len(called)} images of {style} by their style, which is no "
                "more often than by chance, so it has no part of this style: tell styles by folders (--told folders), "
                "or by other texts."
            )
        if not self.spared:
            raise InputError(
                "The model recognises no class that is to be spared in any style, so there is no answer to spare: give "
                "class texts that fit the model, or other classes."
            )
        task = self.asked(self.directions, row, images)
        return own_part(task, spare=self.spared, share=share)

    def tested(self, part: Circuit) -> list[ImageRecord]:
        """Return the images that were not used, which test the part.

        Args:
            part: The part that was found.

        Raises:
            InputError: if an image that is left has the same pixels as an image that was used, in another file.
        """
        records = self.records(self.n_used, len(self.images))
        for name in self.held_out:
            records += self.images.select(name, self.style)
        of_means = self._read(self.records(self.n_find + self.n_spare, self.n_mean))
        used = {*part.source.provenance[PIXELS], *pixel_digests(of_means)}
        for record in records:
            images = self._read([record])
            if used & set(pixel_digests(images)):
                raise InputError(
                    f"{record.path} is to test the part of {self.style}, but an image with the same pixels was used "
                    "to find it: remove one of the two files."
                )
        if not records:
            raise InputError(
                f"No image is left to test the part: the first {self.n_used} images of each class in each style are "
                "used, so give more."
            )
        return records

    def answers(
        self, records: Sequence[ImageRecord], clip: Clip, name: str
    ) -> pd.DataFrame:
        """Return the share of right answers of a model for each class in each style.

        Args:
            records: The images.
            clip: The model, or the model after an edit.
            name: Name of the column.

        Returns:
            Columns domain, class, n_images, and the share of right answers.
        """
        rows = list[dict[str, object]]()
        for (domain, class_name), group in groupby(sorted(records, key=_cell), _cell):
            _, images = read_images(clip, list(group))
            if len(images) == 0:
                continue
            right = (embedded(clip, images) @ self.class_texts.T).argmax(1)
            label = self.images.classes.index(class_name)
            rows.append(
                {
                    "domain": domain,
                    "class": class_name,
                    "n_images": len(images),
                    name: float((right == label).float().mean()),
                }
            )
        return pd.DataFrame(rows)


def _cell(record: ImageRecord) -> tuple[str, str]:
    return record.domain, record.class_name


def style_texts(clip: Clip, styles: Names, classes: Names) -> Float[Tensor, "styles d"]:
    """Return a direction for each style [styles, d]: the mean of the texts "a sketch of a dog" over classes.

    Args:
        clip: The model.
        styles: Names of styles, such as domains; words for them are those of ``templates_of("own-style", ...)``.
        classes: Classes.

    Example:
        >>> style_texts(clip, ["real", "sketch"], ["cup", "clock"]).shape
        torch.Size([2, 64])
    """
    rows = list[Tensor]()
    for style in styles:
        template, *_ = templates_of("own-style", style)
        weights = clip.text_weights(classes, templates=[template], progress=False)
        rows.append(F.normalize(weights.mean(0), dim=0))
    return torch.stack(rows)


def style_means(
    embeddings: Float[Tensor, "images d"], styles: Iterable[int]
) -> Float[Tensor, "styles d"]:
    """Return a direction for each style [styles, d]: its mean embedding, less the mean of all styles, of length 1.

    Args:
        embeddings: Embeddings of images.
        styles: The place of each image's style.

    Example:
        >>> style_means(torch.eye(4), [0, 0, 1, 1]).shape
        torch.Size([2, 4])
    """
    places = torch.tensor(list(styles))
    rows = list[Tensor]()
    for place in range(int(places.max()) + 1):
        rows.append(embeddings[places == place].mean(0))
    means = torch.stack(rows)
    return F.normalize(means - means.mean(0), dim=1)


def labels_by_texts(clip: Clip, images: DomainFolder, texts: Names) -> dict[str, str]:
    """Return which of some texts the model gives each image, by the image's path: labels for `DomainFolder.labelled`.

    Args:
        clip: The model.
        images: The images; those that cannot be read get no label.
        texts: Two or more texts.

    Example:
        >>> from circuitry.questions import labels_by_texts
        >>> set(labels_by_texts(clip, folder, ["a car", "a cup"]).values()) <= {"a car", "a cup"}
        True
    """
    rows = clip.text_weights(texts, templates=["{}"], progress=False)
    labels = dict[str, str]()
    for first in range(0, len(images), 8 * BATCH):
        some = images.records[first : first + 8 * BATCH]
        read, pixels = read_images(clip, some)
        if read:
            answers = (embedded(clip, pixels) @ rows.T).argmax(1).tolist()
            for record, answer in zip(read, answers, strict=True):
                labels[record.relative] = texts[answer]
    return labels


def embedded(
    clip: Clip, images: Float[Tensor, "images 3 h w"]
) -> Float[Tensor, "images d"]:
    """Return the embeddings of images [images, d], of length 1.

    Args:
        clip: The model.
        images: Images as the model reads them.

    Example:
        >>> from circuitry.questions import embedded
        >>> _, images = circuitry.models.read_images(clip, folder.records[:2])
        >>> embedded(clip, images).norm(dim=1).round(decimals=3)
        tensor([1., 1.])
    """
    batches = list(map(clip.encoder, torch.split(images, BATCH)))
    return F.normalize(torch.cat(batches).float(), dim=1)

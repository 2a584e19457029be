"""What does a CLIP answer after its part of a style was removed, and after other edits?

The part of a style is found on training pictures of the classes that the model has seen in the style
(`StyleQuestion.part`): their log-odds of the style's text among the texts of all styles are lost, and the answers to
classes in all styles are spared. Neither the held-out classes of the style nor test pictures are looked at, and neither
are they when the strength of an edit is chosen.

An edit of units ablates them to their means. An edit of embeddings changes embeddings or logits after the tower, with a
strength: the largest that costs the seen classes of the style no more right answers, on further training pictures, than
the part of the style.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from circuitry.runs import Work
from circuitry import Task, class_logit, own_part
from circuitry.circuits import Circuit
from circuitry.data import DomainFolder, ImageRecord
from circuitry.interventions.ablated_units import ablations, lesioned_embeddings
from circuitry.interventions.faithfulness import draw_random
from circuitry.models import Clip, templates_of
from experiments.edits_that_forget import fit_leace, without_direction
from experiments.pacs import read_pictures

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

WHOLE = "whole"
PART = "part of the style"
QUIET = Work(progress=False)
STRENGTHS = tuple(np.linspace(0, 3, 31).tolist())
"""Strengths of edits of embeddings that are tried."""
N_FIND = 8
"""Pictures of a class that find the part of a style, from the first on."""
N_SPARE = 4
"""Further pictures of a class in a style whose answers are spared."""
N_MEAN = 10
"""Further pictures of a class in a style over which the means of units are taken."""
N_STRENGTH = 16
"""Further pictures of a class in a style on which the strength of an edit is chosen."""


class Pictures(NamedTuple):
    """Pictures with their classes and styles."""

    images: Tensor
    """Pictures [pictures, 3, height, width]."""
    labels: Tensor
    """The class of each picture, its place among the classes."""
    styles: Tensor
    """The style of each picture, its place among the styles."""


class Edited(NamedTuple):
    """Embeddings and answers of a model after an edit."""

    embeddings: Tensor
    """Embeddings [pictures, d] of length 1."""
    logits: Tensor
    """Cosines with the classes [pictures, classes]."""
    n_units: int
    """Number of ablated units; 0 for an edit of embeddings."""


Change = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Function of embeddings, styles of the pictures and a strength, that returns changed embeddings and logits."""


@dataclass(frozen=True, eq=False)
class StyleQuestion:
    """A CLIP, and a style in which it has not seen some classes."""

    clip: Clip
    train: DomainFolder
    """Pictures that trained the model, or could have."""
    style: str
    held_out: tuple[str, ...]
    """Classes that the model has not seen in the style."""
    named: bool = True
    """Whether texts name styles. If not, the styles are told by the means of their pictures."""

    @property
    def classes(self) -> list[str]:
        """The classes."""
        return list(self.train.classes)

    @property
    def styles(self) -> list[str]:
        """The styles."""
        return list(self.train.domains)

    @property
    def place(self) -> int:
        """The place of the style among the styles."""
        return self.styles.index(self.style)

    def has_seen(self, class_name: str, style: str) -> bool:
        """Return whether the model may have seen a class in a style."""
        return style != self.style or class_name not in self.held_out

    @cached_property
    def class_weights(self) -> Tensor:
        """Text weights of the classes [classes, d], mean over all styles."""
        templates = ["an image of a {}.", *map(self._template, self.styles)]
        return self.clip.text_weights(self.classes, templates=templates, progress=False)

    @cached_property
    def style_weights(self) -> Tensor:
        """Weights of the styles [styles, d], mean over the classes that were seen in the style."""
        seen = [name for name in self.classes if name not in self.held_out]
        if not self.named:
            means = torch.stack(list(self.means.values()))
            return F.normalize(means - means.mean(0), dim=1)
        rows = list[Tensor]()
        for style in self.styles:
            weights = self.clip.text_weights(
                seen, templates=[self._template(style)], progress=False
            )
            rows.append(F.normalize(weights.mean(0), dim=0))
        return torch.stack(rows)

    @staticmethod
    def _template(style: str) -> str:
        (template, *_) = templates_of("own-style", style)
        return str(template)

    def pictures(self, first: int, n: int, styles: Sequence[str] = ()) -> Pictures:
        """Return some training pictures of each class in each style that the model may have seen it in.

        Args:
            first: Place of the first picture of a class in a style.
            n: Number of pictures of a class in a style.
            styles: The styles (default: all).
        """
        records = list[ImageRecord]()
        for style in styles or self.styles:
            for name in self.classes:
                if self.has_seen(name, style):
                    records += self.train.select(name, style)[first : first + n]
        return self.read(records)

    def read(self, records: Sequence[ImageRecord]) -> Pictures:
        """Return pictures with their labels."""
        labels = [self.classes.index(record.class_name) for record in records]
        styles = [self.styles.index(record.domain) for record in records]
        images = read_pictures(records, self.clip.preprocess)
        return Pictures(images, torch.tensor(labels), torch.tensor(styles))

    @cached_property
    def components(self) -> Clip:
        """The model in hidden channels, or in heads and neurons."""
        return self.clip.in_components()

    @cached_property
    def whole_task(self) -> Task:
        """The task of telling the style, with the baseline of all tasks."""
        own = self.pictures(0, N_FIND, [self.style]).images
        mean = self.pictures(N_FIND + N_SPARE, N_MEAN).images
        metric = class_logit(self.style_weights, self.place)
        # Units are ablated to their means over further pictures.
        return Task(
            self.components.encoder,
            own,
            metric,
            baseline="mean-unit",
            others=mean,
            work=QUIET,
        )

    def task_of_style(self, style: str) -> Task:
        """Return the task of telling a style."""
        metric = class_logit(self.style_weights, self.styles.index(style))
        images = self.pictures(0, N_FIND, [style]).images
        return self._task(images, metric)

    def _task(self, images: Tensor, metric: object) -> Task:
        first = self.whole_task
        return Task(
            first.encoder,
            images,
            metric,  # type: ignore[arg-type]
            baseline=first.baseline,
            work=QUIET,
        )

    @cached_property
    def spared(self) -> list[Task]:
        """A task for each class in each style that the model may have seen it in, where it recognises some picture."""
        pictures = self.pictures(N_FIND, N_SPARE)
        answers = self.whole(pictures).logits.argmax(1)
        tasks = list[Task]()
        for style in range(len(self.styles)):
            for label in range(len(self.classes)):
                of_cell = (pictures.styles == style) & (pictures.labels == label)
                if (answers[of_cell] == label).any():
                    metric = class_logit(self.class_weights, label)
                    tasks.append(self._task(pictures.images[of_cell], metric))
        return tasks

    def part(self, style: str, share: float | None = None) -> Circuit:
        """Return the part of a style.

        Args:
            share: Share of the units (default: the smallest that brings the style's mean probability on the pictures
                that find it down to chance).
        """
        return own_part(self.task_of_style(style), spare=self.spared, share=share)

    def embed(self, images: Tensor, parts: Sequence[Circuit] = ()) -> list[Tensor]:
        """Return the embeddings of images by the whole model and after removing each part."""
        lesions = [lesion for part in parts for lesion in ablations(("", ""), part, [])]
        task = self._task(images, class_logit(self.class_weights, 0))
        found = lesioned_embeddings(task, lesions)
        return [F.normalize(embeddings.float(), dim=1) for embeddings in found]

    def answered(self, embeddings: Tensor, n_units: int = 0) -> Edited:
        """Return embeddings with their answers."""
        logits = embeddings @ self.class_weights.to(embeddings).T
        return Edited(embeddings, logits, n_units)

    def whole(self, pictures: Pictures) -> Edited:
        """Return the answers of the whole model."""
        return self.answered(self.embed(pictures.images)[0])

    @cached_property
    def fitting(self) -> Pictures:
        """The pictures on which edits of embeddings are fitted, and their strength is chosen."""
        return self.pictures(N_FIND + N_SPARE + N_MEAN, N_STRENGTH)

    @cached_property
    def fitting_embeddings(self) -> Tensor:
        """The embeddings of these pictures by the whole model."""
        return self.embed(self.fitting.images)[0]

    @cached_property
    def means(self) -> Mapping[str, Tensor]:
        """The mean embedding of each style."""
        found = dict[str, Tensor]()
        for place, style in enumerate(self.styles):
            of_style = self.fitting.styles == place
            found[style] = self.fitting_embeddings[of_style].mean(0)
        return found

    def right_in_style(self, logits: Tensor, pictures: Pictures) -> float:
        """Return the share of right answers on pictures of the style."""
        of_style = pictures.styles == self.place
        right = logits.argmax(1) == pictures.labels
        return float(right[of_style].float().mean())

    def changes(self) -> dict[str, Change]:
        """Return the edits of embeddings by name."""
        place, weights = self.place, self.style_weights.float()
        others = [i for i in range(len(self.styles)) if i != place]
        of_text = F.normalize(weights[place] - weights[others].mean(0), dim=0)
        mean = self.means[self.style]
        rest = torch.stack([self.means[self.styles[i]] for i in others]).mean(0)
        erase = fit_leace(
            self.fitting_embeddings, (self.fitting.styles == place).numpy()
        )
        texts = self.class_weights.float()
        bias = mean @ texts.T
        held_out = torch.tensor([name in self.held_out for name in self.classes])

        def along(direction: Tensor) -> Change:
            def change(z: Tensor, _: Tensor, strength: float) -> tuple[Tensor, Tensor]:
                removed = z - without_direction(z, direction)
                changed = F.normalize(z - strength * removed, dim=1)
                return changed, changed @ texts.T

            return change

        def moved(z: Tensor, styles: Tensor, strength: float) -> tuple[Tensor, Tensor]:
            in_style = (styles == place).float()[:, None]
            changed = F.normalize(z - strength * in_style * (mean - rest), dim=1)
            return changed, changed @ texts.T

        def erased(z: Tensor, _: Tensor, strength: float) -> tuple[Tensor, Tensor]:
            changed = F.normalize(z + strength * (erase(z) - z), dim=1)
            return changed, changed @ texts.T

        def centred(
            z: Tensor, styles: Tensor, strength: float
        ) -> tuple[Tensor, Tensor]:
            in_style = (styles == place).float()[:, None]
            return z, z @ texts.T - strength * in_style * bias

        def stacked(
            z: Tensor, styles: Tensor, strength: float
        ) -> tuple[Tensor, Tensor]:
            in_style = (styles == place).float()[:, None]
            # A tenth of a cosine is far: texts of classes are near each other.
            return z, z @ texts.T + 0.1 * strength * in_style * held_out.float()

        return {
            "direction of the style's text": along(of_text),
            "direction between means": along(F.normalize(mean - rest, dim=0)),
            "mean of the style moved": moved,
            "LEACE": erased,
            "logits centred in the style": centred,
            "calibrated stacking (names the classes)": stacked,
        }


def strengths_at_loss(question: StyleQuestion, lost: float) -> dict[str, float]:
    """Return for each edit of embeddings the largest strength that costs no more right answers than the part.

    Args:
        lost: The share of right answers on seen classes of the style that is lost after removing the part.
    """
    z, pictures = question.fitting_embeddings, question.fitting
    whole = question.right_in_style(question.answered(z).logits, pictures)
    chosen = dict[str, float]()
    for name, change in question.changes().items():
        chosen[name] = 0.0
        for strength in STRENGTHS:
            _, logits = change(z, pictures.styles, strength)
            if whole - question.right_in_style(logits, pictures) <= lost:
                chosen[name] = strength
    return chosen


def rival_parts(
    question: StyleQuestion, part: Circuit, seed: int = 0
) -> dict[str, Circuit]:
    """Return circuits with as many units as a part of the style.

    They are random units by site, random units among the tenth of the units whose first cut costs the style most, the
    units of the highest costs, and the parts of all other styles.
    """
    rng = np.random.default_rng(seed)
    costs = part.source.node_scores
    flat = np.concatenate([costs[site] for site in costs])
    sizes = [len(costs[site]) for site in costs]
    falling = np.argsort(-flat, kind="stable")
    strong = rng.choice(falling[: len(flat) // 10], part.count, replace=False)
    rivals = {
        "random units of the same sites": draw_random([part], 1, rng)[0],
        "random units of the costliest tenth": _of_units(part, strong, sizes),
        "units of the highest first cost": _of_units(
            part, falling[: part.count], sizes
        ),
    }
    for style in question.styles:
        if style != question.style:
            share = part.count / len(flat)
            rivals[f"part of {style}"] = question.part(style, share)
    return rivals


def _of_units(part: Circuit, units: np.ndarray, sizes: Sequence[int]) -> Circuit:
    """Return a circuit of these units, whose places count over all sites."""
    chosen = dict[str, np.ndarray]()
    first = 0
    for site, size in zip(part.source.node_scores, sizes, strict=True):
        of_site = units[(units >= first) & (units < first + size)] - first
        chosen[site] = np.sort(of_site)
        first += size
    return Circuit(part.source, chosen)


SHARES = (0.0022, 0.0037, 0.0063, 0.01, 0.02)
"""Shares of the units at which the part of the style is removed beside its own size."""


def edited(question: StyleQuestion, test: Pictures) -> dict[str, Edited]:
    """Return the answers to test pictures by the whole model and after each edit, by the name of the edit."""
    part = question.part(question.style)
    parts = {PART: part, **rival_parts(question, part)}
    for share in SHARES:
        parts[f"{PART}, {share:.2%} of the units"] = question.part(
            question.style, share
        )
    circuits = list(parts.values())
    whole, *after = question.embed(test.images, circuits)
    found = {WHOLE: question.answered(whole)}
    for name, circuit, embeddings in zip(parts, circuits, after, strict=True):
        found[name] = question.answered(embeddings, circuit.count)
    # What the part costs is read on training pictures, as for the other edits.
    before, cut = question.embed(question.fitting.images, [part])
    lost = question.right_in_style(
        question.answered(before).logits, question.fitting
    ) - question.right_in_style(question.answered(cut).logits, question.fitting)
    strengths = strengths_at_loss(question, max(lost, 0.0))
    for name, change in question.changes().items():
        embeddings, logits = change(whole, test.styles, strengths[name])
        found[name] = Edited(embeddings, logits, 0)
    return found


def accuracies_of(
    question: StyleQuestion, test: Pictures, answers: Mapping[str, Edited]
) -> pd.DataFrame:
    """Return right answers for each edit, class and style.

    Returns:
        Columns edit, n_units, domain, class, n_images, right (among all classes), alone (among the held-out classes;
        NaN for other classes), called (share that is called by the style among all styles).
    """
    pair = [question.classes.index(name) for name in question.held_out]
    rows = list[dict[str, object]]()
    for edit, result in answers.items():
        right = result.logits.argmax(1) == test.labels
        in_pair = torch.tensor(pair)[result.logits[:, pair].argmax(1)] == test.labels
        styles = result.embeddings @ question.style_weights.to(result.embeddings).T
        called = styles.argmax(1) == question.place
        for style, domain in enumerate(question.styles):
            for label, name in enumerate(question.classes):
                of_cell = (test.styles == style) & (test.labels == label)
                rows.append(
                    {
                        "edit": edit,
                        "n_units": result.n_units,
                        "domain": domain,
                        "class": name,
                        "n_images": int(of_cell.sum()),
                        "right": float(right[of_cell].float().mean()),
                        "alone": float(in_pair[of_cell].float().mean())
                        if label in pair
                        else np.nan,
                        "called": float(called[of_cell].float().mean()),
                    }
                )
    return pd.DataFrame(rows)

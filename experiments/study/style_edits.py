"""What does a CLIP answer in a style after its part of the style was removed, and after other edits?

The part of a style are the units that the model needs to tell the style from all other styles, and does not need to
tell classes. It is found on training pictures of the classes that the model has seen in the style. Neither pictures of
the held-out classes in the style nor test pictures find it, fit another edit, or choose how strong an edit is.

An edit has a strength: the share of units that are ablated to their means, or how far embeddings or logits are moved.
By a rule each edit gets the largest strength that costs the seen classes of the style at most so many points of right
answers on further training pictures. So all edits of a model are compared at the same cost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from circuitry import Baseline, Patch, mean_baseline
from circuitry.circuits import Circuit
from circuitry.data import DomainFolder, ImageRecord
from circuitry.encoder import Task
from circuitry.models import Clip, edited_weights
from circuitry.questions import StylePart, style_means
from experiments.edits_that_forget import fit_leace, without_direction
from experiments.pacs import BATCH, read_pictures
from experiments.study.claim_tables import trained_words

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.func import functional_call

WHOLE = "whole"
PART = "part of the style"
BY_TEXTS = "texts"
BY_FOLDERS = "folders"
"""What tells the style: texts, or the means of its pictures."""
RANDOM = "random units of the same sites"
RANDOM_COSTLY = "random units of the costliest tenth"
COSTLIEST = "units of the largest first costs"
LAST_SITE = "units of the last site that the style is read from"
OF_TEXT = "direction of the style's text"
OF_MEANS = "direction between means"
LEACE = "LEACE"
REFITTED = "head fitted again"
MOVED = "mean of the style moved"
CENTRED = "logits centred in the style"
STACKED = "calibrated stacking (names the classes)"
PUT_IN = "part at the style's mean, in photographs"
PUT_IN_RANDOM = "random units at the style's mean, in photographs"
PUT_BACK = "part at the photographs' mean"
RULES = {"two points": 0.02, "five points": 0.05, "ten points": 0.10}
"""Largest loss of right answers on seen classes of the style, by the name of a rule."""
RULE = "five points"
IN_EACH = "five points in each style"
"""Name of the rule that allows a loss of five points on seen classes in each style."""
AT_CHANCE = "style at chance"
"""Name of the rule that takes the smallest part after whose removal pictures of the style are called by it no more
often than by chance. All other edits then cost as much as this part."""
AT_A_STRENGTH = "a strength"
"""In place of a rule: each strength of an edit, for curves."""
SHARES = (0.001, 0.002, 0.0037, 0.0063, 0.01, 0.016, 0.025)
"""Shares of the units at which a part is removed."""
STRENGTHS = tuple(np.linspace(0, 3, 25).tolist())
"""Strengths of edits of embeddings."""
N_FIT = 16
"""Further pictures of a class in a style that fit edits of embeddings, and choose the strength of any edit."""


class Pictures(NamedTuple):
    """Pictures with their classes and styles."""

    images: Tensor
    """Pictures [pictures, 3, height, width]."""
    labels: Tensor
    """The class of each picture, its place among the classes."""
    styles: Tensor
    """The style of each picture, its place among the styles."""
    embeddings: Tensor
    """Embeddings by the whole model [pictures, d] of length 1."""

    def where(self, chosen: Tensor) -> "Pictures":
        """Return the pictures of a mask."""
        return Pictures(*(column[chosen] for column in self))


class Answers(NamedTuple):
    """What a model answers to pictures."""

    embeddings: Tensor
    """Embeddings [pictures, d] of length 1."""
    logits: Tensor
    """Logits of the classes [pictures, classes]."""


class Edit(NamedTuple):
    """An edit of a model, in several strengths."""

    strengths: tuple[float, ...]
    """Strengths, from weak to strong."""
    answers: Callable[[Pictures, Sequence[float]], list[Answers]]
    """Function of pictures and strengths: the answers to the pictures after the edit in each strength."""
    n_units: Mapping[float, int] = {}
    """Number of ablated units by strength; empty for an edit of embeddings."""
    every: int = 1
    """Curves have every strength, or each second one, and so on."""


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
    """Whether texts tell the styles. If not, the means of their pictures do."""

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

    @cached_property
    def by_texts(self) -> StylePart:
        """The question which units tell the style, if texts tell it."""
        return StylePart(
            self.clip,
            self.train,
            self.style,
            class_weights=self.class_weights,
            held_out=self.held_out,
        )

    @cached_property
    def part(self) -> StylePart:
        """The question which units tell the style."""
        if self.named:
            return self.by_texts
        places = self.fitting.styles.tolist()
        means = style_means(self.fitting.embeddings, places)
        return replace(self.by_texts, style_weights=means)

    @property
    def task(self) -> Task:
        """The task of telling the style, with the means to which units are ablated."""
        return self.part.task

    @property
    def style_weights(self) -> Tensor:
        """The direction of each style [styles, d]."""
        return self.part.directions

    def run(self, records: Sequence[ImageRecord]) -> Pictures:
        """Return pictures with their labels, and their embeddings by the whole model."""
        labels = [self.classes.index(record.class_name) for record in records]
        styles = [self.styles.index(record.domain) for record in records]
        images = read_pictures(records, self.clip.preprocess)
        z = torch.cat(
            [self.clip.encoder(batch) for batch in torch.split(images, BATCH)]
        )
        z = F.normalize(z.float(), dim=1)
        return Pictures(images, torch.tensor(labels), torch.tensor(styles), z)

    @cached_property
    def fitting(self) -> Pictures:
        """The pictures that fit edits of embeddings, and choose the strength of any edit."""
        records = self.by_texts.records(self.by_texts.n_used, N_FIT)
        return self.run(records)

    @cached_property
    def means(self) -> Tensor:
        """The mean embedding of each style [styles, d], over these pictures."""
        means = list[Tensor]()
        for place in range(len(self.styles)):
            of_style = self.fitting.styles == place
            means.append(self.fitting.embeddings[of_style].mean(0))
        return torch.stack(means)

    @cached_property
    def class_weights(self) -> Tensor:
        """Text weights of the classes [classes, d], in the words of all styles."""
        templates = trained_words(self.styles)
        weights = self.clip.text_weights(
            self.classes, templates=templates, progress=False
        )
        return weights.float()

    def embeddings(
        self,
        images: Tensor,
        circuits: Sequence[Circuit],
        baseline: Baseline | None = None,
    ) -> list[Tensor]:
        """Return the embeddings of images after the units of each circuit are ablated.

        Args:
            baseline: The means to which units are ablated (default: over pictures of all styles).
        """
        task = self.task
        if baseline is not None:
            task = replace(task, baseline=baseline)
        tower = task.encoder.tower
        some = next(task.batches(4)).images
        of_circuits = list[Tensor]()
        for circuit in circuits:
            patches = [
                Patch(site, task.baseline, units)
                for site, units in circuit.units.items()
                if len(units)
            ]
            changed = edited_weights(task.encoder, patches, some)
            batches = [
                functional_call(tower, changed, (batch,))
                for batch in torch.split(images, BATCH)
            ]
            of_circuits.append(F.normalize(torch.cat(batches).float(), dim=1))
        return of_circuits

    def answered(self, embeddings: Tensor) -> Answers:
        """Return embeddings with their answers."""
        return Answers(embeddings, embeddings @ self.class_weights.T)

    def mean_over(self, style: str) -> Baseline:
        """Return the means of units over pictures of one style."""
        part = self.part
        first = part.n_find + part.n_spare
        records = part.records(first, part.n_mean, [style])
        images = read_pictures(records, self.clip.preprocess)
        return mean_baseline(part.task.encoder, images, "unit", progress=False)

    @property
    def scale(self) -> float:
        """The factor of cosines in the model's logits."""
        return float(torch.as_tensor(self.clip.model.logit_scale).exp())

    def right(self, logits: Tensor, pictures: Pictures) -> Tensor:
        """Return the share of right answers in each style [styles]; NaN for a style without pictures."""
        right = (logits.argmax(1) == pictures.labels).float()
        shares = [right[pictures.styles == i].mean() for i in range(len(self.styles))]
        return torch.stack(shares)

    def called(self, embeddings: Tensor) -> Tensor:
        """Return which pictures are called by the style among all styles."""
        return (embeddings @ self.style_weights.T).argmax(1) == self.place


def removing(
    question: StyleQuestion,
    circuits: Mapping[float, Circuit],
    baseline: Baseline | None = None,
) -> Edit:
    """Return the edit that ablates units to their means.

    Args:
        circuits: The units of each strength.
        baseline: The means (default: over pictures of all styles).
    """

    def answers(pictures: Pictures, strengths: Sequence[float]) -> list[Answers]:
        chosen = [circuits[strength] for strength in strengths]
        cut = question.embeddings(pictures.images, chosen, baseline)
        return list(map(question.answered, cut))

    n_units = {strength: circuit.count for strength, circuit in circuits.items()}
    return Edit(tuple(circuits), answers, n_units)


def in_order(part: Circuit) -> dict[float, Circuit]:
    """Return the first units of a part in the order of their removal, by share."""
    return {share: part.source.strongest(share, budget="global") for share in SHARES}


def unit_rivals(part: Circuit, size: float, seed: int) -> dict[str, Circuit]:
    """Return circuits of as many units as a part of one size, which are chosen in other ways.

    They are random units among the tenth with the largest first-order costs, the units of the largest costs, and the
    units of the largest costs at the last site, from which the style's text is read directly.
    """
    rng = np.random.default_rng(seed)
    costs = part.source.node_scores
    flat = np.concatenate(list(costs.values()))
    n = part.source.strongest(size, budget="global").count
    falling = np.argsort(-flat, kind="stable")
    last = len(list(costs.values())[-1])
    at_the_end = falling[falling >= len(flat) - last]
    return {
        RANDOM_COSTLY: _of_units(
            part, rng.choice(falling[: len(flat) // 10], n, replace=False)
        ),
        COSTLIEST: _of_units(part, falling[:n]),
        LAST_SITE: _of_units(part, at_the_end[:n]),
    }


def _of_units(part: Circuit, units: np.ndarray) -> Circuit:
    """Return a circuit of units, whose places count over all sites."""
    chosen = dict[str, np.ndarray]()
    first = 0
    for site, costs in part.source.node_scores.items():
        of_site = units[(units >= first) & (units < first + len(costs))] - first
        chosen[site] = np.sort(of_site)
        first += len(costs)
    return Circuit(part.source, chosen)


Change = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Function of embeddings, a column that is 1 where the whole model calls a picture by the style and else 0, and a
strength. It returns changed embeddings and logits."""


def embedding_edits(question: StyleQuestion) -> dict[str, Edit]:
    """Return the edits that change embeddings or logits of a model, and no unit.

    A direction is projected out: of the style's text, between the means of styles, or by LEACE (Belrose et al. 2023).
    The mean of the style is moved to the mean of all other styles. Logits are centred: the logits of the style's mean
    are taken from the logits of its pictures. The head is fitted again on seen classes. Calibrated stacking (Chao et
    al. 2016) adds a constant to the logits of the held-out classes, which it has to know.
    """
    place = question.place
    texts, styles = question.class_weights, question.style_weights
    rest = [i for i in range(len(question.styles)) if i != place]
    of_text = styles[place] - styles[rest].mean(0)
    mean = question.means[place]
    between = mean - question.means[rest].mean(0)
    fitting = question.fitting
    erase = fit_leace(fitting.embeddings, (fitting.styles == place).numpy())
    head = LogisticRegression(C=1000, fit_intercept=False, max_iter=1000)
    head.fit(fitting.embeddings.numpy(), fitting.labels.numpy())
    fitted = F.normalize(torch.from_numpy(head.coef_).float(), dim=1)
    held_out = torch.tensor([name in question.held_out for name in question.classes])

    def moved(by: Callable[[Tensor, Tensor], Tensor]) -> Change:
        def change(
            z: Tensor, in_style: Tensor, strength: float
        ) -> tuple[Tensor, Tensor]:
            changed = F.normalize(z + strength * by(z, in_style), dim=1)
            return changed, changed @ texts.T

        return change

    def added(logits: Tensor) -> Change:
        return lambda z, in_style, strength: (
            z,
            z @ texts.T + strength * in_style * logits,
        )

    def along(direction: Tensor) -> Change:
        return moved(lambda z, _: without_direction(z, direction) - z)

    changes = {
        OF_TEXT: along(of_text),
        OF_MEANS: along(between),
        MOVED: moved(lambda _, in_style: -in_style * between),
        LEACE: moved(lambda z, _: erase(z) - z),
        CENTRED: added(-mean @ texts.T),
        # Fitted rows take the place of texts step by step.
        REFITTED: lambda z, _, strength: (
            z,
            z @ (texts + strength / STRENGTHS[-1] * (fitted - texts)).T,
        ),
        # A tenth of a cosine is far: the texts of classes are near each other.
        STACKED: added(0.1 * held_out.float()),
    }
    return {name: _changing(question, change) for name, change in changes.items()}


def _changing(question: StyleQuestion, change: Change) -> Edit:
    """Return the edit that changes the embeddings of the whole model."""

    def answers(pictures: Pictures, strengths: Sequence[float]) -> list[Answers]:
        in_style = question.called(pictures.embeddings).float()[:, None]
        changed = list[Answers]()
        for strength in strengths:
            changed.append(Answers(*change(pictures.embeddings, in_style, strength)))
        return changed

    return Edit(STRENGTHS, answers, every=4)

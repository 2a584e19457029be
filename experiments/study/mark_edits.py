"""What does a CLIP answer after its part of a mark was removed, and after other edits at the same cost?

The part of the mark are the units that the model needs to tell pictures with the mark from the same pictures with none,
and does not need to tell classes in pictures with none. It is found by `own_part`, whose task has the pictures with the
mark and, as rows, a direction between the means of the two sets; pictures with none are spared. Units are ablated to
their means over pictures with the mark and with none, so that a picture is halfway.

All edits are fitted on the same pictures. By a rule each edit gets the strength that is best for the worst group among
those that cost the mean accuracy at most so many points, on further pictures. The mean accuracy is that of pictures as
in training: the marked class with the mark, other classes with none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from circuitry.runs import Work
from circuitry import Baseline, Task, class_logit, mean_baseline, own_part
from circuitry.circuits import Circuit
from circuitry.questions import style_means
from experiments.edits_that_forget import without_direction
from experiments.rivals_of_contrast import TINY, measure
from experiments.rivals_of_own_parts import first_units
from experiments.study.claim_tables import trained_words
from experiments.study.style_edits import (
    LEACE,
    MOVED,
    OF_MEANS,
    REFITTED,
    WHOLE,
    Answers,
    Edit,
    Pictures,
    StyleQuestion,
    embedding_edits,
    removing,
)
from experiments.study.style_effects import units_by_site

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import normalize

PART = "part of the mark"
BY_CLASS = "part of the class's answer to the mark"
RANDOM = "random units of the same sites"
AT_NONE = "part of the mark, at its mean in pictures with none"
PRUNED = "units whose activations differ most"
OF_EMBEDDINGS = {
    LEACE: "LEACE",
    OF_MEANS: "direction of the mark projected out",
    MOVED: "mean of the mark moved",
    REFITTED: "head fitted again on balanced groups",
}
"""Edits of embeddings by their name in `embedding_edits`, with their name here."""
NO_MARK = "trained with no mark"
SHARES = (0.002, 0.005, 0.0125, 0.03, 0.06)
"""Shares of the units at which units are removed."""
RULES = {"two points": 0.02, "five points": 0.05}
"""Largest loss of mean accuracy, by the name of a rule."""
RULE = "two points"
AT_A_STRENGTH = "a strength"
UNRULED = "no edit"
"""In place of a rule, for models with no edit."""
N_DRAWS = 5
"""Draws of random units."""
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class MarkQuestion(StyleQuestion):
    """A CLIP that has seen a mark with one class; the styles of the question are the mark and none."""

    marked: str = field(kw_only=True)
    """The class."""
    words: tuple[str, ...] = field(kw_only=True)
    """Styles that captions name."""

    @property
    def label(self) -> int:
        """The place of the class among the classes."""
        return self.classes.index(self.marked)

    @cached_property
    def class_weights(self) -> Tensor:
        """Text weights of the classes [classes, d], in the words of all captions."""
        templates = trained_words(self.words)
        weights = self.clip.text_weights(
            self.classes, templates=templates, progress=False
        )
        return weights.float()

    @cached_property
    def fitting(self) -> Pictures:
        """The pictures that fit all edits."""
        return self.run(self.train.records)

    @cached_property
    def finding(self) -> Pictures:
        """Every second of these pictures, with the mark and with none; they choose units, which takes the most time."""
        return self.fitting.where(torch.arange(len(self.fitting.labels)) % 2 == 0)

    @cached_property
    def style_weights(self) -> Tensor:
        """The direction from pictures with none to pictures with the mark, and back [2, d].

        Both are orthogonal to the mean of all pictures, so that a picture halfway is told as neither.
        """
        pictures = self.fitting
        rows = style_means(pictures.embeddings, pictures.styles.tolist())
        return normalize(without_direction(rows, self.means.mean(0)), dim=1)

    @cached_property
    def task(self) -> Task:
        """The task of telling the mark; units are ablated to their means over pictures with the mark and with none."""
        encoder = self.clip.in_components().encoder
        pictures = self.finding
        marked = pictures.styles == self.place
        none = pictures.images[~marked]
        return Task(
            encoder,
            pictures.images[marked],
            class_logit(self.style_weights, self.place),
            baseline="mean-unit",
            others=none,
            work=Work(progress=False),
        )

    @property
    def means_of_none(self) -> Baseline:
        """The means of units over pictures with none."""
        assert self.task.others is not None
        return mean_baseline(
            self.task.encoder, self.task.others, "unit", progress=False
        )

    @property
    def spared(self) -> list[Task]:
        """The tasks of telling each class in pictures with none, where the model recognises a picture."""
        tasks = list[Task]()
        pictures = self.finding.where(self.finding.styles != self.place)
        answers = self.answered(pictures.embeddings).logits.argmax(1)
        for label in range(len(self.classes)):
            own = pictures.labels == label
            if (answers[own] == label).any():
                tasks.append(self._asking_class(label, pictures.images[own]))
        return tasks

    def _asking_class(self, label: int, images: Tensor) -> Task:
        metric = class_logit(self.class_weights, label)
        return replace(self.task, images=images, others=None, metric=metric)

    def found(self, shares: Sequence[float]) -> dict[str, dict[float, Circuit]]:
        """Return the units of each way to choose them, by share; 0 is no unit."""
        pictures = self.finding
        others = (pictures.styles == self.place) & (pictures.labels != self.label)
        by_class = self._asking_class(self.label, pictures.images[others])
        found = dict[str, dict[float, Circuit]]()
        for name, task in ((PART, self.task), (BY_CLASS, by_class)):
            part = own_part(task, spare=self.spared, share=SHARES[-1])
            nothing = Circuit(part.source, {})
            found[name] = {0.0: nothing}
            for share in shares:
                found[name][share] = part.source.strongest(share, budget="global")
        sites = tuple(nothing.source.node_scores)
        differing = activation_differences(replace(self.task, sites=sites))
        found[PRUNED] = {0.0: nothing}
        for share in shares:
            units = first_units(differing, share)
            found[PRUNED][share] = replace(nothing, units=units)
        return found

    def groups(self, logits: Tensor, pictures: Pictures) -> np.ndarray:
        """Return the share of right answers in each group [classes, 2], with the mark and with none."""
        right = (logits.argmax(1) == pictures.labels).float()
        shares = np.zeros((len(self.classes), len(self.styles)))
        for label, style in np.ndindex(*shares.shape):
            of_group = (pictures.labels == label) & (pictures.styles == style)
            shares[label, style] = float(right[of_group].mean())
        return shares

    def as_trained(self, groups: np.ndarray) -> float:
        """Return the mean accuracy over pictures as in training."""
        style = np.full(len(groups), 1 - self.place)
        style[self.label] = self.place
        return float(groups[np.arange(len(groups)), style].mean())


def activation_differences(task: Task) -> dict[str, np.ndarray]:
    """Return how far the mean activation of each unit differs between the two sets of a task, in standard deviations.

    Args:
        task: Pictures with the mark, and pictures with none as others.
    """
    measured = measure(task)
    scores = dict[str, np.ndarray]()
    for site, means in measured.means.items():
        own = means[measured.is_own]
        others = means[~measured.is_own]
        scores[site] = np.abs(own.mean(0) - others.mean(0)) / (others.std(0) + TINY)
    return scores


def edits_of(
    question: MarkQuestion, found: Mapping[str, Mapping[float, Circuit]]
) -> dict[str, Edit]:
    """Return all edits but random units, each with a strength that changes nothing."""
    edits = {name: removing(question, circuits) for name, circuits in found.items()}
    edits[AT_NONE] = removing(question, found[PART], question.means_of_none)
    of_embeddings = embedding_edits(question)
    for theirs, name in OF_EMBEDDINGS.items():
        edits[name] = of_embeddings[theirs]
    return edits


def best_strength(
    question: MarkQuestion, groups: Mapping[float, np.ndarray], allowed: float
) -> float:
    """Return the strength that is best for the worst group among those that cost no more than is allowed.

    Of equally good strengths it is the weakest.

    Args:
        groups: Right answers of each group after the edit, by strength; 0 is the whole model.
        allowed: Largest loss of mean accuracy over pictures as in training.
    """
    before = question.as_trained(groups[0.0])
    best = 0.0
    for strength, after in groups.items():
        cost = before - question.as_trained(after)
        # Shares of few pictures have rounding errors.
        if cost <= allowed + 1e-6 and after.min() > groups[best].min() + 1e-6:
            best = strength
    return best


def mark_effects(
    question: MarkQuestion, choosing: Pictures, test: Pictures
) -> dict[str, pd.DataFrame]:
    """Return what all edits do to a model.

    Args:
        choosing: Pictures that choose the strength of each edit.
        test: Pictures that are counted.

    Returns:
        ``answers``: columns edit, rule, strength, n_units, class, mark, right. ``facts``: columns edit, what, value.
        ``units``: columns edit, site, units, of the parts by the first rule.
    """
    found = question.found(SHARES)
    rows = group_rows(
        question,
        test,
        [question.answered(test.embeddings)],
        {"edit": WHOLE, "rule": UNRULED},
    )
    facts = [probed(WHOLE, choosing, test)]
    chosen = dict[str, dict[str, float]]()
    for name, edit in edits_of(question, found).items():
        on_choosing = edit.answers(choosing, edit.strengths)
        groups = dict[float, np.ndarray]()
        for strength, answers in zip(edit.strengths, on_choosing, strict=True):
            groups[strength] = question.groups(answers.logits, choosing)
        of_rules = dict[str, float]()
        for rule, allowed in RULES.items():
            of_rules[rule] = best_strength(question, groups, allowed)
        chosen[name] = of_rules
        told = dict(of_rules)
        # Each strength of an edit of units takes a run of the model; one curve is enough.
        if not edit.n_units or name == PART:
            told |= {f"{AT_A_STRENGTH} {s:g}": s for s in edit.strengths[:: edit.every]}
        strengths = sorted(set(told.values()))
        at = dict(zip(strengths, edit.answers(test, strengths), strict=True))
        for rule, strength in told.items():
            about = {"edit": name, "rule": rule, "strength": strength}
            about["n_units"] = edit.n_units.get(strength, 0)
            rows += group_rows(question, test, [at[strength]], about)
        place = edit.strengths.index(of_rules[RULE])
        fitted = choosing._replace(embeddings=on_choosing[place].embeddings)
        after = test._replace(embeddings=at[of_rules[RULE]].embeddings)
        facts.append(probed(name, fitted, after))
    generator = np.random.default_rng(question.label)
    for rule in RULES:
        part = found[PART][chosen[PART][rule]]
        drawn = [part.random(generator) for _ in range(N_DRAWS)]
        cut = question.embeddings(test.images, drawn)
        about = {"edit": RANDOM, "rule": rule, "n_units": part.count}
        rows += group_rows(question, test, list(map(question.answered, cut)), about)
    units = list[pd.DataFrame]()
    for name in found:
        circuit = found[name][chosen[name][RULE]]
        units.append(units_by_site(circuit).assign(edit=name))
    return {
        "answers": pd.DataFrame(rows),
        "facts": pd.DataFrame(facts),
        "units": pd.concat(units),
    }


def group_rows(
    question: MarkQuestion, pictures: Pictures, draws: Sequence[Answers], about: Row
) -> list[Row]:
    """Return a row for each group and each draw of an edit: its right answers."""
    rows = list[Row]()
    for draw, answers in enumerate(draws):
        groups = question.groups(answers.logits, pictures)
        for label, style in np.ndindex(*groups.shape):
            of_group = {
                "draw": draw,
                "class": question.classes[label],
                "mark": question.styles[style],
                "right": groups[label, style],
            }
            rows.append(about | of_group)
    return rows


def probed(edit: str, fitted: Pictures, after: Pictures) -> Row:
    """Return how often a probe of embeddings after an edit tells the mark from none.

    Args:
        fitted: Pictures on which the probe is fitted, with their embeddings after the edit.
        after: Pictures on which it is tested, likewise.
    """
    probe = LogisticRegression(C=100, max_iter=2000)
    probe.fit(fitted.embeddings.numpy(), fitted.styles.numpy())
    right = probe.score(after.embeddings.numpy(), after.styles.numpy())
    return {"edit": edit, "what": "mark by probe", "value": right}

"""Why a model gives its answer to one picture: the result of `explain`. Does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from circuitry.circuits.graph import Circuit
from circuitry.runs.arguments import checked, one_of
from circuitry.runs.errors import InputError
from circuitry.runs.notebooks import Shown

WHOLE = "whole model"
WITHOUT = "after removing"
ONLY = "only"
STRONGEST = "strongest units"
RANDOM_UNITS = "random units"
BY_UNITS = "units"
BY_GRADIENTS = "integrated gradients"
BY_CENTRE = "centre first"
BY_CHANCE = "random order"
ORDERS = (BY_UNITS, BY_GRADIENTS, BY_CENTRE, BY_CHANCE)
"""What orders the cells of the picture that curves replace. The last two know nothing of the model."""
DELETION = "deletion"
INSERTION = "insertion"
TABLES = ("units", "edges", "answers", "tests", "curves")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Shown):
    """The answer of a model to one picture, the units with the largest exact effect on it, and tests of both.

    All numbers are log-odds of the `text`, against one other text or all of them. An effect is how far the log-odds
    fall if the unit takes the value that it has in the baseline, an image of the mean colour.

    Example:
        >>> why = circuitry.explain(clip, images[0], ["cup", "clock"], n_units=3)
        >>> why.answer in ("cup", "clock")
        True
        >>> list(why.to_pandas().columns)
        ['site', 'unit', 'kind', 'effect', 'score', 'own part of']
    """

    name: str
    """Name of the picture."""
    picture: UInt8[np.ndarray, "h w 3"]
    """The picture as the model sees it."""
    probabilities: Mapping[str, float]
    """Probability of each text, the largest first."""
    text: str
    """The text that is explained: the answer, unless another text was asked for."""
    against: str
    """The text that it is compared with, or ``all``."""
    log_odds: float
    """Log-odds of the text in the whole model."""
    baseline_log_odds: float
    """Log-odds of the same text where the picture is the baseline."""
    circuit: Circuit
    """The strongest units. The ``source`` is a graph of edges between them."""
    units: pd.DataFrame
    """The strongest units with their exact effects; see `to_pandas`."""
    maps: Mapping[tuple[str, int], Float[np.ndarray, "rows columns"]]
    """Where in the picture each unit raises the log-odds, by (site, unit): the gradient times the difference from the
    baseline at each position, where it is above zero. For a head of a transformer: its attention from the class token.
    A unit without a position, or of the class token alone, has no map."""
    cells: Mapping[str, Float[np.ndarray, "rows columns"]]
    """What each cell of the picture matters to the answer: by the maps of the ``units``, and by ``integrated
    gradients``."""
    tests: pd.DataFrame
    """Answers in runs with some units removed; see `to_pandas`."""
    curves: pd.DataFrame
    """Log-odds with some cells of the picture replaced; see `to_pandas`."""

    @property
    def answer(self) -> str:
        """The text with the largest probability."""
        return next(iter(self.probabilities))

    @checked
    def to_pandas(
        self, kind: Annotated[str, one_of(*TABLES)] = "units"
    ) -> pd.DataFrame:
        """Return one of the tables.

        Args:
            kind: ``units``: a row for each of the strongest units, with its exact effect, its score at first order and
                the own parts that it is in. ``edges``: the edges between these units. ``answers``: the probability of
                each text. ``tests``: a row for each run with some units removed, with the log-odds and the answer;
                for random units the mean, and the share of draws that keep the answer. ``curves``: the log-odds after
                a share of the picture is replaced by the baseline (``deletion``), or restored in it (``insertion``),
                cell by cell in each of the `ORDERS`.
        """
        if kind == "edges":
            return self.circuit.scored_edges.to_pandas()
        if kind == "answers":
            listed = list(self.probabilities.items())
            return pd.DataFrame(listed, columns=["text", "probability"])
        return {"units": self.units, "tests": self.tests, "curves": self.curves}[kind]

    @property
    def areas(self) -> pd.DataFrame:
        """Area under each curve, which is its mean log-odds: index `ORDERS`, columns ``deletion`` and ``insertion``.

        Cells that matter make the deletion small and the insertion large.
        """
        areas = {}
        for curve, rows in self.curves.groupby(["change", "order"]):
            areas[curve] = float(np.trapezoid(rows["log_odds"], rows["share"]))
        table = pd.Series(areas).unstack(0)
        return table.loc[list(ORDERS), [DELETION, INSERTION]]

    @checked
    def beside(self, other: "Explanation") -> pd.DataFrame:
        """Return the units of two explanations of one text in two pictures, with their scores in both.

        Scores are at first order, since exact effects are known for few units. The columns are site, unit, ``first``
        for this picture, ``second`` for the other picture, and the difference; the largest differences come first.

        Raises:
            InputError: if the explanations are of other texts, or of models with other units.

        Example:
            >>> texts = ["cup", "clock"]
            >>> first = circuitry.explain(clip, images[0], texts, text="cup")
            >>> second = circuitry.explain(clip, images[1], texts, text="cup")
            >>> list(first.beside(second).columns)
            ['site', 'unit', 'first', 'second', 'difference']
        """
        asked = [(e.text, e.against) for e in (self, other)]
        if asked[0] != asked[1]:
            raise InputError(
                f"Two pictures are compared by one text, but {asked[0][0]!r} against {asked[0][1]!r} and "
                f"{asked[1][0]!r} against {asked[1][1]!r} were explained: give both the same text= and against=."
            )
        scores = [e.circuit.source.node_scores for e in (self, other)]
        if list(scores[0]) != list(scores[1]):
            raise InputError(
                "Two explanations are compared unit by unit, but their models have other sites: explain both pictures "
                "with one model."
            )
        units = pd.concat([self.units, other.units])[["site", "unit"]].drop_duplicates()
        for name, of_units in zip(("first", "second"), scores, strict=True):
            pairs = zip(units["site"], units["unit"], strict=True)
            units[name] = [of_units[site][unit] for site, unit in pairs]
        units["difference"] = units["first"] - units["second"]
        return units.sort_values(
            "difference", key=abs, ascending=False, ignore_index=True
        )

    def __str__(self) -> str:
        runs = self.tests.set_index(["run", "units"])["log_odds"]
        rival = "all other texts" if self.against == "all" else f"'{self.against}'"
        n = len(self.units)
        deleted = self.areas[DELETION].to_dict()
        orders = [f"{order} {deleted[order]:.1f}" for order in ORDERS]
        asked = "" if self.text == self.answer else f" of '{self.text}'"
        share = self.probabilities[self.answer]
        without = runs[WITHOUT, STRONGEST]
        return (
            f"{self.name}: '{self.answer}' ({share:.0%}), log-odds{asked} {self.log_odds:.1f} against {rival}.\n"
            f"After removing the {n} strongest units: {without:.1f}; after removing {n} random units of the same "
            f"sites: {runs[WITHOUT, RANDOM_UNITS]:.1f}.\n"
            f"Mean log-odds while the picture is deleted cell by cell: {', '.join(orders)}."
        )

    def __repr__(self) -> str:
        return f"Explanation of {self}"

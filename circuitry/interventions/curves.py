"""Faithfulness curves as they are stored: three numbers of every image with circuits of growing size kept. No torch.

`pool_curves` makes one curve of the curves of several classes; `curves_by_domain` and `areas_by_domain` make a table of
each domain; `mean_over_depth` and `most_selective_site` return the numbers that reports state.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from circuitry.interventions.curve_reading import (
    CURVE_MEASURES,
    CURVE_NUMBERS,
    CurveReading,
    Weights,
)
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError, naming_damage, number_of
from circuitry.runs.given import SOME, checked
from circuitry.runs.identity import OF_MODEL, Identity

TENTH = 0.1
"""The share of units that a circuit keeps in the study, where none is known."""

RANKING_OF = {"CPR": "signed", "CMD": "absolute"}
"""Which ranking each area is taken of (MIB, arXiv 2504.13151)."""

CURVE_FORMAT = "circuitry faithfulness curve 4"
"""Name and version of the file format."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCurve:
    """The metric and the answer of every image with circuits of growing size kept; the circuits are nested.

    They are kept image by image, so that intervals come from resampling. Of every image and run there is the metric; of
    a `ClassLogit` also ``kl`` = KL(whole model || run) of the answers among the candidate classes, and ``top``: whether
    the run gives the image the class (`CURVE_NUMBERS`). Read off are the `CURVE_MEASURES`:

    - faithfulness: (m(circuit) - m(baseline)) / (m(model) - m(baseline)), means over images of the class;
    - selectivity: the same ratio of differences, the mean over images of the class less the mean over images of other
      classes. A circuit that gives every image the same answer may be faithful; its selectivity is 0;
    - kl recovered: 1 - kl(circuit) / kl(baseline), images of the class and others with half the weight each;
    - right, false: the share of the class's images, and of other images, that get the class.
    """

    sizes: tuple[float, ...]
    """Share of the units kept, ascending."""
    ranking: str
    """Which units come first, see `budgets.RANKINGS`."""
    n_units: tuple[int, ...]
    """Units kept over all sites, by size."""
    full: Float[np.ndarray, "numbers images"]  #: Of the whole model.
    empty: Float[np.ndarray, "numbers images"]  #: With nothing kept.
    kept: Float[np.ndarray, "numbers sizes images"]
    """With only the circuit."""
    complement: Float[np.ndarray, "numbers sizes images"]
    """With all but the circuit."""
    random: Float[np.ndarray, "numbers draws sizes images"]
    """With random units, as many at every site as the circuit has."""
    foreign: Float[np.ndarray, "numbers others sizes images"]
    """With circuits of other classes, of the same sizes."""
    own: Bool[np.ndarray, " images"]
    """Whether an image is of the class; the others are of other classes."""
    group: Int[np.ndarray, " images"]
    """Classes by number, which `pool_curves` gives; of several, classes are resampled in place of images."""
    class_name: str | None = None  #: What the images show.
    domain: str | None = None  #: Their style.
    settings: dict[str, Any] = field(
        default_factory=dict
    )  #: What was asked and how; compared curves agree on it.
    weights: tuple[float, ...] = ()
    """Share of the tower's weights that each circuit touches, see `weights_touched`; nothing where it is not known."""

    @property
    def size(self) -> float:
        """The one of the sizes that is nearest, by ratio, to that which circuits have as they were found."""
        found = self.settings.get("size") or TENTH
        return min(self.sizes, key=lambda size: abs(np.log(size / found)))

    @property
    def numbers(self) -> tuple[str, ...]:
        """Which of the `CURVE_NUMBERS` are known."""
        return CURVE_NUMBERS[: len(self.full)]

    @property
    def faithfulness(self) -> Float[np.ndarray, " sizes"]:
        """1 is the whole model, 0 the baseline."""
        return self._readings["faithfulness"].values()["kept"]

    @property
    def completeness(self) -> Float[np.ndarray, " sizes"]:
        """Faithfulness of the complement: near 0 when the circuit holds all that matters."""
        return self._readings["faithfulness"].values()["complement"]

    @property
    def selectivity(self) -> Float[np.ndarray, " sizes"]:
        """1: the class is told from others as well as by the whole model; 0: not at all. NaN without other images."""
        return self._readings["selectivity"].values()["kept"]

    def __repr__(self) -> str:
        name = (
            " in ".join(filter(None, [self.class_name, self.domain]))
            or "a circuit without a name"
        )
        size = self.size
        place = self.sizes.index(size)
        read = {measure: values["kept"] for measure, values in self.at(place).items()}
        known = ", ".join(
            f"{measure} {value:z.2f}"
            for measure, value in read.items()
            if not np.isnan(value)
        )
        return (
            f"FaithfulnessCurve of {name}: {number_of(len(self.sizes), 'size')}, {int(self.own.sum())} images; "
            f"{known or 'nothing known'} with {size:.3g} of the units"
        )

    def to_pandas(self, measure: str = "faithfulness") -> pd.DataFrame:
        """Return a measure of the circuit, its complement and circuits beside it, with 95 % bootstrap intervals.

        Intervals of one class are over images, intervals of several classes (`pool_curves`) over classes and images
        (`curve_reading`). Columns class, domain, circuit (``kept``, ``complement``, ``random``, ``foreign``; for right
        and false also ``empty`` and ``full``), measure, value, low, high, fraction, n_units, weights, ranking,
        n_images, reason. Intervals of random units, and of other classes' circuits, resample them too. They are NaN
        where one class has a single image, or a single image of others; values, too, where there is a reason.
        """
        if measure not in CURVE_MEASURES:
            raise InputError(
                f"A curve is read as {' or '.join(CURVE_MEASURES)}, but {measure!r} was given."
            )
        reading = self._readings[measure]
        found = reading.intervals(reading.ratios)
        weights = self.weights or np.nan
        columns = {
            "measure": measure,
            "fraction": self.sizes,
            "n_units": self.n_units,
            "weights": weights,
        }
        return self._tidy(found, columns, reading.reason)

    def at(self, place: int) -> dict[str, dict[str, float]]:
        """Return the value of each measure at one of the sizes by circuit, named as in `to_pandas`."""
        read = {name: reading.values() for name, reading in self._readings.items()}
        return {
            name: {one: float(value[place]) for one, value in values.items()}
            for name, values in read.items()
        }

    def ahead_of_foreign(self, place: int) -> Float[np.ndarray, " 3"]:
        """Return by how much more KL a circuit recovers than other classes' circuits: the value and its interval."""
        reading = self._readings["kl recovered"]

        def ahead(weights: Weights) -> dict[str, np.ndarray]:
            found = reading.ratios(weights)
            return {"ahead": found["kept"] - found["foreign"]}

        return np.asarray(reading.intervals(ahead)["ahead"][:, place])

    def reason(self, measure: str) -> str:
        """Return why a measure is not known; nothing where it is."""
        return self._readings[measure].reason

    @property
    def leak(self) -> float:
        """The metric's contrast between the class and others with nothing kept, as a share of the whole model's."""
        images = self._readings["selectivity"].weights[0][0]
        full, empty = images @ self.full[0], images @ self.empty[0]
        rounding = (
            1e-6 * np.abs(images) @ np.abs(self.full[0])
        )  # processors sum in other orders
        return float(empty / full) if full > rounding else float("nan")

    def areas(self) -> pd.DataFrame:
        """Return CPR (area under faithfulness) and CMD (area of ``|1 - faithfulness|``) of circuit and random units.

        Trapezoid over the sizes (MIB, arXiv 2504.13151): with its ten, faithfulness 1 everywhere gives CPR 0.999.
        MIB ranks by signed score for CPR and by absolute score for CMD. Columns class, domain, circuit, measure,
        value, low, high, ranking, n_images, reason.
        """
        reading, x = self._readings["faithfulness"], np.asarray(self.sizes)

        def areas(weights: Weights) -> dict[str, np.ndarray]:
            ratios = {
                name: f
                for name, f in reading.ratios(weights).items()
                if name in ("kept", "random")
            }
            both = {name: (f, np.abs(1 - f)) for name, f in ratios.items()}
            return {
                name: np.stack([np.trapezoid(y, x) for y in ys], -1)
                for name, ys in both.items()
            }

        found = reading.intervals(areas)
        return self._tidy(found, {"measure": ("CPR", "CMD")}, reading.reason)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the curve as safetensors with a JSON header, whole or not at all."""
        header = {name: getattr(self, name) for name in _CURVE_HEADER}
        tensors = {name: getattr(self, name) for name in _CURVE_ARRAYS}
        write_arrays(path, CURVE_FORMAT, header, tensors)

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> "FaithfulnessCurve":
        """Read a curve that `save` wrote."""
        header, tensors = read_arrays(path, CURVE_FORMAT, "faithfulness curve")
        with naming_damage(path):
            sizes = {
                name: tuple(header.pop(name))
                for name in ("sizes", "n_units", "weights")
            }
            everything: dict[str, Any] = {**sizes, **header, **tensors}
            return cls(**everything)

    @cached_property
    def _readings(self) -> dict[str, CurveReading]:
        return {
            name: CurveReading(measure, self)
            for name, measure in CURVE_MEASURES.items()
        }

    def _tidy(
        self, found: dict[str, np.ndarray], columns: dict[str, Any], reason: str
    ) -> pd.DataFrame:
        names = {
            "class": self.class_name,
            "domain": self.domain,
            "circuit": None,
            "measure": None,
        }
        more = {
            **columns,
            "ranking": self.ranking,
            "n_images": int(self.own.sum()),
            "reason": reason,
        }
        parts = [
            pd.DataFrame({**names, "value": value, "low": low, "high": high}).assign(
                circuit=circuit, **more
            )
            for circuit, (value, low, high) in found.items()
        ]
        return pd.concat(parts, ignore_index=True)


CURVE_RUNS = ("full", "empty", "kept", "complement", "random", "foreign")
"""The runs of a curve; from the third on they have sizes."""
_CURVE_ARRAYS = (*CURVE_RUNS, "own", "group")
_POOLED = (
    *OF_MODEL,
    "metric",
    "baseline",
    "circuits",
    "sites",
    "budget",
    "size",
    "seed",
)
_CURVE_HEADER = (
    "sizes",
    "ranking",
    "n_units",
    "class_name",
    "domain",
    "settings",
    "weights",
)


@checked
def pool_curves(
    curves: Annotated[Sequence[FaithfulnessCurve], SOME],
) -> FaithfulnessCurve:
    """Return one curve over the images of several, each image with its own class's circuit and metric.

    Numbers are averaged over classes before dividing, so that a class with a small lead over the baseline cannot
    dominate; intervals are over the classes and their images. Of the circuits of other classes as many are taken as
    every curve has.

    Example:
        >>> pool_curves([curve for curve in curves if curve.domain == "sketch"]).to_pandas()
    """
    for name in ("sizes", "ranking", "n_units", "numbers"):
        if len(found := {str(getattr(curve, name)) for curve in curves}) > 1:
            raise InputError(
                f"Curves are pooled when their {name} agree, but there are {' and '.join(sorted(found))}."
            )
    for one, two in pairwise(curves):
        titles = [
            f"the curve of {curve.class_name} in {curve.domain}" for curve in (one, two)
        ]
        of_domain = (
            ("text_weights",) if one.domain == two.domain else ()
        )  # texts may be in the style of a domain
        Identity(one.settings).check(
            two.settings, titles[0], titles[1], (*_POOLED, *of_domain)
        )
    if len(set(map(id, curves))) < len(curves):
        raise InputError(
            f"Curves are pooled once each, but one is twice among {len(curves)}: remove it."
        )
    fewest = min(curve.foreign.shape[1] for curve in curves)
    curves = [replace(curve, foreign=curve.foreign[:, :fewest]) for curve in curves]
    first = curves[0]
    classes, domains = {c.class_name for c in curves}, {c.domain for c in curves}
    together: dict[str, Any] = {
        name: np.concatenate([getattr(c, name) for c in curves], axis=-1)
        for name in _CURVE_ARRAYS
    }
    together["group"] = np.repeat(
        np.arange(len(curves)), [len(curve.own) for curve in curves]
    )
    known = [curve.weights for curve in curves]
    return replace(
        first,
        **together,
        weights=tuple(map(float, np.mean(known, axis=0))) if all(known) else (),
        class_name=first.class_name if len(classes) == 1 else None,
        domain=first.domain if len(domains) == 1 else None,
    )


def curves_by_domain(
    curves: Annotated[Sequence[FaithfulnessCurve], SOME], measure: str = "faithfulness"
) -> pd.DataFrame:
    """Return the tables of all domains, classes pooled; for curves of one ranking.

    Columns of `FaithfulnessCurve.to_pandas`, with ``sites`` after the domain: ``all``, or the one that was ablated.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[FaithfulnessCurve]] = {}
    for curve in curves:
        groups.setdefault(
            (str(curve.domain), tuple(curve.settings["sites"])), []
        ).append(curve)
    parts = []
    for (_, sites), group in groups.items():
        table = pool_curves(group).to_pandas(measure)
        table.insert(2, "sites", sites[0] if len(sites) == 1 else "all")
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def areas_by_domain(
    curves: Annotated[Sequence[FaithfulnessCurve], SOME],
) -> pd.DataFrame:
    """Return the areas under the curves of each domain, classes pooled; each area of its ranking, where there is one.

    Columns domain, ranking, measure (``CPR``, ``CMD``), circuit (``kept``, ``random``), value, low, high.
    """
    parts = []
    for domain in dict.fromkeys(curve.domain for curve in curves):
        for measure, ranking in RANKING_OF.items():
            mine = [
                curve
                for curve in curves
                if curve.domain == domain and curve.ranking == ranking
            ]
            if mine:
                areas = pool_curves(mine).areas()
                parts.append(areas[areas["measure"] == measure])
    columns = ["domain", "ranking", "measure", "circuit", "value", "low", "high"]
    return (
        pd.concat(parts, ignore_index=True)[columns]
        if parts
        else pd.DataFrame(columns=columns)
    )


def mean_over_depth(one_site: pd.DataFrame) -> pd.DataFrame:
    """Return means over domains of ``kept`` and ``random`` circuits of one size, kept at one site at a time.

    Takes a table of `curves_by_domain`; the index is the site, in order. NaN where nothing is known.
    """
    rows = one_site[one_site["circuit"].isin(["kept", "random"])]
    means = rows.pivot_table("value", "sites", "circuit", sort=False)
    return means.rename_axis(index="site", columns=None).reindex(
        columns=["kept", "random"]
    )


def most_selective_site(one_site: pd.DataFrame) -> str | None:
    """Return the site at which ``kept`` circuits lead ``random`` ones most, by `mean_over_depth`; None if unknown."""
    means = mean_over_depth(one_site).dropna()
    return None if means.empty else str((means["kept"] - means["random"]).idxmax())

"""Faithfulness curves as they are stored: three numbers of every image with circuits of growing size kept. No torch.

`pool_curves` makes one curve of the curves of several classes. `curves_by_domain` and `areas_by_domain` make a table
with the rows of each domain. `mean_over_depth` and `most_selective_site` return the numbers that reports state.
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
from circuitry.runs.arguments import SOME, checked
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError, naming_damage, number_of
from circuitry.runs.identity import OF_MODEL, Identity

TENTH = 0.1
"""The share of units that circuits of the study keep; for curves that do not say the size."""

RANKING_OF = {"CPR": "signed", "CMD": "absolute"}
"""The ranking of the units that each area belongs to (MIB, arXiv 2504.13151)."""

CURVE_FORMAT = "circuitry faithfulness curve 4"
"""Name and version of the file format."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCurve:
    """The metric and the answer of every image with circuits of growing size kept; the circuits are nested.

    Numbers are stored image by image, so that intervals come from resampling images. Every image has the metric in
    every run; for a `ClassLogit` also ``kl`` = KL(whole model || run) of the answers among the candidate classes, and
    ``top``: whether the run gives the image the class (`CURVE_NUMBERS`). From them come the `CURVE_MEASURES`:

    - faithfulness: (m(circuit) - m(baseline)) / (m(model) - m(baseline)), means over images of the class;
    - selectivity: the same ratio of differences, the mean over images of the class less the mean over images of other
      classes. A circuit that gives every image the same answer may be faithful; its selectivity is 0;
    - kl recovered: 1 - kl(circuit) / kl(baseline), images of the class and others with half the weight each;
    - right, false: the share of the class's images, and of other images, that get the class.

    Example:
        >>> curve = faithfulness_curve(task, graph, AblationSettings(sizes=(0.2, 1.0), random_draws=1))
        >>> [round(float(value), 3) for value in curve.faithfulness]
        [..., 1.0]
        >>> curve.save("clock.curve")
        >>> FaithfulnessCurve.load("clock.curve").sizes
        (0.2, 1.0)
    """

    sizes: tuple[float, ...]
    """Share of the units kept, ascending."""
    ranking: str
    """Which units come first, see `budgets.RANKINGS`."""
    n_units: tuple[int, ...]
    """Units kept over all sites, by size."""
    full: Float[np.ndarray, "numbers images"]
    """The `CURVE_NUMBERS` of the whole model."""
    empty: Float[np.ndarray, "numbers images"]
    """The numbers with every unit ablated."""
    kept: Float[np.ndarray, "numbers sizes images"]
    """The numbers with only the circuit."""
    complement: Float[np.ndarray, "numbers sizes images"]
    """The numbers with everything but the circuit."""
    random: Float[np.ndarray, "numbers draws sizes images"]
    """The numbers with random units only, as many at every site as the circuit has."""
    foreign: Float[np.ndarray, "numbers others sizes images"]
    """The numbers with circuits of other classes only, of the same sizes."""
    own: Bool[np.ndarray, " images"]
    """True for images of the class, false for images of other classes."""
    group: Int[np.ndarray, " images"]
    """The number of the class that each image belongs to: 0, or of a pooled curve (`pool_curves`) one for each."""
    class_name: str | None = None
    """The class of the images; None of a curve of several."""
    domain: str | None = None
    """The domain of the images; None of a curve of several."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Model, metric, baseline and seed of the measurement; curves that are pooled agree on them."""
    weights: tuple[float, ...] = ()
    """Share of the tower's weights that each circuit touches (`weights_touched`); empty where it is not known."""

    @property
    def size(self) -> float:
        """The size of the curve that is nearest, by ratio, to the size that the circuits were found with."""
        asked = self.settings.get("size") or TENTH
        return min(self.sizes, key=lambda size: abs(np.log(size / asked)))

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
        names = [name for name in (self.class_name, self.domain) if name]
        title = " in ".join(names) or "a circuit without a name"
        size = self.size
        known = list[str]()
        for measure, values in self.at(self.sizes.index(size)).items():
            if not np.isnan(values["kept"]):
                # z: a value that rounds to zero has no sign.
                known.append(f"{measure} {values['kept']:z.2f}")
        return (
            f"FaithfulnessCurve of {title}: {number_of(len(self.sizes), 'size')}, {int(self.own.sum())} images; "
            f"{', '.join(known) or 'nothing known'} with {size:.3g} of the units"
        )

    def to_pandas(self, measure: str = "faithfulness") -> pd.DataFrame:
        """Return a measure of the circuit, its complement and circuits beside it, with 95 % bootstrap intervals.

        Intervals of one class are over images, intervals of several classes (`pool_curves`) over classes and images
        (`curve_reading`). Intervals of random circuits, and of other classes' circuits, resample these circuits, too.

        Returns:
            Columns class, domain, circuit (``kept``, ``complement``, ``random``, ``foreign``; for right and false also
            ``empty`` and ``full``), measure, value, low, high, fraction, n_units, weights, ranking, n_images, reason.
            Low and high are NaN where one class has a single image, or a single image of others. Values are NaN where
            there is a reason.
        """
        if measure not in CURVE_MEASURES:
            raise InputError(
                f"A curve is read as {' or '.join(CURVE_MEASURES)}, but {measure!r} was given."
            )
        reading = self._readings[measure]
        columns = {
            "measure": measure,
            "fraction": self.sizes,
            "n_units": self.n_units,
            "weights": self.weights or np.nan,
        }
        return self._tidy(reading.intervals(reading.ratios), columns, reading.reason)

    def at(self, place: int) -> dict[str, dict[str, float]]:
        """Return the value of each measure at one of the sizes by circuit, named as in `to_pandas`."""
        at_size = dict[str, dict[str, float]]()
        for measure, reading in self._readings.items():
            values = reading.values()
            at_size[measure] = {name: float(values[name][place]) for name in values}
        return at_size

    def ahead_of_foreign(self, place: int) -> Float[np.ndarray, " 3"]:
        """Return by how much more KL a circuit recovers than other classes' circuits: the value and its interval."""
        reading = self._readings["kl recovered"]

        # The difference is resampled, not its two sides: both are measured on the same images.
        def ahead(weights: Weights) -> dict[str, np.ndarray]:
            ratios = reading.ratios(weights)
            return {"ahead": ratios["kept"] - ratios["foreign"]}

        return np.asarray(reading.intervals(ahead)["ahead"][:, place])

    def reason(self, measure: str) -> str:
        """Return why a measure is not known; nothing where it is."""
        return self._readings[measure].reason

    @property
    def leak(self) -> float:
        """The metric's contrast between the class and others with nothing kept, as a share of the whole model's."""
        images = self._readings["selectivity"].weights[0][0]
        full = images @ self.full[0]
        empty = images @ self.empty[0]
        # Processors sum in other orders: a contrast of this size is noise, and no share of it is known.
        rounding = 1e-6 * np.abs(images) @ np.abs(self.full[0])
        return float(empty / full) if full > rounding else float("nan")

    def areas(self) -> pd.DataFrame:
        """Return CPR (area under faithfulness) and CMD (area of ``|1 - faithfulness|``) of circuit and random units.

        Trapezoid over the sizes (MIB, arXiv 2504.13151): with the ten sizes of MIB, faithfulness 1 everywhere gives
        CPR 0.999. MIB ranks by signed score for CPR and by absolute score for CMD.

        Returns:
            Columns class, domain, circuit, measure, value, low, high, ranking, n_images, reason.
        """
        reading = self._readings["faithfulness"]
        sizes = np.asarray(self.sizes)

        def areas(weights: Weights) -> dict[str, np.ndarray]:
            ratios = reading.ratios(weights)
            of_circuits = dict[str, np.ndarray]()
            # MIB has areas of the circuit itself; random ones show what chance reaches.
            for name in ("kept", "random"):
                if name not in ratios:  # no random circuits were drawn
                    continue
                cpr = np.trapezoid(ratios[name], sizes)
                cmd = np.trapezoid(np.abs(1 - ratios[name]), sizes)
                of_circuits[name] = np.stack([cpr, cmd], -1)
            return of_circuits

        columns = {"measure": ("CPR", "CMD")}
        return self._tidy(reading.intervals(areas), columns, reading.reason)

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
            for name in ("sizes", "n_units", "weights"):
                header[name] = tuple(header[name])  # JSON has lists alone
            contents: dict[str, Any] = {**header, **tensors}
            return cls(**contents)

    @cached_property
    def _readings(self) -> dict[str, CurveReading]:
        return {
            name: CurveReading(measure, self)
            for name, measure in CURVE_MEASURES.items()
        }

    def _tidy(
        self, intervals: dict[str, np.ndarray], columns: dict[str, Any], reason: str
    ) -> pd.DataFrame:
        """Return a table of [value, low, high] of each circuit, a row for each entry of the columns."""
        tables = list[pd.DataFrame]()
        for circuit, (value, low, high) in intervals.items():
            columns_of_measure = {
                "class": self.class_name,
                "domain": self.domain,
                "circuit": circuit,
                "measure": columns["measure"],
                "value": value,
                "low": low,
                "high": high,
                **columns,
                "ranking": self.ranking,
                "n_images": int(self.own.sum()),
                "reason": reason,
            }
            tables.append(pd.DataFrame(columns_of_measure))
        return pd.concat(tables, ignore_index=True)


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
    dominate; intervals are over the classes and their images. If the curves have circuits of unequal numbers of other
    classes, the smallest number is taken of each.

    Example:
        >>> settings = AblationSettings(sizes=(0.2, 1.0), random_draws=1)
        >>> one = faithfulness_curve(task, graph, settings)
        >>> swapped = circuitry.Task(encoder, others, metric, others=images)
        >>> other = faithfulness_curve(swapped, graph, settings)
        >>> pool_curves([one, other]).to_pandas()["n_images"].unique()
    """
    for name in ("sizes", "ranking", "n_units", "numbers"):
        values = {str(getattr(curve, name)) for curve in curves}
        if len(values) > 1:
            raise InputError(
                f"Curves are pooled when their {name} agree, but there are {' and '.join(sorted(values))}."
            )
    for first, second in pairwise(curves):
        must_agree = list(_POOLED)
        if first.domain == second.domain:
            must_agree.append("text_weights")  # texts may be in the style of a domain
        Identity(first.settings).check(
            second.settings,
            f"the curve of {first.class_name} in {first.domain}",
            f"the curve of {second.class_name} in {second.domain}",
            tuple(must_agree),
        )
    if len({id(curve) for curve in curves}) < len(curves):
        raise InputError(
            f"Curves are pooled once each, but one is twice among {len(curves)}: remove it."
        )
    fewest = min(curve.foreign.shape[1] for curve in curves)
    curves = [replace(curve, foreign=curve.foreign[:, :fewest]) for curve in curves]
    together = dict[str, Any]()
    for name in _CURVE_ARRAYS:
        # Images are the last axis of every array.
        arrays = [getattr(curve, name) for curve in curves]
        together[name] = np.concatenate(arrays, axis=-1)
    # Two curves of one class in two domains are two groups: each has its own circuit.
    n_images = [len(curve.own) for curve in curves]
    together["group"] = np.repeat(np.arange(len(curves)), n_images)
    together["weights"] = ()
    if all(curve.weights for curve in curves):
        means = np.mean([curve.weights for curve in curves], axis=0)
        together["weights"] = tuple(means.tolist())
    for name in ("class_name", "domain"):
        if len({getattr(curve, name) for curve in curves}) > 1:
            together[name] = None
    return replace(curves[0], **together)


def curves_by_domain(
    curves: Annotated[Sequence[FaithfulnessCurve], SOME], measure: str = "faithfulness"
) -> pd.DataFrame:
    """Return the tables of all domains, classes pooled; for curves of one ranking.

    Returns:
        Columns of `FaithfulnessCurve.to_pandas`, with ``sites`` after the domain: ``all``, or the single site that was
        ablated.

    Example:
        >>> curve = faithfulness_curve(task, graph, AblationSettings(sizes=(0.2, 1.0)))
        >>> curves_by_domain([curve], "selectivity")["sites"].unique().tolist()
        ['all']
    """
    groups: dict[tuple[str, tuple[str, ...]], list[FaithfulnessCurve]] = {}
    for curve in curves:
        key = (str(curve.domain), tuple(curve.settings["sites"]))
        groups.setdefault(key, []).append(curve)
    tables = list[pd.DataFrame]()
    for (_, sites), group in groups.items():
        table = pool_curves(group).to_pandas(measure)
        table.insert(2, "sites", sites[0] if len(sites) == 1 else "all")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def areas_by_domain(
    curves: Annotated[Sequence[FaithfulnessCurve], SOME],
) -> pd.DataFrame:
    """Return the areas under the curves of each domain, classes pooled; each area of its ranking, where there is one.

    Returns:
        Columns domain, ranking, measure (``CPR``, ``CMD``), circuit (``kept``, ``random``), value, low, high.
    """
    columns = ["domain", "ranking", "measure", "circuit", "value", "low", "high"]
    tables = list[pd.DataFrame]()
    for domain in dict.fromkeys(curve.domain for curve in curves):
        in_domain = [curve for curve in curves if curve.domain == domain]
        for measure, ranking in RANKING_OF.items():
            ranked = [curve for curve in in_domain if curve.ranking == ranking]
            if ranked:
                areas = pool_curves(ranked).areas()
                tables.append(areas.loc[areas["measure"] == measure, columns])
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables, ignore_index=True)


def mean_over_depth(one_site: pd.DataFrame) -> pd.DataFrame:
    """Return means over domains of ``kept`` and ``random`` circuits of one size, kept at one site at a time.

    Takes a table of `curves_by_domain`; the index is the site, in order. NaN where nothing is known.
    """
    circuits = ["kept", "random"]
    rows = one_site[one_site["circuit"].isin(circuits)]
    means = rows.pivot_table("value", "sites", "circuit", sort=False)
    means = means.rename_axis(index="site", columns=None)
    # A circuit that is known nowhere gets a column of NaN.
    return means.reindex(columns=circuits)


def most_selective_site(one_site: pd.DataFrame) -> str | None:
    """Return the site at which ``kept`` circuits lead ``random`` ones most, by `mean_over_depth`; None if unknown."""
    means = mean_over_depth(one_site).dropna()
    return None if means.empty else str((means["kept"] - means["random"]).idxmax())

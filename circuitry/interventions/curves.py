"""Faithfulness curves: what circuits of growing size recover of the model's answers, stored image by image.

`pool_curves` joins the curves of several classes into one curve. `curves_by_domain` and `areas_by_domain` return tables
with the values of each domain. Does not import torch.
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
from circuitry.runs.notebooks import Shown

TENTH = 0.1
"""The share of units that circuits of the study keep. `FaithfulnessCurve.size` uses it if a curve does not say at which
size its circuits were found."""

RANKING_OF = {"CPR": "signed", "CMD": "absolute"}
"""The ranking of the units that is used for each area (MIB, arXiv 2504.13151)."""

CURVE_FORMAT = "circuitry faithfulness curve 4"
"""The name and version of the file format."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCurve(Shown):
    """The metric and the answer of every image in runs that keep only a circuit, for nested circuits of growing size.

    Numbers are stored image by image, so that intervals can be computed by resampling images. The metric of every image
    is stored for every run. With a `ClassLogit` there are two more numbers (`CURVE_NUMBERS`): ``kl`` = KL(whole model
    || run) of the answers among the candidate classes, and ``top``, whether the run classifies the image as the class
    of the metric. The `CURVE_MEASURES` are computed from these numbers:

    - faithfulness: (m(circuit) - m(baseline)) / (m(model) - m(baseline)), where m is the mean of the metric over images
      of the class.
    - selectivity: the same ratio, where m is the mean over images of the class minus the mean over images of other
      classes. A circuit that gives the same answer for every image may be faithful, but its selectivity is 0.
    - kl recovered: 1 - kl(circuit) / kl(baseline), where images of the class and images of other classes each have half
      the weight.
    - right: the share of the class's images that are classified as the class.
    - false: the share of images of other classes that are classified as the class.

    Example:
        >>> curve = faithfulness_curve(task, graph, AblationSettings(sizes=(0.2, 1.0), random_draws=1))
        >>> [round(float(value), 3) for value in curve.faithfulness]
        [..., 1.0]
        >>> curve.save("clock.curve")
        >>> FaithfulnessCurve.load("clock.curve").sizes
        (0.2, 1.0)
    """

    sizes: tuple[float, ...]
    """The share of the units that each circuit keeps, in ascending order."""
    ranking: str
    """Which units come first; see `budgets.RANKINGS`. For circuits of edges it is ``edges``."""
    n_units: tuple[int, ...]
    """The number of units (or edges) that each circuit keeps, over all sites."""
    full: Float[np.ndarray, "numbers images"]
    """The `CURVE_NUMBERS` of the whole model."""
    empty: Float[np.ndarray, "numbers images"]
    """The numbers with every unit ablated."""
    kept: Float[np.ndarray, "numbers sizes images"]
    """The numbers with only the circuit kept."""
    complement: Float[np.ndarray, "numbers sizes images"]
    """The numbers with everything except the circuit kept."""
    random: Float[np.ndarray, "numbers draws sizes images"]
    """The numbers with only random units kept, as many at every site as the circuit has."""
    foreign: Float[np.ndarray, "numbers others sizes images"]
    """The numbers with only a circuit of another class kept. That circuit has the same size."""
    own: Bool[np.ndarray, " images"]
    """True for images of the class, False for images of other classes."""
    group: Int[np.ndarray, " images"]
    """For each image, the index of the curve that it was measured for. If curves were pooled (`pool_curves`), each of
    them has an index. Otherwise all indices are 0."""
    class_name: str | None = None
    """The class of the images; None if the curve is pooled over several classes."""
    domain: str | None = None
    """The domain of the images; None if the curve is pooled over several domains."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Model, metric, baseline and seed of the measurement. Curves can be pooled only if their settings agree."""
    weights: tuple[float, ...] = ()
    """The share of the tower's weights that each circuit touches (`weights_touched`); empty unless they were asked
    for."""

    @property
    def size(self) -> float:
        """The entry of `sizes` that is nearest to the size at which the circuits were found.

        Distances are measured on a logarithmic scale. If the curve does not say at which size the circuits were found,
        the entry nearest to `TENTH` is taken.
        """
        asked = self.settings.get("size") or TENTH
        return min(self.sizes, key=lambda size: abs(np.log(size / asked)))

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the `CURVE_NUMBERS` that this curve has."""
        return CURVE_NUMBERS[: len(self.full)]

    @property
    def faithfulness(self) -> Float[np.ndarray, " sizes"]:
        """The faithfulness of each circuit: 1 for the whole model, 0 for the baseline."""
        return self._readings["faithfulness"].values()["kept"]

    @property
    def completeness(self) -> Float[np.ndarray, " sizes"]:
        """The faithfulness of each complement, which is everything except the circuit.

        It is near 0 if the circuit contains everything that matters.
        """
        return self._readings["faithfulness"].values()["complement"]

    @property
    def selectivity(self) -> Float[np.ndarray, " sizes"]:
        """The selectivity of each circuit.

        It is 1 if the circuit separates the class from other classes as well as the whole model, and 0 if it does not
        separate them at all. It is NaN if there are no images of other classes.
        """
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

    def shown_table(self) -> pd.DataFrame:
        """Return the value of the circuit of each size: rows are measures, and columns are sizes."""
        columns = {}
        for place, size in enumerate(self.sizes):
            by_measure = self.at(place).items()
            of_size = {measure: values["kept"] for measure, values in by_measure}
            columns[f"{size:.3g}"] = of_size
        return pd.DataFrame(columns)

    def to_pandas(self, measure: str = "faithfulness") -> pd.DataFrame:
        """Return one measure of each kind of circuit at each size, with 95 % bootstrap intervals.

        For a single class, images are resampled. For several classes (`pool_curves`), classes are resampled, which
        includes the spread of their images (`curve_reading`). The intervals of random circuits, and of circuits of
        other classes, also resample these circuits.

        Args:
            measure: One of the `CURVE_MEASURES`.

        Returns:
            A table with the columns class, domain, circuit, measure, value, low, high, fraction, n_units, weights,
            ranking, n_images and reason. The circuit is ``kept``, ``complement``, ``random`` or ``foreign``; for the
            measures right and false also ``empty`` and ``full``. Low and high are NaN if a single class has only one
            image, or only one image of other classes. Values are NaN if there is a reason.
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
        """Return all measures at one size, as a dictionary from a measure to a dictionary from a circuit to a value.

        Args:
            place: The index of the size. The circuits are named as in `to_pandas`, for example ``kept``.
        """
        at_size = dict[str, dict[str, float]]()
        for measure, reading in self._readings.items():
            values = reading.values()
            at_size[measure] = {name: float(values[name][place]) for name in values}
        return at_size

    def ahead_of_foreign(self, place: int) -> Float[np.ndarray, " 3"]:
        """Return the "kl recovered" of a circuit minus the mean "kl recovered" of circuits of other classes.

        Args:
            place: The index of the size of the circuits.

        Returns:
            An array with the difference, and the low and the high end of its interval.
        """
        reading = self._readings["kl recovered"]

        # Both circuits are measured on the same images, so their difference is resampled, and not each value by itself.
        def ahead(weights: Weights) -> dict[str, np.ndarray]:
            ratios = reading.ratios(weights)
            return {"ahead": ratios["kept"] - ratios["foreign"]}

        return np.asarray(reading.intervals(ahead)["ahead"][:, place])

    def reason(self, measure: str) -> str:
        """Return the reason why a measure is not known; an empty text if the measure is known."""
        return self._readings[measure].reason

    @property
    def leak(self) -> float:
        """The contrast with every unit ablated, divided by the contrast of the whole model.

        The contrast is the mean metric on images of the class minus the mean metric on images of other classes. The
        share is NaN if the whole model has no contrast. If the share is large, the metric depends on something that no
        circuit contains.
        """
        images = self._readings["selectivity"].weights[0][0]
        full = images @ self.full[0]
        empty = images @ self.empty[0]
        # A contrast below this bound is rounding error, so no share of it is known.
        rounding = 1e-6 * np.abs(images) @ np.abs(self.full[0])
        return float(empty / full) if full > rounding else float("nan")

    def areas(self) -> pd.DataFrame:
        """Return the areas CPR and CMD of the circuits, and of random units.

        CPR is the area under the faithfulness as a function of size. CMD is the area under ``|1 - faithfulness|``. Both
        are computed by the trapezoidal rule (MIB benchmark, arXiv 2504.13151). With the ten sizes of MIB, a
        faithfulness of 1 everywhere gives a CPR of 0.999. MIB ranks units by signed score for CPR and by absolute score
        for CMD.

        Returns:
            A table with the columns class, domain, circuit, measure, value, low, high, ranking, n_images and reason.
        """
        reading = self._readings["faithfulness"]
        sizes = np.asarray(self.sizes)

        def areas(weights: Weights) -> dict[str, np.ndarray]:
            ratios = reading.ratios(weights)
            of_circuits = dict[str, np.ndarray]()
            # MIB computes areas of the circuit itself. Areas of random circuits show the chance level.
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
        """Write the curve as safetensors with a JSON header. The file is written whole or not at all."""
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
                header[name] = tuple(header[name])  # JSON has no tuples
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
        """Return a table of intervals, with a row for each circuit and each entry of the columns.

        Args:
            intervals: Arrays [value, low, high] by name of the circuit.
            columns: Further columns, such as the measure.
            reason: The reason why there are no values; empty if there are values.
        """
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
"""The runs of a curve. All except the first two are made for each size."""
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
    """Return one curve over the images of several curves.

    Each image keeps the numbers that were measured with the circuit and the metric of its own class. Measures that are
    ratios are computed from means over classes. So a class in which the model is hardly better than the baseline cannot
    dominate. Intervals come from resampling classes. If the curves have different numbers of circuits of other classes
    (``foreign``), the pooled curve has the smallest of these numbers.

    Raises:
        InputError: if the sizes, rankings, numbers or settings of the curves differ, or a curve is given twice.

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
    # Two curves of one class in two domains are two groups, because each curve has its own circuit.
    n_images = [len(curve.own) for curve in curves]
    together["group"] = np.repeat(np.arange(len(curves)), n_images)
    together["weights"] = ()
    for name in ("class_name", "domain"):
        if len({getattr(curve, name) for curve in curves}) > 1:
            together[name] = None
    return replace(curves[0], **together)


def curves_by_domain(
    curves: Annotated[Sequence[FaithfulnessCurve], SOME], measure: str = "faithfulness"
) -> pd.DataFrame:
    """Return the values of a measure for each domain, in which the curves of all classes are pooled (`pool_curves`).

    Args:
        curves: Curves with the same ranking.
        measure: One of the `CURVE_MEASURES`.

    Returns:
        A table with the columns of `FaithfulnessCurve.to_pandas`, and after the domain the column ``sites``: ``all``,
        or the single site that was ablated.

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
    """Return the areas CPR and CMD of each domain, in which the curves of all classes are pooled (`pool_curves`).

    Each area is computed from the curves with the ranking that MIB uses for it (`RANKING_OF`). If a domain has no curve
    with this ranking, the area is left out.

    Returns:
        A table with the columns domain, ranking, measure (``CPR``, ``CMD``), circuit (``kept``, ``random``), value, low
        and high.
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

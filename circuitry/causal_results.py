"""What causal checks leave behind: plain arrays and tables. No torch, no model.

1. `PatchEffects`: the exact effect of patching each unit, site or position;
2. `FaithfulnessCurve`: the metric of every image with circuits of growing size kept, and what is read off it;
3. `transfer_matrix`, `transfer_against_similarity`: what a table of transfer says about pairs of domains.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from circuitry.errors import InputError

PATCHED_BY = ("unit", "site", "position")
DIRECTIONS = ("noise", "denoise")
RANKINGS = ("absolute", "signed")


@dataclass(frozen=True, eq=False)
class PatchEffects:
    """Exact effects on the metric of moving one thing from its clean activation to its source.

    The sign is that of `AttributionGraph.node_scores`: negative means that the thing helps the metric.
    """

    sites: tuple[str, ...]
    """Sites in order."""
    scores: dict[str, np.ndarray]
    """Mean effect over images by site: [units], [] for whole sites, or [height, width] or [tokens] for positions.
    NaN for units that were not asked for."""
    by: str
    """One of `PATCHED_BY`."""
    direction: str
    """``noise``: the clean run with the source written in; ``denoise``: the source's run with the clean
    activation written back, effect = metric(source) - metric(written back)."""
    clean_metric: float
    """Mean metric of the clean images."""
    source_metric: dict[str, float]
    """Mean metric with the whole site at the source."""
    n_images: int
    settings: dict[str, Any] = field(default_factory=dict)
    """What was computed: source."""

    def table(self) -> pd.DataFrame:
        """Return the effects as a tidy table: site, index (unit or position, row by row), value."""
        parts = [
            pd.DataFrame({"site": site, "index": np.arange(scores.size), "value": scores.reshape(-1)})
            for site, scores in self.scores.items()
        ]
        return pd.concat(parts, ignore_index=True).dropna(subset="value", ignore_index=True)


def faithfulness_ratio(kept: float, full: float, empty: float) -> tuple[float, str]:
    """Return (m(C) - m(nothing kept)) / (m(M) - m(nothing kept)), or NaN and the reason why there is none.

    All three are metrics averaged over the images (method.md, section 6).
    """
    if full - empty <= 1e-6 * max(abs(full), abs(empty)):
        return float("nan"), f"the model does no better than the baseline: {full:.4g} against {empty:.4g}"
    return (kept - empty) / (full - empty), ""


@dataclass(frozen=True, eq=False)
class FaithfulnessCurve:
    """The metric of every image with circuits of growing size kept; the circuits are nested.

    The metrics are kept image by image, so that intervals come from resampling images.
    """

    fractions: tuple[float, ...]
    """Share of the units kept at every site, ascending."""
    ranking: str
    """Which units come first: ``absolute``: the largest |score| (MIB's choice for CMD); ``signed``: those whose
    removal lowers the metric most (MIB's choice for CPR)."""
    n_units: tuple[int, ...]
    """Units kept over all sites, by fraction."""
    full: Float[np.ndarray, " images"]
    empty: Float[np.ndarray, " images"]
    kept: Float[np.ndarray, "fractions images"]
    """Metric with only the circuit."""
    complement: Float[np.ndarray, "fractions images"]
    """Metric with all but the circuit."""
    random: Float[np.ndarray, "draws fractions images"]
    """Metric with random units, as many at every site as the circuit has."""
    class_name: str | None = None
    domain: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why there is no faithfulness; empty where there is."""
        return faithfulness_ratio(0.0, float(self.full.mean()), float(self.empty.mean()))[1]

    @property
    def faithfulness(self) -> Float[np.ndarray, " fractions"]:
        """1 is the whole model, 0 the baseline."""
        kept: np.ndarray = self._ratios(*self._weights())["kept"][0]
        return kept

    @property
    def completeness(self) -> Float[np.ndarray, " fractions"]:
        """Faithfulness of the complement: near 0 when the circuit holds all that matters."""
        complement: np.ndarray = self._ratios(*self._weights())["complement"][0]
        return complement

    def table(self, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
        """Return the curves of the circuit, its complement and random units, with bootstrap bands over images.

        Columns class, domain, circuit (``kept``, ``complement``, ``random``), ranking, fraction, n_units, value, low,
        high, n_images, reason. Bands of random units resample the draws too. A band is NaN for a single image, and
        where the lead of the model over the baseline is within the noise.
        """
        found = self._intervals(self._ratios, confidence, resamples, seed)
        return self._tidy(found, {"fraction": self.fractions, "n_units": self.n_units})

    def areas(self, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
        """Return CPR (area under faithfulness) and CMD (area of |1 - faithfulness|) of circuit and random units.

        Trapezoid over the fractions (MIB, arXiv 2504.13151): with its ten, faithfulness 1 everywhere gives CPR 0.999.
        MIB ranks by signed score for CPR and by absolute score for CMD. Columns class, domain, circuit, ranking,
        measure, value, low, high, n_images, reason.
        """

        def areas(images: np.ndarray, draws: np.ndarray) -> dict[str, np.ndarray]:
            x, ratios = np.asarray(self.fractions), self._ratios(images, draws)
            both = {name: (f, np.abs(1 - f)) for name, f in ratios.items() if name != "complement"}
            return {name: np.stack([np.trapezoid(y, x) for y in ys], -1) for name, ys in both.items()}

        return self._tidy(self._intervals(areas, confidence, resamples, seed), {"measure": ("CPR", "CMD")})

    def _weights(self, resamples: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Weights [resample, image] and [resample, draw]: bootstrap resamples, or once all alike for 0 of them."""
        rng, sizes = np.random.default_rng(seed), (len(self.full), len(self.random))
        uniform = [np.full(n, 1 / max(n, 1)) for n in sizes]
        if not resamples:
            return uniform[0][None], uniform[1][None]
        images, draws = (
            rng.multinomial(n, p, resamples) / n if n else np.zeros((resamples, 0))
            for n, p in zip(sizes, uniform, strict=True)
        )
        return images, draws

    def _ratios(self, images: np.ndarray, draws: np.ndarray) -> dict[str, np.ndarray]:
        """Faithfulness [resample, fraction] with images and draws so weighted; NaN where there is no lead."""
        full, empty = images @ self.full, images @ self.empty
        lead = np.where(full - empty > 1e-6 * np.maximum(np.abs(full), np.abs(empty)), full - empty, np.nan)
        found = {"kept": images @ self.kept.T, "complement": images @ self.complement.T}
        if len(self.random):
            found["random"] = np.einsum("dfi,ri,rd->rf", self.random, images, draws, optimize=True)
        return {name: (value - empty[:, None]) / lead[:, None] for name, value in found.items()}

    def _intervals(
        self,
        statistic: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
        confidence: float,
        resamples: int,
        seed: int,
    ) -> dict[str, np.ndarray]:
        """Return [value, low, high] of a statistic by circuit: percentiles of the bootstrap."""
        if not 0 < confidence < 1 or resamples < 1:
            raise InputError(
                "A band needs a confidence in (0, 1) and at least one resample, but "
                f"confidence={confidence} and resamples={resamples} were given."
            )
        values = statistic(*self._weights())
        tails = 50 * (1 - confidence), 50 * (1 + confidence)
        bands: dict[str, np.ndarray] = {}
        for name, found in statistic(*self._weights(resamples, seed)).items():
            without = np.isnan(found).mean(0)
            # Where more than a tail of the resamples has no lead, the ratio has no bounded interval.
            usable = (without < (1 - confidence) / 2) & (len(self.full) > 1)
            ends = np.nanpercentile(found, tails, axis=0) if usable.any() else np.full((2, *usable.shape), np.nan)
            bands[name] = np.where(usable, ends, np.nan)
        return {name: np.concatenate([values[name], bands[name]]) for name in values}

    def _tidy(self, found: dict[str, np.ndarray], columns: dict[str, Any]) -> pd.DataFrame:
        names = ("value", "low", "high")
        parts = [
            pd.DataFrame({"circuit": circuit, **columns, **dict(zip(names, values, strict=True))})
            for circuit, values in found.items()
        ]
        table = pd.concat(parts, ignore_index=True)
        table.insert(0, "class", self.class_name)
        table.insert(1, "domain", self.domain)
        table.insert(3, "ranking", self.ranking)
        return table.assign(n_images=len(self.full), reason=self.reason)


def transfer_matrix(table: pd.DataFrame, value: str = "faithfulness") -> pd.DataFrame:
    """Return the mean over classes of a transfer table: a row per circuit's domain, a column per images' domain.

    Args:
        table: From `transfer.transfer_circuits` or `transfer.interchange`.
        value: The column to average; classes where it is NaN are left out of their cell.

    Raises:
        InputError: when the table has no such column.
    """
    if value not in table.columns or not pd.api.types.is_numeric_dtype(table[value]):
        numeric = [c for c in table.columns if pd.api.types.is_numeric_dtype(table[c])]
        raise InputError(f"The table has no numbers under {value!r}; choose one of {', '.join(numeric)}.")
    domains = sorted({*table["circuit_domain"], *table["image_domain"]})
    means = table.groupby(["circuit_domain", "image_domain"])[value].mean().unstack()
    return means.reindex(index=domains, columns=domains).rename_axis(index="circuit of", columns="images of")


def transfer_against_similarity(matrix: pd.DataFrame, similarity: pd.DataFrame) -> tuple[float, float, pd.DataFrame]:
    """Return Spearman's rank correlation of transfer with structural similarity over pairs of domains.

    Similarity has no direction, so transfer is averaged over both of a pair.

    Args:
        matrix: From `transfer_matrix`.
        similarity: From `graph_similarity.domain_matrix`.

    Returns:
        The correlation, its p value, and the points: domain_a, domain_b, similarity, transfer. Correlation and p
        are NaN for fewer than three pairs, or when one of the two is constant.

    Raises:
        InputError: when the matrices have different domains.
    """
    if set(matrix.index) != set(similarity.index):
        raise InputError(
            f"Transfer and similarity need the same domains, but are of {', '.join(sorted(matrix.index))} and of "
            f"{', '.join(sorted(similarity.index))}."
        )
    rows = [
        (a, b, similarity.loc[a, b], (matrix.loc[a, b] + matrix.loc[b, a]) / 2)
        for a, b in combinations(sorted(matrix.index), 2)
    ]
    points = pd.DataFrame(rows, columns=["domain_a", "domain_b", "similarity", "transfer"])
    known = points[["similarity", "transfer"]].dropna()
    if len(known) < 3 or known.nunique().min() < 2:
        return float("nan"), float("nan"), points
    found = stats.spearmanr(known["similarity"], known["transfer"])
    return float(found.statistic), float(found.pvalue), points

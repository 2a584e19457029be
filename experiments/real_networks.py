"""Do real networks agree on which styles share the own part of a class?

For each network the script finds and tests the own part of every class in every style (`OwnParts`; finished parts are
read), and classifies all images. Then it asks, with the class as the unit and over pairs of styles:

1. accuracy: which styles does the network recognise?
2. left: how many right answers does a class keep in each style without the part that another style found? They are set
   beside the answers without random units, and without the parts of other classes.
3. overlap: do parts of one class in two styles share more units than parts of two classes in one style?
4. depth: in which stages do the units of parts lie, and in which do two parts share their units?
5. agreement: do two networks order the pairs of styles alike, by the overlap of parts of one class and by the answers
   that are left? The same is asked of parts of two classes, which no shared class explains, and of colours of images.

The claim that a part belongs to its class would be refuted if parts of two classes in one style shared as much. The
claim that networks agree on styles would be refuted if parts of two classes, or colours, gave the same order. Networks
of one family can show little.

    python -m experiments.real_networks --results experiments/results/real_networks
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, permutations, product
from pathlib import Path
from typing import Any

from circuitry.runs import Work, run_script, versions
from circuitry.comparison import (
    domain_matrix,
    lesion_summary,
    mantel,
    mean_interval,
    overlap_summary,
    style_verdicts,
)
from circuitry.comparison.lesion_reading import OWN
from circuitry.comparison.overlap_reading import IN_COMMON
from circuitry.data import SmallTables, load_image
from circuitry.interventions import OwnPartSettings
from circuitry.models import ModelOptions
from circuitry.questions import OwnParts
from circuitry.reports import Report, write_results
from circuitry.reports.page import Written
from circuitry.reports.result_tables import listings_of_records
from circuitry.training.evaluation import zero_shot_predictions

import numpy as np
import pandas as pd

CLASSES = (
    "banana baseball bucket candle cup electric_guitar grasshopper lizard parachute racket shovel soccer_ball syringe "
    "teddy trash_can"
)
"""Classes that EfficientNet-Lite0 recognises in three or four of four drawn styles, by the data set's own table."""
LEVELS = (2, 3, 4, 8, 16)
"""Levels of each of red, green and blue in a histogram of colours."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the networks, the images and the parts."""

    models: tuple[str, ...] = (
        "efficientnet-lite0",
        "efficientnet-lite1",
        "efficientnet-lite2",
    )
    """Names of the networks, as circuitry own-parts takes them."""
    checkpoint: Path | None = None
    """File of weights, for one network that does not come with weights."""
    data: Path = Path("RealStyles")
    """Folder of the images."""
    split: str | None = "test"
    """Name of the lists of DomainNet to use; ignored if the folder has no lists."""
    classes: tuple[str, ...] = tuple(CLASSES.split())
    """Classes whose parts are found; accuracy is of all classes."""
    domains: tuple[str, ...] = ("photo", "clipart", "noto", "fluent3d", "openmoji")
    """Styles in which parts are found; accuracy is of all styles."""
    share: float = 0.02
    """Share of the units that parts have."""
    out: Path = Path("runs/real_networks")
    """Folder of the parts, by network, and of the report."""
    results: SmallTables = None


def main(config: Config) -> Written:
    """Find and test the parts of each network, compare the networks, and write the tables."""
    runs = list[OwnParts]()
    by_name = defaultdict[str, list[pd.DataFrame]](list)
    digests = dict[str, str]()
    for model in config.models:
        run, of_model = network(config, model)
        runs.append(run)
        digests[model] = run.clip.digest
        for name, table in of_model.items():
            by_name[name].append(table)
    tables = {name: pd.concat(parts) for name, parts in by_name.items()}
    tables["agreement"] = agreement(tables["pairs"])
    # All networks saw the same images, so the first one's listing is that of all.
    first = runs[0]
    records = chain.from_iterable(first.found_on.values())
    models = {"model": list(config.models), "model_digest": digests}
    facts = first.provenance | models | versions()
    report = Report(
        "Do real networks agree on which styles share the own part of a class?",
        "See the tables.",
    )
    listings = listings_of_records(records)
    return write_results(
        report, tables, config.out, config.results, facts, listings=listings
    )


def network(config: Config, model: str) -> tuple[OwnParts, dict[str, pd.DataFrame]]:
    """Find and test the parts of one network, and return them with its tables."""
    options = ModelOptions(
        model=model, checkpoint=config.checkpoint, data=config.data, split=config.split
    )
    # Accuracy is among all classes of the data, parts are of some.
    seen = zero_shot_predictions(options.clip(), options.images())
    seen = seen.query("classifier == 'all templates'")
    chosen = replace(options, classes=config.classes, domains=config.domains)
    settings = OwnPartSettings(shares=(config.share,))
    clip = chosen.clip(components=True)
    run = OwnParts(clip, chosen.images(), config.out / model, settings)
    lesions, overlaps = run.run(Work(progress=True)).values()
    run.save_circuits()
    tables = {
        "accuracy": accuracy(seen),
        "left": lesion_summary(lesions),
        "overlap": overlap_summary(overlaps),
        "verdicts": style_verdicts(lesions, overlaps),
        "depth": depth(run),
        "pairs": pairs_of_styles(lesions, overlaps).merge(colours(run)),
    }
    for table in tables.values():
        table.insert(0, "model", model)
    return run, tables


def accuracy(seen: pd.DataFrame) -> pd.DataFrame:
    """Return the share of right answers among all classes by domain, with the mean and interval over classes."""
    right = seen.assign(right=seen["rank"] == 1).astype({"class": str, "domain": str})
    rows = list[dict[str, Any]]()
    for domain, images in right.groupby("domain"):
        by_class = images.groupby("class")["right"].mean()
        value, low, high = mean_interval(by_class.to_numpy(dtype=float))
        # Student's interval may leave the range of shares.
        rows.append(
            {
                "domain": domain,
                "value": value,
                "low": max(low, 0.0),
                "high": min(high, 1.0),
                "n_classes": len(by_class),
                "n_images": len(images),
                "n_right": images["right"].sum(),
            }
        )
    return pd.DataFrame(rows)


def depth(run: OwnParts) -> pd.DataFrame:
    """Return, for each kind of pairs of parts and stage, the share of units in the stage and the overlap there."""
    counts = defaultdict[tuple[str, str], list[int]](lambda: [0, 0])
    for (a, first), (b, second) in combinations(run.circuits().items(), 2):
        for site, units in first.units.items():
            kind = IN_COMMON[a[0] == b[0], a[1] != b[1]]
            stage = ".".join(site.split(".")[:2])
            # Units of the two parts together, and the common ones, summed over pairs of parts.
            counts[kind, stage][0] += len(units) + len(second.units[site])
            counts[kind, stage][1] += len(np.intersect1d(units, second.units[site]))
    columns = ["parts", "stage", "units", "shared"]
    rows = [(*key, *numbers) for key, numbers in counts.items()]
    table = pd.DataFrame(rows, columns=columns)
    of_parts = table["units"] / table.groupby("parts")["units"].transform("sum")
    # The Jaccard index: the union is both numbers of units less the common ones.
    overlap = table["shared"] / (table["units"] - table["shared"])
    return table.assign(of_parts=of_parts, overlap=overlap)


def pairs_of_styles(lesions: pd.DataFrame, overlaps: pd.DataFrame) -> pd.DataFrame:
    """Return the overlaps of parts and the right answers that are left without the part of the other style.

    Each pair of styles has a row.
    """
    keys = ["answers", "cut", "part_domain", "domain"]
    left = lesion_summary(lesions).set_index(keys)["value"]
    left = left.sort_index()[OWN, "part"]
    rows = list[dict[str, Any]]()
    for (a, b), both in overlaps.groupby(["domain_a", "domain_b"]):
        if a == b:
            continue
        one_class = both["class_a"] == both["class_b"]
        rows.append(
            {
                "domain_a": a,
                "domain_b": b,
                "one class": both.loc[one_class, "overlap"].mean(),
                # A class may have a row for each half of its images.
                "n_classes": both.loc[one_class, "class_a"].nunique(),
                "two classes": both.loc[~one_class, "overlap"].mean(),
                # The part of either style is cut on the images of the other one.
                "left": left.reindex([(a, b), (b, a)]).mean(),
            }
        )
    return pd.DataFrame(rows)


def colours(run: OwnParts) -> pd.DataFrame:
    """Return how much of their colours the images of two styles have in common.

    The images are those used to find parts. Each pair of styles has a row, and each number of levels a column.
    """
    paths: dict[str, list[Path]] = {domain: [] for domain in run.images.domains}
    for (_, domain), records in run.found_on.items():
        paths[domain] += [record.path for record in records]
    tables = {levels: colours_in_common(paths, levels) for levels in LEVELS}
    rows = list[dict[str, Any]]()
    # Both orders of a pair, since the table that this is merged with has one of them.
    for a, b in permutations(paths, 2):
        row: dict[str, Any] = {"domain_a": a, "domain_b": b}
        for levels, in_common in tables.items():
            row[f"colours, {levels} levels"] = in_common.loc[a, b]
        rows.append(row)
    return pd.DataFrame(rows)


def colours_in_common(
    pictures: Mapping[str, Sequence[Path]], levels: int
) -> pd.DataFrame:
    """Return the intersection of the mean histograms of colours for every two sets of pictures.

    Args:
        pictures: Files by the name of the set.
        levels: Levels of each of red, green and blue.

    Returns:
        A symmetric table of the sorted names.
    """
    means = list[np.ndarray]()
    names = sorted(pictures)
    for name in names:
        histograms = list[np.ndarray]()
        for path in pictures[name]:
            pixels = np.asarray(load_image(path), int).reshape(-1, 3)
            # One number for each colour: its levels of red, green and blue are the digits.
            colours = (pixels * levels // 256) @ (1, levels, levels**2)
            counts = np.bincount(colours, minlength=levels**3)
            histograms.append(counts / len(pixels))
        means.append(np.mean(histograms, axis=0))
    in_common = list[list[float]]()
    for mean in means:
        in_common.append([np.minimum(mean, other).sum() for other in means])
    return pd.DataFrame(in_common, names, names)


def agreement(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return rank correlations over pairs of styles.

    Two networks are correlated by each measure. Within each network the measures are correlated with the overlap of
    parts of two classes, and with colours.
    """
    measured = ("one class", "two classes", "left")
    causes = ["two classes", *pairs.filter(regex="^colours")]
    by_model = dict(list(pairs.groupby("model")))
    models = pairs["model"].unique()
    asked = list[tuple[str, str, str, str]]()
    for what in measured:
        for a, b in combinations(models, 2):
            asked.append((a, what, b, what))
    for model in models:
        for what, cause in product(("one class", "left"), causes):
            asked.append((model, what, model, cause))
    rows = list[dict[str, Any]]()
    for model, what, other_model, other in asked:
        first = square(by_model[model], what)
        second = square(by_model[other_model], other)
        rho, p = mantel(first.to_numpy(), second.to_numpy())
        # A matrix has each pair of styles twice.
        n_pairs = int((first.notna() & second.notna()).to_numpy().sum() / 2)
        rows.append(
            {
                "model": model,
                "what": what,
                "with_model": other_model,
                "with": other,
                "rho": rho,
                "p": p,
                "n_pairs": n_pairs,
            }
        )
    return pd.DataFrame(rows)


def square(pairs: pd.DataFrame, value: str = "overlap") -> pd.DataFrame:
    """Return a symmetric matrix of the styles from a table of their pairs."""
    return domain_matrix(
        pairs.rename(columns={value: "value"}).assign(site=None, **{"class": ""})
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)

"""Do real networks agree on which styles share the own part of a class?

For each network it finds and tests the own part of every class in every style (`OwnParts`; what is finished is read),
and it classifies all images. Then it asks, with the class as the unit and over pairs of styles:

1. accuracy: which styles does the network recognise?
2. left: what does a class keep in each style without the part that another style found, beside random units and beside
   the parts of other classes?
3. overlap: do parts of one class in two styles share more units than parts of two classes in one style?
4. depth: in which stages do they lie, and share their units?
5. agreement: do two networks order the pairs of styles alike, by the overlap of parts of one class and by what is left?
   The same is asked of parts of two classes, which know of no class, and of the colours of the images.

That parts are the class's would be refuted by parts of two classes in one style that share as much. That networks agree
on styles would be refuted by an order that parts of two classes, or colours, give as well. Networks of one family can
show little.

    python -m experiments.real_networks --results experiments/results/real_networks
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
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
from circuitry.comparison.lesion_reading import IN_COMMON, OWN
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
    """Networks, images and parts."""

    models: tuple[str, ...] = (
        "efficientnet-lite0",
        "efficientnet-lite1",
        "efficientnet-lite2",
    )
    """Networks, as circuitry own-parts takes them."""
    checkpoint: Path | None = None
    """Weights of one network that brings none."""
    data: Path = Path("RealStyles")
    """Folder of the images."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, where there are lists."""
    classes: tuple[str, ...] = tuple(CLASSES.split())
    """Classes with parts; accuracy is of all."""
    domains: tuple[str, ...] = ("photo", "clipart", "noto", "fluent3d", "openmoji")
    """Styles with parts; accuracy is of all."""
    share: float = 0.02
    """Share of the units that parts have."""
    out: Path = Path("runs/real_networks")
    """Folder of the parts, by network, and of the report."""
    results: SmallTables = None


def main(config: Config) -> Written:
    """Read each network, then their agreement; write the tables."""
    runs = {model: network(config, model) for model in config.models}
    tables = {
        name: pd.concat([found[name] for _, found in runs.values()])
        for name in next(iter(runs.values()))[1]
    }
    tables["agreement"] = agreement(tables["pairs"])
    digests = {model: run.clip.digest for model, (run, _) in runs.items()}
    shown, _ = next(iter(runs.values()))
    records = (record for of_cell in shown.found_on.values() for record in of_cell)
    facts = (
        shown.provenance
        | {"model": list(config.models), "model_digest": digests}
        | versions()
    )
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
    seen = zero_shot_predictions(options.clip(), options.images()).query(
        "classifier == 'all templates'"
    )
    chosen = replace(options, classes=config.classes, domains=config.domains)
    settings = OwnPartSettings(shares=(config.share,))
    run = OwnParts(
        chosen.clip(parts=True), chosen.images(), config.out / model, settings
    )
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
    """Return by domain the share of right images among all classes: mean and interval over classes."""
    right = seen.assign(right=seen["rank"] == 1).astype({"class": str, "domain": str})
    rows = list[dict[str, Any]]()
    for domain, images in right.groupby("domain"):
        by_class = images.groupby("class")["right"].mean()
        value, low, high = mean_interval(by_class.to_numpy(dtype=float))
        sizes = {
            "n_classes": len(by_class),
            "n_images": len(images),
            "n_right": images["right"].sum(),
        }
        rows.append(
            {
                "domain": domain,
                "value": value,
                "low": max(low, 0.0),
                "high": min(high, 1.0),
                **sizes,
            }
        )
    return pd.DataFrame(rows)


def depth(run: OwnParts) -> pd.DataFrame:
    """Return by stage of the network its share of the units of parts, and what two parts share of their units there."""
    counts = defaultdict[tuple[str, str], list[int]](lambda: [0, 0])
    for (a, first), (b, second) in combinations(run.circuits().items(), 2):
        for site, units in first.units.items():
            kind = IN_COMMON[a[0] == b[0], a[1] != b[1]]
            stage = ".".join(site.split(".")[:2])
            counts[kind, stage][0] += len(units) + len(second.units[site])
            counts[kind, stage][1] += len(np.intersect1d(units, second.units[site]))
    columns = ["parts", "stage", "units", "shared"]
    rows = pd.DataFrame(
        [(*key, *found) for key, found in counts.items()], columns=columns
    )
    of_parts = rows["units"] / rows.groupby("parts")["units"].transform("sum")
    return rows.assign(
        of_parts=of_parts, overlap=rows["shared"] / (rows["units"] - rows["shared"])
    )


def pairs_of_styles(lesions: pd.DataFrame, overlaps: pd.DataFrame) -> pd.DataFrame:
    """Return by pair of styles the overlaps of parts, and what is left of a class without the other style's part."""
    left = lesion_summary(lesions).set_index(
        ["answers", "cut", "part_domain", "domain"]
    )["value"]
    left = left.sort_index()[OWN, "part"]
    rows = list[dict[str, Any]]()
    for (a, b), both in overlaps.groupby(["domain_a", "domain_b"]):
        if a == b:
            continue
        same = both["class_a"] == both["class_b"]
        named = {
            "domain_a": a,
            "domain_b": b,
            "one class": both.loc[same, "overlap"].mean(),
            "n_classes": same.sum(),
        }
        moved = left.reindex([(a, b), (b, a)]).mean()
        rows.append(
            named | {"two classes": both.loc[~same, "overlap"].mean(), "left": moved}
        )
    return pd.DataFrame(rows)


def colours(run: OwnParts) -> pd.DataFrame:
    """Return by pair of styles what the colours of the images that found parts have in common, by number of levels."""
    domains = run.images.domains
    paths = {
        d: [r.path for (_, of), some in run.found_on.items() if of == d for r in some]
        for d in domains
    }
    tables = {levels: colours_in_common(paths, levels) for levels in LEVELS}
    rows = [
        {
            "domain_a": a,
            "domain_b": b,
            **{f"colours, {n} levels": found.loc[a, b] for n, found in tables.items()},
        }
        for pair in combinations(domains, 2)
        for a, b in (pair, pair[::-1])  # the order of the overlaps is theirs
    ]
    return pd.DataFrame(rows)


def colours_in_common(
    pictures: Mapping[str, Sequence[Path]], levels: int
) -> pd.DataFrame:
    """Return what the mean histograms of colours of every two sets of pictures have in common, by sorted names."""
    means = list[np.ndarray]()
    names = sorted(pictures)
    for name in names:
        pixels = (
            np.asarray(load_image(path), int).reshape(-1, 3) for path in pictures[name]
        )
        colours = (
            (of_one * levels // 256) @ (1, levels, levels**2) for of_one in pixels
        )
        means.append(
            np.mean(
                [
                    np.bincount(some, minlength=levels**3) / len(some)
                    for some in colours
                ],
                axis=0,
            )
        )
    return pd.DataFrame(
        [[np.minimum(a, b).sum() for b in means] for a in means], names, names
    )


def agreement(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return rank correlations over pairs of styles: of two networks, within each with colours and other classes."""
    measured = ("one class", "two classes", "left")
    causes = (
        "two classes",
        *(name for name in map(str, pairs) if name.startswith("colours")),
    )
    tables = {
        (m, what): square(own, what)
        for m, own in pairs.groupby("model")
        for what in (*measured, *causes)
    }
    models = list(dict.fromkeys(pairs["model"]))
    asked = [
        ((a, what), (b, what)) for what in measured for a, b in combinations(models, 2)
    ]
    asked += [
        ((m, what), (m, cause))
        for m in models
        for what in ("one class", "left")
        for cause in causes
    ]
    rows = list[dict[str, Any]]()
    for first, second in asked:
        rho, p = mantel(tables[first].to_numpy(), tables[second].to_numpy())
        n = int((tables[first].notna() & tables[second].notna()).to_numpy().sum() / 2)
        named = {
            "model": first[0],
            "what": first[1],
            "with_model": second[0],
            "with": second[1],
        }
        rows.append(named | {"rho": rho, "p": p, "n_pairs": n})
    return pd.DataFrame(rows)


def square(pairs: pd.DataFrame, value: str = "overlap") -> pd.DataFrame:
    """Return a symmetric matrix of the styles from a table of their pairs."""
    return domain_matrix(
        pairs.rename(columns={value: "value"}).assign(site=None, **{"class": ""})
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)

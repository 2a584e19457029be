"""The page on feature sharing: how much domains share, and which features, with their top images."""

from collections.abc import Mapping, Sequence

from circuitry.runs import InputError
from circuitry.comparison import Comparison
from circuitry.data import DomainFolder, load_image
from circuitry.reports import Finding, Report, contact_sheet
from circuitry.reports.figures import Mark
from circuitry.reports.sections.compared import add_comparison
from circuitry.reports.sections.findings import class_or_domain, how_much_shared, which_differs
from circuitry.representations import ImageFeatures
from circuitry.representations.features import WEAK_COSINE, WEAK_LEAD
from experiments.study.feature_tables import (
    feature_frequency,
    feature_summary,
    images_of_feature,
    least_shared,
    most_shared,
)

import pandas as pd

_SHOWN = 8
"""Features in each of the two tables."""
PER_CELL = 3
"""Images of each feature and domain."""


def feature_table(features: ImageFeatures, names: pd.DataFrame) -> pd.DataFrame:
    """Return every feature in some top 20: its name, how far it is shared, its frequency in each domain."""
    table = names.merge(feature_summary(features), on="feature", validate="one_to_one")
    return table.merge(feature_frequency(features), left_on="feature", right_index=True)


def sharing_findings(comparison: Comparison) -> list[Finding | None]:
    """Answer whether domains share features: how much, which least, and whether the class or the domain counts."""
    return [how_much_shared(comparison, "features"), which_differs(comparison), class_or_domain(comparison)]


def add_sharing(report: Report, comparison: Comparison, marks: Mapping[str, Mark]) -> None:
    """Add the section on how much domains share, from `compare_features`."""
    report.section("How many features do domains share?")
    report.text(
        "Each image has its 20 strongest features. For a class in a domain, features are ranked by how many of its "
        "images have them. Feature sharing of two domains is the share of their first k features that are equal, "
        "averaged over k = 5, 10, 15, 20 and over classes."
    )
    add_comparison(report, comparison, marks, title="Shared features")


def add_features(
    report: Report,
    features: ImageFeatures,
    table: pd.DataFrame,
    images: DomainFolder,
    chosen: Sequence[int] | None = None,
) -> None:
    """Add the sections that show features: their names, their frequency in each domain, their top images.

    Args:
        report: The report.
        features: From `image_features`.
        table: From `feature_table`.
        images: Where the image files are.
        chosen: Features to show (default: the most and the least shared ones).

    Raises:
        InputError: for a feature that is in no top 20.
    """
    enough = len(features.domains)  # features in fewer tops than there are domains say little either way
    groups = {
        "Features that domains share": most_shared(table, _SHOWN, min_tops=enough),
        "Features that domains do not share": least_shared(table, _SHOWN, min_tops=enough),
    }
    if chosen is not None:
        groups = {"The chosen features": list(chosen)}
    for heading, group in groups.items():
        report.section(heading)
        if group:
            _add_group(report, features, table, images, group, heading)
        else:
            report.text("There are none.")


def _add_group(
    report: Report,
    features: ImageFeatures,
    table: pd.DataFrame,
    images: DomainFolder,
    chosen: list[int],
    heading: str,
) -> None:
    known = table.set_index("feature")
    if unknown := [feature for feature in chosen if feature not in known.index]:
        raise InputError(
            f"Feature {unknown[0]} is among the first 20 of no class in any domain; choose from the table of features."
        )
    labels, files = _labels(known, chosen), {record.relative: record.path for record in images.records}
    cells = {
        (label, domain): [load_image(files[path]) for path in images_of_feature(features, feature, domain, PER_CELL)]
        for feature, label in labels.items()
        for domain in features.domains
    }
    sheet = contact_sheet(cells, list(labels.values()), list(features.domains), per_cell=PER_CELL)
    report.image(
        sheet,
        "The images of each domain in which a feature is most active; a dash where there are fewer.",
        alt=f"{heading}: top images by feature and domain",
    )
    shares = known.loc[chosen, list(features.domains)]
    numbers = known.loc[chosen, ["shared", "n_classes"]].rename(columns={"n_classes": "classes"})
    both = pd.concat([numbers, shares], axis=1).rename_axis(index=None)
    both.insert(0, "feature", list(labels.values()))
    both[["cosine", "next word"]] = known.loc[chosen, ["cosine", "runner_up"]]
    report.table(
        both.reset_index(drop=True),
        "shared: the chance that another domain has the feature among the first 20 of a class where one domain has it; "
        f"classes: the number of classes that have it among their first 20; then the share of each domain's images "
        f"with it. {int(known.loc[chosen, 'weak'].sum())} of these {len(chosen)} names are weak, with a question mark: "
        f"the cosine of word and feature is below {WEAK_COSINE}, or less than {WEAK_LEAD} above that of the next word.",
        formats={"shared": ".2f", "cosine": ".2f"} | dict.fromkeys(features.domains, ".0%"),
    )


def _labels(known: pd.DataFrame, chosen: Sequence[int]) -> dict[int, str]:
    """Return the name and number of each feature, a weak name with a question mark."""
    rows = known.loc[list(chosen)]
    named = zip(chosen, rows["name"].tolist(), rows["weak"].tolist(), strict=True)
    return {feature: f"{name}{'?' if weak else ''} ({feature})" for feature, name, weak in named}

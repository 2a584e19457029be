"""Figures of representations over depth: CKA of domains, accuracies of probes. No torch."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures.plots import overlap_over_depth
from circuitry.reports.figures.style import GREY, MARKS, Mark
from circuitry.representations.probes import TARGETS
from circuitry.runs.errors import InputError

TARGET_MARKS = dict(zip(TARGETS, MARKS[6:9], strict=True))
"""Marks that few sets of domains reach, so that no target looks like a domain."""


def cka_over_depth(
    domains: pd.DataFrame,
    ceilings: pd.DataFrame | None = None,
    *,
    kernel: str = "linear",
    marks: Mapping[str, Mark] | None = None,
) -> go.Figure:
    """Draw each domain's mean CKA with the other domains over the sites, with its interval as a band.

    Args:
        domains: ``domains`` of `compare_representations`, sites in order.
        ceilings: From `compare_representation_halves`; the mean over domains is drawn dashed.
        kernel: Which of the table's kernels is drawn.
        marks: The look of every domain.

    Raises:
        InputError: for a missing column, or a kernel that the table lacks.
    """
    check_table(domains, "domains", ("site", "domain", "kernel", "null_mean"), key=("site", "domain", "kernel"))
    if kernel not in set(domains["kernel"]):
        raise InputError(f"The domains table has no rows of the kernel {kernel!r}, only of {_listed(domains)}.")
    mine = domains[domains["kernel"] == kernel]
    null = mine.groupby("site", sort=False)["null_mean"].mean().rename("value").reset_index()
    ceiling = None
    if ceilings is not None:
        ceiling = ceilings[ceilings["kernel"] == kernel].groupby("site", sort=False)["value"].mean().reset_index()
    return overlap_over_depth(
        mine,
        list(null["site"]),
        ceiling,
        null,
        measure=f"CKA with the other domains, {kernel} kernel",
        chance_label="permuted classes",
        marks=marks,
    )


def probes_over_depth(sites: pd.DataFrame) -> go.Figure:
    """Draw the balanced accuracy of each target's probe over the sites, with its interval and what guessing reaches.

    Args:
        sites: ``sites`` of `probe_sites`, in order.

    Raises:
        InputError: for a missing column, or two rows for one point.
    """
    check_table(sites, "sites", ("site", "target", "chance"), key=("site", "target"))
    table = sites.rename(columns={"target": "domain"})
    order = list(dict.fromkeys(sites["site"]))
    figure = overlap_over_depth(table, order, measure="balanced accuracy of a linear probe", marks=TARGET_MARKS)
    for chance, targets in sites.groupby("chance")["target"].unique().items():
        guessed = " and ".join(f"the {target}" for target in ("class", "domain") if target in targets)
        figure.add_hline(
            y=float(chance),  # type: ignore[arg-type]
            line={"color": GREY, "dash": "dot", "width": 1.5},
            annotation={"text": f"guessing {guessed}", "font": {"size": 11, "color": GREY}},
            annotation_position="top right",
        )
    return figure


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(table["kernel"]))

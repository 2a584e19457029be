"""Charts of CKA and of linear probes over depth. Drawing computes nothing."""

from circuitry.comparison import check_table
from circuitry.reports.figures import overlap_over_depth, style

import pandas as pd
import plotly.graph_objects as go

TARGET_MARKS = dict(zip(("class", "domain", "class across domains"), style.MARKS[6:9], strict=True))
"""Marks that few sets of domains reach, so that no target looks like a domain."""


def cka_over_depth(
    domains: pd.DataFrame,
    ceilings: pd.DataFrame | None = None,
    *,
    title: str | None = None,
) -> go.Figure:
    """Draw each domain's mean linear CKA with the other domains over the sites, with its interval.

    Args:
        domains: ``domains`` of `compare_representations`, sites in order.
        ceilings: From `cka_ceilings`; the mean over domains is drawn dashed.

    Raises:
        InputError: for a table without the linear kernel.
    """
    kernel = "linear"
    check_table(domains, "domains", ("site", "domain", "kernel", "null_mean"), key=("site", "domain", "kernel"))
    style.need_values(domains, "domains", "kernel", [kernel])
    mine = domains[domains["kernel"] == kernel]
    null = mine.groupby("site", sort=False)["null_mean"].mean().rename("value").reset_index()
    ceiling = None
    if ceilings is not None:
        check_table(ceilings, "ceilings", ("kernel", "site", "value"), key=())
        ceiling = ceilings[ceilings["kernel"] == kernel].groupby("site", sort=False)["value"].mean().reset_index()
    return overlap_over_depth(
        mine,
        list(null["site"]),
        ceiling,
        null,
        measure=f"CKA with the other domains, {kernel} kernel",
        chance_label="permuted classes",
        title=title,
    )


def probes_over_depth(sites: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """Draw the balanced accuracy of each target's probe over the sites, with its interval and what guessing reaches.

    Args:
        sites: ``sites`` of `probe_sites`, in order.
    """
    check_table(sites, "sites", ("site", "target", "chance"), key=("site", "target"))
    table = sites.rename(columns={"target": "domain"})
    order = list(dict.fromkeys(sites["site"]))
    measure = "balanced accuracy of a linear probe"
    figure = overlap_over_depth(table, order, measure=measure, title=title, marks=TARGET_MARKS)
    for chance, targets in sites.groupby("chance")["target"].unique().items():
        guessed = " and ".join(f"the {target}" for target in ("class", "domain") if target in targets)
        figure.add_hline(
            y=float(chance),  # type: ignore[arg-type]
            line={"color": style.GREY, "dash": "dot", "width": 1.5},
            annotation={"text": f"guessing {guessed}", "font": {"size": 11, "color": style.GREY}},
            annotation_position="top right",
        )
    return figure

"""Charts of lines and of points, from finished tables: over the depth of a model, the size of a circuit or a cut."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style
from circuitry.runs.errors import number_of
from circuitry.runs.given import SOME, Names

RANDOM_LINE = {"color": style.GREY, "width": 1.2, "dash": "dot"}

LINES_SHARE = 0.3
"""Share of a site's room on the axis over which its lines are spread, so that intervals do not overlap."""

LABELS_BELOW_EACH_OTHER = 21
"""Labels that fit beside the axis; closer ends of lines are moved."""


def overlap_over_depth(
    depth: pd.DataFrame,
    sites: Annotated[Names, SOME],
    ceiling: pd.DataFrame | None = None,
    chance: pd.DataFrame | None = None,
    *,
    measure: str = "node overlap (Jaccard index)",
    chance_label: str = "chance",
    title: str | None = None,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw one line per domain over the sites, in the order given, with its intervals as bars.

    Args:
        depth: Columns ``domain``, ``site``, ``value``, ``low``, ``high`` (95 % interval); rows of other sites are
            left out.
        sites: The sites to draw, from the image to the embedding.
        ceiling: Columns ``site``, ``value``: what two parts of one domain's images reach (dashed).
        chance: Columns ``site``, ``value``: what random units reach (dotted). And, if it is to be written below the
            name of the site, ``kept``: how many units a circuit keeps there.
        measure: What ``value`` is, with its unit: the title of the vertical axis.
    """
    check_table(
        depth,
        "depth",
        ("domain", "site", "value", "low", "high"),
        key=("domain", "site"),
    )
    style.need_values(depth, "depth", "site", sites)
    looks = style.marks_for(depth["domain"], marks)
    lines: list[
        tuple[str, str, pd.DataFrame, dict[str, object]]
    ] = []  # name, label, rows, looks
    for label, name, table, dash in (
        ("two parts, fewer images", "ceiling", ceiling, "dash"),
        (chance_label, "chance", chance, "dot"),
    ):
        if table is not None:
            check_table(table, name, ("site", "value"), key=("site",))
            look: dict[str, object] = {
                "mode": "lines",
                "line": {"color": style.GREY, "dash": dash, "width": 2},
            }
            lines.append(
                (
                    label,
                    f'<span style="color:{style.GREY}">{label}</span>',
                    _along(table, ["value"], sites),
                    look,
                )
            )
    domains = sorted(set(depth["domain"]))
    for i, domain in enumerate(domains):
        own, shift = (
            depth[depth["domain"] == domain],
            LINES_SHARE * ((i + 0.5) / len(domains) - 0.5),
        )
        rows = _along(own, ["value", "low", "high"], sites, shift)
        lines.append(
            (
                domain,
                style.marked(domain, looks[domain]),
                rows,
                looks[domain].line(rows),
            )
        )
    figure = go.Figure()
    for name, _, rows, look in lines:
        known = ["low", "high"] if "low" in rows else []
        interval = (
            "<br>interval %{customdata[0]:.3f} to %{customdata[1]:.3f}" if known else ""
        )
        hover = f"<b>{name}</b><br>%{{text}}: %{{y:.3f}}{interval}"
        style.add_points(
            figure,
            rows,
            "place",
            "value",
            known,
            hover,
            name=name,
            text=rows["site"],
            **look,
        )
    style.lay_out(
        figure,
        title=title or f"{style.capitalised(measure)} by site",
        subtitle=style.interval_note(depth),
        height=500,
    )
    _site_axis(figure, sites, _kept_units(chance), _repeats(depth, sites))
    values = pd.concat([rows for *_, rows, _ in lines])[
        ["value", "low", "high"]
    ].to_numpy(dtype=float)
    low, high = min(0.0, float(np.nanmin(values))), float(np.nanmax(values))
    room = 0.06 * (high - low)
    low, high = low - (room if low < 0 else 0.0), high + room
    figure.update_yaxes(title_text=measure, range=[low, high])
    ends = [(rows["value"].ffill().iloc[-1], label) for _, label, rows, _ in lines]
    label_ends(
        figure,
        ends,
        x=len(sites) - 1 + LINES_SHARE / 2,
        gap=(high - low) / LABELS_BELOW_EACH_OTHER,
    )
    return figure


def _along(
    table: pd.DataFrame, columns: list[str], sites: Sequence[str], shift: float = 0.0
) -> pd.DataFrame:
    """Return the columns at the sites, and each site's place on the axis."""
    rows = table.set_index("site")[columns].reindex(list(sites)).reset_index()
    return rows.assign(place=[place + shift for place in range(len(sites))])


def _site_axis(
    figure: go.Figure, sites: Sequence[str], *notes: Mapping[str, str]
) -> None:
    """Name the sites at 0, 1, 2 ..., with the notes on a site below its name."""
    figure.update_xaxes(
        title_text="site, from the image to the embedding",
        tickvals=list(range(len(sites))),
        ticktext=[
            "<br>".join(
                [site, *(style.faint(note[site]) for note in notes if site in note)]
            )
            for site in sites
        ],
        range=[-0.6, len(sites) - 0.4],
        showgrid=False,
    )


def _kept_units(chance: pd.DataFrame | None) -> dict[str, str]:
    """Return a note with the number of kept units of each site, where known: overlaps of few units jump."""
    if chance is None or "kept" not in chance:
        return {}
    known = chance.dropna(subset="kept")
    return {
        site: number_of(int(n), "unit")
        for site, n in zip(known["site"], known["kept"], strict=True)
    }


def _repeats(depth: pd.DataFrame, sites: Sequence[str]) -> dict[str, str]:
    """Return a note for each site with the numbers of the site before, such as pooling that keeps all units."""
    wide = depth.pivot(
        index="site", columns="domain", values=["value", "low", "high"]
    ).reindex(list(sites))
    same = (wide.eq(wide.shift()) | (wide.isna() & wide.shift().isna())).all(axis=1)
    return {site: f"repeats {before}" for before, site in pairwise(sites) if same[site]}


def label_ends(
    figure: go.Figure, ends: Sequence[tuple[float, str]], *, x: float, gap: float
) -> None:
    """Write every label right of ``x`` at its value, if known, at least ``gap`` from the next, and make room."""
    ordered = sorted(end for end in ends if math.isfinite(end[0]))
    places = style.apart([value for value, _ in ordered], gap)
    for place, (_, label) in zip(places, ordered, strict=True):
        figure.add_annotation(
            x=x, y=place, text=label, xanchor="left", xshift=8, showarrow=False
        )
    if places and (span := figure.layout.yaxis.range) is not None:
        # plotly leaves out a label beyond the end of the axis
        figure.update_yaxes(
            range=[
                min(span[0], places[0] - gap / 2),
                max(span[1], places[-1] + gap / 2),
            ]
        )
    longest = max(
        (len(re.sub("<[^>]*>", "", label)) for _, label in ordered), default=0
    )
    figure.update_layout(margin_r=7 * longest)


def faithfulness_curves(
    curves: pd.DataFrame,
    *,
    measure: str = "faithfulness",
    title: str | None = None,
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw faithfulness or selectivity over circuit size: a line with intervals per domain, random units dotted.

    Args:
        curves: Columns ``domain``, ``circuit`` (``kept`` and ``random`` are drawn), ``fraction``, ``value``, ``low``,
            ``high``: tables of `FaithfulnessCurve` of one ranking and measure; see `curves_by_domain`.
    """
    columns = ("domain", "circuit", "fraction", "value", "low", "high")
    check_table(curves, "curves", columns, key=("domain", "circuit", "fraction"))
    style.need_values(curves, "curves", "circuit", ["kept"])
    looks = style.marks_for(curves["domain"], marks)
    figure = go.Figure()
    for name in ("random", "kept"):  # random units first: they cover no circuit
        for domain, part in curves[curves["circuit"] == name].groupby("domain"):
            rows = part.assign(percent=100 * part["fraction"]).sort_values("fraction")
            if name == "random":
                look: dict[str, object] = {
                    "name": f"{domain}, random units",
                    "mode": "lines",
                    "line": RANDOM_LINE,
                }
            else:
                look = {
                    "name": domain,
                    "showlegend": True,
                    **looks[str(domain)].line(rows),
                }
            hover = f"<b>{domain}</b>, {name}<br>%{{x:.3g}} % of units: %{{y:.3f}}"
            style.add_points(figure, rows, "percent", "value", [], hover, **look)
    if "random" in set(curves["circuit"]):
        style.add_key(figure, "random units", mode="lines", line=RANDOM_LINE)
    heading = title or f"{style.capitalised(measure)} by size of the circuit"
    style.lay_out(
        figure,
        title=heading,
        subtitle=style.interval_note(curves),
        height=500,
        legend=True,
    )
    for level in (0, 1):
        figure.add_hline(y=level, line={"color": style.GREY, "width": 1})
    figure.update_xaxes(
        title_text="units kept at every site (%)",
        type="log",
        tickvals=[0.1, 1, 10, 100],
    )
    figure.update_yaxes(title_text=measure)
    return figure


def lesion_lines(lines: pd.DataFrame, axis: str, title: str) -> go.Figure:
    """Draw a line with intervals for each kind of answers.

    Args:
        lines: Columns ``line`` (its name), ``place`` (on the axis: numbers, or words in order), ``value``, ``low``,
            ``high``.
    """
    looks = style.assign_looks(lines["line"], style.MARKS, "lines")
    figure = go.Figure()
    for name, rows in lines.groupby("line", sort=False):
        look = {"name": str(name), "showlegend": True, **looks[str(name)].line(rows)}
        style.add_points(
            figure,
            rows,
            "place",
            "value",
            [],
            f"<b>{name}</b><br>%{{x}}: %{{y:.2f}}",
            **look,
        )
    style.lay_out(
        figure,
        title=title,
        subtitle="right answers that are left, share of the whole model's",
        height=440,
        legend=True,
    )
    figure.update_xaxes(title_text=axis)
    figure.update_yaxes(title_text="right answers", range=[-0.04, 1.06])
    return figure


PANELS_IN_A_ROW = 4

_AGREE = {"color": style.GREY, "width": 1}


def attribution_against_patching(
    points: pd.DataFrame,
    sites: Annotated[Names, SOME],
    correlations: pd.DataFrame | None = None,
) -> go.Figure:
    """Draw attributed scores against exact effects, a panel per site; on the line the two agree.

    Args:
        points: Columns ``site``, ``unit``, ``top``, ``attributed``, ``exact``, from `AttributionCheck`; the top units
            are filled, the random ones hollow.
        sites: The sites to draw, a panel each.
        correlations: Columns ``site``, ``sample``, ``spearman``, ``pearson``; the random sample's are written over
            the panel.
    """
    check_table(
        points,
        "points",
        ("site", "unit", "top", "attributed", "exact"),
        key=("site", "unit"),
    )
    style.need_values(points, "points", "site", sites)
    notes = {}
    if correlations is not None:
        check_table(
            correlations,
            "correlations",
            ("site", "sample", "pearson", "spearman"),
            key=("site", "sample"),
        )
        rows = correlations[correlations["sample"] == "random"].itertuples()
        notes = {
            row.site: style.faint(f"r {row.pearson:.2f}, ρ {row.spearman:.2f}")
            for row in rows
        }
    titles = [f"{site}<br>{notes.get(site, '')}" for site in sites]
    figure, places = style.small_multiples(
        titles, columns=PANELS_IN_A_ROW, height=170, gap=85, horizontal_spacing=0.07
    )
    hover = "unit %{customdata[0]}<br>attributed %{x:.4f}<br>exact %{y:.4f}"
    for site, place in zip(sites, places, strict=True):
        own = points[points["site"] == site]
        scores = own[["attributed", "exact"]].to_numpy(dtype=float)
        ends = [float(scores.min()), float(scores.max())]
        figure.add_scatter(
            x=ends,
            y=ends,
            mode="lines",
            line=_AGREE,
            hoverinfo="skip",
            showlegend=False,
            **place,
        )
        marker = {
            "color": style.INK,
            "size": 6,
            "symbol": np.where(own["top"], "circle", "circle-open"),
        }
        style.add_points(
            figure,
            own,
            "attributed",
            "exact",
            ["unit"],
            hover,
            name=site,
            marker=marker,
            **place,
        )
    style.add_key(
        figure,
        "largest scores",
        mode="markers",
        marker={"color": style.INK, "symbol": "circle"},
    )
    style.add_key(
        figure,
        "random units",
        mode="markers",
        marker={"color": style.INK, "symbol": "circle-open"},
    )
    style.add_key(figure, "exact = attributed", mode="lines", line=_AGREE)
    style.lay_out(figure, title="Attributed scores against exact effects", legend=True)
    figure.update_xaxes(nticks=4, exponentformat="power")
    figure.update_yaxes(nticks=5, exponentformat="power")
    for place in places[
        -min(PANELS_IN_A_ROW, len(sites)) :
    ]:  # the lowest panel of each column
        figure.update_xaxes(title_text="attributed", **place)
    figure.update_yaxes(title_text="exact (patching)", col=1)
    return figure

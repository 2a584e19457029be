"""Finished tables -> plotly figures.

Drawing computes nothing: means, intervals, ceilings and chance levels come in as tables. Circuits are
drawn by ``circuitry.reports.figures.circuit_pair``.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures.line_labels import label_ends
from circuitry.reports.figures.style import GREY, INK, Mark, band, faint, marked, marks_for, part_filling, style
from circuitry.runs.errors import InputError

PARTS = ("seen", "held-out")
NEGATIVE, NEUTRAL, POSITIVE = "#eb9a6c", "#f7f9fb", "#5fabd9"  # ink stays readable on all of them


def accuracy_bars(
    accuracy: pd.DataFrame, chance: float | None = None, *, marks: Mapping[str, Mark] | None = None
) -> go.Figure:
    """Draw the accuracy of every domain, seen classes (solid) beside held-out classes (hatched).

    Args:
        accuracy: columns ``domain``, ``part`` ("seen" or "held-out"), ``accuracy`` and ``balanced_accuracy``
            (fractions in 0..1; the bars are the former, hovering tells both), ``n_images``, ``n_classes``.
        chance: the accuracy of guessing, a fraction, drawn as a dotted line.
        marks: the look of every domain; by default ``domain_marks`` of the table's.

    Raises:
        InputError: a missing column, a part of another name, two rows for one bar.
    """
    columns = ("domain", "part", "accuracy", "balanced_accuracy", "n_images", "n_classes")
    check_table(accuracy, "accuracy", columns, key=("domain", "part"))
    if other := sorted(set(accuracy["part"]) - set(PARTS)):
        raise InputError(f'The part of an accuracy row is "seen" or "held-out", not "{other[0]}".')
    domains = list(dict.fromkeys(accuracy["domain"]))
    looks = marks_for(domains, marks)
    figure = go.Figure()
    for part in (part for part in PARTS if part in set(accuracy["part"])):
        rows = accuracy[accuracy["part"] == part].set_index("domain").reindex(domains)
        figure.add_bar(
            name=f"{part} classes",
            offsetgroup=part,
            x=domains,
            y=100 * rows["accuracy"],
            text=[f"{100 * value:.0f}" if pd.notna(value) else "" for value in rows["accuracy"]],
            textposition="outside",
            cliponaxis=False,
            customdata=rows[["balanced_accuracy", "n_images", "n_classes"]],
            hovertemplate=f"<b>%{{x}}</b>, {part} classes<br>accuracy %{{y:.1f}} %"
            "<br>balanced %{customdata[0]:.1%}<br>%{customdata[1]:,} images of %{customdata[2]:,} classes"
            "<extra></extra>",
            marker=part_filling(part, [looks[domain].colour for domain in domains]),
            showlegend=False,
        )
        # The colour of a bar is its domain's, so the legend explains the filling with a bar without data.
        figure.add_bar(name=f"{part} classes", offsetgroup=part, x=[None], y=[None], marker=part_filling(part, GREY))
    style(figure, height=420)
    figure.update_layout(
        barmode="group",
        bargap=0.3,
        bargroupgap=0.06,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemclick": False},
        margin_t=50,
    )
    ticks = [f"{marked(domain, looks[domain])}<br>{faint(_sizes(accuracy, domain))}" for domain in domains]
    figure.update_xaxes(type="category", tickvals=domains, ticktext=ticks, showgrid=False)
    figure.update_xaxes(title_text="domain (number of images)")
    figure.update_yaxes(title_text="accuracy (%)", range=[0, 105], tickvals=list(range(0, 101, 20)))
    if chance is not None:
        figure.add_hline(y=100 * chance, line={"color": INK, "dash": "dot", "width": 1.5})
        figure.add_annotation(
            text=f"chance<br>{100 * chance:.2g} %",
            x=1,
            xref="paper",
            y=100 * chance,
            xanchor="left",
            xshift=4,
            align="left",
            showarrow=False,
            font_size=12,
        )
        figure.update_layout(margin_r=70)
    return figure


def _sizes(accuracy: pd.DataFrame, domain: str) -> str:
    counts = accuracy[accuracy["domain"] == domain].set_index("part")["n_images"]
    return " + ".join(f"{counts[part]:,}" for part in PARTS if part in counts.index)


def overlap_over_depth(
    depth: pd.DataFrame,
    sites: Sequence[str],
    ceiling: pd.DataFrame | None = None,
    chance: pd.DataFrame | None = None,
    *,
    measure: str = "node overlap (Jaccard index)",
    chance_label: str = "chance",
    marks: Mapping[str, Mark] | None = None,
) -> go.Figure:
    """Draw one line per domain over the sites, in the order given, with its interval as a band.

    Args:
        depth: columns ``domain``, ``site``, ``value``, ``low``, ``high``; rows of other sites are left out.
        sites: the sites to draw, from the image to the embedding.
        ceiling: columns ``site``, ``value``: what two halves of one domain's images reach (dashed).
        chance: columns ``site``, ``value``: what random units reach (dotted).
        measure: what ``value`` is, with its unit: the title of the vertical axis.
        chance_label: the name of the dotted line.
        marks: the look of every domain; by default ``domain_marks`` of the table's.

    Raises:
        InputError: a missing column, two rows for one point, a site that the depth table lacks.
    """
    check_table(depth, "depth", ("domain", "site", "value", "low", "high"), key=("domain", "site"))
    if absent := [site for site in sites if site not in set(depth["site"])]:
        raise InputError(
            f"The depth table has no row for the site {', '.join(absent)}; it has {_listed(depth['site'])}."
        )
    looks = marks_for(depth["domain"], marks)
    figure = go.Figure()
    ends: list[tuple[float, str]] = []
    references = {"ceiling": (ceiling, "dash", "split-half ceiling"), "chance": (chance, "dot", chance_label)}
    for name, (table, dash, label) in references.items():
        if table is None:
            continue
        check_table(table, name, ("site", "value"), key=("site",))
        values = table.set_index("site")["value"].reindex(list(sites))
        figure.add_scatter(
            name=label,
            x=list(sites),
            y=values,
            mode="lines",
            line={"color": GREY, "dash": dash, "width": 2},
            hovertemplate=f"<b>{label}</b><br>%{{x}}: %{{y:.3f}}<extra></extra>",
        )
        ends.append((_last(values), f'<span style="color:{GREY}">{label}</span>'))
    domains = sorted(set(depth["domain"]))
    lines = {d: depth[depth["domain"] == d].set_index("site").reindex(list(sites)) for d in domains}
    for domain, rows in lines.items():  # all bands first: no band covers a line
        known = rows.dropna(subset=["low", "high"])
        band(figure, known.index, known["low"], known["high"], looks[domain].colour, f"{domain} interval")
    for domain, rows in lines.items():
        _line(figure, domain, rows, looks[domain])
        ends.append((_last(rows["value"]), marked(domain, looks[domain])))
    style(figure, height=480)
    figure.update_layout(showlegend=False, hovermode="closest")
    figure.update_xaxes(
        title_text="site, from the image to the embedding",
        type="category",
        categoryorder="array",
        categoryarray=list(sites),
        range=[-0.25, len(sites) - 0.8],
        showgrid=False,
    )
    low, high = _value_range(figure)
    figure.update_yaxes(title_text=measure, range=[low, high])
    label_ends(figure, ends, x=sites[-1], gap=(high - low) / 21)
    return figure


def _line(figure: go.Figure, domain: str, rows: pd.DataFrame, mark: Mark) -> None:
    figure.add_scatter(
        name=domain,
        x=list(rows.index),
        y=rows["value"],
        mode="lines+markers",
        line={"color": mark.colour, "width": 2.2},
        marker={"symbol": mark.symbol, "size": 9, "line": {"color": "white", "width": 1}},
        customdata=rows[["low", "high"]],
        hovertemplate=f"<b>{domain}</b><br>%{{x}}: %{{y:.3f}}"
        "<br>interval %{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>",
    )


def _value_range(figure: go.Figure) -> tuple[float, float]:
    """Everything drawn, from zero, with room at the top."""
    values = np.concatenate([np.asarray(trace.y, dtype=float) for trace in figure.data])
    low, high = min(0.0, float(np.nanmin(values))), float(np.nanmax(values))
    room = 0.06 * (high - low)
    return low - (room if low < 0 else 0.0), high + room


def _last(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.iloc[-1]) if len(known) else float("nan")


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def similarity_heatmap(
    matrix: pd.DataFrame,
    *,
    title: str,
    measure: str,
    diagonal: str = "split-half ceiling",
    marks: Mapping[str, Mark] | None = None,
) -> go.Figure:
    """Draw a square matrix over domains with its numbers; a dotted diagonal, if any, is the split-half ceiling.

    Args:
        matrix: index = columns = domains; where the diagonal is empty, nothing is dotted. The names of
            index and columns, where given, become the axis titles (say "circuit of", "images of").
        title: heading of the figure.
        measure: what the numbers are, for the line under the title.
        diagonal: what the numbers on the diagonal are, for the same line.
        marks: the look of every domain; by default ``domain_marks`` of the matrix's.

    Raises:
        InputError: index and columns differ, or hold a domain twice, or there is none.
    """
    domains = list(matrix.index)
    if not domains or domains != list(matrix.columns) or not matrix.index.is_unique:
        raise InputError(
            "The matrix needs the same domains, each once and in the same order, as rows and as columns; "
            f"it has rows {_listed(domains) or 'none'} and columns {_listed(matrix.columns) or 'none'}."
        )
    looks = marks_for(domains, marks)
    values = matrix.to_numpy(dtype=float)
    top = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    signed = bool((values < 0).any())
    figure = go.Figure(
        go.Heatmap(
            x=domains,
            y=domains,
            z=values,
            zmin=-top if signed else 0.0,
            zmax=top,
            colorscale=[*([(0.0, NEGATIVE), (0.5, NEUTRAL)] if signed else [(0.0, NEUTRAL)]), (1.0, POSITIVE)],
            showscale=False,
            texttemplate="%{z:.2f}",
            textfont={"size": 13, "color": INK},
            xgap=2,
            ygap=2,
            hoverongaps=False,
            hovertemplate=f"<b>%{{y}}, %{{x}}</b><br>{measure} %{{z:.3f}}<extra></extra>",
        )
    )
    ceilings = np.flatnonzero(np.isfinite(values.diagonal()))
    for i in map(int, ceilings):
        corners = {"x0": i - 0.46, "x1": i + 0.46, "y0": i - 0.46, "y1": i + 0.46}
        figure.add_shape(type="rect", **corners, line={"color": INK, "dash": "dot", "width": 1.5})
    note = f"; dotted: {diagonal}" if len(ceilings) else ""
    style(figure, title=title, subtitle=measure + note, height=160 + 52 * max(len(domains), 4))
    ticks = {"tickvals": domains, "ticktext": [marked(d, looks[d]) for d in domains], "showgrid": False}
    box = {"constrain": "domain", "showline": False}
    figure.update_xaxes(**ticks, **box, constraintoward="left", title_text=matrix.columns.name)
    figure.update_yaxes(**ticks, **box, constraintoward="top", title_text=matrix.index.name)
    # Cells wider than high, so that the names below them fit unturned.
    figure.update_yaxes(autorange="reversed", scaleanchor="x", scaleratio=0.55)
    return figure

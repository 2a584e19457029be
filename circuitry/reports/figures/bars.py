"""Charts of bars, from finished tables: accuracies by domain or setting, and what went into mixtures.

Drawing computes nothing. Everywhere the colour is the domain's; seen classes are solid, held-out ones hatched.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from circuitry.comparison.table import check_table
from circuitry.reports.figures import style
from circuitry.runs.errors import InputError

PARTS = ("seen", "held-out")
BASE = "base"
"""The part of a mixture that is the base set."""


def accuracy_bars(
    accuracy: pd.DataFrame,
    chance: float | None = None,
    *,
    title: str = "Accuracy by domain",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw the accuracy of every domain, seen classes beside held-out classes.

    Args:
        accuracy: Columns ``domain``, ``part`` ("seen" or "held-out"), ``accuracy`` and ``balanced_accuracy``
            (fractions in 0..1; the bars are the former, hovering tells both), ``n_images``, ``n_classes``.
        chance: Accuracy of guessing, a fraction, drawn as a dotted line.

    Raises:
        InputError: for a part of another name.
    """
    columns = ("domain", "part", "accuracy", "balanced_accuracy", "n_images", "n_classes")
    check_table(accuracy, "accuracy", columns, key=("domain", "part"))
    _check_parts(accuracy, "accuracy", PARTS)
    domains = list(dict.fromkeys(accuracy["domain"]))
    looks = style.marks_for(domains, marks)
    names = {part: f"{part} classes" for part in PARTS if part in set(accuracy["part"])}
    figure, _ = style.small_multiples([""], columns=1, height=310)
    for part, name in names.items():
        rows = accuracy[accuracy["part"] == part].set_index("domain").reindex(domains)
        figure.add_bar(
            **_accuracy_bar(part, name, 100 * rows["accuracy"], [looks[domain].colour for domain in domains]),
            text=[f"{100 * value:.0f}" if pd.notna(value) else "" for value in rows["accuracy"]],
            textposition="outside",
            cliponaxis=False,
            customdata=rows[["balanced_accuracy", "n_images", "n_classes"]],
            hovertemplate=f"<b>%{{x}}</b>, {name}<br>accuracy %{{y:.1f}} %<br>balanced %{{customdata[0]:.1%}}"
            "<br>%{customdata[1]:,} images of %{customdata[2]:,} classes<extra></extra>",
        )
    _finish_accuracies(figure, title, names, "accuracy (%)", chance)
    sizes = accuracy.sort_values("part", ascending=False).groupby("domain")["n_images"]
    counts = sizes.agg(lambda numbers: " + ".join(f"{n:,}" for n in numbers))
    ticks = [f"{style.marked(domain, looks[domain])}<br>{style.faint(counts[domain])}" for domain in domains]
    figure.update_xaxes(tickvals=domains, ticktext=ticks, title_text="domain (number of images)")
    return figure


def _check_parts(table: pd.DataFrame, name: str, parts: Sequence[str]) -> None:
    if other := sorted(set(table["part"]) - set(parts)):
        *first, last = (f'"{part}"' for part in parts)
        raise InputError(f'The part of a row of the {name} table is {", ".join(first)} or {last}, not "{other[0]}".')


def _accuracy_bar(part: str, name: str, percent: pd.Series, colour: str | list[str]) -> dict[str, object]:
    looks = {"offsetgroup": part, "marker": style.part_filling(part, colour), "showlegend": False}
    return {"name": name, "x": percent.index, "y": percent, **looks}


def _finish_accuracies(
    figure: go.Figure, title: str, names: Mapping[str, str], measure: str, chance: float | None
) -> None:
    """Put what stands beside each other below, percent at the left, and guessing, if given, as a dotted line."""
    for part, name in names.items():
        style.add_key(figure, name, "bar", offsetgroup=part, marker=style.part_filling(part, style.GREY))
    style.lay_out(figure, title=title, legend=True)
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.06, legend_itemclick=False)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(range=[0, 105], tickvals=list(range(0, 101, 20)))
    figure.update_yaxes(title_text=measure, col=1)
    if chance is not None:
        figure.add_hline(100 * chance, line={"color": style.INK, "dash": "dot", "width": 1.5}, row="all", col="all")
        place = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 4, "y": 100 * chance, "yref": "y"}
        text = f"chance<br>{100 * chance:.2g} %"
        figure.add_annotation(text=text, align="left", font_size=12, showarrow=False, **place)
        figure.update_layout(margin_r=70)


def settings_bars(
    table: pd.DataFrame,
    chance: float | None = None,
    *,
    title: str = "Accuracy in the test domain, by what was trained on",
    marks: Mapping[str, style.Mark] | None = None,
) -> go.Figure:
    """Draw accuracy in the test domain by setting: other classes beside held-out ones, a panel per test domain.

    Args:
        table: From `generalization.settings_table`; bars are ``mean``, whiskers ``sd`` over seeds.
        chance: Accuracy of guessing, a fraction, drawn as a dotted line.
    """
    columns = ("test_domain", "setting", "domain", "part", "mean", "sd", "values")
    check_table(table, "settings", columns, ("test_domain", "setting", "domain", "part"))
    domains = sorted(set(table["test_domain"]))
    looks = style.marks_for(domains, marks)
    titles = [f"test domain {domain}" for domain in domains]
    figure, places = style.small_multiples(
        titles, columns=len(domains), height=300, shared_yaxes=True, horizontal_spacing=0.03
    )
    names = {"seen": "other classes", "held-out": "held-out classes"}
    for domain, place in zip(domains, places, strict=True):
        rows = table[(table["test_domain"] == domain) & (table["domain"] == domain)]
        settings = list(dict.fromkeys(rows["setting"]))
        for part, name in names.items():
            bars = rows[rows["part"] == part].set_index("setting").reindex(settings)
            figure.add_bar(
                **_accuracy_bar(part, name, 100 * bars["mean"], looks[domain].colour),
                error_y={"array": 100 * bars["sd"].fillna(0), "color": style.INK, "thickness": 1, "width": 3},
                customdata=bars["values"],
                hovertemplate=f"<b>%{{x}}</b>, {name}<br>%{{y:.1f}} %<br>seeds: %{{customdata}}<extra>{domain}</extra>",
                **place,
            )
    _finish_accuracies(figure, title, names, "accuracy, mean over classes (%)", chance)
    return figure


def mixture_bars(
    summary: pd.DataFrame, *, title: str = "Images by mixture", marks: Mapping[str, style.Mark] | None = None
) -> go.Figure:
    """Draw what went into every mixture: a bar each, stacked by domain.

    The base set is named with its size below the mixture's name and not drawn, since it is often fifty times the rest.

    Args:
        summary: Columns ``mixture``, ``domain``, ``part`` ("seen", "held-out" or "base"), ``images``.

    Raises:
        InputError: for a part of another name.

    Example:
        >>> mixture_bars(pd.read_csv("runs/mixtures/images.csv"))
    """
    check_table(summary, "mixtures", ("mixture", "domain", "part", "images"), key=("mixture", "domain", "part"))
    _check_parts(summary, "mixtures", (*PARTS, BASE))
    mixtures = list(dict.fromkeys(summary["mixture"]))
    drawn = summary[summary["part"] != BASE]
    looks = style.marks_for(drawn["domain"], marks)
    figure = go.Figure()
    for domain in sorted(set(drawn["domain"])):
        for part in PARTS:
            rows = drawn[(drawn["domain"] == domain) & (drawn["part"] == part)]
            figure.add_bar(
                name=domain,
                showlegend=False,
                orientation="h",
                x=rows["images"],
                y=rows["mixture"],
                marker=style.part_filling(part, looks[domain].colour),
                hovertemplate=f"<b>%{{y}}</b><br>{domain}, {part} classes: %{{x:,}} images<extra></extra>",
            )
        style.add_key(figure, domain, "bar", orientation="h", marker=style.part_filling("seen", looks[domain].colour))
    style.add_key(figure, "held-out classes", "bar", orientation="h", marker=style.part_filling("held-out", style.GREY))
    bases = summary[summary["part"] == BASE].set_index("mixture")
    ticks = [
        f"{name}<br>{style.faint(f'+ {bases.images[name]:,} of {bases.domain[name]}')}" if name in bases.index else name
        for name in mixtures
    ]
    style.lay_out(figure, title=title, height=190 + 34 * len(mixtures), legend=True)
    figure.update_layout(barmode="stack", bargap=0.3, legend_itemclick=False)
    figure.update_xaxes(title_text="images", tickformat=",")
    figure.update_yaxes(
        type="category", tickvals=mixtures, ticktext=ticks, categoryarray=mixtures, autorange="reversed", showgrid=False
    )
    return figure

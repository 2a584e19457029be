"""The scatter of effective robustness, from its finished table. Drawing computes nothing."""

import textwrap
from collections.abc import Mapping

from circuitry.comparison import check_table
from circuitry.reports.figures import style
from experiments.study.effective_robustness import logit
from experiments.study.run_tables import MODEL, check_like_classes, model_names, setting_family
from experiments.study.setting_bars import panels_of_models

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

LINE = {"color": style.GREY, "width": 1.5}
SETTING_SYMBOLS = (
    *("cross", "x", "pentagon", "hourglass", "bowtie", "hexagram", "triangle-left", "triangle-right", "star-diamond"),
    "octagon",
)
"""Symbols of settings, which look like no domain."""

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Accuracies that are written on logit axes."""


def robustness_scatter(
    points: pd.DataFrame,
    natural: str = "real",
    *,
    title: str = "Accuracy in the test domain against that on photographs",
) -> go.Figure:
    """Draw accuracy in the test domain against that in the natural one, every checkpoint a point, logit axes.

    A panel per test domain and model; settings have shapes that no domain has, one for all interpolations of a kind.
    Where the line is undefined the panel says so.

    Args:
        points: From `effective_robustness`.
        natural: Name of the natural domain.

    Raises:
        InputError: for more kinds of settings than symbols, and rows of a test domain that count other held-out classes
            than the others.
    """
    key = ("test_domain", "held_out_classes", "run", "epoch")
    columns = (*key, *MODEL, "setting", "natural", "test", "line", "expected", "n_natural", "n_test")
    check_table(points, "robustness", columns, key)
    check_like_classes(points)
    points = points.astype({"natural": float, "test": float, "expected": float})
    points = points.assign(
        at=logit(points["natural"], points["n_natural"]),
        height=logit(points["test"], points["n_test"]),
        on_line=logit(points["expected"], points["n_test"]),
        name=model_names(points),
        family=points["setting"].map(setting_family),
    )
    shapes = style.assign_looks(points["family"], SETTING_SYMBOLS, "settings")
    shades = sample_colorscale("Viridis", [0.9 * i / max(len(shapes) - 1, 1) for i in range(len(shapes))])
    symbols = {name: (shape, shade) for (name, shape), shade in zip(shapes.items(), shades, strict=True)}
    keys, titles, wide = panels_of_models(points, "")
    figure, places = style.small_multiples(
        titles, columns=wide, height=300, gap=100, shared_yaxes=True, horizontal_spacing=0.04
    )
    for (model, domain), place in zip(keys, places, strict=True):
        rows = points[(points["test_domain"] == domain) & (points["name"] == model)]
        if len(rows):
            _add_robustness(figure, place, rows, symbols, f"{natural} %{{customdata[2]:.1%}}<br>{domain}")
    for setting, (symbol, shade) in symbols.items():
        style.add_key(figure, setting, mode="markers", marker={"symbol": symbol, "color": shade, "size": 10})
    if points["expected"].notna().any():
        style.add_key(figure, "line of models of photographs alone", mode="lines", line=LINE)
    style.lay_out(
        figure, title=title, subtitle="logit axes; none or all right: drawn half an image inwards", legend=True
    )
    ticks, many = pd.Series(TICKS), pd.Series([10**6] * len(TICKS))  # so many images that no tick is moved
    written = {"tickvals": logit(ticks, many), "ticktext": [f"{100 * tick:g}" for tick in TICKS]}
    figure.update_xaxes(**written, title_text=f"accuracy on {natural} (%)")
    figure.update_yaxes(**written)
    figure.update_yaxes(title_text="accuracy in the test domain (%)", col=1)
    return figure


def _add_robustness(
    figure: go.Figure, place: Mapping[str, int], rows: pd.DataFrame, symbols: Mapping[str, tuple[str, str]], told: str
) -> None:
    """Add one panel: the line, or why there is none, and the checkpoints of every setting."""
    fitted = rows.dropna(subset="expected").sort_values("natural")
    if len(fitted):
        figure.add_scatter(
            x=fitted["at"], y=fitted["on_line"], mode="lines", line=LINE, hoverinfo="skip", showlegend=False, **place
        )
    else:
        words = "<br>".join(textwrap.wrap(f"line {rows['line'].iloc[0]}", 50))
        corner = {"x": 0.02, "y": 0.98, "xref": "x domain", "yref": "y domain", "xanchor": "left", "yanchor": "top"}
        figure.add_annotation(text=style.faint(words), align="left", showarrow=False, **corner, **place)
    for setting, (symbol, shade) in symbols.items():
        style.add_points(
            figure,
            rows[rows["family"] == setting],
            "at",
            "height",
            ["run", "epoch", "natural", "test"],
            f"<b>%{{customdata[0]}}</b>, epoch %{{customdata[1]}}<br>{told} %{{customdata[3]:.1%}}",
            name=setting,
            marker={"symbol": symbol, "color": shade, "size": 9},
            **place,
        )

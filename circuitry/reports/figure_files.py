"""Figures as files of their own: PNG by kaleido and a browser, and HTML. No torch."""

import importlib.util
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go

from circuitry.runs.files import whole_file

FIGURE_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "showSendToCloud": False,  # plotly.js 4 offers by default to upload the data of the figure
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}
NEEDS_KALEIDO = "they need kaleido, pip install 'clip-circuitry[static]' (from a checkout: pip install '.[static]')"
_BROWSER_FAILED = "the browser that draws them failed ({}): see that there is room in {}, or set TMPDIR, and run again"
WIDTH = 1000
"""Width in pixels of a PNG figure that sets none; it is drawn at twice the size."""


class StaticImages(NamedTuple):
    """The PNG files that `write_static` wrote, or what is missing to write them."""

    paths: list[Path]
    missing: str | None


def write_static(figures: Mapping[str, go.Figure], folder: str | PathLike[str]) -> StaticImages:
    """Write ``folder/<name>.png`` for every figure, or none where kaleido or a browser is missing."""
    if importlib.util.find_spec("kaleido") is None:
        return StaticImages([], NEEDS_KALEIDO)
    import kaleido
    from kaleido.errors import ChromeNotFoundError, KaleidoError

    paths = [Path(folder) / f"{name}.png" for name in figures]
    try:
        with ExitStack() as stack:
            jobs = [
                {
                    "fig": figure.to_dict(),
                    "path": stack.enter_context(whole_file(path)),
                    "opts": {
                        "format": "png",
                        "width": figure.layout.width or WIDTH,
                        "height": figure.layout.height or 450,
                        "scale": 2,
                    },
                }
                for path, figure in zip(paths, figures.values(), strict=True)
            ]
            # Without mathjax=False kaleido's page asks the network for it; figures that it cancels print tracebacks.
            failed = kaleido.write_fig_from_object_sync(jobs, cancel_on_error=False, kopts={"mathjax": False})
            if failed:
                raise failed[0]
    except ChromeNotFoundError:
        return StaticImages([], "they need Chrome or Chromium: install one, or run plotly_get_chrome")
    except (OSError, RuntimeError, KaleidoError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; the browser's have no number
            raise
        return StaticImages([], _BROWSER_FAILED.format(type(error).__name__, tempfile.gettempdir()))
    return StaticImages(paths, None)


def write_figure(figure: go.Figure, stem: str | PathLike[str]) -> list[Path]:
    """Write ``stem.html``, self-contained, and ``stem.png`` where `write_static` can; return the paths."""
    page = Path(f"{stem}.html")
    with whole_file(page) as temporary:
        figure.write_html(temporary, include_plotlyjs=True, config=FIGURE_CONFIG)
    return [page, *write_static({page.stem: figure}, page.parent).paths]

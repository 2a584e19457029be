"""Write figures to files: as PNG (with kaleido and a browser), or as HTML.

Does not import torch.
"""

import importlib.util
import logging
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from os import PathLike
from pathlib import Path

import plotly.graph_objects as go

from circuitry.runs.files import whole_file

FIGURE_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    # plotly.js 4 offers by default to upload the data of the figure.
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": [
        "select2d",
        "lasso2d",
        "zoomIn2d",
        "zoomOut2d",
        "autoScale2d",
    ],
}
_BROWSER_FAILED = "the browser that draws them failed ({}): see that there is room in {}, or set TMPDIR, and run again"
log = logging.getLogger(__name__)
WIDTH = 1000
"""Width in pixels of a PNG figure whose layout sets no width. The file has twice as many pixels in each direction."""


def write_static(
    figures: Mapping[str, go.Figure], folder: str | PathLike[str]
) -> list[Path]:
    """Write each figure to ``folder/<name>.png``, and return the paths.

    If kaleido is not installed, nothing is written and the list is empty, because PNG figures are an optional extra. If
    no browser works, the list is empty, too, and a warning says why.
    """
    # A browser takes seconds to start.
    if not figures or importlib.util.find_spec("kaleido") is None:
        return []
    # Only here, since kaleido is optional.
    import kaleido
    from kaleido.errors import ChromeNotFoundError, KaleidoError

    paths = [Path(folder) / f"{name}.png" for name in figures]
    try:
        # All figures in one call, since a browser takes seconds to start; the files appear together at the end.
        with ExitStack() as stack:
            jobs = []
            for path, figure in zip(paths, figures.values(), strict=True):
                options = {
                    "format": "png",
                    "width": figure.layout.width or WIDTH,
                    "height": figure.layout.height or 450,
                    "scale": 2,
                }
                part = stack.enter_context(whole_file(path))
                jobs.append({"fig": figure.to_dict(), "path": part, "opts": options})
            # Without mathjax=False kaleido's page asks the network for it; figures that it cancels print tracebacks.
            failed = kaleido.write_fig_from_object_sync(
                jobs, cancel_on_error=False, kopts={"mathjax": False}
            )
            if failed:
                raise failed[0]
    except ChromeNotFoundError:
        return _without(
            "they need Chrome or Chromium: install one, or run plotly_get_chrome"
        )
    except (OSError, RuntimeError, KaleidoError) as error:
        # An error of the disk has a number, an error of the browser has no number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        place = tempfile.gettempdir()
        return _without(_BROWSER_FAILED.format(type(error).__name__, place))
    return paths


@cache
def _without(why: str) -> list[Path]:
    """Log why there are no PNG figures, and return an empty list. Each reason is logged once in a process."""
    log.warning("no PNG figures: %s", why)
    return []


def write_figure(figure: go.Figure, stem: str | PathLike[str]) -> list[Path]:
    """Write a figure to ``stem.html`` and to ``stem.png``, and return the paths.

    The HTML file contains plotly.js, so it needs no other file. The PNG file is left out if kaleido or a browser is
    missing; see `write_static`.

    Example:
        >>> write_figure(circuitry.plot(circuit), "clock")[0].name
        'clock.html'
    """
    page = Path(f"{stem}.html")
    with whole_file(page) as temporary:
        figure.write_html(temporary, include_plotlyjs=True, config=FIGURE_CONFIG)
    return [page, *write_static({page.stem: figure}, page.parent)]

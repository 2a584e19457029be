"""Progress bars on a terminal, one line in a cell of a notebook, elsewhere a plain line every `SECONDS` seconds.

Does not import torch.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from io import StringIO
from typing import Any

from tqdm import tqdm

from circuitry.runs.notebooks import CellLine, notebook

QUIET = "CIRCUITRY_QUIET"
"""Environment variable that hides all progress, also in the processes that a command starts."""
SECONDS = 15
"""Seconds between two lines of progress."""
BRIEF: dict[str, Any] = {"leave": False, "delay": 1}
"""Options of a bar for a step that may take a moment or some minutes.

The bar is shown after one second, and disappears when the step is done.
"""
_LINE = (
    "{desc}: {unit} {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} left{postfix}"
)


class Bar(tqdm):  # type: ignore[type-arg]
    """A progress bar of tqdm. If the output cannot be redrawn, as in a file, it writes plain lines with the time left.

    A line is written every `SECONDS` seconds. This interval holds for all bars together: if several short steps with a
    bar of their own follow each other, the step that is running when a line is due writes the line.

    In a notebook all bars of a cell share one line, which stays when they are done. A bar within another one is hidden.

    Example:
        >>> with circuitry.runs.Bar(total=3, desc="circuits", unit="run") as bar:
        ...     shown = bar.update()
    """

    _last_sign = 0.0
    """Time when any bar wrote the last line, or when work began after a pause, in seconds."""
    _last_move = 0.0
    """Time when any bar last advanced, in seconds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._last_line = time.monotonic()
        if self._last_line > Bar._last_move + SECONDS:  # no bar was advancing
            Bar._last_sign = self._last_line
        Bar._last_move = self._last_line
        in_cell = notebook() is not None and "file" not in options
        self._in_lines = not in_cell and not _drawn(options.get("file") or sys.stderr)
        if QUIET in os.environ or (in_cell and _any_open(self)):
            options["disable"] = True
        elif in_cell:
            # What tqdm writes to move its cursor has no meaning in a cell.
            options["file"] = _InCell()
        elif self._in_lines:
            options |= {
                "mininterval": SECONDS,
                "maxinterval": SECONDS,
                "delay": SECONDS,
                "bar_format": _LINE,
            }
        super().__init__(*arguments, **options)

    def update(self, n: Any = 1) -> bool | None:
        """Advance by ``n`` steps, and write a line if no bar has written a line for `SECONDS` seconds.

        Returns:
            Whether tqdm has drawn the bar.
        """
        shown: bool | None = super().update(n)
        Bar._last_move = time.monotonic()
        if self._in_lines and not shown and not self.disable:
            self.refresh()  # it writes nothing before a line is due
        return shown

    def refresh(self, *arguments: Any, **options: Any) -> None:
        """Show the present state.

        A bar in plain lines does nothing if a line was written less than `SECONDS` seconds ago.
        """
        if self._in_lines:
            now = time.monotonic()
            if now < min(self._last_line, Bar._last_sign) + SECONDS:
                return
            self._last_line = Bar._last_sign = now
        super().refresh(*arguments, **options)

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Return the function that writes the text of the bar into a file, or into the cell of a notebook."""
        # tqdm wraps the file, so its class is not seen here.
        if hasattr(file, "in_cell"):
            return CellLine.write
        if _drawn(file):
            return tqdm.status_printer(file)

        def line(text: str) -> None:
            if text.strip():
                file.write(f"{text}\n")
                file.flush()

        return line


class _InCell(StringIO):
    """The file of a bar whose text goes into the cell of a notebook."""

    in_cell = True


def _any_open(new: Bar) -> bool:
    """Return whether a bar other than the new one is shown."""
    # tqdm knows its bars, and a bar that is hidden or closed is not among them.
    bars = tqdm._instances  # type: ignore[attr-defined]
    return any(isinstance(bar, Bar) and bar is not new for bar in bars)


def _drawn(file: Any) -> bool:
    """Return whether a bar can be redrawn: the file is a terminal, or the program runs in a notebook."""
    return notebook() is not None or bool(file.isatty())


@cache
def say_once(log: logging.Logger, sentence: str) -> None:
    """Log a warning, unless this process has logged the same warning before."""
    log.warning("%s", sentence)

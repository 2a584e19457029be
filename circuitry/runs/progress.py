"""Progress: a bar on a terminal and in a notebook, elsewhere a plain line now and then. No torch."""

import logging
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from tqdm import tqdm

QUIET = "CIRCUITRY_QUIET"
"""Variable of the environment that hides all progress, in the processes that a command starts, too."""
SECONDS = 15
"""Between two lines."""
BRIEF: dict[str, Any] = {"leave": False, "delay": 1}
"""Options of a bar over a step of a moment or of minutes: it is shown after a second, and goes when all is done."""
_LINE = (
    "{desc}: {unit} {n_fmt} of {total_fmt}, {elapsed} so far, {remaining} left{postfix}"
)


class Bar(tqdm):  # type: ignore[type-arg]
    """tqdm's bar, as plain lines with the time left where it cannot be drawn over, as in a file.

    A bar writes a line every `SECONDS`. Where shorter steps follow each other, a line is written by the step that is at
    work when `SECONDS` have passed since the last line of any bar.

    Example:
        >>> with circuitry.runs.Bar(total=3, desc="circuits", unit="run") as bar:
        ...     shown = bar.update()
    """

    _last_sign = 0.0
    """When the last line of any bar was written, or work began after a rest."""
    _last_move = 0.0
    """When any bar last moved."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._last_line = time.monotonic()
        if self._last_line > Bar._last_move + SECONDS:  # nothing was under way
            Bar._last_sign = self._last_line
        Bar._last_move = self._last_line
        self._in_lines = not _drawn(options.get("file") or sys.stderr)
        if QUIET in os.environ:
            options["disable"] = True
        elif self._in_lines:
            options |= {
                "mininterval": SECONDS,
                "maxinterval": SECONDS,
                "delay": SECONDS,
                "bar_format": _LINE,
            }
        super().__init__(*arguments, **options)

    def update(self, n: Any = 1) -> bool | None:
        """Move on, and show it where no bar has written a line for long."""
        shown: bool | None = super().update(n)
        Bar._last_move = time.monotonic()
        if self._in_lines and not shown and not self.disable:
            self.refresh()  # which writes nothing before a line is due
        return shown

    def refresh(self, *arguments: Any, **options: Any) -> None:
        """Show the state; as lines not more often than now and then, whoever asks for it."""
        if self._in_lines:
            now = time.monotonic()
            if now < min(self._last_line, Bar._last_sign) + SECONDS:
                return
            self._last_line = Bar._last_sign = now
        super().refresh(*arguments, **options)

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Return what shows a state of the bar."""
        if _drawn(file):
            return tqdm.status_printer(file)

        def line(text: str) -> None:
            if text.strip():
                file.write(f"{text}\n")
                file.flush()

        return line


def _drawn(file: Any) -> bool:
    """Return whether a file is a terminal, or stands for a notebook."""
    return "ipykernel" in sys.modules or bool(file.isatty())


@cache
def say_once(log: logging.Logger, sentence: str) -> None:
    """Log a warning once in a process."""
    log.warning("%s", sentence)

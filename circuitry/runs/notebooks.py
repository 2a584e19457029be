"""What a notebook shows: results as a sentence and a table, and one line of progress. Does not import torch."""

import html
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 12
"""A notebook shows at most this many rows of the table of a result."""
MOST_COLUMNS = 24
"""A notebook shows at most this many columns of the table of a result."""
TINTS = {True: "95, 171, 217", False: "235, 154, 108"}
"""Red, green and blue of the cells of numbers above zero, and of all other numbers."""


class Shown:
    """A result that a notebook shows by its sentence, and by a table below it.

    No script is needed, so the result is also shown in a notebook that is read without a kernel or a network.
    `circuitry.plot` draws the figure.
    """

    def shown_table(self) -> "pd.DataFrame":
        """Return the table that a notebook shows. By default it is the one of ``to_pandas``."""
        table: pd.DataFrame = self.to_pandas()  # type: ignore[attr-defined]
        return table

    def _repr_html_(self) -> str:
        said = "<br>".join(html.escape(str(self)).splitlines())
        table = self.shown_table()
        style = table.style.format(_written, escape="html", na_rep="")
        style = style.format_index(escape="html").format_index(escape="html", axis=1)
        numbers = table.select_dtypes("number")
        if numbers.shape == table.shape:
            # Numbers alone are a matrix, whose cells can be compared by their colours.
            top = float(numbers.abs().max().max()) or 1.0
            style = style.map(lambda number: _tint(float(number), top))
        elif table.index.equals(table.reset_index().index):
            style = style.hide()
        cells = style.to_html(max_rows=MOST_ROWS, max_columns=MOST_COLUMNS)
        return f"<p>{said}</p>{cells}"


def _written(value: Any) -> str:
    """Return the text of a cell: three digits of a number that is not whole."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _tint(number: float, top: float) -> str:
    """Return the style of a cell. The number with the largest absolute value ``top`` has the strongest colour."""
    if not number:
        return ""
    # The comparison is also False for NaN, whose cell stays empty.
    strength = abs(number) / top if abs(number) <= top else 0
    return f"background-color: rgba({TINTS[number > 0]}, {strength:.2f})"


class CellLine:
    """The line of progress of a cell of a notebook. All bars of the cell write into this line, so one line is left."""

    _cell: int | None = None
    """Number of the cell that wrote last."""
    _display: Any = None
    """The output of this cell."""

    @classmethod
    def write(cls, text: str) -> None:
        """Show a text in the line of the cell that is running. An empty text changes nothing."""
        shell = notebook()
        if shell is None or not text.strip():
            return
        line = {"text/plain": text}
        if cls._cell == shell.execution_count:
            cls._display.update(line, raw=True)
            return
        from IPython.display import display  # only in a notebook, where it is loaded

        cls._cell = shell.execution_count
        show: Callable[..., Any] = display
        cls._display = show(line, raw=True, display_id=True)


def notebook() -> Any:
    """Return the shell of the notebook that runs this process, or None."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython import get_ipython  # only in a notebook, where it is loaded

    return get_ipython()

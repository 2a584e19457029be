"""The setting that experiments share: where the tables that they print are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from circuitry.reports.result_tables import write_with_provenance
from circuitry.runs.provenance import versions

import pandas as pd


@dataclass(frozen=True)
class KeepSettings:
    """Where a script that prints tables also writes them."""

    results: Path | None = None
    """Folder for the tables and their provenance."""

    def keep(
        self,
        tables: Mapping[str, pd.DataFrame],
        shown: Sequence[str] | None = None,
        **facts: object,
    ) -> None:
        """Print tables, and write all of them with the script's settings and further facts.

        Args:
            tables: Tables by the name of their file.
            shown: Names of the tables to print (default: all).
            facts: Further facts for the provenance.
        """
        for name in tables if shown is None else shown:
            numbers = "{:.3g}".format
            print(
                f"{name}:\n{tables[name].to_string(index=False, float_format=numbers)}"
            )
        if self.results is not None:
            # The folder says where the tables are, not how they came about.
            settings = asdict(self)
            del settings["results"]
            write_with_provenance(tables, self.results, settings | facts | versions())

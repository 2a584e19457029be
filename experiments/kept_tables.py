"""The setting that experiments share: the folder in which they keep the tables that they print."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from circuitry.reports.result_tables import write_with_provenance
from circuitry.runs.provenance import versions

import pandas as pd


@dataclass(frozen=True)
class KeepSettings:
    """Settings of a script that prints tables and can also write them."""

    results: Path | None = None
    """Folder for the tables and their provenance."""

    def keep(
        self,
        tables: Mapping[str, pd.DataFrame],
        shown: Sequence[str] | None = None,
        **facts: object,
    ) -> None:
        """Print tables. If there is a folder of results, write all tables there with the script's settings.

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

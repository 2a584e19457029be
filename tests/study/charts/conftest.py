"""The small tables that charts are drawn from."""

from tests.reports.figures.conftest import accuracy as accuracy

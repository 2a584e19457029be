"""The quickstart's small run, which programs of the study are tried on."""

from tests.commands.conftest import quickstart as quickstart

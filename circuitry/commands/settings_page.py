"""The table of what the study sets otherwise, of all settings of the package and of commands, in a page of the docs.

python -m circuitry.commands.settings_page docs/study.md
"""

import importlib
import sys
from pathlib import Path

from circuitry.circuits import AttributionSettings, ExtractionSettings
from circuitry.commands.command_list import COMMANDS, module_of
from circuitry.representations import RepresentationSettings
from circuitry.runs import StudySettings, whole_file
from circuitry.runs.presets import study_markdown
from circuitry.training import ClipTraining, SaeTraining

BEGIN, END = "<!-- settings -->", "<!-- end of settings -->"


def study_settings() -> dict[str, type[StudySettings]]:
    """Return all settings with values of the study: classes of the package, and of commands."""
    own: tuple[type[StudySettings], ...] = (
        AttributionSettings,
        ExtractionSettings,
        RepresentationSettings,
        ClipTraining,
        SaeTraining,
    )
    found = {f"`{kind.__name__}`": kind for kind in own}
    for name in sorted(COMMANDS):
        kind = importlib.import_module(module_of(name)).Config
        if issubclass(kind, StudySettings) and kind.study_values():
            found[f"`circuitry {name}`"] = kind
    return found


def write_settings_page(page: Path) -> None:
    """Write the table of the study's values between its two marks in the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    table = f"{before}{BEGIN}\n{study_markdown(study_settings())}{END}{after}"
    with whole_file(page) as temporary:
        temporary.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    write_settings_page(Path(sys.argv[1]))

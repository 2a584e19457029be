"""The page on the study says what the code says."""

from circuitry.commands import COMMANDS, settings_page
from circuitry.runs import StudySettings
from circuitry.runs.presets import study_markdown
from tests.support.scripts import FIGURES

WITHOUT_COUNTERPART = {
    *("quickstart", "check", "scoreboard", "components", "cards", "explore", "figures"),
    *("find", "evaluate", "info"),
}
"""Commands that need no preset of the study's."""
PAGE = FIGURES.parent / "docs" / "study.md"


def test_the_page_says_what_the_study_sets() -> None:
    page = PAGE.read_text(encoding="utf-8")
    committed = page.split(settings_page.BEGIN + "\n")[1].split(settings_page.END)[0]
    assert committed == study_markdown(settings_page.study_settings()), "settings_page"
    assert "| `circuitry train-sae` | training: resample_every | 1000 | 0 |" in committed


def test_every_command_of_the_study_has_a_preset() -> None:
    with_preset = {
        name.strip("`").removeprefix("circuitry ") for name in settings_page.study_settings()
    } & COMMANDS.keys()
    assert with_preset == COMMANDS.keys() - WITHOUT_COUNTERPART


def test_every_class_of_settings_with_a_preset_is_on_the_page() -> None:
    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    own = {
        kind for kind in below(StudySettings)
        if kind.__module__.startswith("circuitry.") and vars(kind).get("STUDY") and not kind.__name__.startswith("_")
    } - {StudySettings}  # fmt: skip
    shown = set(settings_page.study_settings().values())
    assert own <= shown

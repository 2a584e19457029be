"""Every committed folder of results says which command made it, at which commit."""

import json
import re

import pytest

from tests.support.committed_tables import DOCS, RESULTS, ROOT

MINIATURE = {"study/circuits", "study/generalization", "study/sharing"}
"""Tables of the study's miniature, without a command: `experiments/study.md` says what they are for."""

RENAMED = {"experiments/transfer.py": "experiments/faithfulness.py"}
"""Scripts that made a table, and their names now."""

FOLDERS = sorted({path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.csv")})


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name not in MINIATURE])
def test_a_folder_of_results_says_which_command_made_it(folder: str) -> None:
    made_by = json.loads((RESULTS / folder / "provenance.json").read_text(encoding="utf-8"))
    script = RENAMED.get(made_by["command"].split()[0], made_by["command"].split()[0])
    assert re.fullmatch(r"[0-9a-f]{12}", made_by["commit"]), "results come from a clean commit"
    assert "/work" not in made_by["command"], "paths in a command are relative"
    assert (ROOT / script).is_file()
    assert f"python {script}" in DOCS, "README or RESULTS says how to measure it again"


def test_the_miniature_is_not_quoted() -> None:
    assert set(FOLDERS) >= MINIATURE
    assert "results/study" in (ROOT / "experiments" / "study.md").read_text(encoding="utf-8")
    assert not [name for name in MINIATURE if f"results/{name}" in DOCS]

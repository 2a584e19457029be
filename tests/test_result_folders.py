"""Every committed folder of results says which command made it, at which commit."""

import json
import re

import pytest

from tests.support.committed_tables import DOCS, RESULTS, ROOT

EARLIER = {
    "study/circuits",
    "study/generalization",
    "study/sharing",
}
"""Results of an earlier version, some of them without a command: README says so, or does not quote them."""

RENAMED = {"experiments/transfer.py": "experiments/faithfulness.py"}
"""Scripts that made a table, and their names now."""

FOLDERS = sorted({path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.csv")})


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name not in EARLIER])
def test_a_folder_of_results_says_which_command_made_it(folder: str) -> None:
    made_by = json.loads((RESULTS / folder / "provenance.json").read_text(encoding="utf-8"))
    script = RENAMED.get(made_by["command"].split()[0], made_by["command"].split()[0])
    assert re.fullmatch(r"[0-9a-f]{12}", made_by["commit"]), "results come from a clean commit"
    assert "/work" not in made_by["command"], "paths in a command are relative"
    assert f"python {script}" in DOCS + (ROOT / script).read_text(encoding="utf-8")

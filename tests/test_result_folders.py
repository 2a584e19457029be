"""Every committed folder of results says which command made it, at which commit."""

import json
import re
from pathlib import Path

import pytest

import circuitry
from experiments.study.__main__ import PROGRAMS
from tests.support.committed_tables import DOCS, RESULTS, ROOT

MINIATURE = {"study/circuits", "study/generalization", "study/sharing"}
"""Tables of the study's miniature, without a command: `docs/study.md` says what they are for."""

COMMAND_OF = {
    "circuits_over_models": "circuits-over-models",
    "compare_circuits": "compare",
    "embedding_separation": "separation",
    "faithfulness": "check",
    "representations": "represent",
    "shared_circuitry": "shared-circuitry",
    "shared_features": "features",
    "transfer": "check",
}
"""Earlier scripts that made a table, and the commands or programs of the study that they became, by other names."""

PACKAGE = Path(circuitry.__file__).parent
FOLDERS = sorted({path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.csv")})


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name not in MINIATURE])
def test_a_folder_of_results_says_which_command_made_it(folder: str) -> None:
    made_by = json.loads((RESULTS / folder / "provenance.json").read_text(encoding="utf-8"))
    first, *arguments = made_by["command"].removeprefix("python -m ").split()
    script = ROOT / first
    name = arguments[0] if first in ("circuitry", "experiments.study") else COMMAND_OF.get(script.stem, script.stem)
    words, home = f"circuitry {name}", PACKAGE / "commands" / f"{name.replace('-', '_')}_command.py"
    if (program := name.replace("_", "-")) in PROGRAMS:
        words = f"python -m experiments.study {program}"
        home = ROOT / "experiments" / "study" / f"{program.replace('-', '_')}_command.py"
    elif script.is_file():
        words, home = f"python {first}", script
    assert re.fullmatch(r"[0-9a-f]{12}", made_by["commit"]), "results come from a clean commit"
    assert "/work" not in made_by["command"], "paths in a command are relative"
    assert home.is_file()
    assert words in DOCS, "README or RESULTS says how to measure it again"


def test_the_miniature_is_not_quoted() -> None:
    assert set(FOLDERS) >= MINIATURE
    assert "results/study" in (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    assert not [name for name in MINIATURE if f"results/{name}" in DOCS]

"""Does circuitry run with the lowest versions that `pyproject.toml` allows? A fresh virtual environment says.

    python3.11 .ci/lowest.py /tmp/lowest

makes it, installs every package that `pyproject.toml` names for the package and its tests at its lowest version, and
what those bring as pip chooses; then runs the example of the README, the quickstart, and tests of what failed below
the bounds. It ends with an error where one of them fails. Torch's lowest version for Linux is made for GPUs: some 3 GB.

A library's lowest version is often not built for newer Pythons, so it runs in the lowest Python that is allowed alone.
"""

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("dev", "static")
"""What the tests need, as README's line installs it."""
BOUND = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?>=(?P<version>[\d.]+)")
TESTS = (
    "tests/commands/test_quickstart.py::test_the_example_of_the_readme_runs",
    "tests/commands/test_wrong_lines.py",
    "tests/cards/test_unit_names.py",
    "tests/reports/test_page.py",
    "tests/reports/test_plots.py",
    "tests/runs/test_workers.py",
    "tests/test_imports.py",
)


def lowest_versions() -> list[str]:
    """Return ``name==version`` for the bound of every package; a requirement of another form is an error."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    extras = project["optional-dependencies"]
    pins = {}
    for requirement in [
        *project["dependencies"],
        *(one for extra in EXTRAS for one in extras[extra]),
    ]:
        found = BOUND.fullmatch(requirement)
        if found is None:
            raise SystemExit(
                f"Expected NAME>=VERSION in pyproject.toml, but {requirement!r} is there."
            )
        pin = f"{found['name']}=={found['version']}"
        if pins.setdefault(found["name"], pin) != pin:
            raise SystemExit(
                f"Expected one bound of {found['name']} in pyproject.toml, but there are two."
            )
    return list(pins.values())


def lowest_python() -> tuple[int, int]:
    """Return the lowest Python that the project allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    major, minor = project["requires-python"].removeprefix(">=").split(".")
    return int(major), int(minor)


def example() -> str:
    """Return the example of the README."""
    return (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .split("```python\n")[1]
        .split("```")[0]
    )


def main(folder: Path) -> None:
    """Make the environment in a folder, and run what has to run in it."""
    if sys.version_info[:2] != lowest_python():
        print(
            f"not tried: lowest versions are of Python {'.'.join(map(str, lowest_python()))}, this is another one"
        )
        return
    venv.create(folder, with_pip=True)
    versions = folder / "lowest.txt"
    versions.write_text("\n".join(lowest_versions()) + "\n", encoding="utf-8")
    programs = folder / "bin"
    sources = f"{ROOT}[{','.join(EXTRAS)}]"
    commands = [
        [
            programs / "pip",
            "install",
            "--quiet",
            "--constraint",
            versions,
            "--editable",
            sources,
        ],
        [programs / "pip", "check"],
        [programs / "python", "-c", example()],
        [programs / "circuitry", "quickstart", "--out", folder / "quickstart"],
        [programs / "python", "-m", "pytest", "-q", "-n", "2", *TESTS],
    ]
    for command in commands:
        subprocess.run(
            command,
            cwd=ROOT,
            check=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

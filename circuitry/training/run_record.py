"""``run.json``, what a trained model's folder says of it: settings of the training, and its table. No torch."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
from circuitry.runs.manifest import read_sealed, write_sealed
from circuitry.runs.provenance import versions
from circuitry.training.captioned_table import description_file, read_description

_FORMAT = "circuitry run 3"
RUN_FILE = "run.json"


def record_run(folder: Path, table: Path, training: Any) -> None:
    """Write into a trained model's folder what it was trained on, and how, unless that is written.

    Args:
        folder: Folder of the training.
        table: Its table; what a JSON beside it says (`write_captioned_table`) is stored word for word.
        training: Its settings, a dataclass.

    Example:
        >>> record_run(Path("runs/x"), Path("runs/train.tsv"), clip_preset("rn50-cc3m"))
    """
    if (folder / RUN_FILE).is_file():
        return
    told = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(training).items()}
    described = read_description(table) if description_file(table).is_file() else None
    made = {"kind": type(training).__name__, "training": told, "table": described, "commit": versions()["commit"]}
    write_sealed(folder / RUN_FILE, {"format": _FORMAT, **made})


@checked
def read_run(folder: Path) -> dict[str, Any]:
    """Return what `record_run` wrote: kind and settings of the training, description of the table (or None), commit.

    Raises:
        InputError: If there is none, or one of another version.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        raise InputError(f"A run has a {RUN_FILE}, but {folder} has none: train a model there first.")
    content = read_sealed(path, "train it again")
    if (found := content.pop("format", "unknown")) != _FORMAT:
        raise InputError(f"{path} has format {found!r}, but this version reads {_FORMAT!r}: train the model again.")
    return content

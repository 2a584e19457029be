"""``run.json``, the description of a trained model in its folder. No torch.

It has everything by which models of a study differ, so that tables average only seeds.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from circuitry.runs.errors import InputError
from circuitry.runs.given import DISTINCT, Count, Seed, checked
from circuitry.runs.manifest import read_sealed, write_sealed
from circuitry.runs.provenance import versions
from circuitry.study.mixtures.mixture_files import description_file, read_description
from circuitry.study.mixtures.selection import MixtureSettings
from circuitry.training.training_settings import ClipTraining
from experiments.study.supervised_settings import SupervisedTraining

_FORMAT = "circuitry run 2"
NOTHING_MORE = "none"
"""No base set, or no images of ImageNet-Sketch."""
_FILE = "run.json"


@checked
@dataclass(frozen=True)
class StudyRun:
    """One trained model of a study."""

    folder: Path
    """Folder of `train_clip` or `train_supervised`."""
    model: str
    """open_clip model name, or one shipped here."""
    setting: str
    """Setting of its mixture, with fraction and other domains."""
    test_domain: str | None
    """Domain on which generalization is tested; None if the mixture does not depend on it."""
    held_out: Annotated[tuple[str, ...], DISTINCT] = ()
    """Classes held out of the test domain; also of settings that hold nothing out, for comparison."""
    seed: Seed = 0
    supervised: bool = False
    """A supervised model instead of a CLIP model."""
    base: str = NOTHING_MORE
    """Base set of captioned photographs in the mixture."""
    sketches: str = NOTHING_MORE
    """Variant of ImageNet-Sketch in the mixture."""
    captions: str = "generated"
    """Source of the captions."""
    precision: str = "fp32"
    """Precision of the training."""
    threads: Count | None = None
    """Threads of each process; another number rounds differently."""
    commit: str = "unknown"
    """Commit of this package's checkout, with ``-dirty`` if files were changed."""

    def write(self) -> None:
        """Write ``run.json`` into its folder."""
        told = {name: value for name, value in asdict(self).items() if name != "folder"}
        write_sealed(self.folder / _FILE, {"format": _FORMAT, **told})

    @classmethod
    @checked
    def read(cls, folder: Path) -> "StudyRun":
        """Read the run in a folder; InputError if there is none, or one of another version."""
        path = Path(folder) / _FILE
        if not path.is_file():
            raise InputError(f"A run has a {_FILE}, but {folder} has none: train a model there first.")
        content = read_sealed(path, "train it again")
        try:
            found = content.pop("format", "unknown")
            if found != _FORMAT:
                raise InputError(
                    f"{path} has format {found!r}, but this version reads {_FORMAT!r}: train the model again."
                )
            return cls(Path(folder), **{**content, "held_out": tuple(content["held_out"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"{path} does not describe a run ({error}): train it again.") from None


@checked
def record_run(folder: Path, table: Path, training: ClipTraining | SupervisedTraining) -> StudyRun | None:
    """Describe a trained model in its folder, unless it is described; None if no JSON beside the table describes it.

    Args:
        folder: Folder of the training.
        table: Its table, from `write_mixture`.
        training: Its settings.

    Example:
        >>> table = write_mixture(mixture(train, settings), captions, "runs/cg-high.tsv", settings=settings)
        >>> record_run(Path("runs/x"), table, clip_preset("rn50-cc3m"))
    """
    if (Path(folder) / _FILE).is_file():
        return StudyRun.read(folder)
    if not description_file(table).is_file():
        return None
    about = _about(read_description(table))
    if about is None:
        return None
    run = StudyRun(
        Path(folder),
        str(training.model),
        seed=training.seed,
        supervised=isinstance(training, SupervisedTraining),
        precision=training.precision,
        threads=training.threads,
        commit=versions()["commit"],
        **about,
    )
    run.write()
    return run


def _about(described: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a run from the JSON beside its mixture; None if that has no settings."""
    told = {**(described.get("settings") or {}), **described}
    if "setting" not in told:
        return None
    held_out = tuple(told.get("held_out", told.get("held_out_classes", ())))
    others = told.get("other_domains")
    tested = told["test_domain"]
    chosen = MixtureSettings(
        told["setting"],
        tested or "none",  # photographs alone have no test domain
        held_out,
        natural_domain=told.get("natural_domain", "real"),
        fraction=told.get("fraction"),
        other_domains=None if others is None else tuple(others),
    )
    return {
        "setting": chosen.name.removesuffix(f"-{chosen.test_domain}"),
        "test_domain": tested,
        "held_out": held_out,
        "base": told.get("base") or NOTHING_MORE,
        "sketches": told.get("sketches") or NOTHING_MORE,
        "captions": told.get("captions") or "generated",
    }


@checked
def find_runs(folder: Path) -> list[StudyRun]:
    """Return all runs below a folder, in the order of their paths.

    Raises:
        InputError: When there is none.
    """
    runs = [StudyRun.read(path.parent) for path in sorted(Path(folder).rglob(_FILE))]
    if not runs:
        raise InputError(f"Runs have a {_FILE}, but no folder below {folder} has one: train some models first.")
    return runs

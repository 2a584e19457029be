"""Runs of a study: models trained on mixtures, found again from their folders, and evaluated at every checkpoint.

What a model was trained on is kept as ``run.json`` in the folder of its training, and so are the tables of accuracies,
a job for each checkpoint: any number of processes share them, and what is there and undamaged is not done again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import torch

from circuitry.data.domains import DomainFolder
from circuitry.data.images import image_listing
from circuitry.data.mixtures.class_table import imagenet_index
from circuitry.data.mixtures.files import read_description
from circuitry.data.mixtures.selection import MixtureSettings
from circuitry.models.clip import Clip, load_clip
from circuitry.models.prompts import all_style_templates, as_patterns, default_templates
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.manifest import write_json
from circuitry.runs.provenance import digest
from circuitry.runs.workers import Work
from circuitry.training.evaluation import TOP, Head, predictions, text_head, tidy_accuracy
from circuitry.training.run_folder import checkpoints
from circuitry.training.supervised_model import SupervisedModel, load_supervised

FORMAT = "circuitry evaluation 2"
_FILE = "run.json"


@dataclass(frozen=True)
class StudyRun:
    """One trained model of a study."""

    folder: Path
    """Where `train_clip` or `train_supervised` left its checkpoints."""
    model: str
    """open_clip model name, or one shipped here."""
    setting: str
    """Setting of the mixture that it was trained on."""
    test_domain: str | None
    """Domain that generalization is tested on; None where the mixture does not depend on it."""
    held_out: tuple[str, ...] = ()
    """Classes held out of the test domain, or that would have been."""
    seed: int = 0
    supervised: bool = False
    """A supervised model instead of a CLIP model."""

    def write(self) -> None:
        """Keep it as ``run.json`` in its folder."""
        write_json(self.folder / _FILE, {name: value for name, value in asdict(self).items() if name != "folder"})

    @classmethod
    def read(cls, folder: Path) -> "StudyRun":
        """Return the run in a folder; InputError when there is none, or not one of this version."""
        path = Path(folder) / _FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(Path(folder), **{**content, "held_out": tuple(content["held_out"])})
        except FileNotFoundError:
            raise InputError(f"There is no run in {folder}, which has no {_FILE}: train one first.") from None
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} does not describe a run ({error}): train it again.") from None


def record_run(folder: Path, table: Path, model: str, seed: int, *, supervised: bool = False) -> StudyRun | None:
    """Write down what a model was trained on, from the JSON beside its mixture; None where there is none.

    Example:
        >>> table = write_mixture(mixture(train, settings), captions, "runs/cg-high.tsv", settings=settings)
        >>> train_clip(table, Path("runs/x"), clip_preset("rn50-cc3m"))
        >>> record_run(Path("runs/x"), table, "RN50", seed=0)
    """
    if not Path(table).with_suffix(".json").is_file():
        return None
    stored = read_description(table)["settings"]
    if stored is None:
        return None
    settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
    chosen = MixtureSettings(**settings)
    depends = chosen.setting != "natural-only"
    run = StudyRun(
        Path(folder),
        model,
        chosen.name.removesuffix(f"-{chosen.test_domain}"),
        chosen.test_domain if depends else None,
        chosen.held_out_classes,
        seed,
        supervised,
    )
    run.write()
    return run


def find_runs(folder: Path) -> list[StudyRun]:
    """Return all runs below a folder, in the order of their paths.

    Raises:
        InputError: When there is none.
    """
    runs = [StudyRun.read(path.parent) for path in sorted(Path(folder).rglob(_FILE))]
    if not runs:
        raise InputError(f"There are no runs below {folder}, none of whose folders has a {_FILE}: train some first.")
    return runs


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Images to be classified, and what their classes are called in a prompt."""

    images: DomainFolder
    names: Sequence[str]
    """One per class of ``images.all_classes``."""

    @classmethod
    def of(cls, images: DomainFolder) -> "EvaluationSet":
        """Return the set of all images of a folder, whose classes have the names of their folders."""
        return cls(images, images.all_classes)

    @cached_property
    def listing(self) -> dict[str, str]:
        """What identifies the file of each image; see `image_listing`."""
        return image_listing(self.images.records)


def imagenet_validation(root: Path) -> EvaluationSet:
    """Return ImageNet's validation images, ``root/<wnid>/<file>`` in its thousand folders, as the domain ``root.name``.

    Raises:
        InputError: For other folders there, or beside it.
    """
    root = Path(root).resolve()
    images = DomainFolder(root.parent, split=None, domains=(root.name,))
    index = imagenet_index(images.all_classes)
    return EvaluationSet(images, [open_clip.IMAGENET_CLASSNAMES[index[wnid]] for wnid in images.all_classes])


def template_sets() -> dict[str, Sequence[str]]:
    """Return the study's two ways to ask: all templates, and those with style words alone."""
    return {"all templates": default_templates(), "style words": all_style_templates()}


def extract_accuracies(
    runs: Sequence[StudyRun],
    tests: EvaluationSet,
    *,
    templates: Mapping[str, Sequence[str]] | None = None,
    top: Sequence[int] = TOP,
    device: str | torch.device = "cpu",
    work: Work = Work(),
) -> pd.DataFrame:
    """Return the accuracies of every checkpoint of many runs; what is finished in their folders is only read.

    Args:
        runs: CLIP and supervised models; see `find_runs`.
        tests: What to classify; all of its domains.
        templates: Prompt templates by the name to show (default: `template_sets`). Not used by supervised models.
        top: The k of top-k accuracy.
        device, work: Where and how the models run, in which of the processes.

    Returns:
        The columns of `tidy_accuracy`, ``epoch``, ``run`` (the name of its folder), ``model``, ``setting``,
        ``test_domain`` ("" where there is none) and ``seed``.

    Raises:
        InputError: For no runs, a run without checkpoints, images that were replaced since the tables in a run's folder
            were made (by name), and what loading a model raises.

    Example:
        >>> tests = EvaluationSet.of(DomainFolder("DomainNet", domains=("sketch", "real")))
        >>> extract_accuracies(find_runs(Path("runs/study")), tests).query("part == 'held-out'")
    """
    if not runs:
        raise InputError("At least one run is needed to extract accuracies from, but none was given.")
    asked = dict(template_sets() if templates is None else templates)
    evaluations = [_Evaluation(run, tests, {} if run.supervised else asked, tuple(top), device) for run in runs]
    for evaluation in work.rank.order(evaluations):  # since the end of each is waited for
        evaluation.run_jobs(work)
    return pd.concat([evaluation.table() for evaluation in evaluations], ignore_index=True)


class _Evaluation:
    """The accuracies of one run as a `JobFolder` in its folder, a job for every checkpoint.

    Its name is a digest of what is asked, so that other images, classes or prompts have a folder of their own.
    """

    def __init__(
        self,
        run: StudyRun,
        tests: EvaluationSet,
        templates: Mapping[str, Sequence[str]],
        top: tuple[int, ...],
        device: str | torch.device,
    ) -> None:
        self.run, self.tests, self.templates, self.top, self.device = run, tests, templates, top, device
        self.checkpoints: dict[Job, tuple[int, Path]] = {
            (f"epoch_{epoch}",): (epoch, path) for epoch, path in checkpoints(run.folder)
        }
        if not self.checkpoints:
            raise InputError(f"{run.folder} holds no checkpoints: finish its training first.")
        self.held_out = tuple(name for name in run.held_out if name in tests.images.classes)
        config = {
            "names": list(tests.names),
            "held_out": self.held_out,
            "templates": {name: as_patterns(patterns) for name, patterns in templates.items()},
            "top": top,
        }
        path = run.folder / "evaluation" / digest([config, list(tests.listing)])
        self.folder = JobFolder(path, FORMAT, config, list(self.checkpoints), {"images": tests.listing})

    def run_jobs(self, work: Work) -> None:
        """Do this process's share, and what others leave."""

        def do(job: Job, nothing: Any) -> list[Path]:
            found = self._classified(self.checkpoints[job][1], work)
            path = self.folder.path / f"{job[0]}.csv"
            with whole_file(path) as temporary:
                tidy_accuracy(found, self.held_out, self.top).to_csv(temporary, index=False)
            return [path]

        self.folder.run(do, rank=work.rank)

    def table(self) -> pd.DataFrame:
        """Return the finished tables of all checkpoints, with what the model was trained on."""
        run = self.run
        tables = [
            pd.read_csv(self.folder.path / f"{job[0]}.csv", keep_default_na=False).assign(epoch=epoch)
            for job, (epoch, _) in self.checkpoints.items()
        ]
        return pd.concat(tables, ignore_index=True).assign(
            run=run.folder.name, model=run.model, setting=run.setting, test_domain=run.test_domain or "", seed=run.seed
        )

    def _classified(self, checkpoint: Path, work: Work) -> pd.DataFrame:
        """Return the predictions of one checkpoint."""
        images, heads = self.tests.images, dict[str, Head]()
        model: Clip | SupervisedModel
        if self.run.supervised:
            model = load_supervised(checkpoint, device=self.device)
            heads["supervised"] = model.head_for(images.all_classes)
        else:
            model = load_clip(self.run.model, checkpoint=checkpoint, device=self.device)
            for name, patterns in self.templates.items():
                heads[name] = text_head(model.text_weights(self.tests.names, patterns))
        return predictions(model.encoder, heads, model.preprocess, images, work=work)

"""Runs of a study: models trained on mixtures, found again from their folders, and evaluated at every checkpoint.

1. A `StudyRun` says what a model was trained on; it is kept as ``run.json`` in the folder of its training.
2. `evaluate_run` classifies the test images with every checkpoint, all heads in one pass, and keeps one table per
   checkpoint, written whole; what is there is not done again.
3. `evaluate_runs` puts the tables of many runs together, with what each was trained on.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import pandas as pd
import torch
import torch.nn.functional as F

from circuitry.data.captions import readable
from circuitry.data.domains import DomainFolder
from circuitry.data.mixtures.class_table import imagenet_index
from circuitry.data.mixtures.files import read_description
from circuitry.data.mixtures.selection import MixtureSettings
from circuitry.models.clip import load_clip
from circuitry.models.prompts import as_patterns, default_templates, style_templates
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import claim
from circuitry.runs.provenance import digest
from circuitry.training.evaluation import TOP, Head, predictions, text_head, tidy_accuracy
from circuitry.training.run_folder import checkpoints
from circuitry.training.supervised_model import SupervisedModel, load_supervised

FORMAT = "circuitry evaluation 1"
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
        content = {name: value for name, value in asdict(self).items() if name != "folder"}
        with whole_file(self.folder / _FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "StudyRun":
        """Return the run in a folder.

        Raises:
            InputError: none there, or not one of this version.
        """
        path = Path(folder) / _FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(Path(folder), **{**content, "held_out": tuple(content["held_out"])})
        except FileNotFoundError:
            raise InputError(f"there is no run in {folder}: it has no {_FILE}; train one first") from None
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} does not describe a run ({error}); train it again") from None


def record_run(folder: Path, table: Path, model: str, seed: int, *, supervised: bool = False) -> StudyRun | None:
    """Write down what a model was trained on, from the JSON beside its mixture; None where there is none.

    Example:
        >>> table = write_mixture(mixture(train, settings), captions, "runs/cg-high.tsv", settings=settings)
        >>> train_clip(table, Path("runs/x"), **asdict(clip_preset("rn50-cc3m")))
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
        InputError: there is none.
    """
    runs = [StudyRun.read(path.parent) for path in sorted(Path(folder).rglob(_FILE))]
    if not runs:
        raise InputError(f"there are no runs below {folder}: none of its folders has a {_FILE}; train some first")
    return runs


class EvaluationSet(NamedTuple):
    """Images to be classified, and how their classes are called in a prompt."""

    images: DomainFolder
    names: Sequence[str]
    """One per class of ``images.all_classes``."""

    @classmethod
    def of(cls, images: DomainFolder) -> "EvaluationSet":
        """The classes are called what their folders are."""
        return cls(images, images.all_classes)


def imagenet_validation(root: Path) -> EvaluationSet:
    """Return ImageNet's validation images, ``root/<wnid>/<file>`` in its thousand folders, as the domain ``root.name``.

    Raises:
        InputError: for other folders there, or beside it.
    """
    root = Path(root).resolve()
    images = DomainFolder(root.parent, split=None, domains=(root.name,))
    index = imagenet_index(images.all_classes)
    return EvaluationSet(images, [open_clip.IMAGENET_CLASSNAMES[index[wnid]] for wnid in images.all_classes])


def template_sets() -> dict[str, Sequence[str]]:
    """Return the study's two ways to ask: all templates, and those with style words alone."""
    return {"all templates": default_templates(), "style words": style_templates()}


def evaluate_run(
    run: StudyRun,
    tests: EvaluationSet,
    *,
    templates: Mapping[str, Sequence[str]] | None = None,
    top: Sequence[int] = TOP,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> pd.DataFrame:
    """Return the accuracies of every checkpoint of a run; see `tidy_accuracy` for the columns, and ``epoch``.

    Args:
        run: A CLIP or a supervised model.
        tests: What to classify; all of its domains.
        templates: Prompt templates by the name to show; `template_sets` unless told. Not used by supervised models.
        top: The k of top-k accuracy.
        device: Where the model runs.
        progress: Show a bar.

    Raises:
        InputError: a run without checkpoints, held-out classes that the images lack, tables in the run's folder of
            another configuration, and what loading a model raises.

    Example:
        >>> tests = EvaluationSet.of(DomainFolder("DomainNet", domains=("sketch", "real")))
        >>> evaluate_run(StudyRun.read("runs/cg-high-sketch"), tests).query("part == 'held-out'")
    """
    asked = {} if run.supervised else dict(template_sets() if templates is None else templates)
    images = tests.images
    held_out = tuple(name for name in run.held_out if name in images.classes)
    config = {
        "images": digest([record.relative for record in images.records]),
        "names": digest(list(tests.names)),
        "held_out": held_out,
        "templates": {name: digest(as_patterns(patterns)) for name, patterns in asked.items()},
        "top": list(top),
    }
    folder = run.folder / "evaluation" / digest(config)
    claim(folder, FORMAT, config)
    tables = []
    for epoch, checkpoint in checkpoints(run.folder):
        path = folder / f"epoch_{epoch}.csv"
        if not path.is_file():
            found = tidy_accuracy(_classified(run, checkpoint, tests, asked, device, progress), held_out, top)
            with whole_file(path) as temporary:
                found.to_csv(temporary, index=False)
        tables.append(pd.read_csv(path, keep_default_na=False).assign(epoch=epoch))
    if not tables:
        raise InputError(f"{run.folder} holds no checkpoints; finish its training first")
    return pd.concat(tables, ignore_index=True)


def _classified(
    run: StudyRun,
    checkpoint: Path,
    tests: EvaluationSet,
    templates: Mapping[str, Sequence[str]],
    device: str | torch.device,
    progress: bool,
) -> pd.DataFrame:
    heads: dict[str, Head]
    if run.supervised:
        model = load_supervised(checkpoint, device=device)
        encoder, preprocess = model.encoder, model.preprocess
        heads = {"supervised": supervised_head(model, tests.images.all_classes)}
    else:
        clip = load_clip(run.model, checkpoint=checkpoint, device=device)
        encoder, preprocess = clip.encoder, clip.preprocess
        heads = {name: text_head(clip.text_weights(tests.names, patterns)) for name, patterns in templates.items()}
    return predictions(encoder, heads, preprocess, tests.images, device=device, progress=progress)


def supervised_head(model: SupervisedModel, classes: Sequence[str]) -> Head:
    """Return the head of a supervised model for these classes alone, by the outputs that they count as.

    Raises:
        InputError: for a class that it was not trained on.
    """
    labels = {readable(name): label for name, label in model.table.labels.items()}
    if missing := [name for name in classes if readable(name) not in labels]:
        raise InputError(f"the supervised model knows no class {missing[0]!r}; test it on classes it was trained on")
    outputs = torch.tensor([labels[readable(name)] for name in classes])
    return lambda embeddings: model.head(F.relu(embeddings))[:, outputs.to(embeddings.device)]


def evaluate_runs(runs: Iterable[StudyRun], tests: EvaluationSet, **settings: object) -> pd.DataFrame:
    """Return the accuracies of many runs, each on its test domain and on all others of ``tests``.

    Args:
        runs: See `find_runs`.
        tests: What to classify.
        settings: See `evaluate_run`.

    Returns:
        The columns of `evaluate_run` and ``run`` (its folder's name), ``model``, ``setting``, ``test_domain`` ("" where
        there is none), ``seed``.
    """
    tables = [
        evaluate_run(run, tests, **settings).assign(  # type: ignore[arg-type]
            run=run.folder.name,
            model=run.model,
            setting=run.setting,
            test_domain=run.test_domain or "",
            seed=run.seed,
        )
        for run in runs
    ]
    if not tables:
        raise InputError("expected at least one run to evaluate, given none")
    return pd.concat(tables, ignore_index=True)

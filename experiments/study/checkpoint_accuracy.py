"""Accuracies of the study's models at every checkpoint.

The folder of a run holds predictions and accuracies, one job for each checkpoint. Several processes may share the jobs;
finished and undamaged ones are only read.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from circuitry.runs import InputError, Job, JobFolder, Work, digest
from circuitry.comparison import read_named_table, write_named_table
from circuitry.data import Decoding, DomainFolder, chosen_names, class_key, image_listing, imagenet_index, with_decoding
from circuitry.models import Clip, load_clip, templates_of
from circuitry.training import (
    ZERO_SHOT_TEXTS,
    kept_checkpoints,
    predictions,
    tidy_accuracy,
    write_predictions,
    zero_shot_heads,
)
from experiments.study.selection import ImagenetNames, imagenet_names, style_word_templates
from experiments.study.study_run import StudyRun
from experiments.study.supervised_model import SupervisedModel, load_supervised

import pandas as pd
import torch

_FORMAT = "circuitry evaluation 3"


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Images to classify, with the names of their classes in prompts."""

    images: DomainFolder
    names: Sequence[str]  # one per class of ``images.all_classes``
    styles: Mapping[str, str] = field(default_factory=dict)
    """Domain -> domain of the style in its prompts (default: itself)."""
    holds_out: bool = True  # whether the held-out classes of a run are among the classes

    @classmethod
    def of(cls, images: DomainFolder) -> "EvaluationSet":
        """Return the set of all images of a folder; folders name the classes."""
        return cls(images, images.all_classes)

    @cached_property
    def listing(self) -> dict[str, str]:
        """Return the `image_listing` of the images."""
        return image_listing(self.images.records)

    @property
    def all_styles(self) -> dict[str, str]:
        """Return ``styles`` for every domain."""
        return {domain: self.styles.get(domain, domain) for domain in self.images.domains}


def imagenet_validation(root: Path, names: ImagenetNames = "open_clip") -> EvaluationSet:
    """Return ImageNet's validation images, ``root/<wnid>/<file>``, as the domain ``root.name``."""
    root = Path(root).resolve()
    images = DomainFolder(root.parent, split=None, domains=(root.name,))
    index, called = imagenet_index(images.all_classes), imagenet_names(names)
    return EvaluationSet(images, [called[index[wnid]] for wnid in images.all_classes], {root.name: "real"}, False)


def template_sets() -> dict[str, Any]:
    """Return the study's two sets of class texts, all templates and templates with style words, and own-style ones."""
    return {**ZERO_SHOT_TEXTS, "style words": style_word_templates()}


def extract_accuracies(
    runs: Sequence[StudyRun],
    tests: EvaluationSet,
    *,
    epochs: Sequence[int] | None = None,
    decoding: Decoding = "upright",
    device: str | torch.device = "cpu",
    work: Work = Work(),
) -> pd.DataFrame:
    """Return the accuracies of the checkpoints of many runs, computed where the runs' folders lack them.

    ``<run>/evaluation/<digest>/`` holds the tables and the predictions, ``epoch_<n>-<domain>.safetensors`` (see
    `read_predictions`).

    Returns:
        The columns of `tidy_accuracy`, ``epoch``, ``run`` (name of its folder), ``model``, ``base``, ``sketches``,
        ``captions``, ``trained`` ("CLIP" or "supervised"), ``precision``, ``setting``, ``test_domain`` ("" for none),
        ``held_out_classes`` (joined by ", ") and ``seed``.
    """
    if not runs:
        raise InputError("Accuracies need at least one run, but none was given: give some.")
    evaluations = [_Evaluation(run, kept_checkpoints(run.folder, epochs), tests, decoding, device) for run in runs]
    names = run_names(runs)
    for evaluation in work.rank.order(evaluations):  # in another order in each process, since each waits for its end
        evaluation.run_jobs(work)
    tables = [evaluation.table().assign(run=name) for name, evaluation in zip(names, evaluations, strict=True)]
    return pd.concat(tables, ignore_index=True)


def run_names(runs: Sequence[StudyRun]) -> list[str]:
    """Return the shortest unique names of runs: their paths below the common folder."""
    asked = [(run.folder.absolute(), run.held_out) for run in runs]
    if len(set(asked)) < len(asked):
        twice = next(folder for folder, held_out in asked if asked.count((folder, held_out)) > 1)
        raise InputError(f"Each run is evaluated once, but {twice} was given twice: give it once.")
    common = Path(os.path.commonpath([folder.parent for folder, _ in asked]))
    return [folder.relative_to(common).as_posix() for folder, _ in asked]


class _Evaluation:
    """The accuracies of one run, a `JobFolder` with a job for every checkpoint."""

    def __init__(
        self,
        run: StudyRun,
        chosen: Mapping[int, Path],
        tests: EvaluationSet,
        decoding: Decoding,
        device: str | torch.device,
    ) -> None:
        self.run, self.tests, self.decoding, self.device = run, tests, decoding, device
        self.templates = {} if run.supervised else template_sets()
        self.checkpoints: dict[Job, tuple[int, Path]] = {
            (f"epoch_{epoch}",): (epoch, path) for epoch, path in chosen.items()
        }
        known = tests.images.all_classes
        asked = run.held_out if tests.holds_out else ()
        self.held_out = chosen_names("held-out class", asked, known, class_key) if asked else ()
        styles = tests.all_styles
        config = {
            "names": list(tests.names),
            "held_out": self.held_out,
            "templates": {
                name: {domain: templates_of(texts, style) for domain, style in styles.items()}
                for name, texts in self.templates.items()
            },
            "top": (1, 5),
            **({} if decoding == "upright" else {"decoding": decoding}),
        }
        path = run.folder / "evaluation" / digest([config, list(tests.listing)])
        self.folder = JobFolder(path, _FORMAT, config, list(self.checkpoints), {"images": tests.listing})

    def run_jobs(self, work: Work) -> None:
        """Do this process's share, then the rest."""

        def do(job: Job, nothing: Any) -> list[Path]:
            found = self._classified(self.checkpoints[job][1], work)
            paths = [self._path(job)]
            for domain, own in found.groupby("domain"):
                paths.append(self.folder.path / f"{job[0]}-{domain}.safetensors")
                write_predictions(paths[-1], own, list(self.tests.listing))
            write_named_table(paths[0], tidy_accuracy(found, self.held_out))
            return paths

        self.folder.run(do, rank=work.rank)

    def _path(self, job: Job) -> Path:
        return self.folder.path / f"{job[0]}.csv"

    def table(self) -> pd.DataFrame:
        """Return the finished tables of all checkpoints, with the columns of the run."""
        run = self.run
        tables = [
            read_named_table(self._path(job), na_values={"chance": ""}).assign(epoch=epoch)
            for job, (epoch, _) in self.checkpoints.items()
        ]
        return pd.concat(tables, ignore_index=True).assign(
            model=run.model,
            base=run.base,
            sketches=run.sketches,
            captions=run.captions,
            trained="supervised" if run.supervised else "CLIP",
            precision=run.precision,
            setting=run.setting,
            test_domain=run.test_domain or "",
            held_out_classes=", ".join(self.held_out),
            seed=run.seed,
        )

    def _classified(self, checkpoint: Path, work: Work) -> pd.DataFrame:
        """Return the predictions of one checkpoint."""
        images = self.tests.images
        heads: Mapping[str, Any]
        model: Clip | SupervisedModel
        if self.run.supervised:
            model = load_supervised(checkpoint, device=self.device)
            heads = {"supervised": model.head_for(images.all_classes)}
        else:
            model = load_clip(self.run.model, checkpoint=checkpoint, device=self.device)
            heads = zero_shot_heads(model, self.tests.names, self.templates, self.tests.all_styles)
        preprocess = with_decoding(model.preprocess, self.decoding)
        return predictions(model.encoder, heads, preprocess, images, self.held_out, work=work)

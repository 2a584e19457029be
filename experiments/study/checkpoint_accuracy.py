"""Accuracies of the study's models at every checkpoint.

The folder of a run holds predictions and accuracies, one job for each checkpoint. Several processes may share the jobs;
finished and undamaged ones are only read.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from circuitry.runs import InputError, Job, JobFolder, Work, digest
from circuitry.comparison import read_named_table, write_named_table
from circuitry.data import (
    Decoding,
    DomainFolder,
    chosen_names,
    class_key,
    image_listing,
    imagenet_index,
    with_decoding,
)
from circuitry.models import Clip, load_clip, templates_of
from circuitry.training import (
    ZERO_SHOT_TEXTS,
    kept_checkpoints,
    predictions,
    tidy_accuracy,
    write_predictions,
    zero_shot_heads,
)
from experiments.study.selection import (
    ImagenetNames,
    imagenet_names,
    style_word_templates,
)
from experiments.study.study_run import StudyRun
from experiments.study.supervised_model import SupervisedModel, load_supervised

import pandas as pd
import torch

_FORMAT = "circuitry evaluation 4"


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Images to classify, with the names of their classes in prompts."""

    images: DomainFolder
    names: Sequence[str]  # one per class of ``images.all_classes``
    style: str | None = None
    """Style in all prompts, of images without the held-out classes of a run (default: each domain's own)."""

    @cached_property
    def listing(self) -> dict[str, str]:
        """Return the `image_listing` of the images."""
        return image_listing(self.images.records)


def imagenet_validation(
    root: Path, names: ImagenetNames = "open_clip"
) -> EvaluationSet:
    """Return ImageNet's validation images, ``root/<wnid>/<file>``, as the domain ``root.name``."""
    root = Path(root).resolve()
    images = DomainFolder(root.parent, split=None, domains=(root.name,))
    index = imagenet_index(images.all_classes)
    called = imagenet_names(names)
    return EvaluationSet(
        images, [called[index[wnid]] for wnid in images.all_classes], style="real"
    )


TEMPLATE_SETS: dict[str, Any] = {
    **ZERO_SHOT_TEXTS,
    "style words": style_word_templates(),
}
"""The study's two sets of class texts, all templates and templates with style words, and own-style ones."""


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
    `read_predictions`). The columns are those of `tidy_accuracy`, ``epoch``, ``run`` and what differs among runs.
    """
    names = run_names(runs)
    chosen = [kept_checkpoints(run.folder, epochs) for run in runs]
    tables: dict[int, pd.DataFrame] = {}
    for i in work.rank.order(
        range(len(runs))
    ):  # in another order in each process, since each waits for its end
        tables[i] = _evaluated(
            runs[i], chosen[i], tests, decoding, device, work
        ).assign(run=names[i])
    return pd.concat([tables[i] for i in range(len(runs))], ignore_index=True)


def run_names(runs: Sequence[StudyRun]) -> list[str]:
    """Return the shortest unique names of runs: their paths below the common folder."""
    asked = [(run.folder.absolute(), run.held_out) for run in runs]
    if len(set(asked)) < len(asked):
        twice = next(
            folder for folder, held_out in asked if asked.count((folder, held_out)) > 1
        )
        raise InputError(
            f"Each run is evaluated once, but {twice} was given twice: give it once."
        )
    common = Path(os.path.commonpath([folder.parent for folder, _ in asked]))
    return [folder.relative_to(common).as_posix() for folder, _ in asked]


def _evaluated(
    run: StudyRun,
    chosen: Mapping[int, Path],
    tests: EvaluationSet,
    decoding: Decoding,
    device: str | torch.device,
    work: Work,
) -> pd.DataFrame:
    """Return the accuracies of one run; a job for every checkpoint does what is missing."""
    images = tests.images
    templates = {} if run.supervised else TEMPLATE_SETS
    styles = {domain: tests.style or domain for domain in images.domains}
    asked = run.held_out if tests.style is None else ()
    held_out = (
        chosen_names("held-out class", asked, images.all_classes, class_key)
        if asked
        else ()
    )
    texts = {
        name: {domain: templates_of(these, style) for domain, style in styles.items()}
        for name, these in templates.items()
    }
    config = {
        "names": list(tests.names),
        "held_out": held_out,
        "templates": texts,
        "decoding": decoding,
    }
    jobs: dict[Job, int] = {(f"epoch_{epoch}",): epoch for epoch in chosen}
    path = run.folder / "evaluation" / digest([config, list(tests.listing)])
    folder = JobFolder(path, _FORMAT, config, list(jobs), {"images": tests.listing})

    def do(job: Job, nothing: Any) -> list[Path]:
        heads: Mapping[str, Any]
        model: Clip | SupervisedModel
        if run.supervised:
            model = load_supervised(chosen[jobs[job]], device=device)
            heads = {"supervised": model.head_for(images.all_classes)}
        else:
            model = load_clip(run.model, checkpoint=chosen[jobs[job]], device=device)
            heads = zero_shot_heads(model, tests.names, templates, styles)
        preprocess = with_decoding(model.preprocess, decoding)
        found = predictions(
            model.encoder, heads, preprocess, images, held_out, work=work
        )
        paths = [path / f"{job[0]}.csv"]
        for domain, own in found.groupby("domain"):
            paths.append(path / f"{job[0]}-{domain}.safetensors")
            write_predictions(paths[-1], own, list(tests.listing))
        write_named_table(paths[0], tidy_accuracy(found, held_out))
        return paths

    folder.run(do, rank=work.rank)
    tables = [
        read_named_table(path / f"epoch_{epoch}.csv", na_values={"chance": ""}).assign(
            epoch=epoch
        )
        for epoch in chosen
    ]
    return pd.concat(tables, ignore_index=True).assign(
        **{
            name: getattr(run, name)
            for name in ("model", "base", "sketches", "captions")
        },
        trained="supervised" if run.supervised else "CLIP",
        precision=run.precision,
        setting=run.setting,
        test_domain=run.test_domain or "",
        held_out_classes=", ".join(held_out),
        seed=run.seed,
    )

"""Accuracies of the study's models at every checkpoint.

The folder of a run holds its predictions and accuracies. Each checkpoint is a job, and several processes may share the
jobs. A job that is finished is not done again: its files are checked and read.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


TEMPLATE_SETS: dict[str, Any] = {
    **ZERO_SHOT_TEXTS,
    "style words": style_word_templates(),
}
"""The templates of class texts: both sets of the study, which are all templates and the templates with style words, and
the templates that name the style of a domain."""


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Images to classify, with the names of their classes in prompts."""

    images: DomainFolder
    names: Sequence[str]  # a name for each class of ``images.all_classes``
    style: str | None = None
    """The style that all prompts name, if the held-out classes of a run do not apply to these images. If it is None,
    prompts name the style of each image's domain."""
    templates: Mapping[str, Any] = field(default_factory=lambda: TEMPLATE_SETS)
    """The templates of each classifier of a CLIP model."""

    @cached_property
    def listing(self) -> dict[str, str]:
        """The `image_listing` of the images."""
        return image_listing(self.images.records)


def imagenet_validation(
    root: Path, names: ImagenetNames = "open_clip"
) -> EvaluationSet:
    """Return ImageNet's validation images as a single domain, which has the name of their folder.

    Args:
        root: Folder of the images, ``root/<wnid>/<file>``.
        names: Which names of ImageNet's classes the prompts have; see `imagenet_names`.
    """
    root = Path(root).resolve()
    # The parent counts as the data, so that the folder is its only domain.
    images = DomainFolder(root.parent, split=None, domains=(root.name,))
    index = imagenet_index(images.all_classes)
    called = imagenet_names(names)
    in_prompts = [called[index[wnid]] for wnid in images.all_classes]
    return EvaluationSet(images, in_prompts, style="real")


def extract_accuracies(
    runs: Sequence[StudyRun],
    tests: EvaluationSet,
    *,
    epochs: Sequence[int] | None = None,
    decoding: Decoding = "upright",
    device: str | torch.device = "cpu",
    work: Work = Work(),
) -> pd.DataFrame:
    """Return the accuracies of the checkpoints of many runs. Accuracies are computed if the folder of a run lacks them.

    The folder ``<run>/evaluation/<digest>/`` holds the tables of a run and its predictions,
    ``epoch_<n>-<domain>.safetensors`` (see `read_predictions`).

    Args:
        runs: The runs.
        tests: The images that are classified.
        epochs: Epochs of the checkpoints (default: all checkpoints that were kept).
        decoding: How image files become pictures.
        device: Where the models run.
        work: How several processes share the jobs.

    Returns:
        The columns of `tidy_accuracy`, then ``epoch``, the columns that describe the run (model, setting, seed, ...)
        and ``run``.
    """
    names = run_names(runs)
    chosen = [run.checkpoints(epochs) for run in runs]
    tables: dict[int, pd.DataFrame] = {}
    # A process waits until all jobs of a run are done, so that processes begin with different runs.
    for i in work.rank.order(range(len(runs))):
        table = _evaluated(runs[i], chosen[i], tests, decoding, device, work)
        tables[i] = table.assign(run=names[i])
    return pd.concat([tables[i] for i in range(len(runs))], ignore_index=True)


def run_names(runs: Sequence[StudyRun]) -> list[str]:
    """Return a unique name for each run: the path of its folder below the deepest folder that holds all runs.

    Raises:
        InputError: If a run is given twice.
    """
    asked = [(run.folder.absolute(), run.held_out) for run in runs]
    for folder, held_out in asked:
        # A folder may be read with two choices of held-out classes.
        if asked.count((folder, held_out)) > 1:
            raise InputError(
                f"Each run is evaluated once, but {folder} was given twice: give it once."
            )
    # Parents, because the common folder of a single run is the run itself, which would be named ".".
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
    """Return the accuracies of one run. Each checkpoint without finished files is evaluated first.

    Args:
        run: The run.
        chosen: A dictionary from each epoch to the file of its checkpoint.
        tests: The images that are classified.
        decoding: How image files become pictures.
        device: Where the model runs.
        work: How several processes share the jobs.
    """
    images = tests.images
    # A supervised model has a head, so it needs no texts of classes.
    templates = {} if run.supervised else tests.templates
    styles = {domain: tests.style or domain for domain in images.domains}
    held_out: tuple[str, ...] = ()
    if run.held_out and tests.style is None:
        held_out = chosen_names(
            "held-out class", run.held_out, images.all_classes, class_key
        )
    texts = {}
    for name, patterns in templates.items():
        texts[name] = {
            domain: templates_of(patterns, style) for domain, style in styles.items()
        }
    # All that shapes a prediction apart from model and images; the name of the folder is a hash of it.
    config = {
        "names": list(tests.names),
        "held_out": held_out,
        "templates": texts,
        "decoding": decoding,
    }
    checkpoints: dict[Job, Path] = {
        (f"epoch_{epoch}",): checkpoint for epoch, checkpoint in chosen.items()
    }
    path = run.folder / "evaluation" / digest([config, list(tests.listing)])
    jobs = list(checkpoints)
    folder = JobFolder(path, _FORMAT, config, jobs, {"images": tests.listing})

    def do(job: Job, nothing: Any) -> list[Path]:
        """Classify the images with one checkpoint; return the files of its accuracies and predictions."""
        heads: Mapping[str, Any]
        model: Clip | SupervisedModel
        if run.supervised:
            model = load_supervised(checkpoints[job], device=device)
            heads = {"supervised": model.head_for(images.all_classes)}
        else:
            model = load_clip(run.model, checkpoint=checkpoints[job], device=device)
            heads = zero_shot_heads(model, tests.names, templates, styles)
        preprocess = with_decoding(model.preprocess, decoding)
        predicted = predictions(
            model.encoder, heads, preprocess, images, held_out, work=work
        )
        paths = [path / f"{job[0]}.csv"]
        # A file for each domain, because the images of a domain are read alone (`read_predictions`).
        for domain, own in predicted.groupby("domain"):
            paths.append(path / f"{job[0]}-{domain}.safetensors")
            write_predictions(paths[-1], own, list(tests.listing))
        write_named_table(paths[0], tidy_accuracy(predicted, held_out))
        return paths

    folder.run(do, rank=work.rank)
    tables = []
    for epoch in chosen:
        # Rows without a chance level have an empty cell there; other empty cells are texts.
        table = read_named_table(path / f"epoch_{epoch}.csv", na_values={"chance": ""})
        tables.append(table.assign(epoch=epoch))
    return pd.concat(tables, ignore_index=True).assign(
        model=run.model,
        base=run.base,
        sketches=run.sketches,
        captions=run.captions,
        trained="supervised" if run.supervised else "CLIP",
        precision=run.precision,
        setting=run.setting,
        test_domain=run.test_domain or "",
        held_out_classes=", ".join(held_out),
        seed=run.seed,
    )

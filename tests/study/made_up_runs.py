"""Accuracies of all models of the study as a function says, as the evaluation of trained models would have them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any, NamedTuple

import pandas as pd

from circuitry.runs.manifest import write_sealed
from circuitry.training.accuracy import (
    AMONG_GROUP,
    CENTRED,
    FALLS_ON_HELD_OUT,
    FALSE_ALARMS,
    MEASURE,
)
from experiments.study.run_tables import COMPARED_MEASURES
from experiments.study.selection import MixtureSettings
from experiments.study.study_run import StudyRun
from experiments.study.study_set import StudyTraining, study_mixtures, study_trainings

HELD_OUT = ("axe", "banana", "bed")
BASES = ("imagenet-captions", "cc3m", "cc12m")
OF_CLASSES = (MEASURE, AMONG_GROUP, CENTRED, FALLS_ON_HELD_OUT, FALSE_ALARMS)


class Asked(NamedTuple):
    """One accuracy of one model."""

    run: StudyTraining
    domain: str
    group: str
    measure: str
    classifier: str


def made_up_runs(
    accuracy: Callable[[Asked], float],
    test_domains: Sequence[str],
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Return the table of `extract_accuracies` of the study's trainings, at their last checkpoints."""
    mixtures = study_mixtures(BASES, held_out=HELD_OUT, test_domains=test_domains)
    trainings = study_trainings(
        mixtures, BASES[0], ("rn50", "vit-s-32", "swin-t"), seeds
    )
    return pd.DataFrame(
        [row for run in trainings for row in _rows(run, accuracy, test_domains)]
    )


def _rows(
    run: StudyTraining, accuracy: Callable[[Asked], float], test_domains: Sequence[str]
) -> Iterator[dict[str, Any]]:
    settings, sketches = run.mixture.settings, run.mixture.sketches
    tested = (
        settings.test_domain if settings.setting != "natural-only" or sketches else ""
    )
    about = {
        "run": run.name,
        "trained": "supervised" if run.supervised else "CLIP",
        "model": run.model,
        "base": run.mixture.base or "none",
        "sketches": sketches or "none",
        "captions": "aligned (stream)" if settings.aligned else "standard (stream)",
        "precision": "amp",
        "setting": settings.name.removesuffix(f"-{settings.test_domain}"),
        "test_domain": tested,
        "held_out_classes": ", ".join(HELD_OUT),
        "seed": run.seed,
        "epoch": 90 if run.supervised else 32,
        "n_images": 100,
        "n_classes": 345,
    }
    domains = ("real", tested) if tested else ("real", *test_domains)
    wholes = product(("all", "seen", "held-out"), COMPARED_MEASURES)
    asked = [*wholes, *product(HELD_OUT, OF_CLASSES)]
    classifiers = ("supervised",) if run.supervised else ("all templates", "own style")
    for domain, (group, measure), classifier in product(domains, asked, classifiers):
        if classifier != "own style" or (measure == MEASURE and group in HELD_OUT):
            chance = 1 / len(HELD_OUT) if measure == AMONG_GROUP else 1 / 345
            told = Asked(run, domain, group, measure, classifier)
            place = {
                "classifier": classifier,
                "domain": domain,
                "group": group,
                "measure": measure,
                "chance": chance,
            }
            yield about | place | {"value": accuracy(told)}


def write_run(run: StudyRun) -> StudyRun:
    """Write the ``run.json`` of a run, as `record_run` would after its training, and return it."""
    setting: Any = run.setting
    settings = MixtureSettings(setting, run.test_domain or "none", run.held_out)
    told = {
        "test_domain": run.test_domain,
        "base": None,
        "sketches": None,
        "captions": run.captions,
    }
    table = {"settings": asdict(settings), "held_out": run.held_out, **told}
    training = {
        "model": run.model,
        "seed": run.seed,
        "precision": run.precision,
        "threads": run.threads,
    }
    kind = "SupervisedTraining" if run.supervised else "ClipTraining"
    made = {"kind": kind, "training": training, "table": table, "commit": run.commit}
    write_sealed(run.folder / "run.json", {"format": "circuitry run 3", **made})
    return run

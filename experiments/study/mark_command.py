"""A mark that goes with one class in training: does removing its part take it out, beside rivals at equal cost?

The truth is planted: what a CLIP learns of the mark is wrong. This program trains a CLIP for each seed with the mark
on another class, finds the part of the mark, removes it, and counts right answers by class and mark. Random units,
selective pruning, LEACE, projection, a moved mean and a head fitted again stand beside, and a model that never saw the
mark. `experiments/study/mark_claims.py` has the claims, written before the first model was edited.

    python -m experiments.study mark --data PACS            # a quarter of an hour a seed; a second call goes on
    python -m experiments.study mark --data PACS --seeds 1  # one model
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from circuitry.runs import Job, JobFolder, versions, whole_file
from circuitry import load_clip
from circuitry.data import SmallTables, image_listing
from circuitry.reports import Report, Written, write_results
from experiments.study import claims, mark_claims
from experiments.study.claim_charts import verdicts_by_way
from experiments.study.claims_report import findings
from experiments.study.mark_edits import (
    NO_MARK,
    UNRULED,
    MarkQuestion,
    group_rows,
    mark_effects,
)
from experiments.study.mark_models import MARKED, MarkStudy

import pandas as pd

BOUND_SEED = 1
"""Seed of the one model that never saw the mark."""
FORMAT = "circuitry mark 1"
TABLES = ("answers", "facts", "units")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the measurement."""

    data: Path
    """Folder of PACS."""
    out: Path = Path("runs/mark")
    """Folder of pictures, models and tables; what is finished is used again."""
    results: SmallTables = None
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """Seeds; each puts the mark on the class of this place in the order of names."""
    model: str = "lite0-tuned"
    """Preset of the training."""


def main(config: Config) -> Written:
    """Edit all models, judge the claims, and print where the report is."""
    folders = [edited(config, seed) for seed in config.seeds]
    tables = dict[str, pd.DataFrame]()
    for name in TABLES:
        rows = [pd.read_csv(folder / f"{name}.csv") for folder in folders]
        tables[name] = pd.concat(rows, ignore_index=True)
    models = mark_claims.over_groups(tables["answers"])
    judgements = mark_claims.judged(models, tables["facts"])
    tables |= {
        "models": models,
        "claims": judgements,
        "verdicts": claims.verdicts(judgements),
    }
    marked = ", ".join(tables["answers"]["marked"].unique())
    report = Report(
        "A mark that goes with one class",
        f"{len(folders)} models ({config.model}); the mark goes with {marked}.",
    )
    report.summary(findings(tables["verdicts"], mark_claims.CLAIMS))
    report.figure(
        verdicts_by_way(judgements, mark_claims.CLAIMS),
        "The verdict on each claim in every way to count.",
    )
    report.table(tables["verdicts"], "Verdicts.")
    report.table(judgements, "All measures, in every way to count.")
    return write_results(
        report, tables, config.out / "results", config.results, versions()
    )


def edited(config: Config, seed: int) -> Path:
    """Edit the model of a seed, unless that is done, and return the folder of its tables."""
    # Tables of trainings have whole paths, so a link to the folder changes nothing.
    study = MarkStudy(config.data.resolve(), config.out.resolve())
    source = study.source
    marked = source.classes[seed]
    folder = config.out / "edits" / f"{config.model}-{marked}-seed{seed}"
    choosing, tests = study.pictures("choose"), study.pictures("test")

    def do(job: Job, _: object) -> list[Path]:
        questions = dict[str | None, MarkQuestion]()
        for of_model, of_seed in ((marked, seed), (None, BOUND_SEED)):
            weights = study.trained(config.model, of_seed, of_model)
            clip = load_clip(config.model, weights)
            questions[of_model] = MarkQuestion(
                clip,
                study.pictures("fit"),
                MARKED,
                (),
                marked=marked,
                words=source.domains,
            )
        question, bound = questions.values()
        test = question.run(tests.records)
        tables = mark_effects(question, question.run(choosing.records), test)
        never = bound.answered(bound.run(tests.records).embeddings)
        rows = group_rows(bound, test, [never], {"edit": NO_MARK, "rule": UNRULED})
        tables["answers"] = pd.concat([tables["answers"], pd.DataFrame(rows)])
        about = {"run": folder.name, "model": config.model, "seed": seed}
        return list(_write(folder, tables, **about, marked=marked))

    listings = {
        "choose": image_listing(choosing.records),
        "test": image_listing(tests.records),
    }
    settings = {"model": config.model, "seed": seed, "marked": marked}
    JobFolder(folder, FORMAT, settings, [("mark",)], listings).run(do)
    return folder


def _write(
    folder: Path, tables: dict[str, pd.DataFrame], **about: object
) -> Iterator[Path]:
    """Write the tables of a model, and yield their files."""
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        with whole_file(path) as temporary:
            table.assign(**about).to_csv(temporary, index=False)
        yield path

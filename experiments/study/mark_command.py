"""A mark that goes with one class in training: does removing its part take it out, beside rivals at equal cost?

The truth is planted: what a CLIP learns of the mark is wrong. This program trains a CLIP for each seed with the mark
on another class, finds the part of the mark, removes it, and counts right answers by class and mark. Random units,
selective pruning, LEACE, projection, a moved mean and a head fitted again stand beside, and a model that never saw the
mark. `experiments/study/mark_claims.py` has the claims, written before the first model was edited. Then
smaller parts, added after a look, and as many random and pruned units are counted (`mark_further`).

    python -m experiments.study mark --data PACS            # a quarter of an hour a seed; a second call goes on
    python -m experiments.study mark --data PACS --seeds 1  # one model
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from experiments.study.mark_further import further_effects
from experiments.study.mark_models import MARKED, MarkStudy
from experiments.study.style_edits import Pictures

import pandas as pd

BOUND_SEED = 1
"""Seed of the one model that never saw the mark."""
FORMAT = "circuitry mark 1"
CHOOSING = "choose"
TEST = "test"
"""Sets of pictures that choose strengths, and that are counted."""
SMALL = ("models", "further", "verdicts")
"""Tables that are small enough to be committed."""


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
    before = mark_claims.over_groups(_read(folders, "answers"))
    known = set(mark_claims.learned(before)["run"])
    later = list[Path]()
    for seed, folder in zip(config.seeds, folders, strict=True):
        if folder.name in known:
            later.append(further(config, seed))
    answers = _read([*folders, *later], "answers")
    models = mark_claims.over_groups(answers)
    facts = _read(folders, "facts")
    judgements = mark_claims.judged(models, facts)
    tables = {
        "models": models,
        "facts": facts,
        "further": _read(later, "facts"),
        "units": _read(folders, "units"),
        "claims": judgements,
        "verdicts": claims.verdicts(judgements),
    }
    marked = ", ".join(models["marked"].unique())
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
        report,
        tables,
        config.out / "results",
        config.results,
        versions(),
        small=SMALL,
    )


def _read(folders: Sequence[Path], name: str) -> pd.DataFrame:
    """Return the table of a name of all models."""
    return pd.concat(
        [pd.read_csv(folder / f"{name}.csv") for folder in folders], ignore_index=True
    )


def edited(config: Config, seed: int) -> Path:
    """Edit the model of a seed, unless that is done, and return the folder of its tables."""

    def tables(study: MarkStudy, question: MarkQuestion) -> dict[str, pd.DataFrame]:
        choosing, test = _run(study, question)
        tables = mark_effects(question, choosing, test)
        bound = _question(config, study, BOUND_SEED, None)
        never = bound.answered(bound.run(study.pictures("test").records).embeddings)
        rows = group_rows(bound, test, [never], {"edit": NO_MARK, "rule": UNRULED})
        tables["answers"] = pd.concat([tables["answers"], pd.DataFrame(rows)])
        return tables

    return _measured(config, seed, "edits", tables)


def further(config: Config, seed: int) -> Path:
    """Ask the model of a seed what was added after a look, unless that is done, and return the folder of its tables."""

    def tables(study: MarkStudy, question: MarkQuestion) -> dict[str, pd.DataFrame]:
        return further_effects(question, *_run(study, question))

    return _measured(config, seed, "further", tables)


def _measured(
    config: Config,
    seed: int,
    name: str,
    tables_of: Callable[[MarkStudy, MarkQuestion], dict[str, pd.DataFrame]],
) -> Path:
    """Write tables of the model of a seed below the folder of a name, unless they are there; return their folder."""
    # Tables of trainings have whole paths, so a link to the folder changes nothing.
    study = MarkStudy(config.data.resolve(), config.out.resolve())
    marked = study.source.classes[seed]
    folder = config.out / name / f"{config.model}-{marked}-seed{seed}"

    def do(job: Job, _: object) -> list[Path]:
        question = _question(config, study, seed, marked)
        about = {"run": folder.name, "model": config.model, "seed": seed}
        tables = tables_of(study, question)
        return list(_write(folder, tables, **about, marked=marked))

    listings = dict[str, dict[str, str]]()
    for pictures in CHOOSING, TEST:
        listings[pictures] = image_listing(study.pictures(pictures).records)
    settings = {"model": config.model, "seed": seed, "marked": marked}
    JobFolder(folder, FORMAT, settings, [("mark",)], listings).run(do)
    return folder


def _question(
    config: Config, study: MarkStudy, seed: int, marked: str | None
) -> MarkQuestion:
    """Return the question of the model of a seed, after training it if it is missing."""
    weights = study.trained(config.model, seed, marked)
    return MarkQuestion(
        load_clip(config.model, weights),
        study.pictures("fit"),
        MARKED,
        (),
        marked=study.source.classes[seed],
        words=study.source.domains,
    )


def _run(study: MarkStudy, question: MarkQuestion) -> list[Pictures]:
    """Return the pictures that choose strengths, and those that are counted."""
    return [question.run(study.pictures(name).records) for name in (CHOOSING, TEST)]


def _write(
    folder: Path, tables: dict[str, pd.DataFrame], **about: Any
) -> Iterator[Path]:
    """Write the tables of a model, and yield their files."""
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        with whole_file(path) as temporary:
            table.assign(**about).to_csv(temporary, index=False)
        yield path

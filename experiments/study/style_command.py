"""What holds a CLIP back in a style? Edits of the models of the study on real pictures, at equal cost.

A CLIP of the study has not seen two classes in a style. This program finds the model's part of the style, removes it,
and asks whether the model then answers the two classes. Random units, other choices of units, and edits of embeddings
stand beside. `experiments/study/style_claims.py` has the claims, written before the first model was edited.

The program trains models that are missing; so --out is the folder of the program ``real``.

    python -m experiments.study style --data PACS --out runs/real                # hours; a second call goes on
    python -m experiments.study style --data PACS --seeds 0 --domains sketch --settings cg-high    # one model
    torchrun --nproc-per-node 2 -m experiments.study style --data PACS           # the same in two processes
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from circuitry.runs import Job, JobFolder, Work, versions, whole_file
from circuitry import load_clip
from circuitry.data import image_listing, readable
from circuitry.reports import Report, Written, write_results
from circuitry.training import ClipTraining, clip_preset
from experiments.study import claims, style_claims
from experiments.study.claim_charts import verdicts_by_way
from experiments.study.claim_tables import claim_setting
from experiments.study.claims_report import findings
from experiments.study.real_command import KEPT_EPOCHS
from experiments.study.real_command import Config as RealConfig
from experiments.study.real_models import EVERYWHERE, RealStudy
from experiments.study.selection import MixtureSettings
from experiments.study.style_curves import (
    curves,
    over_strength,
    recovery,
)
from experiments.study.style_edits import BY_FOLDERS, BY_TEXTS, StyleQuestion
from experiments.study.style_effects import style_effects

import pandas as pd

FORMAT = "circuitry style 1"
TABLES = ("answers", "facts", "units")
MAIN = "cg-high"
"""The setting whose models of all test domains and seeds are edited."""
FURTHER = (
    "cg-low",
    "aligned",
    "leave-out",
    "natural-only",
    "upper-high",
    "domain-interpolation",
    "class-interpolation",
)
"""Settings whose models of the far domain and of the first seeds are edited, in this order."""
UNNAMED = ("natural-only", "leave-out", "aligned")
"""Settings whose captions do not name the style of the question: the means of its pictures tell it."""


@dataclass(frozen=True, kw_only=True)
class Config(RealConfig):
    """Settings of the edits; models are found, or trained, as the study on real pictures has them."""


def main(config: Config) -> Written | None:
    """Edit all models, judge the claims, and print where the report is."""
    if not config.work.share_out(partial(edited, config), config.out / "style-jobs"):
        return None
    tables = written(edited(config, config.work.work()), config.far)
    runs = tables["answers"].drop_duplicates("run")
    report = Report(
        "What holds a CLIP back in a style?",
        f"{len(runs)} models ({', '.join(sorted(set(runs['model'])))}), {runs[claims.PAIR].nunique()} sets of held-out "
        "classes.",
    )
    report.summary(findings(tables["verdicts"], style_claims.CLAIMS))
    report.figure(
        verdicts_by_way(tables["claims"], style_claims.CLAIMS),
        "The verdict on each claim in every way to count; ways that do not apply are empty.",
    )
    first = tables["strengths"]["model"] == config.models[0]
    if first.any():
        report.figure(
            recovery(curves(tables["strengths"][first]), config.far),
            "Right answers on the held-out pair against right answers on seen classes, while edits get stronger.",
        )
    report.table(tables["verdicts"], "Verdicts.")
    report.table(tables["claims"], "All measures, in every way to count.")
    out = config.out / "style-results"
    return write_results(report, tables, out, config.results, versions())


def written(tables: dict[str, pd.DataFrame], far: str) -> dict[str, pd.DataFrame]:
    """Return the tables of all models with the verdicts, and answers at each strength in a table of their own."""
    answers, facts = tables["answers"], tables["facts"]
    judgements = style_claims.judged(answers, facts, far)
    return {
        "answers": answers[answers["rule"].isin(style_claims.STRENGTHS_BY)],
        "facts": facts,
        "units": tables["units"],
        "claims": judgements,
        "verdicts": claims.verdicts(judgements),
        "strengths": over_strength(answers[answers["setting"] == MAIN]),
    }


def edited(config: Config, work: Work) -> dict[str, pd.DataFrame]:
    """Return the tables of all models, after this process has edited its share of them."""
    study = config.study
    asked = {each.name: each for each in asked_models(config)}
    folders = dict[str, Path]()
    # Each process begins with its share. Then it reads the results of other processes, or edits what is missing.
    for name in work.rank.order(list(asked)):
        print(f"[{name}]", flush=True)
        folders[name] = _edit(config, study, asked[name])
    tables = dict[str, pd.DataFrame]()
    for table in TABLES:
        rows = [pd.read_csv(folders[name] / f"{table}.csv") for name in asked]
        tables[table] = pd.concat(rows, ignore_index=True)
    return tables


@dataclass(frozen=True)
class Asked:
    """A model, and the style that it is asked about."""

    training: ClipTraining
    mixture: MixtureSettings
    domain: str
    """The style."""
    by_folders: bool
    """Whether the means of pictures tell the style, in place of texts."""
    further: bool
    """Whether parts of all other styles are removed, too, and probes are fitted."""

    @property
    def name(self) -> str:
        """A name for the folder of its tables."""
        held_out = "-".join(map(readable, self.mixture.held_out_classes))
        told = "-by-folders" if self.by_folders else ""
        model = Path(self.training.model).stem
        setting = self.mixture.name.removesuffix(f"-{self.domain}")
        return f"{model}-{setting}-{self.domain}-without-{held_out}-seed{self.training.seed}{told}"


def asked_models(config: Config) -> Iterator[Asked]:
    """Yield the models that the stopping rule of the claims lists, the most important first."""
    seeds = config.seeds
    if seeds is None:
        seeds = tuple(range(len(config.study.pairs())))
    far = config.far
    ordered = list[tuple[int, Asked]]()
    for model, seed in product(config.models, seeds):
        training = replace(clip_preset(model), seed=seed, keep_checkpoints=KEPT_EPOCHS)
        mixtures = config.study.mixtures(seed, config.test_domains, config.settings)
        early = seed < config.n_shared
        for mixture in mixtures:
            setting = claim_setting(mixture.setting)
            domain = far if mixture.setting in EVERYWHERE else mixture.test_domain
            by_folders = setting in UNNAMED
            further = early and setting == MAIN and domain == far
            asked = Asked(training, mixture, domain, by_folders, further)
            if setting == MAIN:
                ordered.append((0, asked))
            elif setting in FURTHER and early and domain == far:
                ordered.append((1 + FURTHER.index(setting), asked))
            if further:
                again = replace(asked, by_folders=True, further=False)
                ordered.append((1 + len(FURTHER), again))
    for _, asked in sorted(ordered, key=lambda pair: pair[0]):
        yield asked


def _edit(config: Config, study: RealStudy, asked: Asked) -> Path:
    """Edit a model, unless that is done, and return the folder of its tables."""
    folder = config.out / "style" / asked.name
    run = study.run(asked.training, asked.mixture)
    train, tests = study.images("train"), study.images("test")

    def do(job: Job, _: object) -> list[Path]:
        kept = run.checkpoints()
        clip = load_clip(run.model, kept[max(kept)])
        question = StyleQuestion(
            clip, train, asked.domain, run.held_out, named=not asked.by_folders
        )
        test = question.run(tests.records)
        tables = style_effects(
            question, test, config.natural_domain, further=asked.further
        )
        about: dict[str, Any] = {
            "run": run.folder.relative_to(config.out).as_posix(),
            "model": run.model,
            "setting": claim_setting(run.setting),
            "test_domain": asked.domain,
            "seed": run.seed,
            claims.PAIR: ", ".join(run.held_out),
            "told": BY_FOLDERS if asked.by_folders else BY_TEXTS,
        }
        paths = list[Path]()
        for name in TABLES:
            path = folder / f"{name}.csv"
            with whole_file(path) as temporary:
                tables[name].assign(**about).to_csv(temporary, index=False)
            paths.append(path)
        return paths

    listings = {
        "train": image_listing(train.records),
        "test": image_listing(tests.records),
    }
    about = {"name": asked.name, "further": asked.further}
    JobFolder(folder, FORMAT, about, [("style",)], listings).run(do)
    return folder

"""The study on real pictures: how and when does a CLIP generalize, and do its domains share circuits where it does?

An image tower that was trained on photographs is tuned as a CLIP on mixtures of domains, and tested on classes that
were held out of a test domain. Each seed holds another pair of classes out. `experiments/study/claims.py` has the
claims, written before the first model was trained, and the rule that says how many seeds are trained: without --seeds,
the program trains three seeds, computes the number, and trains so many.

    python -m experiments.study real --data PACS                           # hours; a second call goes on
    python -m experiments.study real --data PACS --seeds 0 --domains sketch     # one pair in one test domain
    torchrun --nproc-per-node 2 -m experiments.study real --data PACS      # the same in two processes
    python -m experiments.study real --data PACS --cluster slurm --jobs 20 # the same by an array of jobs
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from circuitry.runs import ALONE, Count, Natural, Work, WorkSettings, versions
from circuitry.data import SmallTables, chosen_names
from circuitry.reports import Finding, Report, Written, with_intervals, write_results
from circuitry.training import (
    AMONG_GROUP,
    CLASSIFIER,
    ClipTraining,
    TrainingWork,
    clip_preset,
)
from experiments.study import claims
from experiments.study.checkpoint_accuracy import EvaluationSet, extract_accuracies
from experiments.study.claim_tables import accuracy_table
from experiments.study.real_models import RealStudy
from experiments.study.relations import (
    jackknife_over,
    picks_the_better,
    relate_over_models,
)
from experiments.study.run_tables import setting_family
from experiments.study.selection import SETTINGS, MixtureSettings
from experiments.study.sharing import (
    LABEL_FREE,
    SHARED,
    SharingSettings,
    named_runs,
    shared_of_runs,
)
from experiments.study.study_run import StudyRun

import pandas as pd
import tyro

SHARING = SharingSettings(
    n_images=6,
    n_tested=6,
    size=0.1,
    sae_steps=100,
    study_circuits=True,
    all_classes_in=("aligned",),
    natural_domain="photo",
)
"""How sharing is measured: on six pictures of each held-out class in each domain, and circuits of a tenth of units."""
FAR_IS_BETTER = ("reach", "distance")
"""Numbers without labels whose smaller value is to pick the better model; of all other numbers the larger value is."""
KEPT_EPOCHS = 2
"""Checkpoints are kept after each second pass and after the last."""


NOTHING = pd.DataFrame(
    columns=["run", *claims.CASE, "setting", "what", "site", "domain", "value"]
)
"""The table of what domains share, of no model."""


class Models(NamedTuple):
    """Trained models with their accuracies."""

    runs: list[StudyRun]
    evaluated: pd.DataFrame
    """The table of `extract_accuracies`."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the study on real pictures."""

    data: Path
    """Folder of the pictures, <domain>/<class>/<file>, such as PACS."""
    out: Path = Path("runs/real")
    """Folder of models, measurements, tables and the report; what is finished is used again."""
    results: SmallTables = None
    natural_domain: str = "photo"
    """The domain of photographs."""
    far: str = "sketch"
    """The domain that is furthest from all others; it is the test domain of all settings."""
    domains: tuple[str, ...] | None = None
    """Test domains (default: all domains except the domain of photographs)."""
    settings: tuple[str, ...] | None = None
    """Settings of mixtures (default: all)."""
    models: tuple[str, ...] = ("lite0-tuned",)
    """Presets of trainings."""
    seeds: tuple[int, ...] | None = None
    """Seeds, each of which holds another pair of classes out (default: as many as the stopping rule gives)."""
    n_shared: Natural = 8
    """Number of seeds, from the first on, whose models are asked what their domains share."""
    per_cell: Count | None = 160
    """Largest number of pictures of a class in a domain."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """How the work is shared out."""

    @property
    def study(self) -> RealStudy:
        """Return the pictures and models of these settings."""
        return RealStudy(
            self.data, self.out, self.natural_domain, self.far, self.per_cell
        )

    @property
    def test_domains(self) -> tuple[str, ...]:
        """Return the test domains, the far domain first."""
        images = self.study.images("train")
        others = [name for name in images.domains if name != self.natural_domain]
        chosen = chosen_names("test domain", self.domains, others)
        return tuple(sorted(chosen, key=lambda name: name != self.far))

    @property
    def tests(self) -> EvaluationSet:
        """Return the pictures that are classified, and the texts."""
        images = self.study.images("test")
        templates = {
            claims.TRAINED_WORDS: self.study.texts(),
            CLASSIFIER: "pooled",
        }
        return EvaluationSet(images, images.all_classes, templates=templates)


def main(config: Config) -> Written | None:
    """Train and measure missing models, judge the claims, and print where the report is."""
    if not config.work.share_out(partial(measured, config), config.out / "jobs"):
        return None
    return write(config, measured(config, config.work.work()))


def measured(config: Config, work: Work) -> claims.Tables:
    """Return the tables of all claims, after this process has trained and measured its share of the models."""
    chosen_names("setting", config.settings, SETTINGS)
    seeds = config.seeds
    if seeds is None:
        pilot = models_of(config, claims.PILOT, work)
        seeds = tuple(range(n_seeds(config, pilot)))
    models = models_of(config, seeds, work)
    shared = shared_of(config, models, work)
    return claims.Tables(accuracy_table(models.evaluated), shared, config.far)


def n_seeds(config: Config, pilot: Models) -> int:
    """Return the number of seeds by the stopping rule, from the accuracies of the pilot."""
    accuracies = accuracy_table(pilot.evaluated)
    needed = claims.seeds_needed(claims.Tables(accuracies, NOTHING, config.far))
    # Few settings may have no contrast.
    asked = 0 if needed.empty else int(needed["seeds"].iloc[-1])
    return max(len(claims.PILOT), min(asked, len(config.study.pairs())))


def models_of(config: Config, seeds: Sequence[int], work: Work) -> Models:
    """Return the models of some seeds with their accuracies, after training and evaluating them."""
    study = config.study
    tests = config.tests
    wanted = list[tuple[ClipTraining, MixtureSettings]]()
    for seed in seeds:
        mixtures = list(study.mixtures(seed, config.test_domains, config.settings))
        for model in config.models:
            training = replace(
                clip_preset(model), seed=seed, keep_checkpoints=KEPT_EPOCHS
            )
            wanted += [(training, mixture) for mixture in mixtures]
    reading = TrainingWork(workers=1, progress=work.progress)
    # Models are shared out between processes, and each process evaluates its models alone.
    alone = replace(work, rank=ALONE, progress=False)

    def evaluated(run: StudyRun, training: ClipTraining) -> pd.DataFrame:
        epochs = sorted({min(KEPT_EPOCHS, training.epochs), training.epochs})
        return extract_accuracies([run], tests, epochs=epochs, work=alone)

    runs = dict[int, StudyRun]()
    for i in work.rank.order(range(len(wanted))):
        training, mixture = wanted[i]
        print(f"[{training.model}, {mixture.name}, seed {training.seed}]", flush=True)
        # A model that another process is training is not waited for before all others are done.
        with suppress(BlockingIOError):
            runs[i] = study.run(training, mixture, wait=False, work=reading)
            evaluated(runs[i], training)
    tables = list[pd.DataFrame]()
    # In the order of the settings, whatever the order of this process.
    for i, (training, mixture) in enumerate(wanted):
        if i not in runs:
            runs[i] = study.run(training, mixture, work=reading)
        name = runs[i].folder.relative_to(config.out).as_posix()
        tables.append(evaluated(runs[i], training).assign(run=name))
    ordered = [runs[i] for i in range(len(wanted))]
    return Models(ordered, pd.concat(tables, ignore_index=True))


def shared_of(config: Config, models: Models, work: Work) -> pd.DataFrame:
    """Return what domains share in the models that never saw the held-out pair in the far domain.

    Returns:
        The table ``shared`` of `claims.Tables`, with the column site.
    """
    seeds = sorted({run.seed for run in models.runs})[: config.n_shared]
    runs = list[StudyRun]()
    for run in models.runs:
        in_far = run.test_domain in (config.far, None)
        unseen = setting_family(run.setting) in claims.COMPOSITIONAL
        if run.seed in seeds and in_far and unseen:
            runs.append(run)
    if not runs:
        return NOTHING
    table = shared_of_runs(
        runs,
        config.study.images("test"),
        lambda _: (config.far,),
        config.out / "shared",
        replace(SHARING, natural_domain=config.natural_domain),
        work=work,
    )
    known = pd.DataFrame(
        [
            (
                name,
                str(run.model),
                setting_family(run.setting),
                run.seed,
                ", ".join(run.held_out),
            )
            for name, run in named_runs(runs).items()
        ],
        columns=["run", "model", "setting", "seed", claims.PAIR],
    )
    return table.merge(known, on="run")


def points_of(tables: claims.Tables) -> pd.DataFrame:
    """Return a row for each model whose domains were compared: its accuracies, and what the far domain shares.

    Returns:
        Columns run, `claims.CASE`, setting, held_out_all and held_out_alone (accuracy on the held-out pair in the far
        domain), elsewhere (accuracy on the same classes in the other domains, mean), and a column for each measure.
    """
    keys = [*claims.CASE, "setting"]
    in_words = {
        "held_out_all": claims.Choices(),
        "held_out_alone": claims.Choices(among=AMONG_GROUP),
    }
    columns = {
        name: claims.accuracies(tables, choices).groupby(keys)["value"].mean()
        for name, choices in in_words.items()
    }
    rows = tables.accuracies
    other = rows[
        (rows["domain"] != rows["test_domain"]) & (rows["class"] != claims.SEEN)
    ]
    columns["elsewhere"] = other.groupby(keys)["value"].mean()
    shared = tables.shared
    of_far = (shared["domain"] == shared["test_domain"]) & (
        shared["site"] == claims.WHOLE
    )
    wide = shared[of_far].pivot_table("value", ["run", *keys], "what")
    return wide.reset_index().merge(pd.DataFrame(columns).reset_index(), on=keys)


WITHIN = {"pair": [claims.PAIR, "model"], "setting": ["setting", "model"]}
"""Models are ranked within these groups: within a pair settings differ, within a setting pairs differ."""


def relations_of(points: pd.DataFrame) -> pd.DataFrame:
    """Relate what is shared to accuracy over models, within pairs and within settings.

    Returns:
        The columns of `relate_over_models` with the jackknife over pairs in place of its interval, and within.
    """
    names = [name for name in [*SHARED, *LABEL_FREE] if name in points]
    kinds = ["held_out_all", "held_out_alone"]
    tables = list[pd.DataFrame]()
    for within, columns in WITHIN.items():
        stratum = points[columns].agg(" ".join, axis=1)
        ranked = points.assign(test_domain=stratum)
        table = relate_over_models(ranked, names, kinds, "elsewhere")
        spread = jackknife_over(ranked, names, kinds, claims.PAIR)
        table = table.drop(columns=["low", "high", "least", "most", "about"])
        table = table.merge(spread, on=["what", "with"])
        tables.append(table.assign(within=within))
    return pd.concat(tables, ignore_index=True)


def ranking_of(points: pd.DataFrame) -> pd.DataFrame:
    """Return how often a number that needs no label picks the better of two models of one pair.

    Returns:
        Columns what, right (share of pairs of models), n_pairs.
    """
    ranked = points.assign(test_domain=points[claims.PAIR] + " " + points["model"])
    rows = list[tuple[object, ...]]()
    for what in LABEL_FREE:
        if what in points:
            sign = -1 if what in FAR_IS_BETTER else 1
            rows.append((what, *picks_the_better(ranked, what, "held_out_all", sign)))
    return pd.DataFrame(rows, columns=["what", "right", "n_pairs"])


def tables_of(tables: claims.Tables) -> dict[str, pd.DataFrame]:
    """Return all tables by name."""
    judgements = claims.judged(tables)
    written = {
        "accuracies": tables.accuracies,
        "shared": tables.shared,
        "claims": judgements,
        "verdicts": claims.verdicts(judgements),
        "seeds": claims.seeds_needed(claims.pilot_of(tables)),
    }
    if len(tables.shared):
        points = points_of(tables)
        written["points"] = points
        written["relations"] = relations_of(points)
        written["ranking"] = ranking_of(points)
    return written


def write(config: Config, tables: claims.Tables) -> Written:
    """Write the tables and the report, and say where they are."""
    written = tables_of(tables)
    runs = tables.accuracies.drop_duplicates("run")
    report = Report(
        "How and when does a CLIP generalize to new classes of a style?",
        f"{len(runs)} models ({', '.join(config.models)}), {runs[claims.PAIR].nunique()} pairs of held-out classes.",
    )
    report.summary(findings(written["verdicts"]))
    report.section("Claims")
    report.table(
        written["verdicts"].assign(value=with_intervals(written["verdicts"], "+.3f")),
        "Mean over pairs with Student's 95 % interval.",
    )
    report.table(written["claims"], "All measures, in every way to count.")
    for name in ("relations", "ranking"):
        if name in written:
            report.table(written[name], f"The table {name}.")
    return write_results(
        report, written, config.out / "results", config.results, versions()
    )


def findings(verdicts: pd.DataFrame) -> list[Finding]:
    """Say of each claim whether it is borne out, in how many ways to count it, and what would refute it."""
    by_name = verdicts.set_index("claim")
    said = with_intervals(by_name, "+.2f")
    found = list[Finding]()
    for claim in claims.CLAIMS:
        row = by_name.loc[claim.name]
        found.append(
            Finding(
                f"{claim.question} {row['verdict'].capitalize()}, in {row['n_same']} of {row['n_ways']} other ways to "
                f"count.",
                f"{row['measure']}: {said[claim.name]} over {row['n_units']} pairs, {row['n_models']} cases. "
                f"Predicted: {claim.predicts}",
                f"Refuted by: {claim.refuted_by}",
            )
        )
    return found

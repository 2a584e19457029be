"""From measurements of models to judged claims: which models are asked what they share, tables, report.

The programs ``real``, which trains its models, and ``claims``, which takes any models, share this.
"""

from collections.abc import Sequence
from pathlib import Path

from circuitry.runs import Work, versions
from circuitry.data import DomainFolder
from circuitry.reports import Finding, Report, Written, with_intervals, write_results
from circuitry.training import AMONG_GROUP, CLASSIFIER, MEASURE
from experiments.study import claims, real_claims, run_tables
from experiments.study.claim_charts import accuracy_by_mixture, verdicts_by_way
from experiments.study.claim_tables import claim_setting
from experiments.study.relations import (
    jackknife_over,
    picks_the_better,
    relate_over_models,
)
from experiments.study.setting_charts import robustness_scatter
from experiments.study.sharing import (
    LABEL_FREE,
    SHARED,
    SharingSettings,
    named_runs,
    shared_of_runs,
)
from experiments.study.study_run import StudyRun

import pandas as pd

FAR_IS_BETTER = ("reach", "distance")
"""Numbers without labels whose smaller value is to pick the better model; of all other numbers the larger value is."""
NOTHING = pd.DataFrame(
    columns=["run", *claims.CASE, "setting", "what", "site", "domain", "value"]
)
"""The table of what domains share, of no model."""


def shared_table(
    runs: Sequence[StudyRun],
    images: DomainFolder,
    far: str,
    out: Path,
    settings: SharingSettings,
    n_seeds: int,
    *,
    device: str = "cpu",
    work: Work = Work(),
) -> pd.DataFrame:
    """Return what domains share in the models that never saw the held-out classes in the far domain.

    Args:
        runs: Models; only the models of the first seeds are asked.
        out: Folder of the measurements.
        n_seeds: Number of seeds.

    Returns:
        The table ``shared`` of `claims.Tables`.
    """
    seeds = sorted({run.seed for run in runs})[:n_seeds]
    asked = list[StudyRun]()
    for run in runs:
        in_far = run.test_domain in (far, None)
        unseen = claim_setting(run.setting) in claims.COMPOSITIONAL
        if run.seed in seeds and in_far and unseen:
            asked.append(run)
    if not asked:
        return NOTHING
    table = shared_of_runs(
        asked, images, lambda _: (far,), out, settings, device=device, work=work
    )
    about = list[dict[str, object]]()
    for name, run in named_runs(asked).items():
        about.append(
            {
                "run": name,
                "model": str(run.model),
                "setting": claim_setting(run.setting),
                "seed": run.seed,
                claims.PAIR: ", ".join(run.held_out),
            }
        )
    return table.merge(pd.DataFrame(about), on="run")


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


def robustness_of(accuracies: pd.DataFrame, natural: str) -> pd.DataFrame:
    """Return accuracy on held-out classes in the test domain and in the natural one; see `effective_robustness`.

    Args:
        accuracies: The table ``accuracies`` of `claims.Tables`.
        natural: The domain of photographs.
    """
    # Other domains were read by the last checkpoint, in the words that the model was trained on.
    rows = accuracies[accuracies["texts"] == claims.TRAINED_WORDS]
    rows = rows[(rows["measure"] == MEASURE) & (rows["class"] != claims.SEEN)]
    keys = ["run", *claims.CASE, "setting", "epoch", "domain"]
    of_pairs = rows.groupby(keys).agg(
        {"value": "mean", "chance": "mean", "n_images": "sum"}
    )
    # All are CLIPs, which differ in no other way than their model and setting.
    kind = dict.fromkeys(run_tables.MODEL, "CLIP") | {"classifier": CLASSIFIER}
    evaluated = of_pairs.reset_index().assign(
        **{name: value for name, value in kind.items() if name != "model"},
        group="held-out",
        measure=MEASURE,
        held_out_classes=lambda table: table[claims.PAIR],
    )
    return run_tables.effective_robustness(evaluated, natural)


WITHIN = {"pair": [claims.PAIR, "model"], "setting": ["setting", "model"]}
"""Models are ranked within these groups: within a pair settings differ, within a setting pairs differ."""


def relations_of(points: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Relate numbers of models to accuracy over models, within pairs and within settings.

    Args:
        names: Columns of the numbers.

    Returns:
        The columns of `relate_over_models` with the jackknife over pairs in place of its interval, and within.
    """
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


def tables_of(tables: claims.Tables, natural: str) -> dict[str, pd.DataFrame]:
    """Return all tables by name.

    Args:
        natural: The domain of photographs.
    """
    judgements = real_claims.judged(tables)
    written = {
        "accuracies": tables.accuracies,
        "shared": tables.shared,
        "claims": judgements,
        "verdicts": claims.verdicts(judgements),
        "seeds": real_claims.seeds_needed(real_claims.pilot_of(tables)),
        "robustness": robustness_of(tables.accuracies, natural),
    }
    if len(tables.shared):
        points = points_of(tables)
        written["points"] = points
        names = [name for name in [*SHARED, *LABEL_FREE] if name in points]
        written["relations"] = relations_of(points, names)
        written["ranking"] = ranking_of(points)
    return written


def write_claims(
    tables: claims.Tables, natural: str, out: Path, results: Path | None
) -> Written:
    """Write the tables and the report, and say where they are.

    Args:
        natural: The domain of photographs.
        out: Folder of the tables and the report.
        results: Folder for tables to commit.
    """
    written = tables_of(tables, natural)
    runs = tables.accuracies.drop_duplicates("run")
    models = ", ".join(sorted(set(runs["model"])))
    report = Report(
        "How and when does a CLIP generalize to new classes of a style?",
        f"{len(runs)} models ({models}), {runs[claims.PAIR].nunique()} sets of held-out classes.",
    )
    report.summary(findings(written["verdicts"], real_claims.CLAIMS))
    report.section("Claims")
    shown = with_intervals(written["verdicts"], "+.3f")
    report.table(
        written["verdicts"].drop(columns=["low", "high"]).assign(value=shown),
        "Mean over pairs with Student's 95 % interval.",
    )
    report.figure(
        verdicts_by_way(written["claims"], real_claims.CLAIMS),
        "The verdict on each claim in every way to count; ways that do not apply are empty.",
    )
    counted = claims.accuracies(tables, claims.Choices())
    between = claims.accuracies(tables, claims.Choices(among=AMONG_GROUP))
    report.figure(
        accuracy_by_mixture(counted, between, tables.far),
        "Accuracy on held-out classes in the test domain; bars: mean over pairs, 95 % interval; points: pairs; "
        "diamonds: mean where the model must choose between the held-out classes.",
    )
    report.figure(
        robustness_scatter(written["robustness"]),
        "Held-out classes: accuracy in the test domain against accuracy on photographs.",
    )
    report.table(written["claims"], "All measures, in every way to count.")
    for name in ("relations", "ranking"):
        if name in written:
            report.table(written[name], f"The table {name}.")
    return write_results(report, written, out, results, versions())


def findings(
    verdicts: pd.DataFrame, of_claims: Sequence[claims.Claim]
) -> list[Finding]:
    """Say of each claim whether it is borne out, in how many ways to count it, and what would refute it."""
    by_name = verdicts.set_index("claim")
    said = with_intervals(by_name, "+.2f")
    found = list[Finding]()
    for claim in of_claims:
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

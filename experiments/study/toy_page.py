"""The page on the study in small, made of its tables: each number and each comparative word of it is computed.

python -m experiments.study.toy_page experiments/results/toy_study > docs/results/toy.md
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuitry.comparison import LEVEL
from circuitry.reports import with_intervals
from experiments.study.sharing import LABEL_FREE, SHARED
from experiments.study.toy_claims import (
    ALL_MODELS,
    BORNE_OUT,
    BY_SET,
    CLAIMS,
    KINDS,
    OPEN,
    REFUTED,
)

import pandas as pd

TABLES = ("claims", "points", "relations", "ranking", "depth", "screened", "told_apart")
AGAIN, RECOUNTED = (
    "toy_recounted",
    ("claims", "points", "relations", "ranking", "told_apart"),
)
"""Folder, beside that of the tables, of those that count all held-out classes, and which there are."""
SHORT = "toy_short"
"""Folder of models with less training, beside them."""
RESNETS = "rn-tiny"
N_COUNTS = 3
"""Ways to count a claim: by seed, of ResNets alone, by held-out set."""
NAMES = SHARED | LABEL_FREE
FRONT = """# The study in small

Does the study's line of argument hold, from training distribution to circuits, on models that anyone can train? We drew
forty things in six styles and trained small CLIPs on mixtures of styles, with a quarter of the classes held out of a
test domain. Quickdraw has sparse open strokes; half of the photographs have a plain ground. What each claim predicts,
and what would refute it, was written before the models were trained.

**This page was corrected.** Its accuracies left out, for all models, each held-out class that the upper bound of one
architecture had not learnt. The transformer had learnt one class of ten in quickdraw, and one in sketch that the
ResNets had learnt, too. So it and the ResNets that hold out the same classes, 27 of 49 models, were judged on one class
of twenty images. Now all ten held-out classes count, as in the study. The published numbers stand beside. Accuracies
among the held-out classes alone cannot be counted again from our tables, and are withdrawn.

**The sample grew after a look.** Over the first 33 models (seeds 0 to 2) 3 claims were borne out, 1 was refuted and
11 could not be told (commit 7e6d1611). Then 16 models came: seed 4, which holds out the classes of seed 0, and another
transformer, put in the place of one that had been seen to learn little. No rule had said when to stop.

Settings, by what a model saw of its test domain: *natural-only* are photographs; *cg-low* adds the test domain, without
the held-out classes there, *domain-interpolation* adds two further domains, *cg-high* all domains; *leave-out* is
cg-high without the test domain, *aligned* is cg-high with captions without style words, *class-interpolation* has a
quarter of the held-out images, and *upper-high*, the upper bound, all of them.
"""
ALTERNATIVES = """Intervals are Student's of 95 %. A claim is *borne out* if the interval of its first measure lies on
the predicted side of zero, *refuted* if it lies on the other, else it *cannot be told*. Verdicts are not corrected for
their number. Three counts stand beside the published one: *by seed*, where models of one architecture and seed count as
one; the *ResNets* alone, by seed; and *by held-out set*, the mean over sets of held-out classes, which are the least
that could be drawn again: seeds 0 and 4 and the transformer have one set, so there are three. By exchanged signs no p
can be below 0.06 with five seeds, and 0.25 with three sets. What the domains of a model share is in no committed table,
so such claims have no count by held-out set.
"""
LIMITS = """- The models are small, and code drew their images. The styles differ in other ways than DomainNet's.
- Drawn quickdraw was made about as easy as the other styles, and it shares outlines with photographs. So six claims
  about it cannot come out as in the study: that it is the exception, is least similar in CKA, shares the fewest units
  and edges, that circuits of other domains do less there, and that alignment brings nothing.
- CKA and circuits are of models with captions that name the style (cg-high). The study's are of the aligned model.
- Circuits and own parts are of six held-out classes in three domains (clipart, real and the
  test domain), with six images each.
- Answers that circuits keep or lesions take are of classes that a model knows in a domain: of six images
  at least three are right. We decided this after a look at the first 33 models, where few right answers made such
  quotients large.
- That all held-out classes count was decided after the verdicts had been seen, too.
- Settings change many things at once: a correlation over models shows no cause.
"""


def written_page(folder: Path) -> str:
    """Return the page on the tables in a folder as Markdown."""
    tables = read_tables(folder)
    folders = [folder, folder.parent / AGAIN, folder.parent / SHORT]
    commands = [
        json.loads((one / "provenance.json").read_text())["command"] for one in folders
    ]
    commands[1] = f"python {commands[1]} --results experiments/results/{AGAIN}"
    points, counted = (
        tables["points"],
        published_or_again(tables["claims"], tables[f"{AGAIN}/claims"]),
    )
    trained = [
        f"{of['run'].nunique()} of {model} (seed {', '.join(map(str, sorted(set(of['seed']))))})"
        for model, of in points.groupby("model")
    ]
    parts = [
        FRONT,
        f"We trained {points['run'].nunique()} models, {' and '.join(trained)}. Test domains are "
        f"{' and '.join(sorted(set(points['test_domain'])))}.\n",
        _turned_over(
            counted, _clear(tables[f"{AGAIN}/relations"], tables["relations"])
        ),
        _verdicts(counted),
        "## What must a model have seen?\n",
        "![Accuracy by setting](../../figures/accuracy_by_setting.png)\n",
        "*Accuracy in the test domain by setting, in percent, mean over models; bars over seeds. The numbers, with the "
        "published ones and their number of classes:*\n",
        _accuracies(tables[f"{AGAIN}/told_apart"]),
        _depth(tables["depth"]),
        _sharing(tables[f"{AGAIN}/relations"], tables["relations"]),
        _ranking(tables[f"{AGAIN}/ranking"], tables["ranking"]),
        _choices(tables),
        _learned(tables["told_apart"]) + LIMITS,
        "\n    ".join(["## How to measure it again\n", *commands]) + "\n",
    ]
    return re.sub(r"[-+](0\.00)\b(?!\d)", r"\1", "\n".join(parts))


def _said(rows: pd.DataFrame) -> list[str]:
    return list(with_intervals(rows, "+.2f"))


Counts = dict[str, dict[str, Any]]
"""The row of a claim's first measure by how it was counted, the published count first."""


def published_or_again(
    published: pd.DataFrame, again: pd.DataFrame
) -> dict[str, Counts]:
    """Return the counts of each claim by its name; what was not counted is left out.

    A measure that one architecture has is the same over all models and over this architecture.
    """
    found = dict[str, Counts]()
    for claim in CLAIMS:
        name = claim.measures[0].name
        before, now = (
            _by_models(table[table["measure"] == name]) for table in (published, again)
        )
        found[claim.name] = {
            "published": before[ALL_MODELS],
            "by seed": now[ALL_MODELS],
            "ResNets": now[RESNETS if RESNETS in now else ALL_MODELS],
        }
        if BY_SET in now:
            found[claim.name][BY_SET] = now[BY_SET]
    return found


def _by_models(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the rows of a measure by the models that they are of."""
    return {str(row["models"]): dict(row) for _, row in rows.iterrows()}


def agreeing(counts: Counts) -> tuple[str, int, int]:
    """Return the verdict of a claim by seed, in how many of the corrected counts it holds, and their number."""
    _, *verdicts = (str(row["verdict"]) for row in counts.values())
    return verdicts[0], verdicts.count(verdicts[0]), len(verdicts)


def _turned_over(
    counted: Mapping[str, Counts], clear: Sequence[tuple[str, str, str, str]]
) -> str:
    """Say which verdicts changed, which correlations came, and which verdicts hold in each count."""
    lines = ["## What turned over\n"]
    for one in CLAIMS:
        before, now = counted[one.name]["published"], counted[one.name]["by seed"]
        if before["verdict"] != now["verdict"]:
            both = _said(pd.DataFrame([before, now]))
            lines.append(
                f"- {one.question} Published: {before['verdict']}, {both[0]}. Of all held-out classes: "
                f"**{now['verdict']}**, {both[1]}."
            )
    for what, kind, rho, old in clear:
        lines.append(
            f"- {what}, with accuracy {kind}: published {old}. Of all held-out classes: **{rho}**."
        )
    for verdict in (BORNE_OUT, REFUTED, OPEN):
        held = [
            one.question
            for one in CLAIMS
            if agreeing(counted[one.name]) == (verdict, N_COUNTS, N_COUNTS)
        ]
        lines.append(
            f"- {verdict.capitalize()} in each of the three counts below: {' '.join(held) or 'none'}"
        )
    return "\n".join([*lines, ""])


def _verdicts(counted: Mapping[str, Counts]) -> str:
    """Return a row for each claim: its first measure by each way to count."""
    rows = []
    for one in CLAIMS:
        counts = counted[one.name]
        said = _said(pd.DataFrame(list(counts.values())))
        verdict, same, n = agreeing(counts)
        cells = {
            name: f"{text}: {counts[name]['verdict']}"
            for name, text in zip(counts, said, strict=True)
        }
        about = {
            "question": one.question,
            "predicted": one.predicts,
            "measure": one.measures[0].name,
        }
        rows.append(about | cells | {"holds in": f"{verdict}: {same} of {n}"})
    table = pd.DataFrame(rows).fillna({BY_SET: "not counted"})
    table = table[
        [
            "question",
            "predicted",
            "measure",
            "published",
            "by seed",
            "ResNets",
            BY_SET,
            "holds in",
        ]
    ]
    return "\n".join(["## Claim by claim\n", ALTERNATIVES, _markdown(table)])


def _accuracies(told: pd.DataFrame) -> str:
    columns = {
        "seen": "seen classes",
        "held_out": "held-out classes",
        "sd": "sd",
        "held_out_screened": "published",
        "n_classes": "classes",
        "n_classes_screened": "published classes",
    }
    table = told[["model", "test_domain", "setting", *columns]].rename(columns=columns)
    accuracies = ["seen classes", "held-out classes", "sd", "published"]
    table[accuracies] *= 100
    return _markdown(table, dict.fromkeys(accuracies, ".0f"))


def _learned(told: pd.DataFrame) -> str:
    """Say how well each architecture learns the test domain."""
    rows = told[
        (told["domain"] == told["test_domain"]) & (told["setting"] == "cg-high")
    ]
    said = [
        f"{model} is right on {100 * seen:.0f} %"
        for model, seen in rows.groupby("model")["seen"].mean().items()
    ]
    return f"## What this does not show\n\n- Of seen classes of the test domain {', '.join(said)} (cg-high).\n"


def _depth(depth: pd.DataFrame) -> str:
    rows = depth[(depth["quickdraw"] < 1) | (depth["others"] < 1)]
    rows, said = (
        rows.assign(what=rows["what"].map(NAMES).str.removesuffix(" at the last site")),
        list[str](),
    )
    for (model, what), at in rows.groupby(["model", "what"]):
        first, last, least = (
            at.iloc[0],
            at.iloc[-1],
            (at["quickdraw"] - at["others"]).set_axis(at["site"]),
        )
        said.append(
            f"- {model}, {what}: quickdraw has {first['quickdraw']:.2f} at `{first['site']}`, {last['quickdraw']:.2f} "
            f"at `{last['site']}`; quickdraw minus the others is least at `{least.idxmin()}`, {least.min():+.2f}."
        )
    return "\n".join(
        [
            "## Where over depth does quickdraw share less?\n",
            *said,
            "\nMeans over models that saw all domains (cg-high).\n",
        ]
    )


def _clear(
    relations: pd.DataFrame, published: pd.DataFrame
) -> list[tuple[str, str, str, str]]:
    """Return the correlations that hold after correction: what, with which accuracy, rho, and the published rho."""
    order = ["what", "with"]
    both = relations.merge(published, on=order, suffixes=("", "_before"), how="left")
    said, before = (
        with_intervals(both, "+.2f", "rho"),
        with_intervals(_before(both), "+.2f", "rho"),
    )
    said = said + ", p " + both["p_holm"].map("{:.2g}".format) + " (Holm)"
    before = before + ", p " + both["p_holm_before"].map("{:.2g}".format) + " (Holm)"
    held = both["p_holm"] < LEVEL
    names, kinds = both["what"].map(NAMES), both["with"].map(KINDS)
    return list(zip(names[held], kinds[held], said[held], before[held], strict=True))


def _before(both: pd.DataFrame) -> pd.DataFrame:
    """Return the published correlations of a merged table, under their own names."""
    columns = ["rho", "low", "high"]
    return both[[f"{name}_before" for name in columns]].set_axis(columns, axis=1)


def _sharing(relations: pd.DataFrame, published: pd.DataFrame) -> str:
    held = [f"{what}: {rho}" for what, _, rho, _ in _clear(relations, published)]
    answer = (
        f"Of {len(relations)} correlations {len(held)} hold after correction: {'; '.join(held)}."
        if held
        else f"None of {len(relations)} correlations holds after correction."
    )
    rows = relations.merge(published, on=["what", "with"], suffixes=("", "_before"))
    rows = rows[rows["with"] == "held_out"]
    by_set = rows[["rho", "low_set", "high_set"]].set_axis(
        ["rho", "low", "high"], axis=1
    )
    table = pd.DataFrame(
        {
            "what": rows["what"].map(NAMES),
            "rho": with_intervals(rows, "+.2f", "rho"),
            BY_SET: with_intervals(by_set, "+.2f", "rho"),
            "p": rows["p"],
            "p_holm": rows["p_holm"],
            "partial": rows["partial"],
            "p of partial": rows["partial_p"],
            "models": rows["n_models"],
            "published": with_intervals(_before(rows), "+.2f", "rho"),
        }
    )
    return "\n".join(
        [
            "## Does sharing explain generalization?\n",
            answer,
            "\nRank correlations over models with accuracy on held-out classes among all classes, within models of one "
            "architecture and test domain. Intervals are by the jackknife over models, and over the three held-out "
            "sets; p is of exchanged models, at least 0.0001, and corrected for "
            f"{len(relations)} correlations: the other {len(relations) - len(rows)} are with accuracy among held-out "
            "classes alone, on the old screen, and are not shown. Partial: given accuracy on the other domains. The "
            "circuit shift score and the depth bias are those of GenCircuit (arXiv 2604.08192), of these circuits.\n",
            "![Accuracy against what is shared](../../figures/sharing_against_accuracy.png)\n",
            "*Each point is a model in a test domain; the correlations are those of the table.*\n",
            _markdown(
                table,
                {"p": ".2g", "p_holm": ".2g", "partial": "+.2f", "p of partial": ".2g"},
            ),
        ]
    )


def _ranking(ranking: pd.DataFrame, published: pd.DataFrame) -> str:
    best = ranking.sort_values("right", ascending=False).iloc[0]
    table = ranking.merge(
        published[["what", "right"]], on="what", suffixes=("", "_before")
    )
    table = table.rename(columns={"right_before": "published"})
    return "\n".join(
        [
            "## Which model is better in a new style, without labels?\n",
            f"The best number without labels ({best['what']}) finds the better of two models in "
            f"{100 * best['right']:.0f} % of {best['n_pairs']} pairs of one architecture and test domain. Guessing "
            "finds 50 %; below that a number points the other way.\n",
            _markdown(
                table.drop(columns="chance"), {"right": ".2f", "published": ".2f"}
            ),
        ]
    )


def _choices(tables: Mapping[str, pd.DataFrame]) -> str:
    points = tables["points"]
    of = {
        seed: points[points["seed"] == seed].set_index(
            ["model", "setting", "test_domain"]
        )
        for seed in (0, 4)
    }
    gaps = (of[0]["seen"] - of[4]["seen"]).abs().dropna()
    screened = tables["screened"]
    each = [
        f"{of['kept'].sum()} of {len(of)} of {model} in {domain}"
        for (model, domain), of in screened.groupby(["model", "test_domain"])
    ]
    return "\n".join(
        [
            "## Do the conclusions depend on choices?\n",
            f"- Seeds 0 and 4 hold the same classes out. Their accuracies on seen classes of the test domain differ by "
            f"{100 * gaps.median():.0f} points in the median of {len(gaps)} pairs, by {100 * gaps.max():.0f} at most.",
            _shorter(tables),
            f"- Held-out classes that the upper bound learns: {', '.join(each)}. To count each model on those of its "
            "own upper bound takes the models.\n",
        ]
    )


def _shorter(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say what less training leaves, of the same models and seeds."""
    short, screened = tables[f"{SHORT}/points"], tables[f"{SHORT}/screened"]
    same = tables["points"].merge(short[["model", "setting", "seed"]].drop_duplicates())
    classes = tables["screened"].merge(screened[["test_domain", "model", "class"]])
    seen = [
        100 * one.loc[one["setting"] == "cg-high", "seen"].mean()
        for one in (same, short)
    ]
    return (
        f"- After half the training ({short['run'].nunique()} models of seed {short['seed'].iloc[0]}) {seen[1]:.0f} % "
        f"of the seen classes of the test domain are right with all styles, in place of {seen[0]:.0f}, and the "
        f"upper bound learns {screened['kept'].sum()} of {len(screened)} held-out classes, in place of "
        f"{classes['kept'].sum()}."
    )


def _markdown(table: pd.DataFrame, formats: Mapping[str, str] = {}) -> str:
    """Return a table as Markdown."""
    cells = table.copy().astype(object)
    for name in cells:
        form = formats.get(str(name))
        cells[name] = [
            "" if pd.isna(value) else f"{value:{form}}" if form else str(value)
            for value in table[name]
        ]
    heads = [
        str(name)
        .strip()
        .replace("p_holm", "p (Holm)")
        .replace("n_", "")
        .replace("_", " ")
        for name in cells
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * cells.shape[1]]
    return "\n".join(
        [
            *lines,
            *("| " + " | ".join(row) + " |" for row in cells.to_numpy().tolist()),
            "",
        ]
    )


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the committed tables."""
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}
    beside = [(AGAIN, name) for name in RECOUNTED] + [
        (SHORT, name) for name in ("points", "screened")
    ]
    return tables | {
        f"{of}/{name}": pd.read_csv(folder.parent / of / f"{name}.csv")
        for of, name in beside
    }


if __name__ == "__main__":
    print(written_page(Path(sys.argv[1])), end="")

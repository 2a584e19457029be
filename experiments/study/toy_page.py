"""The page on the study in small, made of its tables: each number and each comparative word of it is computed.

python -m experiments.study.toy_page experiments/results/toy_study > docs/results/toy.md
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from circuitry.comparison import LEVEL
from circuitry.reports import with_intervals
from experiments.study.sharing import LABEL_FREE, SHARED, Measured
from experiments.study.toy_claims import BORNE_OUT, CLAIMS, KINDS, OPEN, REFUTED

import pandas as pd

TABLES = ("claims", "points", "relations", "ranking", "seeds", "depth", "screened", "told_apart")
SHORT = "toy_short"
"""Folder of models with less training, beside that of the tables."""
NAMES = SHARED | LABEL_FREE
FRONT = """# The study in small

Does the study's line of argument hold, from training distribution to circuits, on models that anyone can train? We drew
forty things in six styles and trained small CLIPs on mixtures of styles, with a quarter of the classes held out of a
test domain. Quickdraw has sparse open strokes; half of the photographs have a plain ground. What each claim predicts,
and what would refute it, was written before the models were trained.

Intervals are Student's of 95 % over models: models of one architecture and seed, which share held-out classes, count
as one. A claim is *borne out* if the interval of its first measure lies on the predicted side of zero, *refuted* if it
lies on the other, else it *cannot be told*. Verdicts are not corrected for their number: of twenty intervals one misses
by chance. p is of exchanged signs; with few models it cannot be small.

Settings, by what a model saw of its test domain: *natural-only* are photographs; *cg-low* adds the test domain, without
the held-out classes there, *domain-interpolation* adds two further domains, *cg-high* all domains; *leave-out* is
cg-high without the test domain, *aligned* is cg-high with captions without style words, *class-interpolation* has a
quarter of the held-out images, and *upper-high*, the upper bound, all of them. Accuracies are of classes that the upper
bound learns, *among all classes* or *among held-out classes alone*.
"""
LIMITS = """- The models are small, and code drew their images. The styles differ in other ways than DomainNet's.
- Circuits and own parts are of six held-out classes in three domains (clipart, real and the
  test domain), with six images each.
- Answers that circuits keep or lesions take are of classes that a model knows in a domain: of six images
  at least three are right. We decided this after a look at the first 33 models, where few right answers made such
  quotients large.
- Settings change many things at once: a correlation over models shows no cause.
- The toy was made so that the styles are about equally hard to learn and photographs share outlines with drawings.
  Other drawings, more classes or longer training may give other verdicts.
"""


def written_page(folder: Path) -> str:
    """Return the page on the tables in a folder as Markdown."""
    tables = read_tables(folder)
    commands = [json.loads((one / "provenance.json").read_text())["command"] for one in (folder, folder.parent / SHORT)]
    claims = tables["claims"]
    first = claims[claims["models"] == "all"].drop_duplicates("claim").set_index("claim")
    points = tables["points"]
    trained = [
        f"{of['run'].nunique()} of {model} (seed {', '.join(map(str, sorted(set(of['seed']))))})"
        for model, of in points.groupby("model")
    ]
    parts = [
        FRONT,
        f"We trained {points['run'].nunique()} models, {' and '.join(trained)}. Test domains are "
        f"{' and '.join(sorted(set(points['test_domain'])))}.\n",
        _verdicts(first),
        "![Accuracy by setting](../../figures/accuracy_by_setting.png)\n",
        "*Accuracy in the test domain by setting, in percent, mean over models; bars over seeds. The numbers:*\n",
        _accuracies(tables["told_apart"]),
        *(_claim(claims[claims["claim"] == one.name], one.name) for one in CLAIMS),
        _depth(tables["depth"]),
        _sharing(tables["relations"]),
        _ranking(tables["ranking"]),
        _choices(tables),
        _learned(tables["told_apart"]) + LIMITS,
        "\n    ".join(["## How to measure it again\n", *commands]) + "\n",
    ]
    return re.sub(r"[-+](0\.00)\b(?!\d)", r"\1", "\n".join(parts))


def _said(rows: pd.DataFrame) -> list[str]:
    return list(with_intervals(rows, "+.2f"))


def _place(heading: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _verdicts(first: pd.DataFrame) -> str:
    said = dict(zip(map(str, first.index), _said(first), strict=True))
    measured = dict(zip(said, map(str, first["measure"]), strict=True))
    lines = ["## What does not hold, and what does\n"]
    for verdict in (REFUTED, OPEN, BORNE_OUT):
        some = [one for one in CLAIMS if first.loc[one.name, "verdict"] == verdict]
        lines.append(f"**{verdict.capitalize()}** ({len(some)} of {len(CLAIMS)}):\n")
        lines += [
            f"- [{one.question}](#{_place(one.question)}) ({measured[one.name]}: {said[one.name]})" for one in some
        ]
        lines.append("" if some else "- none\n")
    return "\n".join(lines)


def _accuracies(told: pd.DataFrame) -> str:
    tested = told[told["domain"] == told["test_domain"]]
    columns = {"seen": "seen classes", "held_out": "held-out classes", "alone": "held-out alone"}
    table = tested[["model", "test_domain", "setting", *columns]].rename(columns=columns)
    table[list(columns.values())] *= 100
    return _markdown(table, dict.fromkeys(columns.values(), ".0f"))


def _learned(told: pd.DataFrame) -> str:
    """Say how well each architecture learns the test domain."""
    rows = told[(told["domain"] == told["test_domain"]) & (told["setting"] == "cg-high")]
    said = [f"{model} is right on {100 * seen:.0f} %" for model, seen in rows.groupby("model")["seen"].mean().items()]
    return f"## What this does not show\n\n- Of seen classes of the test domain {', '.join(said)} (cg-high).\n"


def _claim(rows: pd.DataFrame, name: str) -> str:
    claim = next(one for one in CLAIMS if one.name == name)
    told = rows[rows["models"] == "all"].iloc[0]
    n_right = round(told["share"] * told["n_models"]) if told["n_models"] else 0
    table = rows.assign(value=_said(rows))[["measure", "models", "value", "p", "n_models", "n_independent", "verdict"]]
    table = table.rename(columns={"n_models": "n", "n_independent": "seeds"})
    return "\n".join(
        [
            f"## {claim.question}\n",
            f"**{told['verdict'].capitalize()}.** {told['measure']}: {_said(rows.iloc[:1])[0]}; "
            f"{n_right} of {told['n_models']} models are on the predicted side.\n",
            f"Predicted: {claim.predicts} Refuted by: {claim.refuted_by}\n",
            _markdown(table, {"p": ".2g"}),
        ]
    )


def _depth(depth: pd.DataFrame) -> str:
    rows = depth[(depth["quickdraw"] < 1) | (depth["others"] < 1)]
    rows, said = rows.assign(what=rows["what"].map(NAMES).str.removesuffix(" at the last site")), list[str]()
    for (model, what), at in rows.groupby(["model", "what"]):
        first, last, least = at.iloc[0], at.iloc[-1], (at["quickdraw"] - at["others"]).set_axis(at["site"])
        said.append(
            f"- {model}, {what}: quickdraw has {first['quickdraw']:.2f} at `{first['site']}`, {last['quickdraw']:.2f} "
            f"at `{last['site']}`; quickdraw minus the others is least at `{least.idxmin()}`, {least.min():+.2f}."
        )
    return "\n".join(
        [
            "## Where over depth does quickdraw share less?\n",
            *said,
            "\nMeans over models that saw all domains (cg-high), without sites where all circuits keep all units.\n",
            _markdown(rows, {"quickdraw": ".2f", "others": ".2f"}),
        ]
    )


def _sharing(relations: pd.DataFrame) -> str:
    clear = relations[(relations["p_holm"] < LEVEL)]
    held = [
        f"{NAMES[what]} with accuracy {KINDS[kind]}: {said}"
        for what, kind, said in zip(clear["what"], clear["with"], with_intervals(clear, "+.2f", "rho"), strict=True)
    ]
    answer = (
        f"Of {len(relations)} correlations {len(clear)} hold after correction: {'; '.join(held)}."
        if held
        else f"None of {len(relations)} correlations holds after correction."
    )
    span = [f"{a:+.2f} to {b:+.2f}" for a, b in relations[["least", "most"]].to_numpy()]
    seeds = [f"{a:+.2f} to {b:+.2f}" for a, b in relations[["least_seed", "most_seed"]].to_numpy()]
    table = relations.assign(
        what=relations["what"].map(NAMES),
        accuracy=relations["with"].map(KINDS),
        rho=with_intervals(relations, "+.2f", "rho"),
    )
    table = table.assign(**{"without a model": span, "without a seed": seeds})
    columns = ["what", "accuracy", "rho", "without a model", "without a seed", "p", "p_holm", "partial", "n_models"]
    return "\n".join(
        [
            "## Does sharing explain generalization?\n",
            answer,
            "\nRank correlations over models with accuracy on held-out classes, within models of one architecture and "
            "test domain; intervals by the jackknife; partial: given accuracy on the other domains. The circuit shift "
            "score and the depth bias are those of GenCircuit (arXiv 2604.08192), of these circuits.\n",
            "![Accuracy against what is shared](../../figures/sharing_against_accuracy.png)\n",
            "*Each point is a model in a test domain; the correlations are those of the table.*\n",
            _markdown(
                table[columns].rename(columns={"n_models": "n"}), {"p": ".2g", "p_holm": ".2g", "partial": "+.2f"}
            ),
        ]
    )


def _ranking(ranking: pd.DataFrame) -> str:
    best = ranking.sort_values("right", ascending=False).iloc[0]
    return "\n".join(
        [
            "## Which model is better in a new style, without labels?\n",
            f"The best number without labels ({best['what']}) finds the better of two models in "
            f"{100 * best['right']:.0f} % of {best['n_pairs']} pairs of one architecture and test domain. Guessing "
            "finds 50 %; below that a number points the other way.\n",
            _markdown(ranking.drop(columns="chance"), {"right": ".2f"}),
        ]
    )


def _choices(tables: Mapping[str, pd.DataFrame]) -> str:
    points, claims = tables["points"], tables["claims"]
    of = {seed: points[points["seed"] == seed].set_index(["model", "setting", "test_domain"]) for seed in (0, 4)}
    gaps = (of[0]["seen"] - of[4]["seen"]).abs().dropna()
    rest = claims[claims["models"] == "all"].groupby("claim")["verdict"].agg(list)
    unlike = [one.question for one in CLAIMS if {BORNE_OUT, REFUTED} <= set(rest[one.name])]
    out = tables["screened"][~tables["screened"]["kept"]]
    columns = {"held_out mean": "all classes", "held_out std": "sd", "alone mean": "held-out alone", "alone std": "sd "}
    spread = tables["seeds"][["model", "test_domain", "setting", *columns]].rename(columns=columns)
    lines = ["## Do the conclusions depend on choices?\n"]
    if len(gaps):
        lines.append(
            f"- Seeds 0 and 4 hold the same classes out. Their accuracies on seen classes of the test domain differ by "
            f"{100 * gaps.median():.0f} points in the median of {len(gaps)} pairs, by {100 * gaps.max():.0f} at most."
        )
    lines += [
        _shorter(tables),
        f"- Claims whose measures have opposite verdicts: {'; '.join(unlike) or 'none'}.",
        f"- {len(out)} of {len(tables['screened'])} held-out classes are left out: no upper bound learns them.\n",
        "Accuracy on held-out classes by setting, mean and standard deviation (sd) over models:\n",
        _markdown(spread, dict.fromkeys(columns.values(), ".2f")),
    ]
    return "\n".join(lines)


def _shorter(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say what less training leaves of the measures of claims, of the same models and seeds."""
    short, screened = tables[f"{SHORT}/points"], tables[f"{SHORT}/screened"]
    same = tables["points"].merge(short[["model", "setting", "seed"]].drop_duplicates())
    classes = tables["screened"].merge(screened[["test_domain", "model", "class"]])
    whole, less = (_means(one) for one in (same, short))
    other = [f"{name} ({whole[name]:+.2f}, {less[name]:+.2f})" for name in less if whole[name] * less[name] < 0]
    seen = [100 * one.loc[one["setting"] == "cg-high", "seen"].mean() for one in (same, short)]
    return (
        f"- After half the training ({short['run'].nunique()} models of seed {short['seed'].iloc[0]}) {seen[1]:.0f} % "
        f"of the seen classes of the test domain are right with all styles, in place of {seen[0]:.0f}, and the "
        f"upper bound learns {screened['kept'].sum()} of {len(screened)} held-out classes, in place of "
        f"{classes['kept'].sum()}. So {len(less)} of {len(whole)} measures of claims are left; "
        f"{len(less) - len(other)} have the same sign. Others: {'; '.join(other) or 'none'}."
    )


def _means(points: pd.DataFrame) -> dict[str, float]:
    """Return the means of the measures that points alone tell."""
    found = Measured(points, pd.DataFrame(columns=["run", "test_domain", "what", "site", "domain", "value"]), points)
    means = {one.name: one.values(found)["value"].mean() for claim in CLAIMS for one in claim.measures}
    return {name: float(value) for name, value in means.items() if not pd.isna(value)}


def _markdown(table: pd.DataFrame, formats: Mapping[str, str] = {}) -> str:
    """Return a table as Markdown."""
    cells = table.copy().astype(object)
    for name in cells:
        form = formats.get(str(name))
        cells[name] = ["" if pd.isna(value) else f"{value:{form}}" if form else str(value) for value in table[name]]
    heads = [str(name).strip().replace("p_holm", "p (Holm)").replace("n_", "").replace("_", " ") for name in cells]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * cells.shape[1]]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells.to_numpy().tolist()), ""])


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the committed tables."""
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}
    short = {f"{SHORT}/{name}": pd.read_csv(folder.parent / SHORT / f"{name}.csv") for name in ("points", "screened")}
    return tables | short


if __name__ == "__main__":
    print(written_page(Path(sys.argv[1])), end="")

"""Do the circuits do the work? Faithfulness of every circuit, and what exact patching says of the scores.

On images that the circuits were not found on: the metric with only a circuit's units active (all sites at once, and
one site at a time), with all but them, and with random units; and whether the circuit still tells its class from the
others. Then, for a few circuits, the exact effect of every unit against its attributed score by several rules; and on
networks with a planted circuit, how well each method finds it.

A circuit does the work if faithfulness at a tenth of the units is near 1, far above random units, and selectivity is,
too. It is refuted by random units that do as well, or by a selectivity near 0: then what is kept answers its class
whatever it is shown.

    python experiments/faithfulness.py      # the circuits of the quickstart
    python experiments/faithfulness.py --model RN50 --checkpoint epoch_32.pt --data DomainNet \
        --circuits runs/domainnet/circuits --out runs/domainnet/faithfulness
    torchrun --nproc-per-node 8 experiments/faithfulness.py --device cuda ...    # the curves on eight GPUs
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from circuitry.runs import Work, run_script
from circuitry.interventions import (
    CausalStudy,
    FaithfulnessCurve,
    StudyOptions,
    check_attribution,
    compare_rules,
    curves_by_domain,
)
from circuitry.interventions.circuit_sets import choose_sites
from circuitry.interventions.curves import nearest_to_a_tenth, span
from circuitry.reports import Report, write_results
from circuitry.reports.figures import domain_marks
from circuitry.reports.listings import listings_of_records
from circuitry.study import planted_attention, planted_convolution, score_methods
from circuitry.study.planted import RULES
from circuitry.study.sections.causal_checks import (
    add_attribution_check,
    add_causal_guide,
    add_faithfulness,
    add_methods,
    add_pixels,
    add_selectivity_over_depth,
    faithfulness_findings,
)

import pandas as pd

DEAF_BELOW = 0.1
"""Selectivity below which circuits are said to answer their class whatever they are shown."""


@dataclass(frozen=True)
class Config(StudyOptions):
    """Settings of the check; the defaults are the quickstart's model, images and circuits."""

    out: Path = Path("runs/faithfulness")
    """Folder for curves, tables and the report."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    random_draws: int = 5
    """Random circuits of every size."""
    one_site_fraction: float = 0.1
    """Share of the units kept where one site at a time is ablated."""
    rule_circuits: int = 4
    """How many circuits the rules are compared on: the first class in the first domain, the second in the second..."""
    seed: int = 0
    """Seed of the random units."""


def main(config: Config) -> None:
    """Measure, write, and say where the report is."""
    if config.share_out(partial(measure_share, config), config.out / "jobs"):
        write_report(config, config.study())


def measure_share(config: Config, work: Work) -> None:
    """Measure one process's share of the curves."""
    measure_curves(config, config.study(work.rank), work)


def measure_curves(
    config: Config, study: CausalStudy, work: Work
) -> tuple[list[FaithfulnessCurve], list[FaithfulnessCurve]]:
    """Return the curves with all sites ablated at once, and with one site at a time; what is there is read."""
    extract = partial(study.extract_faithfulness, random_draws=config.random_draws, seed=config.seed, work=work)
    one_by_one = partial(extract, rankings=("absolute",), fractions=(config.one_site_fraction,), one_site=True)
    return extract(config.out / "all-sites"), one_by_one(config.out / "one-site")


def write_report(config: Config, study: CausalStudy) -> None:
    """Compare the rules, and write the report with its tables."""
    work = config.work()
    curves, alone = measure_curves(config, study, work)
    keys = rule_keys(study, config.rule_circuits)
    rules = pd.concat([rules_of(study, key, work) for key in keys], ignore_index=True)
    planted = pd.concat([score_methods(planted_convolution()), score_methods(planted_attention())], ignore_index=True)
    shown = class_name, domain = keys[0]
    graph = study.graphs[shown]
    sites = choose_sites(graph)
    found_on, metric = study.found_on(*shown), study.metric_of(*shown)
    baseline = study.baseline_found_with(shown, len(found_on))
    check = check_attribution(study.clip.encoder, found_on, metric, graph, baseline=baseline, work=work)
    tables = {
        f"{measure}_{ranking}": curves_by_domain([curve for curve in curves if curve.ranking == ranking], measure)
        for measure in ("faithfulness", "selectivity")
        for ranking in ("absolute", "signed")
    }
    for measure in ("faithfulness", "selectivity"):
        tables[f"{measure}_one_site"] = curves_by_domain(alone, measure)
    tables |= {"rules_against_patching": rules, "planted": planted, "attribution_against_patching": check.points}
    marks = domain_marks(study.images.domains)
    report = Report(
        f"Do the circuits of {study.clip.name} do the work?",
        f"Causal checks of {len(study.keys)} circuits, on {study.tested_on}.",
    )
    report.summary(faithfulness_findings(curves, alone))
    add_causal_guide(report, graph.settings, study.tested_on)
    add_faithfulness(report, curves, marks)
    report.text(listening_verdict(curves))
    add_selectivity_over_depth(report, alone, marks, sites)
    add_attribution_check(report, check, sites, f"{class_name} in {domain}")
    add_methods(report, rules, planted, len(keys))
    images, maps = study.pixels(*shown, work=work)
    add_pixels(report, images, maps, [f"{domain} {i + 1}" for i in range(len(images))], class_name)
    looked_at = listings_of_records(record for key in study.keys for record in study.own_records(key))
    provenance = study.provenance() | {"seed": config.seed}
    print(write_results(report, tables, config.out, config.results, provenance, listings=looked_at))


def listening_verdict(curves: Sequence[FaithfulnessCurve]) -> str:
    """Say whether what the circuits answer depends on the image; nothing where selectivity was not measured."""
    selective = curves_by_domain([curve for curve in curves if curve.ranking == "absolute"], "selectivity")
    size = nearest_to_a_tenth(curves[0].fractions)
    best = span(selective, "kept", size).high
    if math.isnan(best):
        return ""
    words = f"With {size:.0%} of the units the most selective domain's circuits reach {best:z.2f}: "
    if best < DEAF_BELOW:
        return words + (
            f"below {DEAF_BELOW}, so the circuits answer their class whatever they are shown. Under this ablation what "
            "is kept of the later sites hardly depends on the image any more, and faithfulness alone would not show it."
        )
    return words + f"{DEAF_BELOW} or more, so what the circuits answer still depends on the image."


def rule_keys(study: CausalStudy, n: int) -> list[tuple[str, str]]:
    """Return n circuits of different classes, going round the domains."""
    classes = list(dict.fromkeys(name for name, _ in study.keys))
    domains = list(dict.fromkeys(domain for _, domain in study.keys))
    diagonal = [(name, domains[i % len(domains)]) for i, name in enumerate(classes)]
    return [key for key in diagonal if key in study.graphs][:n] or study.keys[:1]


def rules_of(study: CausalStudy, key: tuple[str, str], work: Work) -> pd.DataFrame:
    """Compare the rules on the images that a circuit was found on."""
    images, metric = study.found_on(*key), study.metric_of(*key)
    baseline = study.baseline_found_with(key, len(images))
    table = compare_rules(study.clip.encoder, images, metric, RULES, baseline=baseline, work=work)
    table.insert(0, "class", key[0])
    table.insert(1, "domain", key[1])
    return table


if __name__ == "__main__":
    run_script(Config, main, __doc__)

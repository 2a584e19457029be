"""What the domains of a model share, by every measure of the package: a number for each domain; and its accuracies.

Similarities of a domain are means over the other domains. Classes are the held-out ones of the model, except for
embeddings, confidence and autoencoders, which take all. Answers that circuits keep, or lesions take, are of classes
that the model knows there: with few right answers one image moves a share of them far. Circuits and own parts are of
components: hidden channels, attention heads, MLP neurons. Two measures are those of GenCircuit (arXiv 2604.08192), of
the graphs of these circuits: ``shift``, the rank correlation of the scores of edges, and ``depth_bias``, the log ratio
of the score mass of the deeper half of the sites to that of the other half. They need no accuracy. So do
``confidence``, the mean probability of the answer, and ``reach``, the distance of a domain's images to photographs in
units of their spread.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from circuitry.runs import (
    ALONE,
    Bar,
    Count,
    InputError,
    Job,
    JobFolder,
    Natural,
    Share,
    Work,
    whole_file,
)
from circuitry import (
    CausalChecks,
    DomainFolder,
    GraphFolder,
    compare_domains,
    extract,
    load_clip,
)
from circuitry.circuits import depth_bias
from circuitry.comparison import KNOWN, Comparison, lesion_summary
from circuitry.data import Decoding, chosen_names, class_key
from circuitry.interventions import CheckSettings, OwnPartSettings
from circuitry.models import Clip
from circuitry.questions import OwnParts
from circuitry.training import SaeTraining, checkpoints, train_sae_on_images
from experiments.representations.embedding_set import Embeddings
from experiments.representations.embeddings import embed_images, embed_texts
from experiments.representations.features import compare_features
from experiments.representations.representation_folder import (
    RepresentationSettings,
    extract_representations,
)
from experiments.representations.similarity import compare_representations
from experiments.representations.strongest_features import image_features
from experiments.study.checkpoint_accuracy import (
    EvaluationSet,
    extract_accuracies,
    run_names,
)
from experiments.study.run_tables import kinds_of_runs, screened_classes
from experiments.study.separation import compare_distances, distance
from experiments.study.study_run import StudyRun

import numpy as np
import pandas as pd

FORMAT = "circuitry sharing 3"
ACCURACIES = ("held_out", "alone", "own_style", "centred", "harmonic_mean")
"""Kinds of accuracy in the test domain; see `accuracy_kinds`."""
WHOLE = "whole"
"""The site of numbers that are of no single one."""
SHARED = {
    "overlap": "node overlap of circuits",
    "ratio": "node overlap, ratio to the ceiling",
    "kept": "answers kept by the domain's own circuits",
    "transfer": "answers kept by others' circuits",
    "part": "overlap of own parts",
    "edges": "edges of own parts",
    "lesion": "answers lost without others' own parts",
    "cka": "CKA at the last site",
    "features": "shared features",
}
"""What a domain shares with the others, with names."""
LABEL_FREE = {
    "shift": "circuit shift score",
    "depth_bias": "depth bias beside the other domains",
    "confidence": "confidence",
    "reach": "distance to photographs",
    "distance": "distance to the other domains",
}
"""Numbers that need no accuracy, with names."""
Rows = Iterator[tuple[str, str, str, float]]
"""What it is, the site, the domain, the value."""


@dataclass(frozen=True)
class SharingSettings:
    """How much is looked at."""

    domains: tuple[str, ...] | None = None
    """Domains of circuits and own parts, which take long, beside the test domain (default: all)."""
    n_classes: Count | None = None
    """Held-out classes that circuits and own parts are of, the first ones (default: all)."""
    n_images: Count = 6
    """Images of a class in a domain that circuits, own parts, features and CKA are found on."""
    n_tested: Count = 6
    """Further images that circuits are tested on."""
    size: Share = 0.6
    """Share of the units that circuits keep."""
    part_share: Share = 0.01
    """Share of the units that own parts have."""
    sae_steps: Natural = 300
    """Steps of each model's autoencoder; 0 leaves features out."""
    natural_domain: str = "real"
    """Domain of photographs."""
    seed: int = 0


class Measured(NamedTuple):
    """What was measured of models."""

    points: pd.DataFrame
    """A row for each model and test domain: its accuracies, and what this domain shares."""
    shared: pd.DataFrame
    """Columns run, test_domain, what, site, domain, value: what each domain of a model shares."""
    evaluated: pd.DataFrame
    """From `extract_accuracies`."""


def measure_runs(
    runs: Sequence[StudyRun],
    images: DomainFolder,
    test_domains: Callable[[StudyRun], Sequence[str]],
    out: Path,
    settings: SharingSettings,
    *,
    decoding: Decoding = "upright",
    device: str = "cpu",
    work: Work = Work(),
) -> Measured:
    """Measure each model, a job each, and return what all have; one without a test domain is read in ``test_domains``.

    Names of models, and so the folders of what was measured, are their paths below the common folder of all models.
    """
    named = {
        name.replace("/", "-"): run
        for name, run in zip(run_names(runs), runs, strict=True)
    }
    tested_in = {
        name: [run.test_domain] if run.test_domain else test_domains(run)
        for name, run in named.items()
    }
    tests = EvaluationSet(images, images.all_classes)
    alone = replace(work, rank=ALONE, progress=False)

    def measure(name: str) -> Path:
        run = named[name]
        path = out / name / "shared.csv"
        tested = tested_in[name]
        held_out = (
            chosen_names("held-out class", run.held_out, images.all_classes, class_key)
            if run.held_out
            else ()
        )

        def do(job: Job, _: object) -> list[Path]:
            clip = load_clip(
                run.model, checkpoints(run.folder)[-1][1], device=device
            ).with_decoding(decoding)
            table = shared_by(
                clip, images, held_out, tested, path.parent, settings, alone
            )
            with whole_file(path) as temporary:
                table.assign(run=name).to_csv(temporary, index=False)
            return [path]

        # A folder for each model, so that further models join later.
        about = asdict(settings) | {
            "decoding": decoding,
            "held_out": list(held_out),
            "run": name,
        }
        about |= {"test_domains": list(tested)}
        JobFolder(
            path.parent, FORMAT, about, [("shared",)], {"images": tests.listing}
        ).run(do)
        return path

    names = list(named)
    files = [
        measure(name)
        for name in Bar(
            work.rank.order(names),
            desc="models",
            unit="model",
            disable=not work.progress,
        )
    ]
    by_name = pd.concat(map(pd.read_csv, files)).set_index("run")
    shared = by_name.loc[names].reset_index()
    evaluated = extract_accuracies(
        runs, tests, decoding=decoding, device=device, work=work
    )
    points = []
    screened = screened_classes(evaluated)
    for name, run in named.items():
        of_run = evaluated[evaluated["run"].str.replace("/", "-") == name]
        points += [
            accuracies_of(name, run, of_run, one, screened) for one in tested_in[name]
        ]
    there = shared[
        (shared["domain"] == shared["test_domain"]) & (shared["site"] == WHOLE)
    ]
    wide = there.pivot(index=["run", "test_domain"], columns="what", values="value")
    wide = wide.reindex(columns=[*SHARED, *LABEL_FREE]).reset_index()
    return Measured(
        pd.DataFrame(points).merge(wide, how="left", on=["run", "test_domain"]),
        shared,
        evaluated,
    )


def accuracies_of(
    name: str,
    run: StudyRun,
    evaluated: pd.DataFrame,
    domain: str,
    screened: pd.DataFrame,
) -> dict[str, object]:
    """Return the accuracies of a run in a test domain, and on other domains.

    All held-out classes count; beside them stands ``held_out_learned``, of those that its upper bound learns.
    """
    tested = evaluated.assign(test_domain=domain)
    table, learned = (
        kinds_of_runs(tested, screened=classes).set_index("domain")
        for classes in (None, screened)
    )
    there = table.loc[domain, ["seen", *ACCURACIES]]
    in_domain = float(table["all"].drop(domain).mean())
    of_run = {
        "setting": run.setting,
        "model": str(run.model),
        "seed": run.seed,
        "test_domain": domain,
    }
    classes = {
        "held_out_classes": ", ".join(run.held_out),
        "held_out_learned": learned.loc[domain, "held_out"],
    }
    return {"run": name, **of_run, **there, **classes, "in_domain": in_domain}


def shared_by(
    clip: Clip,
    images: DomainFolder,
    held_out: Sequence[str],
    test_domains: Sequence[str],
    out: Path,
    settings: SharingSettings,
    work: Work,
) -> pd.DataFrame:
    """Return what the domains of one model share: columns what, site, domain, value, test_domain.

    Embeddings, CKA and features are of all domains, so they are the same in each test domain.
    """
    these = DomainFolder(
        images.root, split=images.split, classes=held_out or images.classes
    )
    rows = [
        *_by_embeddings(
            embed_images(clip, images, None, settings.seed), clip, settings
        ),
        *_by_cka(clip, these, out / "representations", settings, work),
        *_by_features(clip, these, images, settings),
    ]
    first = these.classes[: settings.n_classes]
    components = clip.in_components()
    tables = list[pd.DataFrame]()
    for domain in test_domains:
        domains = (
            None
            if settings.domains is None
            else tuple(sorted({domain, *settings.domains}))
        )
        few = DomainFolder(
            images.root, split=images.split, classes=first, domains=domains
        )
        there = [
            *_by_circuits(components, few, out / domain, settings, work),
            *_by_own_parts(components, few, out / domain / "own-parts", settings, work),
        ]
        table = pd.DataFrame(
            [*rows, *there], columns=["what", "site", "domain", "value"]
        )
        tables.append(table.dropna(subset="value").assign(test_domain=domain))
    return pd.concat(tables)


def known_names(points: pd.DataFrame) -> dict[str, str]:
    """Return the names of what is shared, of those numbers that some model has."""
    return {
        column: name
        for column, name in (SHARED | LABEL_FREE).items()
        if points[column].notna().any()
    }


def with_the_others(comparison: Comparison) -> "pd.Series[float]":
    """Return each domain's mean with the other domains."""
    summary = comparison.summary()
    return summary[summary["group"] == "all"].set_index("domain")["value"]


def _rows(
    what: str, values: "Mapping[str, float] | pd.Series[float]", site: str = WHOLE
) -> Rows:
    for domain, value in values.items():
        yield what, site, str(domain), float(value)


def _by_embeddings(images: Embeddings, clip: Clip, settings: SharingSettings) -> Rows:
    yield from _rows(
        "distance",
        with_the_others(compare_distances(images, "standardised", seed=settings.seed)),
    )
    natural = images.vectors[images.domain == settings.natural_domain]
    names = sorted(set(images.class_name.tolist()))
    texts = embed_texts(clip, names)
    logit_scale: Any = clip.model.logit_scale
    scale = float(logit_scale.exp())
    for domain in sorted(set(images.domain.tolist())):
        vectors = images.vectors[images.domain == domain]
        if domain != settings.natural_domain:
            yield "reach", WHOLE, domain, distance(vectors, natural, "standardised")
        logits = scale * vectors @ texts.vectors.T
        answers = np.exp(logits - logits.max(1, keepdims=True))
        yield (
            "confidence",
            WHOLE,
            domain,
            float((answers.max(1) / answers.sum(1)).mean()),
        )


def _by_cka(
    clip: Clip, images: DomainFolder, out: Path, settings: SharingSettings, work: Work
) -> Rows:
    if len(images.classes) < 4:  # CKA of fewer class means has no estimate
        return
    sites = clip.encoder.sites[1:]
    of = RepresentationSettings(settings.n_images, sites, settings.seed, n_parts=2)
    found = extract_representations(clip, images, out, of, work)
    domains = compare_representations(
        [one.grams for one in found], ("linear",), permutations=1
    ).domains
    for site, table in domains.groupby("site", sort=False):
        yield from _rows("cka", table.set_index("domain")["value"], str(site))
    last = domains[domains["site"] == sites[-1]]
    yield from _rows("cka", last.set_index("domain")["value"])


def _by_features(
    clip: Clip, these: DomainFolder, images: DomainFolder, settings: SharingSettings
) -> Rows:
    if settings.sae_steps:
        quiet = Work(progress=False)
        training = SaeTraining(seed=settings.seed, steps=settings.sae_steps)
        sae = train_sae_on_images(clip, images, training, work=quiet)
        found = image_features(
            clip, sae, these, n_images=settings.n_images, seed=settings.seed, work=quiet
        )
        yield from _rows("features", with_the_others(compare_features(found)))


def _by_circuits(
    clip: Clip, images: DomainFolder, out: Path, settings: SharingSettings, work: Work
) -> Rows:
    graphs = extract(
        clip,
        images,
        out / "circuits",
        n_images=settings.n_images,
        method="fisher",
        size=settings.size,
        parts=2,
        seed=settings.seed,
        work=work,
    )
    overlap = (
        found := compare_domains(graphs, measures=["node_overlap", "edge_spearman"])
    )["node_overlap"]
    yield from _rows("overlap", with_the_others(overlap))
    for site in overlap.sites:
        yield from _rows("overlap", with_the_others(overlap.at(site)), str(site))
    if overlap.has_ratios:
        yield from _rows(
            "ratio", overlap.matrix(normalise=True).mean(axis=1)
        )  # the diagonal is empty
    yield from _rows("shift", with_the_others(found["edge_spearman"]))
    yield from _rows("depth_bias", _above_the_others(graphs))
    checks = CausalChecks(
        clip, images, graphs, CheckSettings(n_images=settings.n_tested, n_others=0)
    )
    yield from read_transfer(
        checks.extract_transfer(out / "transfer", exchange=False, work=work)["transfer"]
    )


def read_transfer(table: pd.DataFrame) -> Rows:
    """Yield shares of right answers that circuits keep, from `CircuitChecks.extract_transfer`."""
    known = table[table["full_accuracy"] >= KNOWN]
    kept = known["accuracy"] / known["full_accuracy"]
    own = known["circuit_domain"] == known["image_domain"]
    for what, these in (("kept", own), ("transfer", ~own)):
        yield from _rows(what, kept[these].groupby(known["image_domain"]).mean())


def _above_the_others(graphs: GraphFolder) -> "pd.Series[float]":
    bias = (
        pd.Series({key: depth_bias(graph) for key, graph in graphs.items()})
        .groupby(level=1)
        .mean()
    )
    return pd.Series(
        {domain: bias[domain] - bias.drop(domain).mean() for domain in bias.index}
    )


def _by_own_parts(
    clip: Clip, images: DomainFolder, out: Path, settings: SharingSettings, work: Work
) -> Rows:
    asked = OwnPartSettings(
        n_images=settings.n_images, shares=(settings.part_share,), seed=settings.seed
    )
    try:
        found = OwnParts(clip, images, out, asked).run(work)
    except InputError:  # a model that knows no class has no parts
        return
    yield from read_own_parts(found)


def read_own_parts(found: Mapping[str, pd.DataFrame]) -> Rows:
    """Yield what own parts of a class share between domains, from `OwnParts.run`."""
    pairs = found["overlaps"]
    pairs = pairs[
        (pairs["class_a"] == pairs["class_b"])
        & (pairs["domain_a"] != pairs["domain_b"])
    ]
    both = pd.concat(
        [pairs, pairs.rename(columns={"domain_a": "domain_b", "domain_b": "domain_a"})]
    )
    above = (both["overlap"] - both["chance"]).groupby(both["domain_a"]).mean()
    yield from _rows("part", above)
    yield from _rows("edges", both.groupby("domain_a")["edges"].mean())
    told = lesion_summary(found["lesions"], ("styles", "domain"))
    told = told[(told["styles"] == "another style") & (told["answers"] == "own class")]
    left = told.pivot(index="domain", columns="cut", values="value")
    if {"part", "random"} <= set(left):
        yield from _rows("lesion", left["random"] - left["part"])

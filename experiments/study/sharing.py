"""How much does each domain of a model share with the other domains, and how accurate is the model there?

A domain has one number for each measure of the package. A similarity of a domain is the mean over all other domains.

- Classes are the held-out classes of the model. Embeddings, confidence and autoencoders take all classes.
- The answers that circuits keep, or that lesions take, are of classes that the model knows in the domain. With few
  right answers one image would move a share of them far.
- Circuits and own parts are of components: hidden channels, attention heads, MLP neurons. The own part of a class in a
  domain is the set of units that this class needs and other classes do not need.
- Two measures follow GenCircuit (arXiv 2604.08192): ``shift`` is the rank correlation of the scores of edges.
  ``depth_bias`` is the log ratio of the sum of scores in the deeper half of the sites to the sum in the other half.
- With ``study_circuits`` the study's own circuits are compared, too, by its three measures: ``study_units``,
  ``study_edges`` and ``study_kernel``. They are a tenth of the channels at outputs of blocks, found by site-path.
- ``confidence`` is the mean probability of the answer. ``reach`` is the distance of a domain's images from photographs,
  in units of their spread. These two, ``shift`` and ``depth_bias`` need no accuracy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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
    preset,
    whole_file,
)
from circuitry import (
    CausalChecks,
    Circuit,
    DomainFolder,
    GraphFolder,
    Task,
    compare_domains,
    extract,
    load_clip,
)
from circuitry.circuits import Measure, ReadingSettings, depth_bias
from circuitry.comparison import KNOWN, Comparison, lesion_summary, overlap_by_styles
from circuitry.data import Decoding, chosen_names, class_key, image_listing
from circuitry.data.folds import Key
from circuitry.interventions import CheckSettings, OwnPartSettings
from circuitry.interventions.curve_reading import CURVE_NUMBERS
from circuitry.interventions.faithfulness import measure_answers
from circuitry.models import Clip
from circuitry.questions import OwnParts
from circuitry.training import SaeTraining, train_sae_on_images
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
    run_names,
)
from experiments.study.claims import WHOLE
from experiments.study.run_tables import (
    setting_family,
)
from experiments.study.separation import compare_distances, distance
from experiments.study.study_run import StudyRun

import numpy as np
import pandas as pd

# Rises when a folder of an older version would hold other numbers under the same settings.
FORMAT = "circuitry sharing 4"
SHARED = {
    "overlap": "node overlap of circuits",
    "ratio": "node overlap, ratio to the ceiling",
    "kept": "answers kept by the domain's own circuits",
    "transfer": "answers kept by others' circuits",
    "part": "overlap of own parts",
    "part_of_ceiling": "own parts, share of the ceiling",
    "edges": "edges of own parts",
    "study_units": "node overlap of the study's circuits",
    "study_edges": "edge Jaccard of the study's circuits",
    "study_kernel": "Weisfeiler-Lehman kernel of the study's circuits",
    "all_units": "node overlap of the study's circuits, all classes",
    "all_edges": "edge Jaccard of the study's circuits, all classes",
    "all_kernel": "Weisfeiler-Lehman kernel of the study's circuits, all classes",
    "lesion": "answers lost without others' own parts",
    "cka": "CKA at the last site",
    "features": "shared features",
}
"""Measures of similarity between a domain and all other domains, with their names in words."""
LABEL_FREE = {
    "shift": "circuit shift score",
    "depth_bias": "depth bias beside the other domains",
    "confidence": "confidence",
    "reach": "distance to photographs",
    "distance": "distance to the other domains",
}
"""Numbers that need no accuracy, with their names in words."""
OF_COMPARE = preset("icml2025", "compare")
"""Settings of ``circuitry compare`` in the study."""
STUDY_CIRCUITS: Mapping[str, Any] = {
    name: OF_COMPARE[name]
    for name in (
        "method",
        "rule",
        "baseline",
        "metric",
        "budget",
        "size",
        "leave_unseen",
    )
}
"""Settings of `extract` by which the study found circuits."""
STUDY_MEASURES = {
    "units": Measure("node_overlap"),
    "edges": Measure("edge_jaccard"),
    "kernel": Measure("wl_kernel", max(OF_COMPARE["kernel_depths"])),
}
"""The measures by which the study compared circuits. The kernel has the largest depth, which the study's code calls
one less."""
FEWEST_CLASSES = 4
"""The unbiased estimate of CKA divides by n - 3, where n is the number of classes."""
Rows = Iterator[tuple[str, str, str, float]]
"""Rows of a table: the measure (column ``what``), the site, the domain, the value."""


@dataclass(frozen=True)
class SharingSettings:
    """Which domains, classes and images are measured, and how large circuits and own parts are."""

    domains: tuple[str, ...] | None = None
    """Domains of circuits and own parts, which take long, in addition to the test domain (default: all)."""
    n_classes: Count | None = None
    """Number of held-out classes whose circuits and own parts are found, from the first on (default: all)."""
    n_images: Count = 6
    """Images of a class in a domain that are used to find circuits and own parts, and for features and CKA."""
    n_tested: Count = 6
    """Further images of a class in a domain that are used to test circuits."""
    size: Share = 0.6
    """Share of the units that circuits keep."""
    part_share: Share = 0.01
    """Share of the units that an own part has."""
    sae_steps: Natural = 300
    """Training steps of the autoencoder of each model; 0 leaves features out."""
    study_circuits: bool = False
    """Also compare circuits that are found as in the study, by its three measures. They take about a thousand runs for
    each image."""
    all_classes_in: tuple[str, ...] = ()
    """Settings of mixtures whose models are also asked for the study's circuits of all classes."""
    natural_domain: str = "real"
    """Domain of photographs."""
    seed: int = 0


def named_runs(runs: Sequence[StudyRun]) -> dict[str, StudyRun]:
    """Return runs by a name that is also the name of a folder."""
    names = [name.replace("/", "-") for name in run_names(runs)]
    return dict(zip(names, runs, strict=True))


def shared_of_runs(
    runs: Sequence[StudyRun],
    images: DomainFolder,
    test_domains: Callable[[StudyRun], Sequence[str]],
    out: Path,
    settings: SharingSettings,
    *,
    decoding: Decoding = "upright",
    device: str = "cpu",
    work: Work = Work(),
) -> pd.DataFrame:
    """Measure what the domains of each model share, in a job for each model.

    The name of a model is its path below the common folder of all models. The folder of its measurements has this name.

    Args:
        images: Images of all domains and classes.
        test_domains: Function that returns the test domains of a model whose mixture has no test domain.
        out: Folder of the measurements, with a folder for each model.

    Returns:
        Columns what, site, domain, value, test_domain, run.
    """
    named = named_runs(runs)
    # Models are shared out between processes, and each process measures its models alone.
    alone = replace(work, rank=ALONE, progress=False)
    listing = image_listing(images.records)

    def measure(name: str) -> Path:
        run = named[name]
        path = out / name / "shared.csv"
        tested = [run.test_domain] if run.test_domain else test_domains(run)
        held_out: tuple[str, ...] = ()
        # `chosen_names` refuses an empty list.
        if run.held_out:
            held_out = chosen_names(
                "held-out class", run.held_out, images.all_classes, class_key
            )

        def do(job: Job, _: object) -> list[Path]:
            kept = run.checkpoints()
            last = kept[max(kept)]
            clip = load_clip(run.model, last, device=device).with_decoding(decoding)
            table = shared_by(
                clip, images, held_out, tested, path.parent, settings, alone
            )
            if setting_family(run.setting) in settings.all_classes_in:
                rows = _by_study_circuits(
                    clip, images, path.parent / "all", settings, alone, "all"
                )
                every = pd.DataFrame(rows, columns=["what", "site", "domain", "value"])
                for domain in tested:
                    table = pd.concat([table, every.assign(test_domain=domain)])
            with whole_file(path) as temporary:
                table.assign(run=name).to_csv(temporary, index=False)
            return [path]

        # Each model has its own folder, so that further models can join later.
        about = asdict(settings) | {
            "decoding": decoding,
            "held_out": list(held_out),
            "run": name,
            "test_domains": list(tested),
        }
        listings = {"images": listing}
        JobFolder(path.parent, FORMAT, about, [("shared",)], listings).run(do)
        return path

    names = list(named)
    # Each process begins with its share. Then it reads the results of other processes, or measures what is missing.
    order = work.rank.order(names)
    bar = Bar(order, desc="models", unit="model", disable=not work.progress)
    by_name = pd.concat(pd.read_csv(measure(name)) for name in bar).set_index("run")
    # The order of the table is that of the runs, whatever the order of the process.
    return by_name.loc[names].reset_index()


def shared_by(
    clip: Clip,
    images: DomainFolder,
    held_out: Sequence[str],
    test_domains: Sequence[str],
    out: Path,
    settings: SharingSettings,
    work: Work,
) -> pd.DataFrame:
    """Compute all measures of the domains of one model: columns what, site, domain, value, test_domain.

    Embeddings, CKA and features take all domains, so they are the same for each test domain.

    Args:
        images: Images of all classes.
        held_out: The held-out classes; without any, all classes are compared.
        out: Folder of the measurements of the model.
    """
    classes = held_out or images.classes
    # Of the source, because the images may be some of those in their folder, such as the images that test.
    of_classes = DomainFolder(images.source, split=images.split, classes=classes)
    embedded = embed_images(clip, images, None, settings.seed)
    # CKA of class means needs more classes than a pair.
    enough = of_classes if len(of_classes.classes) >= FEWEST_CLASSES else images
    rows = [
        *_by_embeddings(embedded, clip, settings),
        *_by_cka(clip, enough, out / "representations", settings, work),
        *_by_features(clip, of_classes, images, settings),
    ]
    first = of_classes.classes[: settings.n_classes]
    components = clip.in_components()
    tables = list[pd.DataFrame]()
    for domain in test_domains:
        domains = None
        if settings.domains is not None:
            domains = tuple(sorted({domain, *settings.domains}))
        # Circuits and own parts take nearly all the time: few classes, and few domains.
        few = DomainFolder(
            images.source, split=images.split, classes=first, domains=domains
        )
        place = out / domain
        of_domain = [
            *rows,
            *_by_circuits(components, few, place, settings, work),
            *_by_own_parts(components, few, place / "own-parts", settings, work),
        ]
        if settings.study_circuits:
            of_domain += _by_study_circuits(clip, few, place, settings, work)
        table = pd.DataFrame(of_domain, columns=["what", "site", "domain", "value"])
        tables.append(table.dropna(subset="value").assign(test_domain=domain))
    return pd.concat(tables)


def with_the_others(comparison: Comparison) -> "pd.Series[float]":
    """Return the mean of each domain over all other domains, of all classes."""
    summary = comparison.summary()
    return summary[summary["group"] == "all"].set_index("domain")["value"]


def _rows(
    what: str, values: "Mapping[str, float] | pd.Series[float]", site: str = WHOLE
) -> Rows:
    """Yield a row of a measure for each domain."""
    for domain, value in values.items():
        yield what, site, str(domain), float(value)


def _by_embeddings(images: Embeddings, clip: Clip, settings: SharingSettings) -> Rows:
    """Yield ``distance``, ``reach`` and ``confidence`` of each domain."""
    distances = compare_distances(images, "standardised", seed=settings.seed)
    yield from _rows("distance", with_the_others(distances))
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
        # Without the largest logit the exponentials would overflow at a scale of 100.
        answers = np.exp(logits - logits.max(1, keepdims=True))
        confidence = (answers.max(1) / answers.sum(1)).mean()
        yield "confidence", WHOLE, domain, float(confidence)


def _by_cka(
    clip: Clip, images: DomainFolder, out: Path, settings: SharingSettings, work: Work
) -> Rows:
    """Yield CKA of class means of each domain, at every site and, as the number of the whole model, at the last."""
    if len(images.classes) < FEWEST_CLASSES:
        return
    sites = clip.encoder.sites[1:]  # the first site is the image
    asked = RepresentationSettings(settings.n_images, sites, settings.seed, n_folds=2)
    represented = extract_representations(clip, images, out, asked, work)
    grams = [domain.grams for domain in represented]
    domains = compare_representations(grams, ("linear",), permutations=1).domains
    for site, table in domains.groupby("site", sort=False):
        yield from _rows("cka", table.set_index("domain")["value"], str(site))
    last = domains[domains["site"] == sites[-1]]
    yield from _rows("cka", last.set_index("domain")["value"])


def _by_features(
    clip: Clip,
    compared: DomainFolder,
    images: DomainFolder,
    settings: SharingSettings,
) -> Rows:
    """Yield the share of an autoencoder's features that each domain shares, on the images that are compared."""
    if not settings.sae_steps:
        return
    quiet = Work(progress=False)
    training = SaeTraining(seed=settings.seed, steps=settings.sae_steps)
    # The autoencoder is trained on images of all classes; its features are compared on the held-out classes alone.
    sae = train_sae_on_images(clip, images, training, work=quiet)
    features = image_features(
        clip, sae, compared, n_images=settings.n_images, seed=settings.seed, work=quiet
    )
    yield from _rows("features", with_the_others(compare_features(features)))


def _by_circuits(
    clip: Clip, images: DomainFolder, out: Path, settings: SharingSettings, work: Work
) -> Rows:
    """Yield the measures of circuits: their overlap, their edges, their depth, and the answers that they keep."""
    graphs = extract(
        clip,
        images,
        out / "circuits",
        n_images=settings.n_images,
        method="fisher",
        size=settings.size,
        folds=2,
        seed=settings.seed,
        work=work,
    )
    compared = compare_domains(graphs, measures=["node_overlap", "edge_spearman"])
    overlap = compared["node_overlap"]
    yield from _rows("overlap", with_the_others(overlap))
    for site in overlap.sites:
        yield from _rows("overlap", with_the_others(overlap.at(site)), str(site))
    if overlap.has_ratios:
        # The diagonal is empty, so the mean of a row is over all other domains.
        yield from _rows("ratio", overlap.matrix(normalise=True).mean(axis=1))
    yield from _rows("shift", with_the_others(compared["edge_spearman"]))
    yield from _rows("depth_bias", _above_the_others(graphs))
    asked = CheckSettings(n_images=settings.n_tested, n_others=0)
    checks = CausalChecks(clip, images, graphs, asked)
    tasks = {}
    for key in checks.chosen.tested:
        own, _ = checks.images_of(key, work)
        if len(own):
            tasks[key] = checks.task(key, own, work=replace(work, progress=False))
    circuits = {key: checks.circuit(key) for key in checks.chosen.tested}
    yield from kept_answers(tasks, circuits)


def _by_study_circuits(
    clip: Clip,
    images: DomainFolder,
    out: Path,
    settings: SharingSettings,
    work: Work,
    prefix: str = "study",
) -> Rows:
    """Yield the measures of circuits that are found and compared as in the study. Their names have a prefix."""
    graphs = extract(
        clip,
        images,
        out / "study-circuits",
        n_images=settings.n_images,
        seed=settings.seed,
        work=work,
        **STUDY_CIRCUITS,
    )
    reading = ReadingSettings(
        any_sign=True, all_sites=True, other_classes=0, chance_draws=0
    )
    compared = compare_domains(
        graphs, measures=list(STUDY_MEASURES.values()), settings=reading
    )
    for what, comparison in zip(STUDY_MEASURES, compared.values(), strict=True):
        yield from _rows(f"{prefix}_{what}", with_the_others(comparison))


def kept_answers(tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit]) -> Rows:
    """Yield the share of a model's right answers that circuits of the same class keep, by domain of the images.

    ``kept`` is of circuits of the domain of the images. ``transfer`` is of circuits of all other domains.
    """
    shares = []
    for (name, domain), task in tasks.items():
        of_class = {key[1]: circuits[key] for key in circuits if key[0] == name}
        whole = circuits[name, domain].nothing().complement()
        numbers, _ = measure_answers(task, [whole, *of_class.values()])
        right, *kept = numbers[CURVE_NUMBERS.index("top")].mean(1)
        # Classes that the model hardly knows are left out: with few right answers one image moves the share far.
        if right >= KNOWN:
            for found_on, accuracy in zip(of_class, kept, strict=True):
                what = "kept" if found_on == domain else "transfer"
                shares.append((what, domain, accuracy / right))
    table = pd.DataFrame(shares, columns=["what", "domain", "share"])
    for measure, of_measure in table.groupby("what"):
        yield from _rows(str(measure), of_measure.groupby("domain")["share"].mean())


def _above_the_others(graphs: GraphFolder) -> "pd.Series[float]":
    """Return the depth bias of each domain minus the mean of all other domains."""
    biases = pd.Series({key: depth_bias(graph) for key, graph in graphs.items()})
    bias = biases.groupby(level=1).mean()  # a key is a class and a domain
    others = pd.Series({domain: bias.drop(domain).mean() for domain in bias.index})
    return bias - others


def _by_own_parts(
    clip: Clip, images: DomainFolder, out: Path, settings: SharingSettings, work: Work
) -> Rows:
    """Yield the measures of own parts; none if the model knows no class."""
    asked = OwnPartSettings(
        n_images=settings.n_images, shares=(settings.part_share,), seed=settings.seed
    )
    try:
        tables = OwnParts(clip, images, out, asked).run(work)
    except InputError:
        # Own parts are of classes that the model knows, and a poor model may know no class.
        return
    yield from read_own_parts(tables)


def read_own_parts(tables: Mapping[str, pd.DataFrame]) -> Rows:
    """Yield how far own parts of a class agree between domains, from the tables of `OwnParts.run`.

    ``part`` is the overlap above the chance level, ``part_of_ceiling`` the same as a share of the ceiling, ``edges``
    the share of common edges. ``lesion`` is the share of answers that is lost without the own parts of other domains,
    minus the share lost without random units.
    """
    pairs = tables["overlaps"]
    pairs = pairs.query("class_a == class_b and domain_a != domain_b")
    both = _for_both_domains(pairs)
    above = (both["overlap"] - both["chance"]).groupby(both["domain_a"]).mean()
    yield from _rows("part", above)
    yield from _rows("edges", both.groupby("domain_a")["edges"].mean())
    # Parts that were found once have no ceiling.
    if "half_a" in pairs:
        of_units = overlap_by_styles(tables["overlaps"]).query("compared == 'units'")
        shares = _for_both_domains(of_units).dropna(subset="value")
        yield from _rows("part_of_ceiling", shares.groupby("domain_a")["value"].mean())
    summary = lesion_summary(tables["lesions"], ("styles", "domain"))
    summary = summary.query("styles == 'another style' and answers == 'own class'")
    remaining = summary.pivot(index="domain", columns="cut", values="value")
    # A model that knows its classes in one domain alone has no lesions of other domains.
    if {"part", "random"} <= set(remaining):
        yield from _rows("lesion", remaining["random"] - remaining["part"])


def _for_both_domains(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of domains twice, because each pair has one row, but counts for both domains."""
    turned = pairs.rename(columns={"domain_a": "domain_b", "domain_b": "domain_a"})
    return pd.concat([pairs, turned])

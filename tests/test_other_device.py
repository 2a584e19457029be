"""Every job gives on another device what it gives on the CPU, and nothing that it does mixes the two.

The device is that of `tests.support.second_device`: it refuses what CUDA refuses, and holds numbers, so a job runs to
its end. What a job starts from (graphs, circuits, folders) is made on the CPU, so that each job is tested by itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from circuitry import (
    AttributionGraph,
    CausalChecks,
    Circuit,
    Clip,
    DomainFolder,
    GraphFolder,
    Patch,
    Task,
    attribute,
    class_logit,
    class_margin,
    compare,
    extract,
    faithfulness_curve,
    find_circuit,
    in_feature_basis,
    judge_circuit,
    load_clip,
    mean_baseline,
    midpoint_rule,
    patch_effects,
    patched,
    score_edges,
)
from circuitry.bases import ResidualStream, SparseAutoencoder
from circuitry.cards import unit_cards
from circuitry.circuits import (
    EDGE_METHODS,
    METHODS,
    MaskSettings,
    attribute_components,
    attribute_folds,
    direct_effects,
    direct_vectors,
    learn_masks,
    own_part,
    pooling_pairs,
    unit_methods,
    with_edges,
)
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.encoder import Counterfactual, counted_sites
from circuitry.explorer import LiveModel, view_model
from circuitry.interventions import (
    AblationSettings,
    CheckSettings,
    OwnPartSettings,
    check_attribution,
    kept_embeddings,
    lesion,
    logit_pixels,
    measure_circuits,
    optimal_ablation,
    optimal_baseline,
)
from circuitry.models import linear_probe, read_images
from circuitry.questions import OwnParts
from circuitry.training import (
    SaeTraining,
    diagnose_sae,
    train_sae_on_images,
    zero_shot_accuracy,
)
from experiments.drawn import DrawingSettings, write_toy
from experiments.representations.embeddings import embed_images
from experiments.representations.features import compare_features
from experiments.representations.probes import probe_sites
from experiments.representations.representation_folder import (
    RepresentationSettings,
    extract_representations,
)
from experiments.representations.similarity import compare_representations
from experiments.representations.strongest_features import image_features, name_features
from tests.support.feature_bases import make_sae
from tests.support.second_device import DEVICE, second_device
from tests.support.work import QUIET

CLASSES, STYLES = ("cup", "fish", "key", "star"), ("quickdraw", "real")
KEY = ("key", "real")
RULE = midpoint_rule(1)
MASKS = MaskSettings(steps=4, batch_size=4)
FEW = AblationSettings(sizes=(0.2, 1.0), random_draws=1)
TEXTS, WORDS = ["a {}."], ["tree", "house", "car"]


@dataclass(frozen=True)
class Made:
    """A shipped model, drawn images of three classes in two styles, and what was found in it on the CPU."""

    network: str
    root: Path
    folder: Path

    @cached_property
    def images(self) -> DomainFolder:
        return DomainFolder(self.root, split="test")

    @cached_property
    def clip(self) -> Clip:
        return load_clip(self.network)

    @cached_property
    def on_device(self) -> Clip:
        clip = load_clip(self.network, device=DEVICE)
        assert clip.encoder.device == DEVICE
        return clip

    @cached_property
    def sites(self) -> tuple[str, ...]:
        return self.clip.encoder.sites[-3:]

    @cached_property
    def pixels(self) -> dict[tuple[str, str], Tensor]:
        """Images by class and style, on the CPU, as they are read."""
        keys = [(name, style) for name in CLASSES for style in STYLES]
        return {
            key: read_images(self.clip, self.images.select(*key, 3))[1] for key in keys
        }

    @cached_property
    def graph(self) -> AttributionGraph:
        task = self.task(self.clip)
        found = attribute(
            *(
                task.encoder,
                task.images,
                task.metric,
                0.05,
                RULE,
                task.baseline,
                self.sites,
            ),
            others=task.others,
            budget="same-share",
            progress=False,
        )
        return replace(found, class_name=KEY[0], domain=KEY[1])

    @cached_property
    def circuit(self) -> Circuit:
        return self.graph.circuit(None)

    @cached_property
    def graphs(self) -> GraphFolder:
        return self.extracted(self.clip, self.folder / "graphs")

    def extracted(self, clip: Clip, out: Path) -> GraphFolder:
        """Circuits of a class in both styles."""
        settings: dict[str, Any] = {
            "rule": RULE,
            "sites": self.sites,
            "texts": TEXTS,
            "size": 0.05,
        }
        return extract(
            clip, self.images, out, [KEY[0]], n_images=2, work=QUIET, **settings
        )

    def weights(self, clip: Clip) -> Tensor:
        """Text weights on the model's device."""
        return self.on_cpu.to(clip.encoder.device)

    @cached_property
    def on_cpu(self) -> Tensor:
        return self.clip.text_weights(CLASSES, TEXTS)

    def task(self, clip: Clip, key: tuple[str, str] = KEY, **changes: Any) -> Task:
        """Images of a class, and of the others in its style."""
        metric = class_logit(self.weights(clip), CLASSES.index(key[0]))
        others = torch.cat(
            [self.pixels[name, key[1]][:1] for name in CLASSES if name != key[0]]
        )
        settings: dict[str, Any] = {
            "baseline": "mean-position",
            "sites": self.sites,
            "work": QUIET,
            "others": others,
        }
        return Task(clip.encoder, self.pixels[key], metric, **(settings | changes))

    def alone(self, clip: Clip, **changes: Any) -> Task:
        """Images of a class without those of others."""
        mean = mean_baseline(clip.encoder, self.pixels[KEY])
        return self.task(clip, **({"others": None, "baseline": mean} | changes))

    def sae(self, clip: Clip) -> SparseAutoencoder:
        """An autoencoder at the last site before the embedding."""
        torch.manual_seed(0)
        site = clip.encoder.sites[-1]
        width = self.clip.encoder(self.pixels[KEY], stop=site).shape[1]
        return replace(make_sae(width, dtype=torch.float32), site=site)


Job = Callable[[Made, Clip, Path], Any]
"""Gives, of a model on some device and a folder to write to, results of any kind."""


def attributed(method: str, made: Made, clip: Clip, _: Path) -> Any:
    task = made.task(clip)
    return attribute(
        task.encoder,
        task.images,
        task.metric,
        0.05,
        RULE,
        "mean-position",
        made.sites,
        others=task.others,
        method=method,
        progress=False,
    )


def with_baseline(name: str, made: Made, clip: Clip, _: Path) -> Any:
    images = made.pixels[KEY]
    baselines: dict[str, Callable[[], Any]] = {
        "zero": lambda: "zero",
        "mean on the CPU": lambda: mean_baseline(made.clip.encoder, images),
        "counterfactual": lambda: images.flip(-1),
    }
    baseline = baselines[name]()
    graph = attribute(
        clip.encoder,
        images,
        made.task(clip).metric,
        0.05,
        RULE,
        baseline,
        made.sites,
        progress=False,
    )
    task = made.task(clip, baseline=baseline, others=None)
    return (
        graph.node_scores,
        graph.edge_scores,
        kept_embeddings(task, [graph.circuit(2), graph.circuit(3)]),
        kept_embeddings(task, [graph.circuit(None)]),
    )


def in_components(made: Made, clip: Clip) -> tuple[Task, dict[str, np.ndarray]]:
    """Return a task in heads and neurons, or hidden channels, and a few units at its last sites."""
    of_components = clip.in_components()
    sites = of_components.encoder.sites[-4:]
    return made.alone(of_components, sites=sites), {
        site: np.arange(2) for site in sites
    }


def edges_of_sites(method: str, made: Made, clip: Clip, _: Path) -> Any:
    units = {site: np.arange(3) for site in made.sites}
    return score_edges(made.alone(clip), units, method=method, rule=RULE).scores


def edges_of_components(method: str, made: Made, clip: Clip, _: Path) -> Any:
    task, units = in_components(made, clip)
    return score_edges(task, units, method=method).scores


def edges_of_layers(method: str, made: Made, clip: Clip, _: Path) -> Any:
    images = made.pixels[KEY].flip(-1)
    return attribute_components(
        made.alone(clip, sites=None, baseline=images), method=method
    ).edge_scores


def found(made: Made, clip: Clip, _: Path) -> Any:
    return find_circuit(made.task(clip), size=0.3, masks=MASKS)


def masks_on_edges(made: Made, clip: Clip, _: Path) -> Any:
    return learn_masks(
        made.task(clip), [0.5], MASKS, among=made.graph.circuit(2)
    ).scores.scores


def own(made: Made, clip: Clip, _: Path) -> Any:
    task = made.task(clip)
    part = own_part(task, share=0.01)
    return part, with_edges(task, part).scored_edges.scores


def own_of_styles(made: Made, clip: Clip, _: Path) -> Any:
    return own_part([made.task(clip, (KEY[0], style)) for style in STYLES], share=0.01)


def lesions(made: Made, clip: Clip, _: Path) -> Any:
    keys = [("key", style) for style in STYLES] + [("fish", "real")]
    return lesion({key: made.task(clip, key) for key in keys}, {KEY: made.circuit})


def curve(made: Made, clip: Clip, _: Path) -> Any:
    return faithfulness_curve(made.task(clip), made.graph, FEW, [])


def fitted_curve(made: Made, clip: Clip, _: Path) -> Any:
    return measure_circuits(
        made.task(clip), [made.circuit], FEW, fitted=made.task(clip)
    )


def curve_of_edges(made: Made, clip: Clip, _: Path) -> Any:
    return measure_circuits(
        made.alone(clip), [made.graph.circuit(1), made.graph.circuit(3)], FEW
    )


def judged(made: Made, clip: Clip, _: Path) -> Any:
    rows = judge_circuit(made.task(clip), made.graph.strongest(0.02), FEW)
    return rows.drop(
        columns="p"
    )  # a test divides by deviations that are small, and moves with the last bit


def patched_by(by: str, made: Made, clip: Clip, _: Path) -> Any:
    sites = made.sites[-2:]
    means = patch_effects(made.alone(clip, sites=sites), by=by)
    other = made.pixels["fish", "real"]
    pairs = patch_effects(
        made.alone(clip, sites=sites, baseline=other), by=by, direction="denoise"
    )
    return means, pairs


def patched_components(made: Made, clip: Clip, _: Path) -> Any:
    task, units = in_components(made, clip)
    return patch_effects(task, units=units)


def patched_runs(made: Made, clip: Clip, _: Path) -> Any:
    """Embeddings with units put to a number, to a stored activation of the CPU, and to that of other images."""
    site, other = made.sites[-2], made.pixels["fish", "real"]
    stored = mean_baseline(made.clip.encoder, other)
    found = []
    for value in (0.5, stored, Counterfactual(other)):
        with patched(clip.encoder, [Patch(site, value, units=[0, 2])]):
            found.append(clip.encoder(made.pixels[KEY].to(clip.encoder.device)))
    return found


def checked_scores(made: Made, clip: Clip, _: Path) -> Any:
    return check_attribution(made.task(clip), made.graph, top=2, random=2)


def optimal(made: Made, clip: Clip, _: Path) -> Any:
    return dict(optimal_baseline(made.task(clip), made.circuit).values)


def pixels(made: Made, clip: Clip, _: Path) -> Any:
    return logit_pixels(replace(made.alone(clip), images=made.pixels[KEY][:1]))


def margins(made: Made, clip: Clip, _: Path) -> Any:
    metric = class_margin(made.weights(clip), 2)
    return attribute(
        clip.encoder,
        made.pixels[KEY],
        metric,
        0.05,
        RULE,
        sites=made.sites,
        method="conductance",
        progress=False,
    )


def by_folds(made: Made, clip: Clip, _: Path) -> Any:
    return attribute_folds(
        made.task(clip), AttributionSettings(0.05, rule=RULE), np.array([0, 1, 1])
    ).folds


def counted(made: Made, clip: Clip, _: Path) -> Any:
    return counted_sites(clip.encoder)


def direct(made: Made, clip: Clip, _: Path) -> Any:
    stream, weights = ResidualStream.of(clip.encoder), made.weights(clip)
    return direct_effects(stream, made.pixels[KEY], weights[0]), direct_vectors(
        stream, made.pixels[KEY]
    )


def pairs_of_pooling(made: Made, clip: Clip, _: Path) -> Any:
    return pooling_pairs(clip.encoder, made.pixels[KEY])


def cards(made: Made, clip: Clip, out: Path) -> Any:
    folder = unit_cards(
        clip,
        made.images,
        made.graphs,
        out,
        work=QUIET,
        n_images=2,
        top=2,
        exact_units=1,
        vocabulary=WORDS,
    )
    site = made.sites[-2]
    return folder.card(site, int(made.graphs[KEY].kept_units[site][0]))


def features(made: Made, clip: Clip, _: Path) -> Any:
    sae = made.sae(clip)
    seen = image_features(clip, sae, made.images, n_images=2, work=QUIET)
    return seen, compare_features(seen), name_features(sae, clip, WORDS)


def in_features(made: Made, clip: Clip, _: Path) -> Any:
    sae = made.sae(clip)
    encoder = in_feature_basis(clip.encoder, {clip.encoder.sites[-1]: sae})
    task = made.alone(replace(clip, encoder=encoder))
    graph = attribute(
        *(encoder, task.images, task.metric, 0.05, RULE, task.baseline, made.sites),
        others=made.pixels[KEY].flip(-1),
        progress=False,
    )
    return graph.node_scores, kept_embeddings(
        task, [replace(graph.circuit(None), keep_error=True)]
    )


def representations(made: Made, clip: Clip, out: Path) -> Any:
    settings = RepresentationSettings(n_images=4, n_folds=2, sites=made.sites[-2:])
    domains = extract_representations(clip, made.images, out, settings, QUIET)
    return compare_representations(
        [one.grams for one in domains], permutations=20
    ), domains


def probes(made: Made, clip: Clip, out: Path) -> Any:
    settings = RepresentationSettings(n_images=4, n_folds=2, sites=made.sites[-2:])
    domains = extract_representations(clip, made.images, out, settings, QUIET)
    means = {
        site: np.concatenate([one.unit_means[site] for one in domains])
        for site in made.sites[-2:]
    }
    classes = [name for one in domains for name in one.image_classes]
    styles = [one.grams.domain for one in domains for _ in one.image_classes]
    return probe_sites(means, classes, styles, folds=2)


def embeddings(made: Made, clip: Clip, out: Path) -> Any:
    return embed_images(clip, made.images, cache_dir=out, work=QUIET)


def accuracy(made: Made, clip: Clip, _: Path) -> Any:
    return zero_shot_accuracy(clip, made.images, ("cup",), work=QUIET)


def probe(made: Made, clip: Clip, _: Path) -> Any:
    records = [one for key in made.pixels for one in made.images.select(*key, 2)]
    classifier = linear_probe(clip, records)
    return classifier.text_weights(CLASSES), classifier.encoder(
        made.pixels[KEY].to(clip.encoder.device)
    )


def folder_of_graphs(made: Made, clip: Clip, out: Path) -> Any:
    graphs = made.extracted(clip, out)
    return [graphs[key].node_scores for key in graphs], compare(graphs, "node_overlap")


def folder_of_own_parts(made: Made, clip: Clip, out: Path) -> Any:
    settings = OwnPartSettings(
        n_images=2, n_others=4, shares=(0.02,), sites=made.sites, texts=TEXTS
    )
    two = DomainFolder(
        made.root, split="test", domains=[KEY[1]], classes=["fish", KEY[0]]
    )
    return OwnParts(clip, two, out, settings).run(QUIET)


def checks(made: Made, clip: Clip, out: Path) -> Any:
    settings = CheckSettings(n_images=2, n_others=2)
    run = CausalChecks(clip, made.images, made.graphs, settings)
    return run.extract_faithfulness(
        out / "curves",
        rankings=["absolute"],
        sizes=(0.2, 1.0),
        random_draws=1,
        work=QUIET,
    )


def live(made: Made, clip: Clip, _: Path) -> Any:
    run = LiveModel(
        CausalChecks(
            clip, made.images, made.graphs, CheckSettings(n_images=2, n_others=1)
        ),
        work=QUIET,
    )
    unit = f"{made.sites[-2]}/{made.graphs[KEY].kept_units[made.sites[-2]][0]}"
    picture = made.images.select(*KEY, 1)[0].path.read_bytes()
    return run.effects(KEY[0], [unit], "mean"), run.look(picture)["effects"]


def viewed(made: Made, clip: Clip, _: Path) -> Any:
    run = CausalChecks(
        clip, made.images, made.graphs, CheckSettings(n_images=2, n_others=1)
    )
    return view_model(run, n_images=1, vocabulary=WORDS, work=QUIET)


def trained_autoencoder(made: Made, clip: Clip, _: Path) -> Any:
    settings = SaeTraining(expansion=2, steps=3, batch_size=8, resample_every=2)
    sae = train_sae_on_images(clip, made.images, settings, work=QUIET)
    samples = clip.encoder(made.pixels[KEY].to(clip.encoder.device))
    return sae.w_enc, sae.w_dec, diagnose_sae(sae, samples)


def identity(made: Made, clip: Clip, _: Path) -> Any:
    return (
        clip.identity,
        clip.text_weights(CLASSES, TEXTS),
        clip.shown(made.pixels[KEY]),
    )


STREAMED = [name for name in EDGE_METHODS if name not in ("squared", "cuts")]
"""Methods for edges through a residual stream, but that which takes a run for every edge."""
ANY: dict[str, Job] = {
    "attribute by iterative-fisher": partial(attributed, "iterative-fisher"),
    "attribute by conductance": partial(attributed, "conductance"),
    "a counterfactual baseline": partial(with_baseline, "counterfactual"),
    "find by learned masks": found,
    "own part": own,
    "lesion": lesions,
    "faithfulness curve": curve,
    "optimal baseline": optimal,
    "patching by unit": partial(patched_by, "unit"),
    "patching components": patched_components,
    "patches": patched_runs,
    "edges between components by cuts": partial(edges_of_components, "cuts"),
    "pixels": pixels,
    "attribution in features": in_features,
    "identity": identity,
}
"""Jobs that differ between a CNN and a transformer."""
OF_CNN: dict[str, Job] = {
    **{f"attribute by {method}": partial(attributed, method) for method in METHODS},
    **{
        f"a baseline: {name}": partial(with_baseline, name)
        for name in ("zero", "mean on the CPU")
    },
    **{
        f"edges between sites by {name}": partial(edges_of_sites, name)
        for name in ("squared", "exact-readers", "cuts")
    },
    "edges between hidden channels": partial(edges_of_components, "exact-readers"),
    "masks on edges": masks_on_edges,
    "own part of two styles": own_of_styles,
    "curve with optimal constants": fitted_curve,
    "curve of edges": curve_of_edges,
    "judge": judged,
    "patching by site": partial(patched_by, "site"),
    "patching by position": partial(patched_by, "position"),
    "check of an attribution": checked_scores,
    "margin": margins,
    "attribution by folds": by_folds,
    "sites that count": counted,
    "pairs of the pooling": pairs_of_pooling,
    "cards": cards,
    "features of images": features,
    "CKA": representations,
    "probes": probes,
    "embeddings": embeddings,
    "zero-shot accuracy": accuracy,
    "training an autoencoder": trained_autoencoder,
    "linear probe": probe,
    "extract and compare": folder_of_graphs,
    "own parts of a folder": folder_of_own_parts,
    "causal checks": checks,
    "live model": live,
    "view of a model": viewed,
}
OF_TRANSFORMER: dict[str, Job] = {
    **{
        f"edges between components by {name}": partial(edges_of_components, name)
        for name in STREAMED
    },
    **{
        f"edges between layers by {name}": partial(edges_of_layers, name)
        for name in ("gradient", "exact-readers")
    },
    "direct effects": direct,
}
JOBS: dict[str, dict[str, Job]] = {
    "rn-tiny": OF_CNN | ANY,
    "vit-tiny": OF_TRANSFORMER | ANY,
}


OF_ROUNDING = ("baseline_digest",)
"""Entries of settings that change with the last bit of a number."""


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every number, array and text of a result, with its place."""
    if isinstance(value, Tensor):
        yield name, value.detach().cpu().numpy()
    elif isinstance(value, np.ndarray | int | float | str | bytes | None):
        yield name, value
    elif isinstance(value, pd.DataFrame):
        for column in value:
            yield f"{name}.{column}", value[column].to_numpy()
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            if one.name != "provenance":
                yield from leaves(getattr(value, one.name), f"{name}.{one.name}")
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if key not in OF_ROUNDING:
                yield from leaves(one, f"{name}[{key}]")
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from leaves(one, f"{name}[{place}]")


def assert_alike(found: Any, expected: Any) -> None:
    """Numbers are equal but for rounding, of metrics near 1 where they are differences; everything else is equal."""
    ours, theirs = dict(leaves(found)), dict(leaves(expected))
    assert ours.keys() == theirs.keys()
    assert any(np.any(value) for value in theirs.values()), "nothing was computed"
    for name, value in theirs.items():
        if isinstance(value, float) or (
            isinstance(value, np.ndarray) and value.dtype.kind == "f"
        ):
            largest = np.nanmax(np.abs(value), initial=0.0)
            np.testing.assert_allclose(
                ours[name], value, rtol=0, atol=1e-4 * largest + 2e-6, err_msg=name
            )
        else:
            np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    root = tmp_path_factory.mktemp("drawn")
    write_toy(
        root, DrawingSettings(0, 4, classes=CLASSES, styles=STYLES), progress=False
    )
    return {
        network: Made(network, root, tmp_path_factory.mktemp(network))
        for network in JOBS
    }


@pytest.fixture
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learned is learned in a few steps, which run the same operations as many."""
    monkeypatch.setattr(
        unit_methods, "learn_masks", partial(learn_masks, settings=MASKS)
    )
    monkeypatch.setattr(optimal_ablation, "STEPS", 3)


@pytest.mark.usefixtures("_few_steps")
@pytest.mark.parametrize(
    ("network", "name"),
    [(network, name) for network, jobs in JOBS.items() for name in jobs],
)
def test_a_job_gives_on_another_device_what_it_gives_on_the_cpu(
    networks: dict[str, Made], network: str, name: str, tmp_path: Path
) -> None:
    made, job = networks[network], JOBS[network][name]
    expected = job(made, made.clip, tmp_path / "cpu")
    with second_device():
        found = job(made, made.on_device, tmp_path / "device")
    assert_alike(found, expected)

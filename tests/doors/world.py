"""Small models, images, graphs and results in a folder: what public names are called with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import circuitry
from circuitry import bases, circuits, comparison, interventions, representations, training
from circuitry.comparison import PartArray
from tests.comparison.similarities import similarities
from tests.support.feature_bases import make_sae
from tests.support.tiny_clip import NAME, Tiny
from tests.support.towers import make_tower
from tests.support.work import QUIET

CLASSES, DOMAINS = ("axe", "cat", "fish", "key"), ("real", "sketch")


class World:
    """A ModifiedResNet and a vision transformer, a CLIP model on disk, and what was found on 24 images."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder, self.root = folder, folder / "images"
        write_images(self.root, 3)
        (folder / "listing.csv").write_text("path,item\n" + "".join(f"real/axe/{i}.png,a{i}\n" for i in range(3)))
        self.images, self.clip = circuitry.DomainFolder(self.root), Tiny.write(folder).load()
        self.config, self.checkpoint = folder / f"{NAME}.json", folder / f"{NAME}.safetensors"
        self.record = self.images.records[0]
        self._make_circuits()
        self._make_comparisons()
        self._make_representations()

    def _make_circuits(self) -> None:
        self.tower = make_tower("resnet")
        self.encoder = circuitry.Encoder.from_tower(self.tower)
        self.channels = circuitry.Encoder.from_tower(make_tower("vit"))
        self.vit = circuitry.in_components(self.channels)
        self.batch, self.others, self.small = (torch.randn(3, 3, n, n) for n in (64, 64, 32))
        self.weights = F.normalize(torch.randn(4, 16), dim=-1)
        self.metric, self.sites = circuitry.class_logit(self.weights, 1), self.encoder.sites[-3:]
        self.task = circuitry.Task(
            self.encoder, self.batch, self.metric, others=self.others, sites=self.sites, work=QUIET
        )
        self.stream_task = circuitry.Task(self.vit, self.small, self.metric, work=QUIET)
        self.stream = bases.ResidualStream.of(self.vit)
        _, cache = self.vit.run_with_cache(self.small)
        self.cache = {site: cache[site] for site in self.stream.sites}
        self.edge_names = circuits.edge_names(circuitry.score_edges(self.stream_task, ports=True).edges)[:2]
        self.settings = circuits.ExtractionSettings(
            rule=circuitry.left_rule(1),
            node_fraction=0.1,
            sites=self.clip.encoder.sites[-3:],
            n_images=2,
            parts=2,
            texts=["a {}."],
        )
        self.extraction = circuits.Extraction(self.clip, self.images, self.folder / "graphs", self.settings)
        self.extraction.run(QUIET)
        self.graphs = circuitry.GraphFolder(self.folder / "graphs")
        self.graph = circuits.attribute_parts(self.task, self.settings, np.array([0, 0, 1])).whole
        self.ablation = interventions.AblationSettings(fractions=(0.2, 1.0), random_draws=1)
        self.curve = circuitry.faithfulness_curve(self.task, self.graph, self.ablation)
        self.checks = interventions.CheckSettings(n_images=2, n_others=2, seen=True)
        self.masks = interventions.MaskSettings(steps=2)
        self.found = circuitry.find_circuit(self.task, size=0.5, masks=self.masks, settings=self.ablation)
        self.gated = interventions.Gated(self.task)

    def _make_comparisons(self) -> None:
        self.comparison, self.other_comparison = (similarities(3, ("u",), seed) for seed in range(2))
        self.values, self.parts = self.comparison.values, self.comparison.parts
        self.matrix = comparison.domain_matrix(self.values)
        self.array = PartArray.from_table(self.parts)
        self.draws = comparison.draw_resamples(["a", "b", "c"], 4, resamples=10)
        scorer = interventions.ClassScorer(self.weights, {"axe": 1})
        self.tasks = {("axe", domain): self.task for domain in DOMAINS}
        self.two_circuits = {("axe", domain): self.graph.circuit(None) for domain in DOMAINS}
        self.transfer = interventions.transfer_circuits(self.tasks, self.two_circuits, scorer)
        self.check = interventions.check_attribution(self.task, self.graph, top=2, random=2)

    def _make_representations(self) -> None:
        clip, images, cache = self.clip, self.images, self.folder / "cache"
        self.embeddings = representations.embed_images(clip, images, work=QUIET, cache_dir=cache)
        self.texts = representations.embed_texts(clip, images.classes, cache_dir=cache)
        self.sae = make_sae(self.graph.n_units(self.sites[-1]), dtype=torch.float32)
        self.clip_sae = replace(make_sae(16, dtype=torch.float32), site=clip.encoder.sites[-1])
        self.features = representations.image_features(clip, self.clip_sae, images, work=QUIET)
        self.shape = representations.RepresentationSettings(n_images=3, n_parts=2, sites=clip.encoder.sites[-2:])
        self.shown = representations.extract_representations(clip, images, self.folder / "shown", self.shape, QUIET)
        grams = [one.grams for one in self.shown]
        self.similarity = representations.compare_representations(grams, ("linear",), permutations=5)
        heads: dict[str, Any] = {"all templates": lambda e: e[:, :4], "own style": lambda e: e[:, :4]}
        self.heads = heads
        self.predictions = training.predictions(clip.encoder, heads, clip.preprocess, images, ["axe"], work=QUIET)
        self.accuracy = training.tidy_accuracy(self.predictions, ["axe"])


def write_images(root: Path, count: int) -> None:
    """Write noise as images of every class in every domain."""
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        for name in CLASSES:
            (root / domain / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(root / domain / name / f"{i}.png")

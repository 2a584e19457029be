"""One good value for the parameters of all public names: by the function's and its own name, by its name, or by type."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from PIL import Image

import circuitry
from circuitry import circuits, comparison, interventions, models, reports, representations, runs, study, training
from circuitry.comparison import PartArray
from circuitry.comparison.ceiling import pair_cells
from circuitry.reports.figures import domain_marks
from circuitry.study import mixtures
from tests.comparison.similarities import similarities
from tests.support.feature_bases import make_sae
from tests.support.tiny_clip import NAME, Tiny
from tests.support.towers import make_tower
from tests.support.work import QUIET

KEYS = [(name, domain) for name in ("axe", "cat", "fish", "key") for domain in ("real", "sketch")]


class GoodValues:
    """Small models, images, graphs and results in a folder, and what each parameter may be."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder, root = folder, folder / "images"
        _write_images(root)
        images, clip = circuitry.DomainFolder(root), Tiny.write(folder).load()
        encoder = circuitry.Encoder.from_tower(make_tower("resnet"))
        vit = circuitry.in_components(circuitry.Encoder.from_tower(make_tower("vit")))
        weights, batch = F.normalize(torch.randn(4, 16), dim=-1), torch.randn(3, 3, 64, 64)
        metric = circuitry.class_logit(weights, 1)
        others, sites = torch.randn(3, 3, 64, 64), encoder.sites[-3:]
        task = circuitry.Task(encoder, batch, metric, others=others, sites=sites, work=QUIET)
        stream_task = circuitry.Task(vit, torch.randn(3, 3, 32, 32), metric, work=QUIET)
        settings = circuits.ExtractionSettings(
            rule=circuitry.left_rule(1),
            node_fraction=0.3,
            sites=clip.encoder.sites[-3:],
            n_images=4,
            parts=2,
            texts=["a {}."],
        )
        graphs = circuits.Extraction(clip, images, folder / "graphs", settings).run(QUIET) and circuitry.GraphFolder(
            folder / "graphs"
        )
        graph = circuits.attribute_parts(task, settings, np.array([0, 0, 1])).whole
        few = interventions.AblationSettings(fractions=(0.2, 1.0), random_draws=1)
        curve = circuitry.faithfulness_curve(task, graph, few)
        found = similarities(3, ("u",))
        array = PartArray.from_table(found.parts)
        draws = comparison.draw_resamples(["a", "b", "c"], 4, resamples=10)
        embeddings = representations.embed_images(clip, images, work=QUIET, cache_dir=folder / "cache")
        texts = representations.embed_texts(clip, images.classes, cache_dir=folder / "cache")
        sae = make_sae(graph.n_units(sites[-1]), dtype=torch.float32)
        clip_sae = replace(make_sae(16, dtype=torch.float32), site="attnpool")
        features = representations.image_features(clip, clip_sae, images, work=QUIET)
        shown = representations.extract_representations(
            clip,
            images,
            folder / "shown",
            representations.RepresentationSettings(n_parts=2, sites=clip.encoder.sites[-2:]),
            QUIET,
        )
        stream = models.ResidualStream.of(vit)
        planted = study.planted_convolution()
        rule, record = circuitry.left_rule(1), images.records[0]
        found_circuit = interventions.FoundCircuit(graph, curve)
        head = torch.nn.Linear(16, 2)
        table = training.LabelTable(("axe", "cat"), {"axe": 0, "cat": 1})
        supervised = training.SupervisedModel("x", encoder, head, table, clip.preprocess)
        run_of = study.StudyRun(folder / "run", "RN50", "natural-only", None)
        predicted = training.predictions(
            clip.encoder, {"all templates": lambda e: e[:, :4]}, clip.preprocess, images, work=QUIET
        )
        report = reports.Report("Title")
        self.instances = [
            encoder, batch, clip, images, task, graph, graph.circuit(2), graph.edges, graphs, curve, found, few, settings,
            metric, record, circuitry.Baseline("mean", {sites[0]: torch.zeros(1, graph.n_units(sites[0]), 1, 1)}),
            models.Counterfactual(batch), circuitry.Patch(sites[0], 0.0), circuitry.CausalChecks(clip, images, graphs),
            QUIET, runs.Rank(0, 1), array, pair_cells(array), draws, embeddings, sae, features, stream, planted, rule,
            circuits.RuleErrors(task, settings), circuits.Measure("edge_jaccard"), circuits.ReadingSettings(),
            interventions.MaskSettings(steps=3), interventions.CheckSettings(n_images=2, n_others=2), found_circuit,
            interventions.ClassScorer(weights, {"axe": 0, "cat": 1}), models.TokenGrid(("class",), 2, 2),
            models.FolderSettings(), models.FolderWork(clip, images, models.FolderSettings(n_images=2)), supervised, table,
            models.NamedBaseline("zero", clip, images), models.Component("head", 0, 1), run_of, report, go.Figure(),
            Image.new("RGB", (8, 8)), runs.JobFolder(folder / "jobs", "x 1", {"a": 1}, [("a",)]), runs.WorkSettings(),
            representations.RepresentationSettings(), shown[0], shown[0].grams, graph.completeness[sites[0]],
            study.EvaluationSet.of(images), training.TrainingWork(workers=0, progress=False), random.Random(0),
            training.SaeTraining(steps=2, batch_size=8, resample_every=0), np.random.default_rng(0), torch.device("cpu"),
            mixtures.MixtureSettings("natural-only", "sketch"), weights, np.eye(3), found.values, make_tower("resnet"),
            training.SupervisedTraining(model="x", epochs=1), interventions.Gated(task), slice(0, 1), circuits.Extraction(clip, images, folder / "graphs", settings),
            study.Judged(curve, graph, 1.0, 1), reports.Finding("a", "b", "c"),
        ]  # fmt: skip
        edge_list = [tuple(edge) for edge in circuits.edge_names(circuitry.score_edges(stream_task).edges)[:2]]
        accuracy = training.tidy_accuracy(predicted)
        transfer = interventions.transfer_circuits(
            {("axe", "real"): task, ("axe", "sketch"): task},
            {("axe", "real"): graph, ("axe", "sketch"): graph},
            interventions.ClassScorer(weights, {"axe": 1}),
        )
        similarity = representations.compare_representations([one.grams for one in shown], ("linear",), permutations=5)
        checked = interventions.check_attribution(task, graph, top=2, random=2)
        self.by_name: dict[str, Any] = {
            # words and numbers
            "seed": 0, "n": 2, "points": 2, "class_name": "axe", "domain": "real", "domain_a": "real", "site": sites[0],
            "classes": ["axe", "cat"], "class_names": ["axe", "cat"], "domains": ["real", "sketch"], "sites": list(sites),
            "names": ["axe", "cat"], "name": "edge_jaccard", "measure": "edge_jaccard", "measures": ["edge_jaccard"],
            "held_out": ["axe"], "title": "Title", "text": "Text.", "caption": "A caption.", "heading": "Heading",
            "texts": ["a", "b"], "labels": ["a", "b"] * 10, "items": [str(i) for i in range(20)], "label": 1, "unit": 0, "part": 0,
            "method": "gradient", "by": "unit", "sizes": [0.5], "fractions": [0.2, 1.0], "fraction": 0.5, "share": 0.5,
            "n_parts": 2, "epochs": [1], "path": folder / "out.csv", "folder": folder / "work", "out": folder / "out",
            "what": "graph", "format_name": "x 1", "config": {"a": 1}, "listings": None, "columns": ["real", "sketch"],
            "key": ("axe", "real"), "keys": [("axe", "real")], "records": list(images.records), "feature": 0,
            "families": {"c000": "x", "c001": "y"}, "group": "all", "groups": {"few": ["axe"]}, "depth": 1, "n_images": 2,
            # arrays
            "vectors": embeddings.vectors, "values": np.arange(3.0), "without_each": np.arange(3.0), "weight": weights[0],
            "weights": weights, "embeddings": weights, "parts": found.parts, "p": pd.Series([0.01, 0.2], ["a", "b"]),
            "images": batch, "x": np.eye(3), "y": np.eye(3), "a": np.random.default_rng(0).normal(size=(4, 3)),
            "b": np.random.default_rng(1).normal(size=(4, 5)), "chance": np.zeros(1), "rows": np.arange(2), "which": np.arange(2),
            "samples": torch.randn(20, 6), "others": others, "metric": metric, "value": 0.0, "heads": {"x": lambda e: e[:, :4]},
            # tables
            "table": both(found), "accuracy": accuracy, "evaluated": accuracy, "predictions": predicted, "points_table": None,
            "matrix": comparison.domain_matrix(found.values), "curves": [curve], "summary": found.summary(),
            "tables": {"a": found.values}, "tests": [], "edges": edge_list, "circuits": [circuits_of(graph)], "circuit": circuits_of(graph),
            "units": {sites[0]: [0, 1]}, "graphs": graphs, "parts_of": None, "tasks": {("axe", "real"): task, ("axe", "sketch"): task},
            "comparisons": [found, similarities(3, ("u",), 1)], "preprocess": clip.preprocess, "provenance": {"a": 1}, "facts": {"a": 1},
            "saes": {sites[-1]: sae}, "do": lambda job, ready: [], "jobs": [("a",)], "job": ("a",), "task": task, "logs": folder / "logs",
            "patches": [circuitry.Patch(sites[0], 0.0)], "features": features, "scores": {"u": np.arange(3.0)}, "exact": {"u": np.arange(3.0)},
            "judged": {("axe", "real"): study.Judged(curve, graph, 1.0, 1)}, "targets": [0.5], "marks": domain_marks(["real", "sketch"]),
            "kernels": ["linear"], "permutations": 5, "draws": draws, "resamples": 10, "statistic": lambda m: m.reshape(len(m), -1), "activations": {},
        }  # fmt: skip
        self.by_place: dict[str, Any] = {
            "wl_kernel.a": graph.circuit(2), "wl_kernel.b": graph.circuit(2), "edge_jaccard.a": graph.circuit(2),
            "edge_jaccard.b": graph.circuit(2), "node_overlap.a": graph, "node_overlap.b": graph, "similarity.a": graph,
            "similarity.b": graph, "unit_overlap.a": graph, "unit_overlap.b": graph, "attribute_parts.parts": np.array([0, 0, 1]),
            "cheapest_rule.circuits": [circuits.RuleErrors(task, settings)], "cheapest_rule.error": 0.5,
            "chance_overlap.units": 10, "chance_overlap.kept_a": 2, "chance_overlap.kept_b": 3, "position_graph.task": stream_task,
            "edges_by_position.task": stream_task, "moves_between_positions.task": stream_task, "score_edges.task": stream_task,
            "score_edges.path": "inputs", "text_span.vectors": embeddings.vectors, "text_span.text_weights": texts.vectors,
            "text_span.texts": ["axe", "cat"], "text_span.n": 1, "compare_domains.measures": ["node_overlap"], "compare_domains.parts": None,
            "direct_effects.images": torch.randn(2, 3, 32, 32), "direct_vectors.images": torch.randn(2, 3, 32, 32),
            "pooling_pairs.encoder": encoder, "describe_rule.settings": graph.settings, "dual_bootstrap.values": array.values,
            "mantel.draws": 20, "domain_tests.values": found.values, "per_domain.table": both(found), "holm.p": pd.Series([0.01, 0.2]),
            "ceiling_tests.parts": array, "part_tests.parts": array, "check_table.columns": ["value"], "check_table.key": ["site"],
            "check_table.table": found.values, "class_groups.classes": ["axe"], "draw_resamples.families": ["a", "b", "c"], "draw_resamples.n_parts": 4,
            "mean_interval.families": ["a", "b", "b"], "mean_spread.families": ["a", "b", "b"], "sign_flip_p.values": np.arange(3.0),
            "domain_matrix.table": found.values, "item_column.path": listing(folder), "item_column.column": "item", "load_image.path": record.path,
            "part_numbers.records": {("axe", "real"): images.select("axe", "real")}, "part_numbers.key": None, "imagenet_partners.classes": ["axe"],
            "DomainFolder.root": root, "DomainFolder.split": "test", "cut_effects.edges": graph.edges, "learn_masks.edges": graph.edges,
            "judge_circuit.edges": graph.edges, "Gated.edges": graph.edges, "measure_circuits.circuits": [circuits_of(graph)] * 2, "patch_effects.direction": "noise",
            "compare_rules.rules": {"a": rule, "b": circuitry.left_rule(2)}, "find_circuit.size": 0.5, "find_circuit.selectivity": None,
            "transfer_matrix.table": transfer, "compare_transfer.table": transfer, "transfer_over_depth.table": transfer,
            "transfer_matrix.value": "faithfulness", "compare_transfer.value": "faithfulness", "transfer_over_depth.value": "selectivity",
            "transfer_against_similarity.matrix": comparison.domain_matrix(found.values), "transfer_against_similarity.similarity": comparison.domain_matrix(found.values),
            "interchange.graphs": {("axe", "real"): graph, ("axe", "sketch"): graph}, "transfer_circuits.graphs": {("axe", "real"): graph, ("axe", "sketch"): graph},
            "take_top_units.ranking": "absolute", "Patch.units": [0], "Patch.positions": None, "Patch.value": 0.0, "load_clip.name": str(folder / f"{NAME}.json"),
            "load_clip.checkpoint": folder / f"{NAME}.safetensors", "load_clip.pretrained": None, "read_checkpoint.path": folder / f"{NAME}.safetensors",
            "load_classifier.name": "x", "load_classifier.classes": {"axe": [0]}, "mean_baseline.per": "position", "metric_of_class.metric": "logit",
            "activations.sites": list(clip.encoder.sites[-1:]), "as_baseline.value": "zero", "in_feature_basis.saes": {sites[-1]: sae}, "parse_saes.arguments": [],
            "ResidualStream.of.encoder": vit, "ResidualStream.of.units": None, "embedding_map.method": "pca", "compare_distances.measure": "cosine", "cka.kernel": "linear",
            "name_features.sae": clip_sae, "extract_features.sae": clip_sae, "image_features.sae": clip_sae, "diagnose_sae.samples": torch.randn(5, graph.n_units(sites[-1])),
            "probe_accuracy.features": np.random.default_rng(0).normal(size=(20, 3)), "probe_sites.features": {"u": np.random.default_rng(0).normal(size=(20, 3))},
            "probe_sites.classes": ["a", "b"] * 10, "probe_sites.domains": ["c", "d"] * 10, "read_representations.folder": folder / "shown", "compare_representations.grams": [one.grams for one in shown],
            "compare_representation_parts.domains": shown, "modality_gap.texts": texts, "separation_measures.texts": texts, "separation_measures.held_out": (), "silhouettes.by": "domain",
            "read_arrays.path": folder / "x.safetensors", "write_arrays.path": folder / "x.safetensors", "write_arrays.header": {}, "write_arrays.arrays": {"a": np.eye(2)}, "digest.value": {"a": 1},
            "file_lock.name": "x", "run_array.task": print, "run_processes.task": id, "run_processes.workers": 1, "run_array.workers": 1, "short_waits.environment": {},
            "find_runs.folder": folder, "record_run.training": training.SupervisedTraining(model="x", epochs=1), "record_run.table": folder / "no.tsv", "extract_accuracies.runs": [run_of],
            "over_classes.table": accuracy, "merged_labels.imagenet": ["n1"], "merged_labels.domainnet": ["axe"], "merged_labels.partners": {"axe": [0]}, "clip_preset.name": "rn-tiny",
            "train_clip.table": folder / "no.tsv", "train_clip.settings": training.clip_preset("rn-tiny"), "train_supervised.table": folder / "no.tsv", "load_supervised.path": folder / "no.pt", "read_predictions.path": folder / "no.csv",
            "run_script.main": print, "run_script.config_type": runs.WorkSettings, "run_script.description": "x", "scoreboard_tables.sizes": [0.2], "smallest_sizes.curves": pd.DataFrame({"size": [0.2]}),
            "contact_sheet.cells": {("axe", "real"): [record.path]}, "contact_sheet.rows": ["axe"], "write_results.out": folder / "results", "checkpoints.run_folder": folder, "kept_checkpoints.run_folder": folder,
            "AttributionCheck.points": checked.points, "cka_over_depth.domains": similarity.domains, "faithfulness_curves.curves": interventions.curves_by_domain([curve]), "curves_by_domain.measure": "faithfulness",
            "similarity_heatmap.matrix": comparison.domain_matrix(found.values), "attribution_against_patching.points": checked.points, "overlap_over_depth.depth": found.over_depth(), "overlap_over_depth.sites": ["u"],
            "accuracy_bars.table": accuracy, "mean_ablation_accuracy.labels": np.array([0, 1]), "mean_ablation_accuracy.images": torch.randn(2, 3, 32, 32), "caption_table.name": "cc3m", "caption_table.table": folder / "no.tsv",
            "Edges.between.units": graph.kept_units, "Edges.between.wiring": "chain", "Edges.units": graph.kept_units, "Edges.scores": graph.edge_scores, "Edges.among.units": graph.kept_units,
            "Edges.masks.n_units": {site: graph.n_units(site) for site in graph.sites}, "Gated.run.gates": torch.ones(len(interventions.Gated(task).run.__self__.__dict__) and interventions.Gated(task).n_gates), "Gated.run.chosen": None,
            "GraphFolder.path": folder / "graphs", "GraphFolder.file.part": 0, "AttributionGraph.load.path": next((folder / "graphs").rglob("*.safetensors")), "draw_image.style": "sketch", "draw_image.class_name": "star",
            "ablate_all_but.circuit": circuits_of(graph), "take_complement.circuit": circuits_of(graph), "logit_pixels.circuit": None, "kept_embeddings.circuits": [circuits_of(graph)], "Completeness.effect_sum": 1.0,
        }  # fmt: skip

    def of(self, door: str, name: str, hint: Any) -> Any:
        """Return a value, or raise a KeyError."""
        for values, key in ((self.by_place, f"{door}.{name}"), (self.by_place, f"{door.split('.')[0]}.{name}")):
            if key in values:
                return values[key]
        for kind in _kinds(hint):
            if kind in (str, int, float, bool, Path, dict, list, tuple, np.ndarray, pd.DataFrame, torch.Tensor, object):
                continue
            for one in self.instances:
                if isinstance(kind, type) and type(one) is kind:
                    return one
        if name in self.by_name:
            return self.by_name[name]
        for kind in _kinds(hint):
            for one in self.instances:
                if isinstance(kind, type) and kind not in (int, str, float, bool, object) and isinstance(one, kind):
                    return one
        simple = {int: 1, str: "x", float: 0.5, bool: False, dict: {}, Path: self.folder / "no"}
        return next(simple[kind] for kind in _kinds(hint) if kind in simple)


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield the classes that an annotation names."""
    if get_origin(hint) is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif hasattr(hint, "array_type"):
        yield hint.array_type
    elif get_origin(hint) in (None, Any):
        yield hint
    elif isinstance(get_origin(hint), type) and "Union" not in str(get_origin(hint)):
        yield get_origin(hint)
    else:
        for one in get_args(hint):
            yield from _kinds(one)


def both(found: circuitry.Comparison) -> pd.DataFrame:
    return comparison.both_directions(found.values)


def circuits_of(graph: circuitry.AttributionGraph) -> dict[str, np.ndarray]:
    return interventions.take_kept_units(graph)


def listing(folder: Path) -> Path:
    path = folder / "listing.csv"
    path.write_text("path,item\nreal/axe/0.png,a\n")
    return path


def _write_images(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name, domain in KEYS:
        (root / domain / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(root / domain / name / f"{i}.png")

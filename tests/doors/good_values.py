"""A good value for every parameter of the public names: by function and name, by name, or by type."""

import random
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from PIL import Image

import circuitry
from circuitry import circuits, interventions, models, reports, runs, study, training
from circuitry.comparison.ceiling import pair_cells
from circuitry.reports.figures import domain_marks
from circuitry.study import mixtures
from tests.doors.world import World
from tests.support.work import QUIET

SIMPLE: tuple[Any, ...] = (int, str, float, bool, dict, list, tuple, object, np.ndarray, pd.DataFrame, torch.Tensor)


class GoodValues:
    """Values of the parameters, made of a `World`."""

    def __init__(self, folder: Path) -> None:
        self.world, self.folder = World(folder), folder
        self.instances = _instances(self.world)
        self.by_name = _by_name(self.world)
        self.by_place = _by_place(self.world)

    def of(self, door: str, name: str, hint: Any) -> Any:
        """Return a value of a door's parameter; StopIteration where there is none."""
        if f"{door}.{name}" in self.by_place:
            return self.by_place[f"{door}.{name}"]
        if name in ("out", "folder", "path", "logs"):
            return self.folder / f"{name} of {door}"
        for kind in _kinds(hint):
            if kind not in SIMPLE and (fits := [one for one in self.instances if type(one) is kind]):
                return fits[0]
        if name in self.by_name:
            return self.by_name[name]
        simple = {int: 1, str: "x", float: 0.5, bool: False, dict: {}, Path: self.folder / "no"}
        return next(simple[kind] for kind in _kinds(hint) if kind in simple)


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield the classes that an annotation names."""
    if get_origin(hint) is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif hasattr(hint, "array_type"):
        yield hint.array_type
    elif isinstance(hint, type) or get_origin(hint) is None:
        yield hint
    elif isinstance(get_origin(hint), type) and "Union" not in str(get_origin(hint)):
        yield get_origin(hint)
    else:
        for one in get_args(hint):
            yield from _kinds(one)


def _instances(w: World) -> list[Any]:
    some = models.FolderSettings(n_images=2)
    return [
        *(w.encoder, w.clip, w.images, w.record, w.task, w.metric, w.graph, w.graph.circuit(2), w.graph.edges),
        *(w.graphs, w.curve, w.found, w.gated, w.extraction, w.settings, w.ablation, w.checks, w.masks, w.stream),
        *(w.comparison, w.array, pair_cells(w.array), w.draws, w.embeddings, w.sae, w.features, w.shown[0], w.check),
        *(w.shown[0].grams, w.shape, w.similarity, QUIET, runs.Rank(0, 1), runs.WorkSettings(), w.graph.completeness),
        circuitry.Baseline("mean", {w.sites[0]: torch.zeros(1, w.graph.n_units(w.sites[0]), 1, 1)}),
        *(models.Counterfactual(w.batch), circuitry.Patch(w.sites[0], 0.0), circuitry.left_rule(1)),
        *(interventions.CausalChecks(w.clip, w.images, w.graphs, w.checks), models.FolderWork(w.clip, w.images, some)),
        *(circuits.RuleErrors(w.task, w.settings), circuits.Measure("edge_jaccard"), circuits.ReadingSettings(), some),
        *(
            models.TokenGrid(("class",), 2, 2),
            models.NamedBaseline("zero", w.clip, w.images),
            models.Component("mlp", 0),
        ),
        *(study.planted_convolution(), study.EvaluationSet.of(w.images), reports.Report("Title"), go.Figure()),
        study.StudyRun(w.folder / "run", "RN50", "natural-only", None),
        interventions.ClassScorer(w.weights, {"axe": 0, "cat": 1}),
        *(
            training.TrainingWork(workers=0, progress=False),
            training.SaeTraining(steps=2, batch_size=8, resample_every=0),
        ),
        *(training.LabelTable(("axe", "cat"), {"axe": 0, "cat": 1}), training.SupervisedTraining(model="x", epochs=1)),
        *(mixtures.MixtureSettings("natural-only", "sketch"), reports.Finding("a", "b", "c"), Image.new("RGB", (8, 8))),
        runs.JobFolder(w.folder / "jobs", "x 1", {"a": 1}, [("a",)]),
        *(random.Random(0), np.random.default_rng(0), torch.device("cpu"), slice(0, 1), _supervised(w)),
    ]


def _supervised(w: World) -> training.SupervisedModel:
    table = training.LabelTable(("axe", "cat"), {"axe": 0, "cat": 1})
    return training.SupervisedModel("x", w.encoder, torch.nn.Linear(16, 2), table, w.clip.preprocess)


def _by_name(w: World) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "seed": 0,
        "n": 2,
        "points": 2,
        "label": 1,
        "unit": 0,
        "part": 0,
        "feature": 0,
        "depth": 1,
        "n_parts": 2,
        "n_images": 2,
        "permutations": 5,
        "resamples": 10,
        "fraction": 0.5,
        "share": 0.5,
        "value": 0.0,
        "index": 0,
        "class_name": "axe",
        "domain": "real",
        "site": w.sites[0],
        "name": "x",
        "group": "all",
        "title": "Title",
        "measure": "value",
        "method": "gradient",
        "by": "unit",
        "what": "graph",
        "format_name": "x 1",
        "classes": ["axe", "cat"],
        "class_names": ["axe", "cat"],
        "domains": ["real", "sketch"],
        "names": ["a", "b"],
        "sites": list(w.sites),
        "held_out": ["axe"],
        "texts": ["a", "b"],
        "labels": ["a", "b"] * 10,
        "epochs": [1],
        "items": [str(i) for i in range(20)],
        "sizes": [0.5],
        "targets": [0.5],
        "columns": ["real", "sketch"],
        "measures": ["value"],
        "kernels": ["linear"],
        "records": list(w.images.records),
        "jobs": [("a",)],
        "key": ("axe", "real"),
        "keys": [("axe", "real")],
        "job": ("a",),
        "edges": w.edge_names,
        "curves": [w.curve],
        "config": {"a": 1},
        "provenance": {"a": 1},
        "facts": {"a": 1},
        "tables": {"a": w.values},
        "about": {},
        "families": {"c000": "x"},
        "groups": {"few": ["axe"]},
        "marks": domain_marks(["real", "sketch"]),
        "vectors": w.embeddings.vectors,
        "weights": w.weights,
        "embeddings": w.weights,
        "weight": w.weights[0],
        "images": w.batch,
        "others": w.others,
        "values": np.arange(3.0),
        "rows": np.arange(2),
        "which": np.arange(2),
        "x": np.eye(3),
        "y": np.eye(3),
        "a": rng.normal(size=(4, 3)),
        "b": rng.normal(size=(4, 5)),
        "samples": torch.randn(20, 6),
        "chance": np.zeros(1),
        "without_each": np.arange(3.0),
        "activation": w.batch,
        "table": w.values,
        "parts": w.parts,
        "accuracy": w.accuracy,
        "evaluated": w.accuracy,
        "matrix": w.matrix,
        "predictions": w.predictions,
        "summary": w.comparison.summary(),
        "exact": {"u": np.arange(3.0)},
        "metric": w.metric,
        "preprocess": w.clip.preprocess,
        "heads": w.heads,
        "tower": w.tower,
        "do": lambda job, ready: [],
        "statistic": lambda means: means.reshape(len(means), -1),
        "circuit": w.units,
        "circuits": [w.units],
        "units": {w.sites[0]: [0, 1]},
        "graphs": w.graphs,
        "tasks": w.tasks,
        "scores": {"u": np.arange(3.0)},
        "saes": {w.sites[-1]: w.sae},
        "activations": w.cache,
        "comparisons": [w.comparison, w.other_comparison],
        "patches": [circuitry.Patch(w.sites[0], 0.0)],
        "judged": {("axe", "real"): study.Judged(w.curve, w.graph, 1.0, 1)},
        "clean": {w.sites[0]: torch.zeros(1, 1)},
    }


def _by_place(w: World) -> dict[str, Any]:
    rng, rule, folder = np.random.default_rng(0), circuitry.left_rule(1), w.folder
    gates, two_circuits, sketches = (
        w.gated.n_gates,
        [w.graph.circuit(2)] * 2,
        mixtures.SketchSet(list(w.images.records), {"a": "axe"}, frozenset()),
    )
    pairs = {
        "AttributionGraph": _fields(w.graph), "FaithfulnessCurve": _fields(w.curve), "Comparison": _fields(w.comparison),
        "SparseAutoencoder": _fields(w.sae), "ImageFeatures": _fields(w.features), "Embeddings": _fields(w.embeddings),
        "Edges": _fields(w.graph.edges), "PartArray": w.array._asdict(), "RepresentationSimilarity": w.similarity._asdict(),
        "Encoder": {"tower": w.tower, "stages": [], "image_size": (64, 64)}, "ImageRecord": _fields(w.record),
        "wl_kernel": dict(zip("ab", two_circuits, strict=True)), "edge_jaccard": dict(zip("ab", two_circuits, strict=True)),
        **{name: {"a": w.graph, "b": w.graph} for name in ("node_overlap", "similarity", "unit_overlap")},
        "similarity": {"a": w.graph, "b": w.graph, "measure": "node_overlap"}, "text_span": {"text_weights": w.texts.vectors, "texts": list(w.images.classes)},
        "QuadratureRule": {"points": (0.0,), "weights": (1.0,)}, "parse_rule": {"name": "left-2"},
        "attribute": {"sites": list(w.sites), "rule": rule, "progress": False}, "attribute_parts": {"parts": np.array([0, 0, 1]), "settings": w.settings}, "count_operations": {"settings": w.settings},
        "extract": {"settings": w.settings, "n_images": 2, "sites": w.settings.sites, "rule": rule, "texts": ["a {}."]},
        "RuleErrors": {"settings": w.settings}, "cheapest_rule": {"circuits": [circuits.RuleErrors(w.task, w.settings)], "error": 0.5, "candidates": [rule]},
        "chance_overlap": {"units": 10, "kept_a": 2, "kept_b": 3}, "describe_rule": {"settings": w.graph.settings}, "compare": {"measure": "node_overlap"},
        "compare_domains": {"measures": ["node_overlap"], "parts": None},
        **{name: {"task": w.stream_task} for name in ("position_graph", "edges_by_position", "moves_between_positions", "score_edges")},
        "moves_between_positions": {"task": w.stream_task, "edges": [("embed", "blocks.0.attn.0.v")]},
        **{name: {"images": w.small} for name in ("direct_effects", "direct_vectors")}, "Edges.between": {"units": w.graph.kept_units, "wiring": "chain"},
        "Edges.among": {"units": w.graph.kept_units}, "Edges.masks": {"n_units": {site: w.graph.n_units(site) for site in w.sites}},
        "GraphFolder": {"path": folder / "graphs"}, "AttributionGraph.load": {"path": w.graphs.file("axe", "real")},
        "PoolingPairs": {"read": np.zeros((2, 3, 4)), "directions": np.zeros((3, 4, 5)), "rest": np.zeros((2, 5))},
        "DirectEffects": {"writers": ("a",), "effects": np.zeros((2, 1)), "by_position": np.zeros((2, 1, 3)), "rest": np.zeros(2), "logits": np.zeros(2)},
        "AttributionParts": {"parts": {0: w.graph}, "edges": {}}, "dual_bootstrap": {"values": w.array.values}, "mantel": {"draws": 20},
        "domain_tests": {"values": w.values}, "holm": {"p": pd.Series([0.01, 0.2])}, "ceiling_tests": {"parts": w.array}, "part_tests": {"parts": w.array},
        "check_table": {"columns": ["value"], "key": ["class", "domain_a", "domain_b", "site"]}, "class_groups": {"classes": ["axe"]},
        "draw_resamples": {"families": ["a", "b", "c"], "n_parts": 4}, "mean_interval": {"families": ["a", "b", "b"]}, "mean_spread": {"families": ["a", "b", "b"]},
        "Comparison.at": {"site": "u"}, "item_column": {"path": folder / "listing.csv", "column": "item"}, "load_image": {"path": w.record.path},
        "part_numbers": {"records": {("axe", "real"): w.images.select("axe", "real")}, "key": None}, "DomainFolder": {"root": w.root},
        **{name: {"edges": w.graph.edges} for name in ("cut_effects", "learn_masks", "judge_circuit", "Gated")}, "measure_circuits": {"circuits": [w.units] * 2},
        "cut_effects": {"edges": w.graph.edges.top(0.05)}, "patch_effects": {"units": {w.sites[-1]: [0, 1]}}, "compare_rules": {"rules": {"a": rule, "b": circuitry.left_rule(2)}},
        "transfer_over_depth": {"table": w.transfer.assign(sites="a")}, "score_methods": {"n_images": 1}, "find_circuit": {"size": 0.5, "masks": w.masks, "settings": w.ablation}, "propose_circuits": {"masks": w.masks, "settings": w.ablation}, "judge_circuit": {"settings": w.ablation, "minimality": False},
        "learn_masks": {"settings": w.masks, "edges": None}, "faithfulness_curve": {"settings": w.ablation},
        **{name: {"table": w.transfer} for name in ("transfer_matrix", "compare_transfer", "transfer_over_depth")},
        "transfer_against_similarity": {"similarity": w.matrix}, **{name: {"graphs": w.two_graphs} for name in ("interchange", "transfer_circuits")},
        "ClassScorer": {"labels": {"axe": 1}}, "take_top_units": {"ranking": "absolute"}, "Patch": {"units": [0], "positions": None}, "Patch.places": {"what": "units"},
        "Gated.run": {"gates": torch.ones(gates), "chosen": torch.tensor([0])}, "Gated.scored": {"values": np.ones(gates)}, "Gated.chosen": {"values": np.ones(gates), "mask": np.ones(gates, bool)},
        "logit_pixels": {"circuit": None}, "load_clip": {"name": str(w.config), "checkpoint": w.checkpoint}, "read_checkpoint": {"path": w.checkpoint},
        "load_classifier": {"name": "x", "classes": {"axe": [0]}}, "mean_baseline": {"per": "position"}, "metric_of_class": {"metric": "logit"}, "Baseline": {"values": {w.sites[0]: torch.zeros(1, 2)}},
        "Baseline.at": {"like": torch.zeros(2, w.graph.n_units(w.sites[0]), 4, 4)}, "Baseline.activations": {"clean": {w.sites[0]: torch.zeros(2, w.graph.n_units(w.sites[0]), 4, 4)}},
        **{name: {"sites": list(w.clip.encoder.sites[-1:])} for name in ("activations", "sample_activations")}, "as_baseline": {"value": "zero"}, "parse_saes": {"arguments": []},
        "Encoder.from_tower": {"tower": w.tower}, "Encoder.forward": {"x": w.batch}, "Counterfactual.activations": {"clean": {"layer4.0": torch.zeros(2, 256, 2, 2)}}, "Encoder.carry": {"site": "attnpool", "value": torch.zeros(2, 16), "activation": torch.zeros(2, 16)}, "Encoder.units_of": {"activation": torch.zeros(2, 16), "site": "attnpool"},
        "in_components": {"encoder": w.channels}, "ResidualStream.of": {"encoder": w.vit, "units": None}, "ResidualStream": _fields(w.stream), "ResidualStream.writer": {"name": "embed"}, "ResidualStream.attended": {"streams": torch.zeros(6, 2, 17, 32)},
        "FolderWork.baseline_called": {"name": "zero"}, "NamedBaseline": {"name": "zero"}, "FolderWork.claim": {"file_format": "x 1", "records": {("axe", "real"): [w.record]}}, "token_grid": {"tower": w.channels.tower},
        "TokenGrid": {"first": ("class",), "height": 2, "width": 2}, "TokenGrid.patches": {"by_token": np.zeros((2, 5))}, "Component": {"kind": "mlp"}, "Classifier": {"rows": w.weights, "bias": torch.zeros(4), "classes": {"axe": (0,)}},
        "SparseAutoencoder.encode": {"x": torch.zeros(2, w.sae.w_enc.shape[0])}, "SparseAutoencoder.decode": {"features": torch.zeros(2, w.sae.w_enc.shape[1])}, "SparseAutoencoder.save": {"path": folder / "sae.safetensors"},
        "embedding_map": {"method": "pca"}, "compare_distances": {"measure": "cosine"}, "cka": {"kernel": "linear"}, "modality_gap": {"texts": w.texts}, "separation_measures": {"texts": w.texts, "held_out": ()}, "silhouettes": {"by": "domain"},
        **{name: {"sae": w.clip_sae} for name in ("name_features", "extract_features", "image_features")}, "name_features": {"sae": w.clip_sae, "vocabulary": ["a", "b"]}, "diagnose_sae": {"samples": torch.randn(5, w.sae.w_enc.shape[0])},
        "probe_accuracy": {"features": rng.normal(size=(20, 3))}, "probe_sites": {"features": {"u": rng.normal(size=(20, 3))}, "classes": ["a", "b"] * 10, "domains": ["c", "c", "d", "d"] * 5}, "read_representations": {"folder": folder / "shown"},
        "compare_representations": {"grams": [one.grams for one in w.shown]}, "compare_representation_parts": {"domains": w.shown, "classes": None}, "ImageFeatures.join": {"parts": [w.features]}, "extract_representations": {"settings": w.shape},
        "SiteProbes": {"sites": w.values, "left_out": w.values}, "write_arrays": {"path": folder / "x.safetensors", "header": {}, "arrays": {"a": np.eye(2)}}, "digest": {"value": {"a": 1}}, "file_lock": {"name": "x"}, "find_runs": {"folder": folder},
        "record_run": {"training": training.SupervisedTraining(model="x", epochs=1), "table": folder / "no.tsv"}, "extract_accuracies": {"runs": [study.StudyRun(folder / "run", "RN50", "natural-only", None)]}, "over_classes": {"table": w.accuracy},
        "merged_labels": {"imagenet": ["n1"], "domainnet": ["axe"], "partners": {"axe": [0]}}, "clip_preset": {"name": "rn-tiny"}, "train_clip": {"table": folder / "no.tsv", "settings": training.clip_preset("rn-tiny")}, "train_supervised": {"table": folder / "no.tsv"},
        "scoreboard_tables": {"sizes": [0.2]}, "contact_sheet": {"cells": {("axe", "real"): [w.record.path]}, "rows": ["axe"]}, "write_results": {"results": None}, "checkpoints": {"run_folder": folder}, "kept_checkpoints": {"run_folder": folder}, "rank_agreement": {"scores": {"u": np.arange(3.0)}},
        "AttributionCheck": {"points": w.check.points}, "attribution_against_patching": {"points": w.check.points}, "cka_over_depth": {"domains": w.similarity.domains}, "faithfulness_curves": {"curves": interventions.curves_by_domain([w.curve])}, "curves_by_domain": {"measure": "faithfulness"},
        "overlap_over_depth": {"depth": w.comparison.over_depth(), "sites": ["u"]}, "accuracy_bars": {"table": w.accuracy}, "mean_ablation_accuracy": {"labels": np.array([0, 1, 2]), "images": w.small}, "caption_table": {"name": "cc3m", "table": folder / "no.tsv"},
        "circuit_pair": {"name_a": "a", "name_b": "b"}, "Report.summary": {"findings": [reports.Finding("a", "b", "c")]}, "pixel_maps": {"images": np.zeros((1, 8, 8, 3), np.uint8), "maps": {"a": np.zeros((1, 8, 8))}, "names": ["x"]},
        "LearnedMasks": {"kept": [], "scores": 0}, "MixtureSettings": {"setting": "natural-only", "test_domain": "sketch"}, "SketchSet": sketches._asdict(), "sketch_captions": {"source": "by-image", "sketches": sketches},
        "SupervisedModel": {"head": torch.nn.Linear(16, 2)}, "extract_samples": {"files": None}, "draw_image": {"style": "sketch", "class_name": "star"}, "position_heatmap": {"effects": np.zeros((2, 2)), "image": np.zeros((8, 8, 3), np.uint8)},
        "position_moves": {"moves": np.zeros((5, 5)), "image": np.zeros((8, 8, 3), np.uint8)}, "write_mixture": {"captions": {r.relative: "a" for r in w.images.records}}, "FaithfulnessCurve.table": {"measure": "faithfulness"}, "transfer_beside_similarity": {"transfer": w.matrix, "similarity": w.matrix},
    }  # fmt: skip
    return {f"{door}.{name}": value for door, values in pairs.items() for name, value in values.items()}


def _fields(of: Any) -> dict[str, Any]:
    return {one.name: getattr(of, one.name) for one in fields(of)}

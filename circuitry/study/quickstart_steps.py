"""The steps of the quickstart that run a model, each a task for a process of its own."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from circuitry.circuits.circuit_settings import ExtractionSettings
from circuitry.circuits.extraction import Extraction
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.circuits.order_variants import extract_variants, order_stability
from circuitry.circuits.quadrature import parse_rule
from circuitry.comparison.order_stability import Varied
from circuitry.data.domains import DomainFolder
from circuitry.data.names import in_a_sentence
from circuitry.interventions.attribution_check import check_attribution
from circuitry.interventions.check_images import CheckSettings
from circuitry.interventions.circuit_checks import CausalChecks
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.models.clip import Clip
from circuitry.models.loading import load_clip
from circuitry.models.prompts import default_templates
from circuitry.models.shipped_weights import write_packed
from circuitry.reports.page import Written
from circuitry.runs.provenance import command, versions
from circuitry.runs.workers import Rank, Work
from circuitry.study.generalization import accuracy_kinds
from circuitry.study.mixtures.mixture_files import read_captions, write_mixture
from circuitry.study.mixtures.selection import MixtureSettings, admitted
from circuitry.study.quickstart_report import SHOWN, Checked, write_report
from circuitry.study.quickstart_settings import QuickstartSettings
from circuitry.study.study_run import record_run
from circuitry.study.toy.drawing import TOY_CLASSES
from circuitry.training.clip_training import train_clip
from circuitry.training.evaluation import zero_shot_accuracy
from circuitry.training.training_settings import clip_preset

EPOCHS = {"rn-tiny": 16, "vit-tiny": 40}
RULES = {"rn-tiny": ("midpoint-5", "gauss-radau-3"), "vit-tiny": ("gauss-radau-3", "midpoint-3")}
"""Rules of nodes and edges for the models that come with the package, as `cheapest_rule` finds them."""
FAST_CLASSES, FAST_STYLES = ("car", "clock", "fish", "key"), ("clipart", "quickdraw", "real")
UNITS = {"rn-tiny": "channels", "vit-tiny": "components"}


def train(config: QuickstartSettings, root: Path) -> Path:
    """Train on the mixture, and return the weights in the form in which they come with the package."""
    drawn, captions = DomainFolder(root, split="train").records, read_captions(root)
    settings = MixtureSettings("cg-high", config.test_domain, config.held_out)
    table = write_mixture(admitted(drawn, settings), captions, config.folder / "train.tsv", settings=settings)
    training = replace(clip_preset(config.model), epochs=config.epochs or EPOCHS[config.model], seed=config.seed)
    checkpoint = train_clip(table, config.folder / "clip", training)
    record_run(config.folder / "clip", table, training)
    clip = load_clip(config.model, checkpoint)
    prompts = [template.replace("{}", in_a_sentence(name)) for template in default_templates() for name in TOY_CLASSES]
    weights = config.folder / f"{config.model}.safetensors"
    made_by = {"training": asdict(training), "mixture": asdict(settings), "images": asdict(config.drawing)}
    tokens = torch.tensor(sorted(set(clip.tokenizer([*captions.values(), *prompts]).flatten().tolist())))
    write_packed(clip.model.state_dict(), tokens, weights, {"command": command(), **made_by, "versions": versions()})
    return weights


def subject(config: QuickstartSettings, checkpoint: Path | None, root: Path) -> tuple[Clip, DomainFolder]:
    """Return the model, in the units that circuits are made of, and the test images."""
    clip = load_clip(config.model, checkpoint)
    if (config.units or UNITS[config.model]) == "components":
        clip = clip.in_components()
    classes, styles = (FAST_CLASSES, FAST_STYLES) if config.fast else (None, None)
    return clip, DomainFolder(root, split="test", classes=classes, domains=styles)


def find_and_test(
    config: QuickstartSettings, checkpoint: Path | None, root: Path, worker: int, workers: int
) -> pd.DataFrame | None:
    """Find circuits and test them, as one of several processes that do; the first returns the model's accuracies."""
    clip, images = subject(config, checkpoint, root)
    work, accuracy = Work(Rank(worker, workers)), None
    if worker == 0:
        step("3/6 zero-shot accuracy")
        tested = DomainFolder(root, split="test", domains=images.domains)
        accuracy = accuracy_kinds(zero_shot_accuracy(clip, tested, config.held_out))
        step("4/6 circuits of every class in every domain, and of parts of the images")
    graphs, _ = find_circuits(config, clip, images, work)
    if worker == 0:
        step("5/6 causal checks: do the circuits recover the answer?")
    test_circuits(config, checks_of(config, clip, images, graphs), work)
    return accuracy


def find_circuits(
    config: QuickstartSettings, clip: Clip, images: DomainFolder, work: Work
) -> tuple[GraphFolder, dict[Varied, GraphFolder]]:
    """Find the circuits, and some of them with other settings, too."""
    rules: dict[str, Any] = {}
    if not config.train:
        rule, edge_rule = map(parse_rule, RULES[config.model])
        rules = {"rule": rule, "edge_rule": edge_rule}
    settings = ExtractionSettings(n_images=config.n_circuit, seed=config.seed, **rules)
    extraction = Extraction(clip, images, config.folder / "circuits", settings)
    extraction.run(work)
    return GraphFolder(extraction.out), extract_variants(extraction, config.robustness, work)


def checks_of(config: QuickstartSettings, clip: Clip, images: DomainFolder, graphs: GraphFolder) -> CausalChecks:
    """Return the circuits, with the images to test them on."""
    settings = CheckSettings(n_images=config.n_causal, n_others=config.n_causal_others)
    return CausalChecks(clip, images, graphs, settings)


def test_circuits(
    config: QuickstartSettings, checks: CausalChecks, work: Work
) -> tuple[list[FaithfulnessCurve], pd.DataFrame]:
    """Test the circuits on images that they were not found on."""
    curves = checks.extract_faithfulness(
        config.folder / "faithfulness", rankings=("absolute",), random_draws=2, work=work
    )
    transfer = checks.extract_transfer(config.folder / "transfer", one_site=True, exchange=False, work=work)
    return curves, transfer["transfer"]


def conclude(config: QuickstartSettings, checkpoint: Path | None, root: Path, accuracy: pd.DataFrame) -> Written:
    """Compare the circuits that were found, and write the report."""
    step("6/6 comparison, report and explorer")
    clip, images = subject(config, checkpoint, root)
    done = Work(progress=False)
    graphs, variants = find_circuits(config, clip, images, done)
    checks = checks_of(config, clip, images, graphs)
    check = check_attribution(checks.task_found_with(SHOWN, done), checks.graphs[SHOWN])
    checked = Checked(*test_circuits(config, checks, done), check, *checks.pixels(*SHOWN))
    return write_report(config, checks, accuracy, checked, order_stability(graphs, variants))


def step(text: str) -> None:
    """Say what happens now."""
    print(f"[{text}]", flush=True)

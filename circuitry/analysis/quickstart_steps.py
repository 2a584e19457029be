"""The steps of the quickstart that run a model, each a task for a process of its own."""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pandas as pd
import torch

from circuitry.analysis.quickstart_report import CHECKED, Checked, Explored, write_report
from circuitry.analysis.quickstart_settings import UNITS, QuickstartSettings, say
from circuitry.circuits.across_domains import compare_domains
from circuitry.circuits.extraction import Extraction
from circuitry.circuits.extraction_settings import ExtractionSettings
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.domains import DomainFolder
from circuitry.data.drawn.drawing import TOY_CLASSES
from circuitry.data.names import in_a_sentence
from circuitry.explorer.export import export_explorer
from circuitry.interventions.attribution_check import check_attribution
from circuitry.interventions.circuit_checks import CausalChecks
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.models.clip import Clip
from circuitry.models.loading import load_clip
from circuitry.models.prompts import default_templates
from circuitry.models.shipped_weights import write_packed
from circuitry.reports.page import Written
from circuitry.runs.provenance import command, versions
from circuitry.runs.workers import Rank, Work
from circuitry.training.accuracy import accuracy_kinds
from circuitry.training.captioned_table import read_captions, with_captions, write_captioned_table
from circuitry.training.clip_training import train_clip
from circuitry.training.evaluation import zero_shot_accuracy
from circuitry.training.run_folder import record_run
from circuitry.training.training_settings import clip_preset

EPOCHS = {"rn-tiny": 16, "vit-tiny": 40}
FAST_CLASSES, FAST_STYLES = ("car", "clock", "fish", "key"), ("clipart", "quickdraw", "real")

CIRCUITS = "circuits"
"""Folder of the circuits within that of the quickstart."""
DONE = Work(progress=False)
"""For what is read after the work."""


def train(config: QuickstartSettings, root: Path) -> Path:
    """Train without the held-out classes of the test domain; return the weights as they come with the package."""
    captions, left_out = read_captions(root), {"domain": config.test_domain, "classes": config.held_out}
    records = [
        record
        for record in DomainFolder(root, split="train").records
        if record.domain != config.test_domain or record.class_name not in config.held_out
    ]
    table = write_captioned_table(with_captions(records, captions), config.folder / "train.tsv")
    training = replace(clip_preset(config.model), epochs=config.epochs or EPOCHS[config.model], seed=config.seed)
    checkpoint = train_clip(table, config.folder / "clip", training)
    record_run(config.folder / "clip", table, training)
    clip = load_clip(config.model, checkpoint)
    prompts = [template.replace("{}", in_a_sentence(name)) for template in default_templates() for name in TOY_CLASSES]
    weights = config.folder / f"{config.model}.safetensors"
    made_by = {"training": asdict(training), "left_out": left_out, "images": asdict(config.drawing)}
    tokens = torch.tensor(sorted(set(clip.tokenizer([*captions.values(), *prompts]).flatten().tolist())))
    write_packed(clip.model.state_dict(), tokens, weights, {"command": command(), **made_by, "versions": versions()})
    return weights


@cache  # a process that does several steps loads the model once
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
        say("3/6 zero-shot accuracy")
        tested = DomainFolder(root, split="test", domains=images.domains)
        accuracy = accuracy_kinds(zero_shot_accuracy(clip, tested, config.held_out))
        say("4/6 circuits of every class in every domain, and of parts of the images")
    graphs = find_circuits(config, clip, images, work)
    if worker == 0:
        say("5/6 causal checks: do the circuits recover the answer?")
    checks = checks_of(config, clip, images, graphs)
    curves_of(config, checks, work)
    transfer_of(config, checks, work)
    return accuracy


def find_circuits(config: QuickstartSettings, clip: Clip, images: DomainFolder, work: Work) -> GraphFolder:
    """Find the circuits."""
    settings = ExtractionSettings(n_images=config.n_images, seed=config.seed)
    extraction = Extraction(clip, images, config.folder / CIRCUITS, settings)
    extraction.run(work)
    return GraphFolder(extraction.out)


def checks_of(config: QuickstartSettings, clip: Clip, images: DomainFolder, graphs: GraphFolder) -> CausalChecks:
    """Return the circuits, with the images to test them on."""
    settings = CheckSettings(n_images=config.n_unseen, n_others=config.n_others)
    return CausalChecks(clip, images, graphs, settings)


def curves_of(config: QuickstartSettings, checks: CausalChecks, work: Work) -> list[FaithfulnessCurve]:
    """Test each circuit on images that it was not found on."""
    out = config.folder / "faithfulness"
    return checks.extract_faithfulness(out, rankings=("absolute",), random_draws=2, work=work)


def transfer_of(config: QuickstartSettings, checks: CausalChecks, work: Work) -> pd.DataFrame:
    """Test the circuits in other domains, too, on images that they were not found on."""
    return checks.extract_transfer(config.folder / "transfer", one_site=True, exchange=False, work=work)["transfer"]


def check_all(config: QuickstartSettings, checkpoint: Path | None, root: Path) -> Checked:
    """Return the tests of all circuits, and those of one attribution."""
    clip, images = subject(config, checkpoint, root)
    graphs = find_circuits(config, clip, images, DONE)
    checks = checks_of(config, clip, images, graphs)
    check = check_attribution(checks.task_found_with(CHECKED, DONE), checks.graphs[CHECKED])
    transfer = transfer_of(config, checks, DONE)
    return Checked(transfer, check, *checks.pixels(*CHECKED))


def explore(config: QuickstartSettings, checkpoint: Path | None, root: Path) -> Explored:
    """Compare the circuits, and write the explorer."""
    say("6/6 comparison, report and explorer")
    clip, images = subject(config, checkpoint, root)
    graphs = GraphFolder(config.folder / CIRCUITS)
    curves = curves_of(config, checks_of(config, clip, images, graphs), DONE)
    seen = [name for name in images.classes if name not in config.held_out]
    held_out = [name for name in images.classes if name in config.held_out]
    comparisons = compare_domains(graphs, {"held-out": held_out, "seen": seen})
    page = export_explorer(graphs, config.folder / "explorer", comparisons=comparisons, curves=curves)
    return Explored(comparisons, curves, str(page))


def conclude(
    config: QuickstartSettings,
    checkpoint: Path | None,
    root: Path,
    accuracy: pd.DataFrame,
    explored: Explored,
    checked: Checked,
) -> Written:
    """Write the report."""
    clip, images = subject(config, checkpoint, root)
    return write_report(config, (clip.name, GraphFolder(config.folder / CIRCUITS), images), accuracy, explored, checked)

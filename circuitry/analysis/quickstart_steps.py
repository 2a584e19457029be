"""The steps of the quickstart that run a model, each for a process of its own."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from circuitry.analysis.analysis import Analysis
from circuitry.analysis.quickstart_settings import QuickstartSettings, say
from circuitry.circuits.extraction_settings import ExtractionSettings
from circuitry.comparison.ceiling import missing_ratios
from circuitry.data.domains import DomainFolder
from circuitry.data.drawn.drawing import STYLES, TOY_CLASSES
from circuitry.data.names import in_a_sentence
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.models.loading import load_clip
from circuitry.models.prompts import default_templates
from circuitry.models.shipped_weights import write_packed
from circuitry.reports.page import Written
from circuitry.runs.provenance import command, versions
from circuitry.runs.workers import Rank, Work
from circuitry.training.captioned_table import read_captions, with_captions, write_captioned_table
from circuitry.training.clip_training import train_clip
from circuitry.training.run_folder import record_run
from circuitry.training.training_settings import clip_preset

EPOCHS = {"rn-tiny": 16, "vit-tiny": 40}
FAST_CLASSES, FAST_STYLES = ("car", "clock", "fish", "key"), ("clipart", "quickdraw", "real")

FEW_IMAGES = 10
"""With fewer images a circuit, the report says what they cannot tell."""
SIZES = (0.1, 0.2, 0.5, 1.0)
"""Sizes of circuits that are tested, beside their own."""
CHECKED = ("fish", "real")
"""Class and style whose scores are set beside exact patching, and whose pixels are shown."""


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
def analysis_of(config: QuickstartSettings, checkpoint: Path | None, root: Path) -> Analysis:
    """Return the analysis of the model, in the units that circuits are made of, on the test images."""
    clip = load_clip(config.model, checkpoint)
    if config.units != "channels":
        clip = clip.in_components()
    classes, styles = (FAST_CLASSES, FAST_STYLES) if config.fast else (None, None)
    images = DomainFolder(root, split="test", classes=classes, domains=styles)
    settings = ExtractionSettings(n_images=config.n_images, seed=config.seed)
    return Analysis(
        clip, images, config.folder, settings, CheckSettings(n_images=config.n_unseen, n_others=config.n_others)
    )


def find_and_test(
    config: QuickstartSettings, checkpoint: Path | None, root: Path, worker: int, workers: int
) -> dict[str, Any]:
    """Find circuits and test them, as one of several processes that do; return what this one found."""
    run, work = analysis_of(config, checkpoint, root), Work(Rank(worker, workers))
    first = worker == 0
    if first:
        say("3/6 zero-shot accuracy")
        run.accuracy(config.held_out, config.test_domain, DomainFolder(root, split="test", domains=run.images.domains))
        say("4/6 circuits of every class in every domain, and of parts of the images")
    run.circuits(work)
    if first:
        say("5/6 causal checks: do the circuits recover the answer?")
    run.curves(work, fractions=sorted({*SIZES, run.checks.size}))
    run.transfer(work, one_site=False)
    if worker == workers - 1:
        run.scores(CHECKED, Work(progress=False))
    return run.results


def conclude(config: QuickstartSettings, checkpoint: Path | None, root: Path, found: Mapping[str, Any]) -> Written:
    """Compare the circuits, and write the report and the explorer."""
    say("6/6 comparison, report and explorer")
    run = analysis_of(config, checkpoint, root)
    run.results |= found
    classes, in_parts = run.images.classes, config.n_images > 1
    held_out = [name for name in classes if name in config.held_out]
    comparisons = run.compare({"held-out": held_out, "seen": [name for name in classes if name not in held_out]})
    written = run.report(
        "Are the circuits of a small CLIP shared between styles?",
        f"A tiny CLIP was trained on drawn images of {len(TOY_CLASSES)} things in {len(STYLES)} styles; "
        f"{', '.join(config.held_out)} were left out of its {config.test_domain} images. For {len(classes)} "
        "classes the circuit that recognises it in each style was found by attribution. Circuits were compared between "
        "styles, and tested by taking everything else out of the model, on images that they were not found on. "
        + few(config),
        results=config.results,
        pair=(held_out[0], "real", config.test_domain),
    )
    print(run.explore())
    matrix = comparisons["edge_jaccard"].matrix(normalise=in_parts).to_string(float_format="{:.2f}".format)
    print(f"edges that two styles share{', as a share of the ceiling' if in_parts else ''}:\n{matrix}")
    if in_parts and (missing := missing_ratios(comparisons["edge_jaccard"].ratios())):
        print(missing)
    print(few(config))
    return written


def few(config: QuickstartSettings) -> str:
    """Return what the number of images cannot tell, or nothing where there are enough."""
    if config.n_images >= FEW_IMAGES:
        return ""
    return (
        f"Circuits were found on {config.n_images} images a class and style: small differences between styles, and "
        "their order, cannot be told from chance. One model was looked at, so nothing here is about models in general. "
        "More images: --n-images 14."
    )

"""The steps of the quickstart that run a model, each for a process of its own."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from circuitry.analysis.analysis import Analysis
from circuitry.analysis.analysis_answers import AnalysisAnswers
from circuitry.analysis.quickstart_settings import QuickstartSettings, say
from circuitry.analysis.run_layout import CARDS
from circuitry.comparison.lesion_reading import KNOWN, lesion_matrix
from circuitry.data.domains import DomainFolder
from circuitry.data.drawn.drawing import STYLES, TOY_CLASSES
from circuitry.data.names import in_a_sentence
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.models.loading import load_clip
from circuitry.models.prompts import default_templates
from circuitry.models.shipped_weights import write_packed
from circuitry.questions.question_settings import ExtractionSettings
from circuitry.reports.page import Finding, Written
from circuitry.runs.provenance import command, versions
from circuitry.runs.workers import Rank, Work
from circuitry.training.clip_training import train_clip
from circuitry.training.image_captions import (
    caption_words,
    read_captions,
    with_captions,
)
from circuitry.training.run_folder import record_run
from circuitry.training.trainer_table import write_captioned_table
from circuitry.training.training_settings import clip_preset

EPOCHS = {"rn-tiny": 16, "vit-tiny": 40}

FEW_IMAGES = 10
"""With fewer images a circuit, the report says what they cannot tell."""
HALVES = 2
"""Parts of the images, whose circuits are the ceiling."""
OWN_SHARE = {"rn-tiny": 0.01, "vit-tiny": 0.02}
"""Share of the units that own parts have."""
SIZES = (0.2, 0.5, 1.0)
"""Sizes of circuits that are tested, beside their own."""
MOST_OTHERS = 12
"""Images of other classes beside those that find a circuit, at most one of each class."""
ENOUGH = 6
"""Classes whose circuits that are enough are found: edges between hundreds of units take long."""
IN_CARDS: dict[str, Any] = {"n_images": 8, "top": 6, "exact_units": 0}
"""Settings of the cards; exact effects take long."""


def train(config: QuickstartSettings, root: Path) -> Path:
    """Train without the held-out classes of the test domain; return the weights as they come with the package."""
    captions = read_captions(root)
    left_out = {"domain": config.test_domain, "classes": config.held_out}
    records = [
        record
        for record in DomainFolder(root, split="train").records
        if record.domain != config.test_domain
        or record.class_name not in config.held_out
    ]
    table = write_captioned_table(
        with_captions(records, captions), config.folder / "train.tsv"
    )
    training = replace(
        clip_preset(config.model),
        epochs=config.epochs or EPOCHS[config.model],
        seed=config.seed,
    )
    checkpoint = train_clip(table, config.folder / "clip", training)
    record_run(config.folder / "clip", table, training)
    clip = load_clip(config.model, checkpoint)
    prompts = [
        template.replace("{}", in_a_sentence(name))
        for template in default_templates()
        for name in TOY_CLASSES
    ]
    weights = config.folder / f"{config.model}.safetensors"
    known_texts = clip.tokenizer([*captions.values(), *prompts])
    tokens = torch.tensor(sorted(set(known_texts.flatten().tolist())))
    made_by = {
        "command": command(),
        "training": asdict(training),
        "left_out": left_out,
        "images": asdict(config.drawing),
        "versions": versions(),
    }
    write_packed(clip.model.state_dict(), tokens, weights, made_by)
    return weights


@cache  # a process that does several steps loads the model once
def analysis_of(
    config: QuickstartSettings, checkpoint: Path | None, root: Path
) -> Analysis:
    """Return the analysis of the model, in the units that circuits are made of, on the test images."""
    clip = load_clip(config.model, checkpoint)
    if config.units != "channels":
        clip = clip.in_components()
    images = DomainFolder(
        root, split="test", classes=config.classes, domains=config.domains
    )
    settings = ExtractionSettings(
        n_images=config.n_images,
        n_others=min(MOST_OTHERS, len(config.classes) - 1),
        parts=HALVES,
        seed=config.seed,
    )
    checks = CheckSettings(n_images=config.n_unseen, n_others=config.n_others)
    return Analysis(clip, images, config.folder, settings, checks)


def find_parts(
    config: QuickstartSettings,
    checkpoint: Path | None,
    root: Path,
    worker: int,
    workers: int,
) -> AnalysisAnswers:
    """Find own parts and test them, as one of several processes that do; return what this one found."""
    run = analysis_of(config, checkpoint, root)
    if worker == 0:
        held_out = [name for name in config.held_out if name in config.classes]
        run.accuracy(held_out, config.test_domain, least=KNOWN)
        tell(run.answers.findings())
        say(
            "3/6 the own part of every class in every style, and what the model loses without it"
        )
    run.own_parts([OWN_SHARE[config.model]], Work(Rank(worker, workers)))
    return run.answers


def tell_parts(
    config: QuickstartSettings,
    checkpoint: Path | None,
    root: Path,
    answers: AnalysisAnswers,
) -> AnalysisAnswers:
    """Print and return what is found of own parts, and write them as circuits."""
    run = analysis_of(config, checkpoint, root)
    run.answers = answers
    run.own_parts([OWN_SHARE[config.model]], Work(progress=False))
    tables = run.own_part_tables()
    assert answers.own_parts is not None
    if tables:
        tell(answers.own_parts.findings())
        matrix = lesion_matrix(tables["told"]).to_string(float_format="{:.2f}".format)
        print(
            f"right answers of a class that are left without its own part:\n{matrix}",
            flush=True,
        )
    else:
        print(answers.own_parts.reason, flush=True)
    return answers


def find_circuits(
    config: QuickstartSettings,
    checkpoint: Path | None,
    root: Path,
    worker: int,
    workers: int,
) -> AnalysisAnswers:
    """Find circuits that are enough and test them, as one of several processes that do; return what this one found."""
    run = analysis_of(config, checkpoint, root)
    work = Work(Rank(worker, workers))
    if worker == 0:
        say(
            f"4/6 circuits that are enough, of {ENOUGH} classes in every style, and of {HALVES} parts of the images"
        )
    step = max(1, len(config.classes) // ENOUGH)
    run.circuits(work, config.classes[::step][:ENOUGH])
    if worker == 0:
        say("5/6 causal checks: do these circuits recover the answer?")
    run.curves(work, sizes=sorted({*SIZES, run.checks.size}))
    return run.answers


def make_cards(config: QuickstartSettings, checkpoint: Path | None, root: Path) -> None:
    """Make cards of the units of own parts."""
    run = analysis_of(config, checkpoint, root)
    out = run.drawn.path.parent / CARDS[1]
    run.cards(out=out, vocabulary=caption_words(root), **IN_CARDS)


def explore(config: QuickstartSettings, checkpoint: Path | None, root: Path) -> None:
    """Write the explorer, which links to the report that is there."""
    print(analysis_of(config, checkpoint, root).explore(), flush=True)


def conclude(
    config: QuickstartSettings,
    checkpoint: Path | None,
    root: Path,
    answers: AnalysisAnswers,
) -> Written:
    """Compare the circuits, and write the report."""
    run = analysis_of(config, checkpoint, root)
    run.answers = answers
    run.compare()
    return run.report(
        "Which parts of a small CLIP recognise a class, and are they the same in another style?",
        f"A tiny CLIP was trained on drawn images of {len(TOY_CLASSES)} things in {len(STYLES)} styles; "
        f"{', '.join(config.held_out)} were left out of its {config.test_domain} images. For {len(config.classes)} "
        f"classes in {', '.join(config.domains)}, {OWN_SHARE[config.model]:.0%} of the units were found whose loss "
        f"takes the class and spares others. Then circuits that are enough were found for {ENOUGH} classes, tested by "
        "taking everything else out of the model, on images that they were not found on, and compared between styles. "
        + few(config),
        results=config.results,
    )


def tell(findings: Iterable[Finding | None]) -> None:
    """Print answers as soon as they are there; the report has them all."""
    for finding in filter(None, findings):
        print(finding.claim, flush=True)


def few(config: QuickstartSettings) -> str:
    """Return what the number of images cannot tell, or nothing where there are enough."""
    if config.n_images >= FEW_IMAGES:
        return ""
    return (
        f"Circuits were found on {config.n_images} images a class and style: small differences between styles, and "
        "their order, cannot be told from chance. One model was looked at, so nothing here is about models in general. "
        "More images: --n-images 10."
    )

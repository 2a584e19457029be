"""The steps of the quickstart that run a model, each for a process of its own."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from circuitry.analysis.analysis import Analysis
from circuitry.analysis.analysis_answers import AnalysisAnswers
from circuitry.analysis.quickstart_settings import (
    HELD_OUT,
    TEST_DOMAIN,
    QuickstartSettings,
    say,
)
from circuitry.analysis.run_layout import CARDS
from circuitry.comparison.lesion_reading import KNOWN, lesion_matrix
from circuitry.data.drawn_names import DRAWN_CLASSES, DRAWN_IMAGES
from circuitry.data.drawn_set import drawn_images
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.models.loading import load_clip
from circuitry.questions.question_settings import ExtractionSettings
from circuitry.reports.page import Finding, Written
from circuitry.runs.workers import Rank, Work
from circuitry.training.image_captions import caption_words

FEW_IMAGES = 10
"""With fewer images a circuit, the report says what they cannot tell."""
HALVES = 2
"""Folds of the images, whose circuits are the ceiling."""
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


@cache  # a process that does several steps loads the model once
def analysis_of(config: QuickstartSettings) -> Analysis:
    """Return the analysis of the model, in the units that circuits are made of, on the test images."""
    clip = load_clip(config.model)
    # Channels are the units that the model comes with.
    if config.units != "channels":
        clip = clip.in_components()
    images = drawn_images(domains=config.domains, classes=config.classes)
    settings = ExtractionSettings(
        n_images=config.n_images,
        n_others=min(MOST_OTHERS, len(config.classes) - 1),
        folds=HALVES,
        seed=config.seed,
    )
    checks = CheckSettings(n_images=config.n_unseen, n_others=config.n_others)
    return Analysis(clip, images, config.folder, settings, checks)


def find_own_parts(
    config: QuickstartSettings,
    worker: int,
    workers: int,
) -> AnalysisAnswers:
    """Find own parts and test them, as one of several processes that do; return what this one found."""
    run = analysis_of(config)
    # The first process measures accuracy, which takes a second, and speaks for all.
    if worker == 0:
        held_out = [name for name in HELD_OUT if name in config.classes]
        run.accuracy(held_out, TEST_DOMAIN, least=KNOWN)
        tell(run.answers.findings())
        say(
            "2/5 the own part of every class in every style, and what the model loses without it"
        )
    run.own_parts([OWN_SHARE[config.model]], Work(Rank(worker, workers)))
    return run.answers


def tell_own_parts(
    config: QuickstartSettings,
    answers: AnalysisAnswers,
) -> AnalysisAnswers:
    """Print and return what is found of own parts, and write them as circuits."""
    run = analysis_of(config)
    run.answers = answers
    # Everything is finished: this reads the tables that all processes wrote.
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
    worker: int,
    workers: int,
) -> AnalysisAnswers:
    """Find circuits that are enough and test them, as one of several processes that do; return what this one found."""
    run = analysis_of(config)
    work = Work(Rank(worker, workers))
    if worker == 0:
        say(
            f"3/5 circuits that are enough, of {ENOUGH} classes in every style, and of {HALVES} folds of the images"
        )
    # Classes in even steps, so that more classes to look at do not mean more circuits to find.
    step = max(1, len(config.classes) // ENOUGH)
    run.circuits(work, config.classes[::step][:ENOUGH])
    if worker == 0:
        say("4/5 causal checks: do these circuits recover the answer?")
    run.curves(work, sizes=sorted({*SIZES, run.checks.size}))
    return run.answers


def make_cards(config: QuickstartSettings) -> None:
    """Make cards of the units of own parts."""
    run = analysis_of(config)
    # In a folder of their own: circuitry cards makes cards of more images beside them.
    out = run.drawn.path.parent / CARDS[1]
    run.cards(out=out, vocabulary=caption_words(DRAWN_IMAGES), **IN_CARDS)


def explore(config: QuickstartSettings) -> None:
    """Write the explorer, which links to the report that is there."""
    print(analysis_of(config).explore(), flush=True)


def conclude(
    config: QuickstartSettings,
    answers: AnalysisAnswers,
) -> Written:
    """Compare the circuits, and write the report."""
    run = analysis_of(config)
    run.answers = answers
    run.compare()
    return run.report(
        "Which parts of a small CLIP recognise a class, and are they the same in another style?",
        f"A tiny CLIP was trained on drawn images of {len(DRAWN_CLASSES)} things in six styles; "
        f"{', '.join(HELD_OUT)} were left out of its {TEST_DOMAIN} images. For {len(config.classes)} "
        f"classes in {', '.join(config.domains)}, {OWN_SHARE[config.model]:.0%} of the units were found whose loss "
        f"takes the class and spares others. Then circuits that are enough were found for {ENOUGH} classes, tested by "
        "taking everything else out of the model, on images that they were not found on, and compared between styles. "
        + few(config),
        results=config.results,
    )


def tell(findings: Iterable[Finding | None]) -> None:
    """Print the claims of findings; the report has all of them again."""
    for finding in filter(None, findings):
        print(finding.claim, flush=True)


def few(config: QuickstartSettings) -> str:
    """Return a warning about conclusions from few images; an empty text where there are enough."""
    if config.n_images >= FEW_IMAGES:
        return ""
    return (
        f"Circuits were found on {config.n_images} images a class and style: small differences between styles, and "
        "their order, cannot be told from chance. One model was looked at, so nothing here is about models in general. "
        "More images: --n-images 10."
    )

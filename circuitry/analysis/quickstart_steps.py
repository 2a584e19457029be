"""The steps of the quickstart that run a model.

The command starts a pool of processes, and these processes take the steps.
"""

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
"""If a circuit is found on fewer images, the report warns of conclusions from few images."""
HALVES = 2
"""Number of folds of the images. The similarity of their circuits is the ceiling for comparisons."""
OWN_SHARE = {"rn-tiny": 0.01, "vit-tiny": 0.02}
"""Share of the units that own parts have, by the name of the model."""
SIZES = (0.2, 0.5, 1.0)
"""Sizes at which each circuit is tested, in addition to the size at which it was found."""
MOST_OTHERS = 12
"""Largest number of images of other classes that are used to find a circuit, one of each class."""
ENOUGH = 6
"""Largest number of classes whose circuits are found (own parts are found for all classes).

A circuit that is enough for a class has hundreds of units, and it takes long to score the edges between them.
"""
IN_CARDS: dict[str, Any] = {"n_images": 8, "top": 6, "exact_units": 0}
"""Settings of the cards. They have no exact effects, because these take long."""


@cache  # a process that does several steps loads the model once
def analysis_of(config: QuickstartSettings) -> Analysis:
    """Return the `Analysis` of the model and images that the settings name."""
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
    """Find own parts and test them, together with other processes.

    Args:
        worker: Number of this process.
        workers: Number of processes.

    Returns:
        The results of this process. The first process also measures accuracy.
    """
    run = analysis_of(config)
    # The first process measures accuracy, which takes a second, and prints messages for all processes.
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
    """Print the results on own parts, write the own parts as a folder of circuits, and return all results.

    Args:
        answers: The results that `find_own_parts` returned in the first process.

    Returns:
        The same object ``answers``. Its results on own parts are replaced: they now contain the own parts that all
        processes found.
    """
    run = analysis_of(config)
    run.answers = answers
    # All processes have finished their share, so this only reads the tables that they wrote.
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
    """Find circuits that are enough for a class and test them, together with other processes.

    Args:
        worker: Number of this process.
        workers: Number of processes.

    Returns:
        The results of this process.
    """
    run = analysis_of(config)
    work = Work(Rank(worker, workers))
    if worker == 0:
        say(
            f"3/5 circuits that are enough, of {ENOUGH} classes in every style, and of {HALVES} folds of the images"
        )
    # Some of the classes are taken in even steps, so that more classes do not mean more circuits to find.
    step = max(1, len(config.classes) // ENOUGH)
    run.circuits(work, config.classes[::step][:ENOUGH])
    if worker == 0:
        say("4/5 causal checks: do these circuits recover the answer?")
    run.curves(work, sizes=sorted({*SIZES, run.checks.size}))
    return run.answers


def make_cards(config: QuickstartSettings) -> None:
    """Make cards of the units in own parts. If no own parts were found, make cards of the units in circuits."""
    run = analysis_of(config)
    # They have a folder of their own, because circuitry cards makes cards of more images in another folder.
    out = run.drawn.path.parent / CARDS[1]
    run.cards(out=out, vocabulary=caption_words(DRAWN_IMAGES), **IN_CARDS)


def explore(config: QuickstartSettings) -> None:
    """Write the explorer. It links to the report, which is written before."""
    print(analysis_of(config).explore(), flush=True)


def conclude(
    config: QuickstartSettings,
    answers: AnalysisAnswers,
) -> Written:
    """Compare the circuits, and write the report.

    Args:
        answers: What the earlier steps found.
    """
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
    """Print the claims of findings. The report contains them, too."""
    for finding in filter(None, findings):
        print(finding.claim, flush=True)


def few(config: QuickstartSettings) -> str:
    """Return a warning about conclusions from few images, or an empty text if there are enough images."""
    if config.n_images >= FEW_IMAGES:
        return ""
    return (
        f"Circuits were found on {config.n_images} images a class and style: small differences between styles, and "
        "their order, cannot be told from chance. One model was looked at, so nothing here is about models in general. "
        "More images: --n-images 10."
    )

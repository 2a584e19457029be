"""Tables from which `experiments.study.claims` computes every claim, of any models whose mixtures are known."""

import re
from collections.abc import Sequence

from circuitry.runs import Work
from circuitry.data import Decoding, DomainFolder
from circuitry.models import templates_of
from circuitry.training import AMONG_GROUP, CLASSIFIER, FALSE_ALARMS, MEASURE
from experiments.study.checkpoint_accuracy import EvaluationSet, extract_accuracies
from experiments.study.claims import SEEN, TRAINED_WORDS
from experiments.study.run_tables import UPPER, by_test_domain, setting_family
from experiments.study.study_run import StudyRun

import pandas as pd

_MEASURES = (MEASURE, AMONG_GROUP, FALSE_ALARMS)
_GROUPS = ("all", "held-out")
"""Groups of classes that are sums of rows of single classes."""
COLUMNS = (
    "run",
    "model",
    "setting",
    "test_domain",
    "seed",
    "held_out",
    "epoch",
    "texts",
    "domain",
    "class",
    "measure",
    "value",
    "chance",
    "n_images",
)


def claim_tests(images: DomainFolder) -> EvaluationSet:
    """Return images to classify by both texts of the claims."""
    templates = {TRAINED_WORDS: trained_words(images.domains), CLASSIFIER: "pooled"}
    return EvaluationSet(images, images.all_classes, templates=templates)


def trained_words(styles: Sequence[str]) -> list[str]:
    """Return the sentences of captions: one without a style, and one for each style."""
    of_styles = [templates_of("own-style", style)[0] for style in styles]
    return ["an image of a {}.", *of_styles]


_OTHER_INTERPOLATION = re.compile(
    r"class-interpolation-(?!0\.2$).*|domain-interpolation-.*\+.*"
)


def claim_setting(setting: str) -> str:
    """Return the setting that claims name, without the fraction and the domains that its name may end with.

    Interpolations with another fraction than a fifth, or with several further domains, keep their name: no claim is
    about them.
    """
    if _OTHER_INTERPOLATION.fullmatch(setting):
        return setting
    return setting_family(setting)


def judged_accuracies(
    run: StudyRun,
    tests: EvaluationSet,
    *,
    decoding: Decoding = "upright",
    device: str = "cpu",
    work: Work = Work(),
) -> pd.DataFrame:
    """Return the accuracies of the checkpoints that are judged: the last, and the one nearest to half the training.

    Returns:
        The table of `extract_accuracies`.
    """
    # The untrained model is judged only if there is no other.
    kept = sorted(filter(None, run.checkpoints())) or [0]
    half = min(kept, key=lambda epoch: abs(epoch - kept[-1] / 2))
    return extract_accuracies(
        [run],
        tests,
        epochs=sorted({half, kept[-1]}),
        decoding=decoding,
        device=device,
        work=work,
    )


def accuracy_table(evaluated: pd.DataFrame) -> pd.DataFrame:
    """Return the table ``accuracies`` of `claims.Tables` from the table of `extract_accuracies`.

    Accuracies on domains other than the test domain, which only controls need, are of the last checkpoint and of the
    words that the model was trained on.
    """
    rows = by_test_domain(evaluated)
    rows = rows[rows["measure"].isin(_MEASURES) & ~rows["group"].isin(_GROUPS)]
    names = {"classifier": "texts", "group": "class", "held_out_classes": "held_out"}
    rows = rows.rename(columns=names)
    rows = rows[rows["texts"].isin([TRAINED_WORDS, CLASSIFIER])]
    rows = rows.assign(setting=rows["setting"].map(claim_setting))
    last = rows["epoch"] == rows.groupby("run")["epoch"].transform("max")
    in_test_domain = rows["domain"] == rows["test_domain"]
    plain = (rows["texts"] == TRAINED_WORDS) & (rows["measure"] == MEASURE)
    rows = rows[in_test_domain | (last & plain)]
    # Seen classes and false alarms are read in one way each.
    seen = (rows["class"] != SEEN) | (rows["measure"] == MEASURE)
    alarms = (rows["measure"] != FALSE_ALARMS) | (rows["setting"] == UPPER)
    rows = rows[seen & alarms]
    return rows[list(COLUMNS)].reset_index(drop=True)

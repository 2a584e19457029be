"""Claims about trials of smaller masks."""

from functools import partial

import pandas as pd

from circuitry.comparison.statistics import mean_interval
from circuitry.judging import smallest_sizes
from tests.claims.scoreboard import by_masks, selectivity
from tests.support.committed_tables import Numbers, overlap, rows, span, table

FISHER_TRIAL = "Fisher, 43 other photographs"

TRIALS = ("43 other photographs", "43 other photographs, half of a score its stage's", FISHER_TRIAL)

OTHER_LABEL = ("bear", "lizard")
"""Classes whose unseen photograph the model gives another label than those that masks are learned on."""


def tried(trial: str | list[str], size: float, column: str = "value", folder: str = "mask_sketches") -> pd.Series:
    return rows(f"scoreboard/{folder}/trials", trial=trial, size=size)[column]


def sketches() -> list[str]:
    """Return the changes to learned masks that were tried on several classes at all sizes; their code was not kept."""
    n_classes = table("scoreboard/mask_sketches/trials").groupby("trial")["class"].nunique()
    left_out = ("one factor a site restores the spread", "learned for 40 % alone, 43 others")
    return [trial for trial in n_classes.index[n_classes > 2] if not trial.endswith(left_out)]


def size_for(trial: str, folder: str = "mask_trials") -> list[float]:
    """Return the mean size for 0.8 of a trial's classes, with its interval, in percent."""
    found = rows(f"scoreboard/{folder}/trials", trial=trial)
    sizes = smallest_sizes(found[["class", "size", "value"]].assign(circuit="kept"), [0.8])["value"].to_numpy()
    return [100 * number for number in mean_interval(sizes)]


def in_trial(trial: str, folder: str) -> list[float]:
    """Return the number of classes, selectivity at 66 and 40 %, the size for 0.8, and seconds."""
    found = rows(f"scoreboard/{folder}/trials", trial=trial)
    means = [tried(trial, size, folder=folder).mean() for size in (0.66, 0.4)]
    return [found["class"].nunique(), *means, size_for(trial, folder)[0], found["seconds"].mean()]


def by_label() -> list[float]:
    """Return the mean selectivity at 40 % of classes whose unseen photograph has another label, and of the rest."""
    found = rows("scoreboard/mask_trials/trials", trial=TRIALS[0], size=0.4)
    of_another = found["class"].isin(OTHER_LABEL)
    return [float(found.loc[chosen, "value"].mean()) for chosen in (of_another, ~of_another)]


def of_one_class(size: float) -> pd.Series:
    found = rows("scoreboard/mask_sketches/trials", size=size)
    return found.loc[found.groupby("trial")["class"].transform("nunique") == 1, "value"]


def spread(of: str, size: float) -> float:
    return float(tried(f"{of}, one factor a site restores the spread", size).mean())


def fisher_cut_once(size: float) -> float:
    found = selectivity(size, "fisher")
    return float(found.loc[found["budget"] == "global", "value"].iloc[0])


CLAIMS: dict[str, Numbers] = {
    **{
        f"| {trial} | {{:.0f}} | {{:.2f}} | {{:.2f}} | {{:.0f}} | {{:.0f}} |": partial(in_trial, trial, folder)
        for folder, trials in (("mask_trials", TRIALS), ("mask_sketches", sketches()))
        for trial in trials
    },
    "masks have {:.2f} there on the images that they are learned on and {:.2f} on unseen ones": lambda: [
        tried(TRIALS[0], 0.4, column, "mask_trials").mean() for column in ("found", "value")
    ],
    "give {:.2f} (the scoreboard's {:.2f}, Fisher from the same images {:.2f})": lambda: (
        in_trial(TRIALS[0], "mask_trials")[1],
        float(selectivity(0.66, "learned")["value"].iloc[0]),
        in_trial(FISHER_TRIAL, "mask_trials")[1],
    ),
    "and {:.2f} where half of a score is the channel's mean over the blocks of its stage (a share chosen on these "
    "classes); 0.8 takes {:.0f} % [{:.0f}, {:.0f}] and {:.0f} % [{:.0f}, {:.0f}] in place of {:.0f} % [{:.0f}, "
    "{:.0f}], intervals that {}.": lambda: (
        in_trial(TRIALS[1], "mask_trials")[1],
        *(number for trial in TRIALS[:2] for number in size_for(trial)),
        *by_masks("efficientnet_lite0_body"),
        overlap(*(size_for(trial)[1:] for trial in TRIALS[:2]), by_masks("efficientnet_lite0_body")[1:]),
    ),
    "They have {:.2f} at 40 %, the six other classes {:.2f}": by_label,
    "A mask shared by all classes has {:.2f} at 40 % and hardly more on its own images ({:.2f})": lambda: [
        tried("one mask for all classes", 0.4, column).mean() for column in ("value", "found")
    ],
    "or of the embedding gave {:.2f} to {:.2f} at 40 %": lambda: span(of_one_class(0.4)),
    "helps Fisher ({:.2f} to {:.2f} at 66 %, {:.2f} to {:.2f} at 40 %) and harms masks ({:.2f} and {:.2f})": lambda: (
        *(number for size in (0.66, 0.4) for number in (fisher_cut_once(size), spread("Fisher, global", size))),
        *(spread("masks", size) for size in (0.66, 0.4)),
    ),
}

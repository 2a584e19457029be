"""Which images and scores make smaller masks that work on images that they were not learned on?

Masks of EfficientNet-Lite0 fit the one or two photographs of a class that they are learned on at any size; the question
is what keeps them at work on others. A change is refuted if its masks of 40 % of the units reach no more selectivity on
unseen photographs than those of the scoreboard, class by class.

1. Classes, images, split, baseline and metric are those of ``scoreboard`` with two images of a class; sizes are shares
   of the units that compute. Units before ``--first-site`` are counted, too, but stay whole: steps are cheaper.
2. Others are all photographs of other classes that no class of the run is measured on.
3. A mask is learned for one size; those of other sizes are cut from its scores. Fisher is cut likewise.

    python experiments/mask_trials.py --data RealStyles --results experiments/results/scoreboard/mask_trials
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

from circuitry.runs import Work, run_script
from circuitry.analysis import QuickstartModel
from circuitry.circuits import Circuit, score_units, strongest_units
from circuitry.data import ImageRecord
from circuitry.encoder import Task, mean_baseline
from circuitry.interventions import MaskSettings, circuit_of, kept_embeddings, learn_masks
from circuitry.models import read_images
from circuitry.reports.result_tables import KeepSettings
from experiments.study.contest import Contest, ContestSettings
from experiments.unseen_images import ClassImages

import numpy as np
import pandas as pd

Scores = dict[str, np.ndarray]
"""Scores of units by site."""
SIZES = (0.3, 0.4, 0.5, 0.66, 0.75, 0.9)
"""Shares of the counted units."""
LEARNED_SIZE = 0.4
"""The size that masks are learned for."""
STEPS, BATCH_SIZE = 110, 8
"""Steps of a mask, and images of a step."""
MASKS = "43 other photographs"
FISHER = "Fisher, 43 other photographs"


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings of the script."""

    model: str = "efficientnet-lite0"
    """As for the scoreboard."""
    domain: str = "photo"
    """The domain of the circuits' images."""
    judged: tuple[str, ...] = ()
    """Classes (default: the scoreboard's)."""
    first_site: str = "blocks.2.1"
    """The first site with gates."""
    seed: int = 0
    """Seed of images and masks."""


class Trials:
    """A model, its classes, and what is learned of each."""

    def __init__(self, config: Config) -> None:
        subject = {one.name: getattr(config, one.name) for one in fields(QuickstartModel)}
        asked = {name: getattr(config, name) for name in ("domain", "judged", "seed")}
        self.config = config
        self.contest = Contest(ContestSettings(**subject, **asked, n_judged=8, n_images=2, n_others=12))
        self.counted = self.contest.sites
        self.gated = self.counted[self.counted.index(config.first_site) :]

    @cached_property
    def measured(self) -> set[ImageRecord]:
        """The images that a class is measured on."""
        return {one for name in self.contest.classes for part in self.contest.records(name)[1] for one in part}

    def others(self, class_name: str) -> list[ImageRecord]:
        """Return the domain's images of other classes that no class is measured on."""
        found = (one for one in self.contest.images.records if one.domain == self.config.domain)
        return [one for one in found if one.class_name != class_name and one not in self.measured]

    def of_class(self, class_name: str) -> Iterator[dict[str, object]]:
        """Yield the selectivity of each trial's circuits of a class by size."""
        found_on, unseen = self.contest.read(class_name)
        baseline = mean_baseline(self.contest.clip.encoder, found_on.together)
        learned_on = ClassImages(found_on.own, read_images(self.contest.clip, self.others(class_name))[1])
        task = self.contest.task(class_name, learned_on, baseline, Work(progress=False))
        task = replace(task, sites=self.gated)
        for trial, scores, seconds in self.score(task):
            circuits = [circuit_of(task, strongest_units(scores, self.of_gated(size), "global")) for size in SIZES]
            values = (selectivity(task, some, circuits) for some in (unseen, found_on))
            for size, value, found in zip(SIZES, *values, strict=True):
                row = {"trial": trial, "class": class_name, "size": size, "value": value, "found": found}
                yield row | {"seconds": seconds}

    def score(self, task: Task) -> Iterator[tuple[str, Scores, float]]:
        """Yield each trial, its scores of the gated units, none negative, and their seconds."""
        started = time.process_time()
        size = self.of_gated(LEARNED_SIZE)
        settings = MaskSettings(steps=STEPS, batch_size=BATCH_SIZE, seed=self.config.seed, autocast="bfloat16")
        learned = learn_masks(task, [size], settings).scores
        least, seconds = min(of_site.min() for of_site in learned.values()), time.process_time() - started
        scores = {site: learned[site] - least for site in self.gated}
        yield MASKS, scores, seconds
        yield f"{MASKS}, half of a score its stage's", half_of_stage(scores), seconds
        started = time.process_time()
        fisher = score_units(task, "fisher")
        yield FISHER, fisher, time.process_time() - started

    @cached_property
    def n_units(self) -> dict[str, int]:
        """The number of units at every counted site."""
        encoder, images = self.contest.clip.encoder, self.contest.read(self.contest.classes[0])[0].own
        values = mean_baseline(encoder, images).values
        return {site: values[site].shape[encoder.unit_dim(site)] for site in self.counted}

    def of_gated(self, size: float) -> float:
        """Return the share of the gated units that are kept where a share of the counted ones is."""
        total, gated = sum(self.n_units.values()), sum(self.n_units[site] for site in self.gated)
        return (round(size * total) - total + gated) / gated


def half_of_stage(scores: Scores) -> Scores:
    """Return the mean of each score and the channel's mean over the blocks of its stage, which all add to it."""
    stage_of = {site: site.rpartition(".")[0] for site in scores}
    means = {s: np.mean([of for site, of in scores.items() if stage_of[site] == s], 0) for s in stage_of.values()}
    return {site: (of_site + means[stage_of[site]]) / 2 for site, of_site in scores.items()}


def selectivity(task: Task, images: ClassImages, circuits: Sequence[Circuit]) -> list[float]:
    """Return the share of the model's difference between the class and others that each circuit recovers on images."""
    task, n_own = replace(task, images=images.together, others=None), len(images.own)
    found = [task.encoder(images.together), *kept_embeddings(task, circuits)]
    values = [task.metric(embeddings).double() for embeddings in found]
    whole, *kept = (float(of[:n_own].mean() - of[n_own:].mean()) for of in values)
    return [difference / whole for difference in kept]


def main(config: Config) -> None:
    """Run the trials class by class, print and write the table."""
    trials = Trials(config)
    rows = [row for name in trials.contest.classes for row in trials.of_class(name)]
    table = pd.DataFrame(rows).sort_values("trial", key=lambda names: names == FISHER, kind="stable")
    config.keep({"trials": table}, model_digest=trials.contest.clip.digest, compared=trials.contest.classes)


if __name__ == "__main__":
    run_script(Config, main, __doc__)

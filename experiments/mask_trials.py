"""Which images, seeds and steps make smaller masks that work on images that they were not learned on?

Masks of EfficientNet-Lite0 fit the one or two photographs of a class that they are learned on at any size; the question
is what keeps them at work on others. A change is refuted if its masks of 40 % of the units reach no more selectivity on
unseen photographs than those of the first trial, class by class.

1. Classes, images, split, baseline and metric are those of ``scoreboard`` with two images of a class
   and 12 others; sizes are shares of the units that compute. Units before ``--first-site`` are counted, too, but stay
   whole: steps are cheaper.
2. A trial learns from more images, but from none that any class of the run is measured on.
3. A mask is learned for one size; those of other sizes are cut from its scores. Fisher is cut likewise, over all sites.

    python experiments/mask_trials.py --data RealStyles
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from circuitry.runs import InputError, Job, JobFolder, Work, run_script, versions, whole_file
from circuitry.analysis import QuickstartModel
from circuitry.circuits import Circuit, score_units, strongest_units
from circuitry.comparison import mean_interval
from circuitry.data import ImageRecord, image_listing
from circuitry.encoder import Task, mean_baseline
from circuitry.interventions import MaskSettings, circuit_of, kept_embeddings, learn_masks
from circuitry.judging import smallest_sizes
from circuitry.models import read_images
from circuitry.reports import Report, write_results
from experiments.study.contest import Contest, ContestSettings
from experiments.unseen_images import ClassImages

import numpy as np
import pandas as pd

FORMAT = "circuitry mask trials 1"
Scores = dict[str, np.ndarray]
"""Scores of units by site."""
SIZES = (0.3, 0.4, 0.5, 0.66, 0.75, 0.9)
"""Shares of the counted units."""


STEPS, BATCH_SIZE = 110, 8
"""Steps of a mask, and images of a step."""


@dataclass(frozen=True)
class Trial:
    """What a trial learns from."""

    photographs: bool = True
    """Whether others are all photographs that no class is measured on, in place of the scoreboard's 12."""
    drawings: bool = False
    """Whether drawings of the class are among the others: answers of the model, whatever they are, to keep."""
    masks: int = 1
    """Masks from as many seeds; without any, units are ranked by Fisher."""


TRIALS: Mapping[str, Trial] = {
    "12 other photographs": Trial(photographs=False),
    "43 other photographs": Trial(),
    "43 other photographs, drawings of the class": Trial(drawings=True),
    "43 other photographs, mean of three masks": Trial(masks=3),
    "Fisher, 43 other photographs": Trial(masks=0),
}


@dataclass(frozen=True)
class Config(QuickstartModel):
    """Settings of the script."""

    model: str = "efficientnet-lite0"
    """As for the scoreboard."""
    out: Path = Path("runs/mask-trials")
    """Folder of results by trial and class, tables and report."""
    results: Path | None = None
    """Also write the table and its provenance here."""
    domain: str = "photo"
    """The domain of the circuits' images."""
    trials: tuple[str, ...] = tuple(TRIALS)
    """Names of trials, in `TRIALS`."""
    judged: tuple[str, ...] = ()
    """Classes (default: the scoreboard's)."""
    first_site: str = "blocks.2.1"
    """The first site with gates."""
    learned_size: float = 0.4
    """The size that masks are learned for."""
    seed: int = 0
    """Seed of images and masks."""

    def __post_init__(self) -> None:
        if unknown := set(self.trials) - set(TRIALS):
            raise InputError(f"The trials are some of {', '.join(TRIALS)}, but {sorted(unknown)} was given.")


class Trials:
    """A model, its classes, and what every job does with them."""

    def __init__(self, config: Config) -> None:
        subject = {one.name: getattr(config, one.name) for one in fields(QuickstartModel)}
        asked = {name: getattr(config, name) for name in ("domain", "judged", "seed")}
        self.config = config
        self.contest = Contest(ContestSettings(**subject, **asked, n_judged=8, n_images=2, n_others=12))
        self.images = self.contest.images
        self.counted = self.contest.sites
        self.gated = self.counted[self.counted.index(config.first_site) :]

    @property
    def provenance(self) -> dict[str, Any]:
        """What shapes a number of every trial."""
        made = {"model": self.contest.clip.name, "model_digest": self.contest.clip.digest}
        asked = {name: getattr(self.config, name) for name in ("domain", "first_site", "learned_size", "seed")}
        return {**made, "classes": self.contest.classes, "sites": list(self.gated), **asked}

    @cached_property
    def free(self) -> list[ImageRecord]:
        """The domain's images that no class is measured on."""
        measured = {one for name in self.contest.classes for part in self.contest.records(name)[1] for one in part}
        return [one for one in self.images.records if one.domain == self.config.domain and one not in measured]

    def others(self, trial: Trial, class_name: str) -> list[ImageRecord]:
        """Return the images besides those of the class that a trial learns from."""
        seen = [one for one in self.free if one.class_name != class_name]
        found = seen if trial.photographs else list(self.contest.records(class_name)[0].others)
        if trial.drawings:
            of_class = (one for one in self.images.records if one.class_name == class_name)
            found += [one for one in of_class if one.domain != self.config.domain]
        return found

    def do(self, job: Job, images: tuple[ClassImages, ClassImages], folder: Path) -> list[Path]:
        """Learn the masks of a trial and class, and write their selectivity by size."""
        trial, (found_on, unseen) = TRIALS[job[0]], images
        baseline = mean_baseline(self.contest.clip.encoder, found_on.together)
        learned_on = ClassImages(found_on.own, read_images(self.contest.clip, self.others(trial, job[1]))[1])
        task = self.contest.task(job[1], learned_on, baseline, Work(progress=False))
        task = replace(task, sites=self.gated)
        rows = []
        for cut_from, scores, seconds in self.score(task, trial):
            circuits = [circuit_of(task, strongest_units(scores, self.of_gated(size), "global")) for size in SIZES]
            values = (selectivity(task, some, circuits) for some in (unseen, found_on))
            rows += [
                {"trial": job[0] + cut_from, "class": job[1], "size": s, "value": v, "found": f, "seconds": seconds}
                for s, v, f in zip(SIZES, *values, strict=True)
            ]
        path = folder / f"{job[1]}.json"
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(rows))
        return [path]

    def score(self, task: Task, trial: Trial) -> Iterator[tuple[str, Scores, float]]:
        """Yield what circuits are cut from, scores of the gated units, none negative, and their seconds."""
        started = time.process_time()
        if not trial.masks:
            yield "", score_units(task, "fisher"), time.process_time() - started
            return
        size, masks = self.of_gated(self.config.learned_size), list[Scores]()
        for seed in range(self.config.seed, self.config.seed + trial.masks):
            settings = MaskSettings(steps=STEPS, batch_size=BATCH_SIZE, seed=seed, autocast="bfloat16")
            masks.append(learn_masks(task, [size], settings).scores)
        means = {site: np.mean([scores[site] for scores in masks], 0) for site in self.gated}
        least, seconds = min(of_site.min() for of_site in means.values()), time.process_time() - started
        scores = {site: of_site - least for site, of_site in means.items()}
        yield "", scores, seconds
        yield ", half of a score its stage's", half_of_stage(scores), seconds

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


def run_trial(config: Config, trials: Trials, name: str) -> pd.DataFrame:
    """Learn the masks of a trial, resumed where they were left, and return its rows of the table."""
    jobs = [(name, class_name) for class_name in trials.contest.classes]
    listings = {"images": image_listing(trials.images.records)}
    shaped_by = trials.provenance | {"trial": asdict(TRIALS[name])}
    folder = JobFolder(config.out / "jobs" / name.replace(",", "").replace(" ", "-"), FORMAT, shaped_by, jobs, listings)
    folder.run(
        partial(trials.do, folder=folder.path), prepare=lambda job: trials.contest.read(job[1]), progress="classes"
    )
    return pd.DataFrame([row for job in jobs for row in json.loads(folder.files(job)[0].read_text())])


def summary_of(trials: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each trial: selectivity at two sizes, found and unseen, the size for 0.8, and seconds."""
    rows = []
    for name, table in trials.groupby("trial", sort=False):
        row: dict[str, Any] = {"trial": name}
        for size in (0.66, 0.4):
            at = table[table["size"] == size]
            row |= {f"{size:.0%}": at["value"].mean(), f"{size:.0%}, learned on": at["found"].mean()}
        sizes = smallest_sizes(table[["class", "size", "value"]].assign(circuit="kept"), [0.8])["value"].to_numpy()
        row |= dict(zip(("size for 0.8", "low", "high"), mean_interval(sizes), strict=True))
        rows.append(row | {"seconds": table.groupby("class")["seconds"].first().mean()})
    return pd.DataFrame(rows)


def main(config: Config) -> None:
    """Run the trials, write the table, and say where it is."""
    trials = Trials(config)
    table = pd.concat([run_trial(config, trials, name) for name in config.trials], ignore_index=True)
    report = Report(
        "Smaller masks that work on unseen images",
        f"{len(trials.contest.classes)} classes of {trials.contest.clip.name}.",
    )
    report.section("Trials")
    report.table(summary_of(table), "Selectivity on unseen photographs and on those learned from, means over classes.")
    made = trials.provenance | {"trials": {name: asdict(TRIALS[name]) for name in config.trials}} | versions()
    print(write_results(report, {"trials": table}, config.out, config.results, made))


if __name__ == "__main__":
    run_script(Config, main, __doc__)

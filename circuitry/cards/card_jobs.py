"""The jobs that make the cards of all units that the circuits in a folder keep.

There are four kinds of jobs, which run in this order:

1. A job for each domain writes the activations of the units in the images of the domain, and the top images of each
   unit.
2. A job for each circuit measures the exact effects of the circuit's strongest units: the change of the metric if a
   unit is replaced.
3. A single job tests whether the model classifies the images by the names of classes better than chance.
4. A job for each site writes the cards of the site's units and the names of these units.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuitry.cards.card_arrays import REPLACED_BY, site_arrays
from circuitry.cards.card_folder import (
    CARDS_FORMAT,
    EXACT,
    IMAGES,
    SITE,
    WORDS,
    CardFolder,
    SeenImages,
    card_file,
)
from circuitry.cards.card_settings import CardSettings
from circuitry.cards.circuit_units import CircuitUnits
from circuitry.cards.strongest_images import write_domain
from circuitry.cards.unit_card import FEWEST, UnitName
from circuitry.cards.unit_names import WordedImages, name_units
from circuitry.cards.vocabulary import words_of_domains
from circuitry.cards.word_check import check_words, vocabulary_of, word_probabilities
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.folds import Key, fold_numbers, item_of
from circuitry.encoder.metrics import given_classes
from circuitry.encoder.task import Task
from circuitry.gates.patching import patch_effects, patching_forwards
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.models.clip import Clip
from circuitry.models.folder_baselines import FolderBaseline
from circuitry.models.image_pass import read_images
from circuitry.models.prompts import style_word
from circuitry.questions.checks import CausalChecks
from circuitry.runs.arguments import checked
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.jobs import Job, JobFolder, jobs_left
from circuitry.runs.manifest import write_json
from circuitry.runs.plan import Forwards, Step
from circuitry.runs.provenance import digest
from circuitry.runs.workers import Work

EXACT_IMAGES = 4
"""Number of images of a class and domain on which exact effects are measured.

Images used to find the circuit come first.
"""
THUMBNAIL_BYTES = 4_000
"""About how many bytes a thumbnail takes."""
log = logging.getLogger(__name__)


@checked
def unit_cards(
    clip: Clip,
    images: DomainFolder,
    graphs: GraphFolder,
    out: str | Path,
    *,
    work: Work = Work(),
    **settings: Any,
) -> CardFolder:
    """Make a card for every unit that a circuit in a folder keeps.

    If a run is interrupted, the same call continues with the unfinished jobs.

    Args:
        clip: The model in which the circuits were found, with the same units, such as channels or heads.
        images: The images to show on cards. Circuits are left out if their class or domain is not selected here.
        graphs: The circuits.
        out: Folder of the cards.
        work: Processes, memory and progress. They do not change results.
        settings: Fields of `CardSettings`.

    Raises:
        InputError: if the circuits are from another model, or if their baseline has no name. Also if the folder of
            cards was made with other settings or images; the message names the difference.

    Example:
        >>> from circuitry.cards import unit_cards
        >>> cards = unit_cards(clip, folder, graphs, "runs/x/cards", n_images=4, exact_units=0)
        >>> cards.card(*cards.units()[0])
        UnitCard of channel ...
    """
    how = CardSettings(**settings)
    jobs = CardJobs(clip, images, graphs, Path(out), how, work)
    jobs.run()
    return CardFolder(out)


def exact_baselines(checks: CausalChecks) -> dict[str, FolderBaseline]:
    """Return the baseline of exact effects for each way to replace a unit (the keys of `REPLACED_BY`)."""
    return {by: checks.baseline_called(name) for by, name in REPLACED_BY.items()}


class CardJobs:
    """The jobs of `unit_cards`, which has the same arguments.

    Jobs for domains and circuits run first and write files. The job for words and the jobs for sites read these files.

    Example:
        >>> from circuitry.cards import CardJobs, CardSettings
        >>> jobs = CardJobs(clip, folder, graphs, Path("cards"), CardSettings())
        >>> sum(step.forwards.count for step in jobs.steps()) > 0
        True
    """

    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        graphs: GraphFolder,
        out: Path,
        settings: CardSettings,
        work: Work = Work(),
    ) -> None:
        self.clip = clip
        self.graphs = graphs
        self.out = out
        self.settings = settings
        self.work = work
        self.baseline = graphs.manifest["config"]["baseline"]
        # Cards also show the images used to find the circuits. Cards need no images of other classes.
        asked = CheckSettings(seen=True, n_others=0, baseline=self.baseline)
        self.checks = CausalChecks(clip, images, graphs, asked)
        self._baselines = exact_baselines(self.checks)
        self.circuits = CircuitUnits(self.checks.chosen.keys)
        for key in self.circuits.keys:
            self.circuits.add(key, graphs[key])
        self.units = self.circuits.units()
        """Indices of the units with a card, by site."""
        self.columns: dict[str, slice] = {}
        """Columns of the units of a site in the table of activations of a domain, by site."""
        # The columns of a site follow the columns of the site before, in the order of `CardFolder.units`.
        n_before = 0
        for site, units in self.units.items():
            self.columns[site] = slice(n_before, n_before + len(units))
            n_before += len(units)
        names = [*images.all_classes, *map(style_word, self.circuits.domains)]
        self.words = vocabulary_of(clip, names, settings.vocabulary)

    @cached_property
    def selection(self) -> dict[Key, tuple[ImageRecord, ...]]:
        """The images in which activations of units are recorded, by class and domain.

        Classes without a circuit have images, too. Images used to find the circuit come first. Next come the unseen
        images on which `CausalChecks` tests the circuit, so that the explorer can show the model's answers for these
        images.
        """
        chosen = self.checks.chosen
        # Enough images to include the images used to find the circuits, and after them the images of causal checks.
        n_of_checks = chosen.split.n_images + self.checks.settings.n_images
        n = max(self.settings.n_images, n_of_checks)
        selection: dict[Key, tuple[ImageRecord, ...]] = {}
        for domain in self.circuits.domains:
            for class_name in chosen.images.classes:
                records = chosen.ranked((class_name, domain))[:n]
                if records:
                    selection[class_name, domain] = records
        return selection

    @property
    def jobs(self) -> list[Job]:
        """All jobs; those of words and sites read the files of those before."""
        jobs: list[Job] = [(IMAGES, domain) for domain in self.circuits.domains]
        jobs += [(EXACT, *key) for key in self.circuits.keys]
        jobs.append((WORDS,))
        jobs += [(SITE, site) for site in self.units]
        return jobs

    def steps(self) -> list[Step]:
        """Return what the unfinished jobs need, as steps of a `Plan`. A folder that is not there yet is not made."""
        left = jobs_left(self.out, self.jobs, lambda: self.folder)
        domains = [job[1] for job in left if job[0] == IMAGES]
        n_shown = sum(
            len(records) for key, records in self.selection.items() if key[1] in domains
        )
        n_units = sum(map(len, self.units.values()))
        # An activation of each unit, and a thumbnail.
        disk = n_shown * (4 * n_units + THUMBNAIL_BYTES)
        steps = []
        if domains:
            steps.append(self.checks.baseline_step(self.circuits.keys))
            forwards = Forwards(back=n_shown)
            steps.append(Step("images", len(domains), forwards, n_shown, disk))
        circuits = [(job[1], job[2]) for job in left if job[0] == EXACT]
        if circuits and self.settings.exact_units:
            exact = Forwards()
            n_measured = 0
            for key in circuits:
                exact += self._exact_forwards(key)
                n_measured += len(self.selection[key][:EXACT_IMAGES])
            for kind, baseline in self._baselines.items():
                measured = [key for key in circuits if kind in self._replacements(key)]
                n_means = len(baseline.records_of(measured))
                exact += Forwards(alone=n_means)
                n_measured += n_means
            steps.append(Step("exact effects", len(circuits), exact, n_measured))
        return steps

    def _exact_forwards(self, key: Key) -> Forwards:
        """Return what the exact effects of a circuit run, without the means that replace units."""
        column = self.circuits.keys.index(key)
        n_units = 0
        for kept in self.circuits.kept.values():
            n_units += min(self.settings.exact_units, int(kept[:, column].sum()))
        n_images = len(self.selection[key][:EXACT_IMAGES])
        once = patching_forwards(n_images, len(self.circuits.kept), n_units)
        return once * len(self._replacements(key))

    def _replacements(self, key: Key) -> dict[str, FolderBaseline]:
        """Return the baseline of a class in a domain for each way to replace a unit."""
        chosen = dict(self._baselines)
        # If a class has circuits in a single domain, there are no other domains to take the mean over.
        if [class_name for class_name, _ in self.circuits.keys].count(key[0]) == 1:
            del chosen["other-domains"]
        return chosen

    @cached_property
    def folder(self) -> JobFolder:
        """The `JobFolder` of the cards, which records which jobs are done.

        It is claimed for this configuration: an error is raised if the folder was made with another configuration.
        """
        asked = asdict(self.settings)
        # The digest is of the words that are used, because the default words depend on the model.
        asked["vocabulary"] = digest(list(self.words))
        items = asked.pop("items")
        listings = None
        if items is not None:
            # A function cannot be compared, so its results for these images are recorded.
            item_names: dict[str, str] = {}
            for record in chain.from_iterable(self.selection.values()):
                item_names[record.relative] = item_of(record, items)
            listings = {"items": item_names}
        return self.checks.claim(
            self.out,
            CARDS_FORMAT,
            self.jobs,
            self.selection,
            listings,
            **asked,
            circuits=self.graphs.identity.key,
            units={site: units.tolist() for site, units in self.units.items()},
        )

    def run(self) -> None:
        """Do the unfinished jobs. Several processes that run the same jobs share them."""
        steps = {
            IMAGES: self._images,
            EXACT: self._exact,
            WORDS: self._words,
            SITE: self._site,
        }
        # The kinds run one after another, because jobs of words and sites read the files of all domains and circuits.
        for kind, do in steps.items():
            self.folder.run(
                do,
                rank=self.work.rank,
                only=[job for job in self.folder.jobs if job[0] == kind],
                progress=self.work.bar(f"cards: {kind}"),
                unit="job",
            )

    def _images(self, job: Job, _: object) -> list[Path]:
        """Pass the images of a domain through the model, and return the paths of the written files."""
        domain = job[1]
        found_on: set[ImageRecord] = set()
        for key in self.circuits.keys:
            if key[1] == domain:
                found_on.update(self.checks.chosen.found_on(key))
        return write_domain(
            self.clip,
            self._tasks_of(domain),
            self.units,
            card_file(self.out, job),
            found_on,
            self.settings.top,
            self.settings.items,
        )

    def _tasks_of(self, domain: str) -> Iterator[tuple[list[ImageRecord], Task]]:
        """Yield the readable images of each class in a domain, together with a task on these images."""
        for key, records in self.selection.items():
            if key[1] == domain:
                strict = self.work.strict
                readable, images = read_images(self.clip, records, strict=strict)
                if readable:
                    yield readable, self.checks.task(key, images, work=self.work)

    def _exact(self, job: Job, _: object) -> list[Path]:
        """Measure the exact effects of a circuit's strongest units, and return the path of the written file."""
        # A job is (kind, class, domain).
        key = (job[1], job[2])
        records = self.selection[key][:EXACT_IMAGES]
        images = self.checks.read(records, strict=self.work.strict)
        arrays: dict[str, np.ndarray] = {}
        if self.settings.exact_units:
            graph = self.graphs[key]
            units: dict[str, np.ndarray] = {}
            for site in graph.inner_sites:
                # Kept units are sorted by score, with the largest scores first.
                strongest = graph.kept_units[site][: self.settings.exact_units]
                units[site] = strongest
                arrays[f"units/{site}"] = strongest
            if len(images):
                arrays |= self._measured(key, images, units)
        path = card_file(self.out, job)
        write_arrays(path, CARDS_FORMAT, {"n_images": len(images)}, arrays)
        return [path]

    def _measured(
        self,
        key: Key,
        images: Tensor,
        units: dict[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Return the exact effect of each unit: how much the metric of the class falls if the unit is replaced.

        The effect of a unit is measured for each way to replace the unit (the keys of `REPLACED_BY`). It is averaged
        over the images.

        Args:
            key: The class and the domain.
            images: Images of the class in the domain.
            units: Indices of the units, by site.

        Returns:
            A dictionary from ``<replacement>/<site>``, such as ``zero/layer4.0``, to the effects of the given units of
            this site [units]. If the class has a circuit in a single domain only, the dictionary has no keys for the
            replacement ``other-domains``.
        """
        work = replace(self.work, progress=False)
        effects: dict[str, np.ndarray] = {}
        for kind, baseline in self._replacements(key).items():
            task = Task(
                self.clip.encoder,
                images,
                self.checks.metric_of(*key),
                baseline=baseline.of(*key, len(images)),
                work=work,
            )
            scores = patch_effects(task, units=units).scores
            for site, of_site in scores.items():
                effects[f"{kind}/{site}"] = of_site[units[site]]
        return effects

    @cached_property
    def _seen(self) -> list[SeenImages]:
        """For each domain, the images and top images that the job for this domain wrote."""
        return [SeenImages.read(self.out, domain) for domain in self.circuits.domains]

    @cached_property
    def _exact_effects(self) -> dict[Key, dict[str, np.ndarray]]:
        """For each circuit, the arrays of exact effects that the job for this circuit wrote."""
        effects: dict[Key, dict[str, np.ndarray]] = {}
        for key in self.circuits.keys:
            file = card_file(self.out, (EXACT, *key))
            _, effects[key] = read_arrays(file, CARDS_FORMAT, "file")
        return effects

    def _words(self, job: Job, _: object) -> list[Path]:
        """Classify the images by the names of classes, and write the `WordCheck`."""
        images = self.checks.images
        right: dict[str, np.ndarray] = {}
        for domain, seen in zip(self.circuits.domains, self._seen, strict=True):
            if seen.images:
                weights = self.checks.weights(domain)
                embeddings = torch.from_numpy(seen.arrays["embeddings"]).to(weights)
                answers = given_classes(embeddings @ weights.T).cpu().numpy()
                labels = [images.label(image.class_name) for image in seen.images]
                right[domain] = answers == np.array(labels, int)
        path = card_file(self.out, job)
        check = check_words(self.clip.name, right, len(images.all_classes))
        write_json(path, vars(check))
        return [path]

    def _site(self, job: Job, _: object) -> list[Path]:
        """Write the arrays of a site's cards and the names of its units."""
        site = job[1]
        columns = self.columns[site]
        by_domain = [seen.activations[:, columns] for seen in self._seen]
        arrays = site_arrays(
            self.circuits,
            site,
            self._seen,
            by_domain,
            self._exact_effects,
        )
        header = {
            "site": site,
            "kind": self.clip.encoder.kinds[site].name,
            "baseline": str(self.baseline),
        }
        # If there are too few images, no unit has a name.
        names: list[UnitName | None] = [None] * len(self.units[site])
        if self._worded is not None:
            activations = np.concatenate(by_domain)
            names = name_units(activations, self._worded, seed=self.settings.seed)
        listing = card_file(self.out, job, ".json")
        write_json(listing, [None if name is None else vars(name) for name in names])
        path = card_file(self.out, job)
        write_arrays(path, CARDS_FORMAT, header, arrays)
        return [listing, path]

    @cached_property
    def _worded(self) -> WordedImages | None:
        """The images with the probabilities of words, or None if there are too few images to test names."""
        images = list(chain.from_iterable(seen.images for seen in self._seen))
        if not images:
            return None
        # Names are fitted on one half of the items of a class, and tested on the other half.
        is_tested: dict[str, bool] = {}
        halves = fold_numbers(self.selection, 2, self.settings.items)
        for key, half in halves.items():
            for record, part in zip(self.selection[key], half, strict=True):
                is_tested[record.relative] = bool(part)
        tested = np.array([is_tested[image.relative] for image in images])
        if min(tested.sum(), (~tested).sum()) < FEWEST:
            log.warning("%d images are too few to test names of units on", len(images))
            return None
        # A domain without a readable image is left out, because its array of embeddings has another width.
        by_domain = [seen.arrays["embeddings"] for seen in self._seen if seen.images]
        embeddings = torch.from_numpy(np.concatenate(by_domain))
        return WordedImages(
            words=self.words,
            probabilities=word_probabilities(self.clip, self.words, embeddings),
            classes=[image.class_name for image in images],
            domains=[image.domain for image in images],
            tested=tested,
            style_words=words_of_domains(self.circuits.domains),
        )

"""The cards of all units of a folder of circuits, as jobs: of each domain, of each circuit, of words, of each site."""

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
from circuitry.gates.patching import patch_effects
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.models.clip import Clip
from circuitry.models.folder_baselines import FolderBaseline
from circuitry.models.image_pass import read_images
from circuitry.models.prompts import style_word
from circuitry.questions.checks import CausalChecks
from circuitry.runs.arguments import checked
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.manifest import write_json
from circuitry.runs.provenance import digest
from circuitry.runs.workers import Work

EXACT_IMAGES = 4
"""Images of a class and domain on which exact effects are measured.

Images that the circuit was found on come first.
"""
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
    """Make a card for every unit of the circuits of a folder; an interrupted run continues with the unfinished jobs.

    Args:
        clip: The model that the circuits were found in, in the same units.
        images: Its images; their classes and domains choose the circuits.
        graphs: The circuits.
        out: Folder of the cards.
        settings: Fields of `CardSettings`.

    Raises:
        InputError: for circuits of another model or with an unnamed baseline, and for a folder of cards that was made
            with other settings or images; the difference is named.

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
    """Return the baselines of exact effects, by the name of the replacement."""
    return {by: checks.baseline_called(name) for by, name in REPLACED_BY.items()}


class CardJobs:
    """The jobs of `unit_cards`, which has the same arguments.

    Jobs of domains and circuits write files. Jobs of words and sites read these files when all of them are there.
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
        # Cards show the images that circuits were found on, too, and compare with none of other classes.
        asked = CheckSettings(seen=True, n_others=0, baseline=self.baseline)
        self.checks = CausalChecks(clip, images, graphs, asked)
        self._baselines = exact_baselines(self.checks)
        self.circuits = CircuitUnits(self.checks.chosen.keys)
        for key in self.circuits.keys:
            self.circuits.add(key, graphs[key])
        self.units = self.circuits.units()
        """The units with a card by site."""
        self.columns: dict[str, slice] = {}
        """Their columns in the table of activations of a domain."""
        # Columns follow each other site by site, in the order of `CardFolder.units`.
        n_before = 0
        for site, units in self.units.items():
            self.columns[site] = slice(n_before, n_before + len(units))
            n_before += len(units)
        names = [*images.all_classes, *map(style_word, self.circuits.domains)]
        self.words = vocabulary_of(clip, names, settings.vocabulary)

    @cached_property
    def selection(self) -> dict[Key, tuple[ImageRecord, ...]]:
        """The images that cards look at, by class and domain; classes without a circuit have images, too.

        Images on which the circuit was found come first. Images that causal checks look at follow, so that the explorer
        can show the model's answers to them.
        """
        chosen = self.checks.chosen
        # Enough to go past the images of the search to those of the checks.
        n_of_checks = chosen.split.n_images + self.checks.settings.n_images
        n = max(self.settings.n_images, n_of_checks)
        selection: dict[Key, tuple[ImageRecord, ...]] = {}
        for domain in self.circuits.domains:
            for class_name in chosen.images.classes:
                records = chosen.ranked((class_name, domain))[:n]
                if records:
                    selection[class_name, domain] = records
        return selection

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of the cards, claimed for this configuration."""
        jobs: list[Job] = [(IMAGES, domain) for domain in self.circuits.domains]
        jobs += [(EXACT, *key) for key in self.circuits.keys]
        jobs.append((WORDS,))
        jobs += [(SITE, site) for site in self.units]
        asked = asdict(self.settings)
        # The words that are used, not those that were given: defaults depend on the model.
        asked["vocabulary"] = digest(list(self.words))
        items = asked.pop("items")
        listings = None
        if items is not None:
            # A function has no name to compare: its answers for these images are recorded.
            item_names: dict[str, str] = {}
            for record in chain.from_iterable(self.selection.values()):
                item_names[record.relative] = item_of(record, items)
            listings = {"items": item_names}
        return self.checks.claim(
            self.out,
            CARDS_FORMAT,
            jobs,
            self.selection,
            listings,
            **asked,
            circuits=self.graphs.identity.key,
            units={site: units.tolist() for site, units in self.units.items()},
        )

    def run(self) -> None:
        """Do the unfinished jobs, shared with other processes that run the same."""
        steps = {
            IMAGES: self._images,
            EXACT: self._exact,
            WORDS: self._words,
            SITE: self._site,
        }
        # One kind after another: words and sites read the files of all domains and circuits.
        for kind, do in steps.items():
            self.folder.run(
                do,
                rank=self.work.rank,
                only=[job for job in self.folder.jobs if job[0] == kind],
                progress=self.work.bar(f"cards: {kind}"),
                unit="job",
            )

    def _images(self, job: Job, _: object) -> list[Path]:
        """Pass the images of a domain through the model."""
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
        """Yield the readable images of each class in a domain, with their task."""
        for key, records in self.selection.items():
            if key[1] == domain:
                strict = self.work.strict
                readable, images = read_images(self.clip, records, strict=strict)
                if readable:
                    yield readable, self.checks.task(key, images, work=self.work)

    def _exact(self, job: Job, _: object) -> list[Path]:
        """Measure the exact effects of a circuit's strongest units."""
        # A job is (kind, class, domain).
        key = (job[1], job[2])
        records = self.selection[key][:EXACT_IMAGES]
        images = self.checks.read(records, strict=self.work.strict)
        arrays: dict[str, np.ndarray] = {}
        if self.settings.exact_units:
            graph = self.graphs[key]
            units: dict[str, np.ndarray] = {}
            for site in graph.inner_sites:
                # Kept units are ranked, the largest scores first.
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
        """Return the exact effects of units on the metric, by ``replacement/site``."""
        of_class = [other for other in self.circuits.keys if other[0] == key[0]]
        work = replace(self.work, progress=False)
        effects: dict[str, np.ndarray] = {}
        for kind, baseline in self._baselines.items():
            # A class in a single domain has no images in others to take the mean of.
            if kind == "other-domains" and len(of_class) == 1:
                continue
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
        """The files that the jobs of the domains wrote."""
        return [SeenImages.read(self.out, domain) for domain in self.circuits.domains]

    @cached_property
    def _exact_effects(self) -> dict[Key, dict[str, np.ndarray]]:
        """The arrays of the files that the jobs of the circuits wrote."""
        effects: dict[Key, dict[str, np.ndarray]] = {}
        for key in self.circuits.keys:
            file = card_file(self.out, (EXACT, *key))
            _, effects[key] = read_arrays(file, CARDS_FORMAT, "file")
        return effects

    def _words(self, job: Job, _: object) -> list[Path]:
        """Classify the images by the names of their classes."""
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
        """Join the arrays of a site's cards, and name its units."""
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
        # Without enough images no unit has a name.
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
        """The images with the probabilities of words; None where there are too few to test names."""
        images = list(chain.from_iterable(seen.images for seen in self._seen))
        if not images:
            return None
        # Names are fitted on one half of the items of a class and tested on the other.
        is_tested: dict[str, bool] = {}
        halves = fold_numbers(self.selection, 2, self.settings.items)
        for key, half in halves.items():
            for record, part in zip(self.selection[key], half, strict=True):
                is_tested[record.relative] = bool(part)
        tested = np.array([is_tested[image.relative] for image in images])
        if min(tested.sum(), (~tested).sum()) < FEWEST:
            log.warning("%d images are too few to test names of units on", len(images))
            return None
        # A domain without a readable image has embeddings of another width.
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

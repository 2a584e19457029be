"""The cards of all units of a folder of circuits, as jobs: of each domain, of each circuit, of words, of each site."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from circuitry.cards.card_arrays import REPLACED_BY, CircuitScores, site_arrays
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
from circuitry.cards.strongest_images import unit_kind, write_domain
from circuitry.cards.unit_card import FEWEST, UnitName
from circuitry.cards.unit_names import WordedImages, name_units
from circuitry.cards.vocabulary import words_of_domains
from circuitry.cards.word_check import check_words, vocabulary_of, word_probabilities
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.parts import Key, item_of, part_numbers
from circuitry.encoder.metrics import given_classes
from circuitry.encoder.task import Task
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.interventions.patching import patch_effects
from circuitry.models.clip import Clip
from circuitry.models.folder_baselines import FolderBaseline
from circuitry.models.image_pass import read_images
from circuitry.models.prompts import style_word
from circuitry.questions.checks import CausalChecks
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.given import checked
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.manifest import write_json
from circuitry.runs.provenance import digest
from circuitry.runs.workers import Work

EXACT_IMAGES = 4
"""Images of a class and domain on which exact effects are measured, first those that the circuit was found on."""
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

    Raises:
        InputError: for circuits of another model or with an unnamed baseline, and for a folder of cards that was made
            with other settings or images; the difference is named.

    Example:
        >>> cards = unit_cards(clip, images, GraphFolder("runs/x/circuits"), "runs/x/cards", n_images=20)
        >>> cards.card("layer4.0", 12).name
    """
    making = CardJobs(clip, images, graphs, Path(out), CardSettings(**settings))
    making.run(work)
    return CardFolder(out)


class CardJobs:
    """The jobs of `unit_cards`; its arguments are described there."""

    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        graphs: GraphFolder,
        out: Path,
        settings: CardSettings,
    ) -> None:
        self.settings = settings
        baseline = graphs.manifest["config"]["baseline"]
        self.checks = CausalChecks(
            clip,
            images,
            graphs,
            CheckSettings(seen=True, n_others=0, baseline=baseline),
        )
        self.clip, self.out, self.baseline = clip, out, str(baseline)
        self.scores = CircuitScores(graphs, self.checks.chosen.keys)
        styles = map(style_word, self.scores.domains)
        self.words = vocabulary_of(
            clip, [*images.all_classes, *styles], self.settings.vocabulary
        )

    @cached_property
    def selection(self) -> dict[Key, tuple[ImageRecord, ...]]:
        """The images by (class, domain), first those of its circuit's search; also of classes without circuits.

        Images that causal checks look at are among them, so that the explorer can show the model's answers.
        """
        chosen = self.checks.chosen
        n = max(
            self.settings.n_images,
            chosen.split.n_images + self.checks.settings.n_images,
        )
        keys = [
            (class_name, domain)
            for domain in self.scores.domains
            for class_name in chosen.images.classes
        ]
        return {key: records for key in keys if (records := chosen.ranked(key)[:n])}

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of the cards, claimed for this configuration."""
        scores = self.scores
        jobs: list[Job] = [(IMAGES, domain) for domain in scores.domains]
        jobs += [(EXACT, *key) for key in scores.keys]
        jobs += [(WORDS,), *((SITE, site) for site in scores.units)]
        named = asdict(self.settings)
        items = named.pop("items")
        listed = {
            record.relative: item_of(record, items)
            for some in self.selection.values()
            for record in some
        }
        return self.checks.claim(
            self.out,
            CARDS_FORMAT,
            jobs,
            self.selection,
            {"items": listed} if items is not None else None,
            **named | {"vocabulary": digest(list(self.words))},
            circuits=self.checks.graphs.identity.key,
            units={site: units.tolist() for site, units in scores.units.items()},
        )

    def run(self, work: Work = Work()) -> None:
        """Do the unfinished jobs, shared with other processes that run the same."""
        steps = {
            IMAGES: self._images,
            EXACT: self._exact,
            WORDS: self._words,
            SITE: self._site,
        }
        for kind, do in steps.items():
            jobs = [job for job in self.folder.jobs if job[0] == kind]
            bar = work.bar(f"cards: {kind}")
            self.folder.run(
                partial(do, work), rank=work.rank, only=jobs, progress=bar, unit="job"
            )

    def _images(self, work: Work, job: Job, _: object) -> list[Path]:
        """Pass the images of a domain through the model."""
        domain = job[1]
        keys = [key for key in self.scores.keys if key[1] == domain]
        found_on = {
            record for key in keys for record in self.checks.chosen.found_on(key)
        }
        shown = self._shown(domain, work)
        path, top, items = (
            card_file(self.out, job),
            self.settings.top,
            self.settings.items,
        )
        return write_domain(
            self.clip, shown, self.scores.units, path, found_on, top, items
        )

    def _shown(
        self, domain: str, work: Work
    ) -> Iterator[tuple[list[ImageRecord], Task]]:
        for key, records in self.selection.items():
            if key[1] == domain:
                there, images = read_images(self.clip, records, strict=work.strict)
                if there:
                    yield there, self.checks.task(key, images, work=work)

    def _exact(self, work: Work, job: Job, _: object) -> list[Path]:
        """Measure the exact effects of a circuit's strongest units."""
        key = job[1], job[2]
        records = self.selection[key][:EXACT_IMAGES]
        images = self.checks.read(records, strict=work.strict)
        most = self.settings.exact_units
        units = (
            {site: kept[:most] for site, kept in self.scores.kept[key].items()}
            if most
            else {}
        )
        arrays = {f"units/{site}": chosen for site, chosen in units.items()}
        alone = not any(
            other[0] == key[0] and other != key for other in self.scores.keys
        )
        for kind, baseline in self._baselines.items() if len(images) and units else ():
            if kind == "other-domains" and alone:  # a class of one domain has no others
                continue
            metric, other = self.checks.metric_of(*key), baseline.of(*key, len(images))
            task = Task(
                self.clip.encoder,
                images,
                metric,
                baseline=other,
                work=replace(work, progress=False),
            )
            for site, found in patch_effects(task, units=units).scores.items():
                arrays[f"{kind}/{site}"] = found[units[site]]
        path = card_file(self.out, job)
        write_arrays(path, CARDS_FORMAT, {"n_images": len(images)}, arrays)
        return [path]

    @cached_property
    def _baselines(self) -> dict[str, FolderBaseline]:
        """The baselines of exact effects, by the name of the replacement."""
        return {
            by: self.checks.baseline_called(name) for by, name in REPLACED_BY.items()
        }

    @cached_property
    def _seen(self) -> list[SeenImages]:
        """The files that the jobs of the domains wrote."""
        return [
            SeenImages.read(card_file(self.out, (IMAGES, domain)))
            for domain in self.scores.domains
        ]

    @cached_property
    def _exact_effects(self) -> dict[Key, dict[str, np.ndarray]]:
        """The files that the jobs of the circuits wrote."""
        files = {key: card_file(self.out, (EXACT, *key)) for key in self.scores.keys}
        return {
            key: read_arrays(file, CARDS_FORMAT, "file")[1]
            for key, file in files.items()
        }

    def _words(self, work: Work, job: Job, _: object) -> list[Path]:
        """Classify the images by the names of their classes."""
        right = {}
        for domain, seen in zip(self.scores.domains, self._seen, strict=True):
            weights = self.checks.weights(domain)
            if not seen.images:
                continue
            logits = torch.from_numpy(seen.arrays["embeddings"]).to(weights) @ weights.T
            answers = given_classes(logits).cpu().numpy()
            labels = [
                self.checks.images.label(image.class_name) for image in seen.images
            ]
            right[domain] = answers == np.array(labels, int)
        path = card_file(self.out, job)
        write_json(
            path,
            vars(
                check_words(self.clip.name, right, len(self.checks.images.all_classes))
            ),
        )
        return [path]

    def _site(self, work: Work, job: Job, _: object) -> list[Path]:
        """Join the arrays of a site's cards, and name its units."""
        site = job[1]
        path = card_file(self.out, job)
        arrays = site_arrays(self.scores, site, self._seen, self._exact_effects)
        header = {
            "site": site,
            "kind": unit_kind(self.clip.encoder, site),
            "baseline": self.baseline,
        }
        names: list[UnitName | None] = [None] * len(self.scores.units[site])
        if self._worded is not None:
            columns = self.scores.columns(site)
            activations = np.concatenate(
                [one.activations[:, columns] for one in self._seen]
            )
            names = name_units(activations, self._worded, seed=self.settings.seed)
        write_json(
            path.with_suffix(".json"),
            [None if name is None else vars(name) for name in names],
        )
        write_arrays(path, CARDS_FORMAT, header, arrays)
        return [path.with_suffix(".json"), path]

    @cached_property
    def _worded(self) -> WordedImages | None:
        """The images with the probabilities of words; None where there are too few to test names."""
        images = [image for seen in self._seen for image in seen.images]
        if not images:
            return None
        embeddings = torch.from_numpy(
            np.concatenate(
                [seen.arrays["embeddings"] for seen in self._seen if seen.images]
            )
        )
        halves = part_numbers(self.selection, 2, self.settings.items)
        half = {
            record.relative: bool(part)
            for key, parts in halves.items()
            for record, part in zip(self.selection[key], parts.tolist(), strict=True)
        }
        tested = np.array([half[image.relative] for image in images])
        if min(tested.sum(), (~tested).sum()) < FEWEST:
            log.warning("%d images are too few to test names of units on", len(images))
            return None
        return WordedImages(
            self.words,
            word_probabilities(self.clip, self.words, embeddings),
            [image.class_name for image in images],
            [image.domain for image in images],
            tested,
            words_of_domains(self.scores.domains),
        )

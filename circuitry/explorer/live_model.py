"""A model that answers the reader of the page: exact effects of units, and its view of an image of the reader's.

The effect is the class's metric on images that its circuit was not found on, minus the metric with the units replaced,
in one run at all their sites. For one unit this is `patch_effects`; for a group it is not the sum over its units.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuitry.cards.card_arrays import REPLACED_BY
from circuitry.cards.strongest_images import unit_maps
from circuitry.circuits.graph import Circuit
from circuitry.data.domains import ImageRecord
from circuitry.data.images import open_picture
from circuitry.data.parts import Key
from circuitry.encoder.baselines import Baseline, Counterfactual
from circuitry.encoder.doubles import in_double
from circuitry.encoder.site_activations import clean_activations
from circuitry.encoder.task import Task
from circuitry.explorer.model_view import circuit_embeddings, image_answers
from circuitry.explorer.view_files import Effects, Replacement
from circuitry.interventions.gated import kept_embeddings
from circuitry.questions.checks import CausalChecks
from circuitry.runs.errors import InputError, shown
from circuitry.runs.given import checked
from circuitry.runs.workers import Work

MOST_PIXELS = 50_000_000
"""Of an image of the reader's; a larger one is refused by its header, before it takes time and memory."""


class LiveModel:
    """A model that measures effects of units and looks at images; it remembers the images and means that it needed.

    Example:
        >>> live = LiveModel(CausalChecks(clip, images, graphs))
        >>> live.effects("cat", ["layer3.0/5", "layer4.0/12"], "mean")["sketch"]["effect"]
    """

    def __init__(self, checks: CausalChecks, *, work: Work = Work()) -> None:
        self.checks, self.work = checks, replace(work, progress=False)
        self._images: dict[Key, Tensor] = {}
        self._loudest: dict[str, dict[str, Tensor]] = {}
        self._named = {
            by: checks.baseline_called(name) for by, name in REPLACED_BY.items()
        }
        self._baselines: dict[tuple[str, Key], Baseline | Counterfactual] = {}

    @checked
    def effects(
        self, class_name: str, units: Sequence[str], by: Replacement
    ) -> dict[str, Effects]:
        """Return the exact joint effect of units on a class in each domain.

        Args:
            units: The units, as nodes of circuits are called: ``site/unit``.
            by: ``zero``, ``mean`` over the images of all classes and domains, or the class's mean in
                ``other-domains``; both means are taken at each position.
        """
        keys, chosen = self._keys_of(class_name), self._by_site(units)
        return {key[1]: self._measured(key, chosen, by) for key in keys}

    def _keys_of(self, class_name: str) -> list[Key]:
        keys = [key for key in self.checks.chosen.keys if key[0] == class_name]
        if not keys:
            raise InputError(
                f"There is no circuit of the class {class_name!r} among those that were loaded."
            )
        return keys

    def _by_site(self, units: Sequence[str]) -> dict[str, list[int]]:
        first = self.checks.graphs[self.checks.chosen.keys[0]]
        sizes = {site: len(first.node_scores[site]) for site in first.inner_sites}
        found: dict[str, list[int]] = {}
        for name in dict.fromkeys(units):
            site, _, unit = name.rpartition("/")
            if unit not in map(str, range(sizes.get(site, 0))):
                given = shown(name)
                raise InputError(
                    f"Expected units as site/unit, such as {next(iter(sizes))}/0, but {given} was given."
                )
            found.setdefault(site, []).append(int(unit))
        if not found:
            raise InputError("At least one unit is replaced, but none was given.")
        return found

    def _measured(
        self, key: Key, units: dict[str, list[int]], by: Replacement
    ) -> Effects:
        checks, graph, images = self.checks, self.checks.graphs[key], self._own(key)
        if (by, key) not in self._baselines:
            self._baselines[by, key] = self._named[by].of(*key, len(images))
        metric = checks.metric_of(*key)
        task = Task(
            checks.clip.encoder,
            images,
            metric,
            baseline=self._baselines[by, key],
            work=self.work,
        )
        circuit = Circuit(graph, {site: np.array(some) for site, some in units.items()})
        without, everything = circuit.complement(), circuit.nothing().complement()
        whole, cut = (
            float(in_double(metric(found)).mean())
            for found in kept_embeddings(task, [everything, without])
        )
        return {"effect": whole - cut, "metric": whole, "images": len(images)}

    def _own(self, key: Key) -> Tensor:
        """Return images of a class and domain that its circuit was not found on."""
        if key not in self._images:
            self._images[key] = self.checks.read(
                self.checks.chosen.own(key), strict=self.work.strict
            )
        if not len(self._images[key]):
            raise InputError(
                f"No image of {key[0]!r} in {key[1]!r} can be read that its circuit was not found on."
            )
        return self._images[key]

    @checked
    def look(self, class_name: str, domain: str, content: bytes) -> dict[str, Any]:
        """Return the model's answers to an image with and without a circuit, and the units that are active.

        Args:
            class_name: The class whose circuits, in all domains, hold the units.
        """
        key, checks = (class_name, domain), self.checks
        keys = self._keys_of(class_name)
        if key not in keys:
            raise InputError(
                f"There is no circuit of {class_name!r} in the domain {domain!r} among those loaded."
            )
        images = self._read(content)
        answer = image_answers(
            checks, domain, circuit_embeddings(checks, key, images, self.work)
        )[0]
        names = checks.images.all_classes
        answers = [
            [(names[place], float(share)) for place, share in zip(*run, strict=True)]
            for run in zip(answer.classes, answer.shares, strict=True)
        ]
        return {
            "answers": answers,
            "baseline": str(checks.asked["baseline"]),
            "fire": self._fire(keys, images),
        }

    def _read(self, content: bytes) -> Tensor:
        pixels = 0
        with (
            suppress(Exception),
            warnings.catch_warnings(action="ignore"),
        ):  # whoever decodes it says what is wrong
            pixels = prod(open_picture(BytesIO(content)).size)
        if pixels > MOST_PIXELS:
            raise InputError(
                f"The image has {pixels:,} pixels: give one of at most {MOST_PIXELS:,}."
            )
        with TemporaryDirectory() as folder:
            file = Path(folder) / "image"
            file.write_bytes(content)
            try:
                return self.checks.read(
                    [ImageRecord(file, file.name, "", "")], strict=True
                )
            except InputError as error:
                raise InputError(str(error).replace(str(file), "the image")) from error

    def _fire(self, keys: Sequence[Key], images: Tensor) -> dict[str, float]:
        """Return how active units of some circuits are in an image, as a share of the most in images of the class."""
        graphs, class_name = [self.checks.graphs[key] for key in keys], keys[0][0]
        kept = {
            site: np.concatenate([graph.kept_units[site] for graph in graphs])
            for site in graphs[0].inner_sites
        }
        units = {
            site: torch.as_tensor(np.unique(some))
            for site, some in kept.items()
            if len(some)
        }
        if class_name not in self._loudest:
            known = [self._activations(units, self._own(key)) for key in keys]
            self._loudest[class_name] = {
                site: torch.cat([one[site] for one in known]).amax(0) for site in units
            }
        found, fire = self._activations(units, images), dict[str, float]()
        for site, numbers in units.items():
            here = found[site][0].clamp_min(0)
            shares = (
                here / torch.maximum(self._loudest[class_name][site], here)
            ).nan_to_num()
            fire |= {
                f"{site}/{unit}": share
                for unit, share in zip(numbers.tolist(), shares.tolist(), strict=True)
            }
        return fire

    def _activations(
        self, units: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Tensor]:
        """Return the largest activation over positions [images, units] by site."""
        encoder = self.checks.clip.encoder
        with encoder.running():
            clean = clean_activations(encoder, images, list(units))
        return {
            site: unit_maps(
                encoder,
                site,
                encoder.units_of(site, clean[site]),
                some.to(encoder.device),
            ).amax(-1)
            for site, some in units.items()
        }

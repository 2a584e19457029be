"""Answer requests of the page with a model: exact effects of units, and why it answers a user's own image as it does.

Effects are measured on unseen images of a class in a domain: images that were not used to find the circuit of this
class and domain. The effect of some units is the mean of the class's metric on these images, minus the mean when the
activations of the units are replaced. All units are replaced in the same run. For a single unit this is the effect that
`patch_effects` returns. The effect of several units is not the sum of their single effects.
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from circuitry.cards.card_jobs import exact_baselines
from circuitry.circuits.graph import Circuit
from circuitry.data.domains import ImageRecord
from circuitry.data.folds import Key
from circuitry.data.images import open_picture
from circuitry.encoder.baselines import Baseline, Counterfactual
from circuitry.encoder.doubles import in_double
from circuitry.encoder.task import Task
from circuitry.explorer.view_files import Effects, Replacement
from circuitry.interventions.explaining import explain
from circuitry.interventions.kept_circuits import kept_embeddings
from circuitry.models.classifier import Classifier
from circuitry.questions.checks import CausalChecks
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError, shown
from circuitry.runs.workers import Work

MOST_PIXELS = 50_000_000
"""Largest number of pixels of an image. The header of a larger image is read, but its pixels are not decoded."""


class LiveModel:
    """A model that measures effects of units and explains answers, when the page of the explorer asks for it.

    It keeps images and mean activations in memory after their first use.

    Example:
        >>> from circuitry.explorer import LiveModel
        >>> from circuitry.interventions import CheckSettings
        >>> checks = circuitry.CausalChecks(clip, folder, graphs, CheckSettings(seen=True))
        >>> live = LiveModel(checks)
        >>> unit = graphs["clock", "real"].top(1).iloc[0]
        >>> effects = live.effects("clock", [f"{unit.site}/{unit.unit}"], "zero")
        >>> effects["sketch"]["images"] > 0
        True
    """

    def __init__(self, checks: CausalChecks, *, work: Work = Work()) -> None:
        self.checks = checks
        self.work = replace(work, progress=False)
        self._images: dict[Key, Tensor] = {}
        self._choices = exact_baselines(checks)
        self._baselines: dict[tuple[str, Key], Baseline | Counterfactual] = {}

    @checked
    def effects(
        self,
        class_name: str,
        units: Sequence[str],
        by: Replacement,
    ) -> dict[str, Effects]:
        """Return the exact effect of units on the metric of a class if all of them are replaced together.

        Args:
            class_name: The class.
            units: Names of the units in the form ``site/unit``.
            by: What replaces the activations of the units. ``zero`` is zero. ``mean`` is the mean over images of all
                classes and domains. ``other-domains`` is the mean over images of the class in the other domains. Both
                means are computed separately at each position.

        Returns:
            For each domain, a dictionary with three entries: ``metric``, the mean metric of the whole model;
            ``effect``, how much lower the mean is when the units are replaced; and ``images``, the number of images.
        """
        keys = [key for key in self.checks.chosen.keys if key[0] == class_name]
        if not keys:
            raise InputError(
                f"There is no circuit of the class {class_name!r} among those that were loaded."
            )
        by_site = self._by_site(units)
        return {key[1]: self._measured(key, by_site, by) for key in keys}

    def _by_site(self, units: Sequence[str]) -> dict[str, np.ndarray]:
        # All graphs of a folder have the same sites and units.
        first = self.checks.graphs[self.checks.chosen.keys[0]]
        by_site: dict[str, list[int]] = {}
        for name in dict.fromkeys(units):
            site, _, unit = name.rpartition("/")
            n_units = len(first.node_scores[site]) if site in first.inner_sites else 0
            # Compared as text, because int() would also accept "+1" and " 1".
            if unit not in map(str, range(n_units)):
                raise InputError(
                    f"Expected units as site/unit, such as {first.inner_sites[0]}/0, but {shown(name)} was given."
                )
            by_site.setdefault(site, []).append(int(unit))
        if not by_site:
            raise InputError("At least one unit is replaced, but none was given.")
        return {site: np.array(numbers) for site, numbers in by_site.items()}

    def _measured(
        self,
        key: Key,
        units: dict[str, np.ndarray],
        by: Replacement,
    ) -> Effects:
        if key not in self._images:
            own = self.checks.chosen.own(key)
            self._images[key] = self.checks.read(own, strict=self.work.strict)
        images = self._images[key]
        if not len(images):
            raise InputError(
                f"No image of {key[0]!r} in {key[1]!r} can be read that its circuit was not found on."
            )
        if (by, key) not in self._baselines:
            self._baselines[by, key] = self._choices[by].of(*key, len(images))
        metric = self.checks.metric_of(*key)
        task = Task(
            self.checks.clip.encoder,
            images,
            metric,
            baseline=self._baselines[by, key],
            work=self.work,
        )
        circuit = Circuit(self.checks.graphs[key], units)
        # Two runs: the whole model, and the model without the given units.
        everything = circuit.nothing().complement()
        embeddings = kept_embeddings(task, [everything, circuit.complement()])
        # Double precision is needed because the effect is a small difference of two means.
        by_image = [in_double(metric(of_run)) for of_run in embeddings]
        whole = float(by_image[0].mean())
        cut = float(by_image[1].mean())
        return {"effect": whole - cut, "metric": whole, "images": len(images)}

    @checked
    def look(self, content: bytes) -> dict[str, Any]:
        """Return why the model gives its answer to an image, among all classes; see `explain`.

        Args:
            content: Content of the image file.

        Returns:
            ``said`` has the sentences of the explanation. ``effects`` has the exact effect of each of the strongest
            units, by ``site/unit``, as a share of the largest effect.
        """
        clip = self.checks.clip
        texts = list(self.checks.images.all_classes)
        # A classifier knows its classes by name.
        if not isinstance(clip, Classifier):
            texts = [f"a photo of a {name}" for name in texts]
        why = explain(clip, self._read(content), texts)
        units = why.units["site"] + "/" + why.units["unit"].astype(str)
        effects = why.units["effect"]
        shares = effects / (effects.max() or 1.0)
        return {
            "said": str(why).splitlines(),
            "effects": dict(zip(units, shares.tolist(), strict=True)),
        }

    def _read(self, content: bytes) -> Tensor:
        pixels = 0
        # Errors are ignored here, because decoding the file below raises an error that says what is wrong.
        with suppress(Exception), warnings.catch_warnings(action="ignore"):
            pixels = prod(open_picture(BytesIO(content)).size)
        if pixels > MOST_PIXELS:
            raise InputError(
                f"The image has {pixels:,} pixels: give one of at most {MOST_PIXELS:,}."
            )
        # The image is written to a file, so that it is decoded and preprocessed by the same code as all other images.
        with TemporaryDirectory() as folder:
            file = Path(folder) / "image"
            file.write_bytes(content)
            record = ImageRecord(file, file.name, "", "")
            try:
                return self.checks.read([record], strict=True)
            except InputError as error:
                # The message must not name the temporary file, which the user of the page does not know.
                raise InputError(str(error).replace(str(file), "the image")) from error

"""The exact effect of units, measured while somebody looks at them: of one unit, or of a group together.

The effect is the class's metric on images that its circuit was not found on, minus the metric with the units replaced,
in one run at all their sites. For one unit this is `patch_effects`; for a group it is not the sum over its units.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from circuitry.data.parts import Key
from circuitry.explorer.view_files import Effects, Replacement
from circuitry.interventions.circuit_checks import CausalChecks
from circuitry.interventions.gated import kept_embeddings
from circuitry.interventions.kept_sets import leave_out, take_everything
from circuitry.models.baselines import Baseline, Counterfactual
from circuitry.models.task import Task
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
from circuitry.runs.workers import Work

BASELINES: dict[Replacement, str] = {"zero": "zero", "mean": "mean-position", "other-domains": "other-domains"}
"""The baseline of each replacement."""


@checked
class LiveModel:
    """A model that answers what units do, with the images and means that it needed so far.

    Example:
        >>> live = LiveModel(CausalChecks(clip, images, graphs))
        >>> live.effects("cat", ["layer3.0/5", "layer4.0/12"], "mean")["sketch"]["effect"]
    """

    def __init__(self, checks: CausalChecks, *, work: Work = Work()) -> None:
        """Keep the model.

        Args:
            checks: The model, its circuits, and images that they were not found on.
            work: Memory.
        """
        self.checks, self.work = checks, replace(work, progress=False)
        self._images: dict[Key, Tensor] = {}
        self._named = {by: checks.baseline_called(name) for by, name in BASELINES.items()}
        self._baselines: dict[tuple[str, Key], Baseline | Counterfactual] = {}

    @checked
    def effects(self, class_name: str, units: Sequence[str], by: Replacement) -> dict[str, Effects]:
        """Return the exact joint effect of units on a class in each domain.

        Args:
            class_name: The class.
            units: The units, as nodes of circuits are called: ``site/unit``.
            by: ``zero``, ``mean`` over the images of all classes and domains, or the class's mean in
                ``other-domains``; both means are those at each position.

        Raises:
            InputError: for a class without a circuit, no unit or an unknown one, another ``by``, and where no image can
                be read.
        """
        keys = [key for key in self.checks.chosen.keys if key[0] == class_name]
        if not keys:
            raise InputError(f"There is no circuit of the class {class_name!r} among those that were loaded.")
        chosen = self._by_site(units)
        return {key[1]: self._measured(key, chosen, by) for key in keys}

    def _by_site(self, units: Sequence[str]) -> dict[str, list[int]]:
        first = self.checks.graphs[self.checks.chosen.keys[0]]
        sizes = {site: len(first.node_scores[site]) for site in first.inner_sites}
        found: dict[str, list[int]] = {}
        for name in dict.fromkeys(units):
            site, _, unit = name.rpartition("/")
            if not (unit.isascii() and unit.isdigit() and int(unit) < sizes.get(site, 0)):
                raise InputError(f"Expected units as site/unit, such as {next(iter(sizes))}/0, but {name!r} was given.")
            found.setdefault(site, []).append(int(unit))
        if not found:
            raise InputError("At least one unit is replaced, but none was given.")
        return found

    def _measured(self, key: Key, units: dict[str, list[int]], by: Replacement) -> Effects:
        checks, graph = self.checks, self.checks.graphs[key]
        if key not in self._images:
            self._images[key] = checks.read(checks.chosen.own(key), strict=self.work.strict)
        images = self._images[key]
        if not len(images):
            raise InputError(f"No image of {key[0]!r} in {key[1]!r} can be read that its circuit was not found on.")
        if (by, key) not in self._baselines:
            self._baselines[by, key] = self._named[by].of(*key, len(images))
        metric = checks.metric_of(*key)
        task = Task(checks.clip.encoder, images, metric, baseline=self._baselines[by, key], work=self.work)
        without, everything = leave_out(units, graph), take_everything(units, graph)
        whole, cut = (float(metric(found).double().mean()) for found in kept_embeddings(task, [everything, without]))
        return {"effect": whole - cut, "metric": whole, "images": len(images)}

"""Methods that score units, by name. No torch.

| method | score of a unit | runs |
|---|---|---|
| ``site-path`` | integrated gradients at its site, the study's (`nodes`) | points x sites |
| ``conductance`` | what changes the metric through it along a path of the image (`conductance`) | six |
| ``gradient`` | gradient x (activation - baseline), attribution patching | one |
| ``patching`` | exact effect of putting it to the baseline (`patching`) | one per unit |
| ``fisher`` | squared change of all answers, on images of the class and of others (`answers`) | one |
| ``iterative-fisher`` | its rank by that, scored again as the weakest units close | eight |
| ``contrast`` | its place where units are cut by what they cost the class alone (`own_part`) | cuts |
| ``learned`` | how surely a mask keeps it that is learned as a whole (`masks`) | steps |

`score_units` scores by each of them, and so do `attribute`, `extract` and `find_circuit`; `register_method` adds one. A
method of the package is named by its place: those that run circuits lie in a later room, and are loaded when they are
used.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from inspect import getdoc, isroutine
from pkgutil import resolve_name
from typing import Annotated, Any

from circuitry.runs.errors import shown
from circuitry.runs.given import Condition
from circuitry.runs.leaves import part_of

SITE_PATH, CONDUCTANCE, GRADIENT, FISHER = (
    "site-path",
    "conductance",
    "gradient",
    "fisher",
)
ITERATIVE, CONTRAST, LEARNED = "iterative-fisher", "contrast", "learned"

log = logging.getLogger(__name__)

UnitScorer = Callable[..., Mapping[str, Any]]
"""Task, `AttributionSettings`, perhaps ``parts`` -> scores [units] by site, error units too; see `register_method`."""
METHODS: dict[str, UnitScorer | str] = {
    SITE_PATH: "circuitry.circuits.unit_scores:along_sites",
    CONDUCTANCE: "circuitry.circuits.unit_scores:along_image",
    GRADIENT: "circuitry.circuits.unit_scores:gradient_at_image",
    "patching": "circuitry.interventions.unit_methods:exact_effects",
    FISHER: "circuitry.interventions.unit_methods:squared_changes",
    ITERATIVE: "circuitry.interventions.unit_methods:ranks_by_rounds",
    CONTRAST: "circuitry.interventions.contrast:ranks_by_contrast",
    LEARNED: "circuitry.interventions.unit_methods:mask_gates",
}
"""The function that scores units, or its import path, by the name of the method."""
ONLY_RANK = {FISHER, ITERATIVE, CONTRAST, LEARNED}
"""Methods whose scores rank units and are no effects on the metric; graphs have effects by conductance beside them."""
METHOD_WORDS: Mapping[str, str] = {
    SITE_PATH: "Integrated gradients score each unit: how much the class's metric changes as its site goes from the "
    "activation to the baseline",
    CONDUCTANCE: "Conductance scores each unit: how much of the metric's change passes through it as the image goes "
    "to its baseline",
    GRADIENT: "Attribution patching scores each unit: what the metric would lose without it if it were linear, by "
    "one gradient",
    "patching": "Activation patching scores each unit: what the metric loses, measured, when this unit alone goes to "
    "the baseline",
    FISHER: "Fisher information ranks the units: how far all answers move, on images of the class and of others, as "
    "a unit closes a little",
    ITERATIVE: "Fisher information in rounds ranks the units: how far all answers move, on images of the class and of "
    "others, as a unit closes a little, measured again each time that the weakest units have closed",
    CONTRAST: "Contrast ranks the units: what the class loses without a unit, over the damage to the answers of other "
    "classes",
    LEARNED: "A learned mask ranks the units: gates that are trained together keep the model's answers while most of "
    "them close",
}
"""What a method of the package does, as reports say it, by its name."""

MethodName = Annotated[
    str,
    Condition(
        f"one of {', '.join(map(repr, METHODS))}",
        lambda name: None if name in METHODS else shown(name),
        "choose one, or add it with register_method",
        tuple(METHODS),
    ),
]


def register_method(name: str, function: UnitScorer, *, effects: bool = True) -> None:
    """Make a method that scores units known: `attribute`, `extract`, `find_circuit` and `score_units` take its name.

    Args:
        name: What to call it; a method of the same name is replaced.
        function: From a `Task` and `AttributionSettings` to finite scores [units] by site, arrays or tensors, at all
            sites of the task and at no other; at a site in a feature basis the error units follow the latents. The task
            has others where they are given. A function whose third argument is called ``parts`` scores parts of the
            images in one call, as `extract` needs them for ceilings: it is None, or the number of the part of each
            image, and then scores are [1 + parts, units], of all images and of each part in the order of its number.
            Without this argument the function is called once more for each part. Its code and all that it reads
            belong to what is found by it; where they cannot be read, give it an attribute ``identity``, a text that is
            another one for another function.
        effects: Whether the scores are effects on the metric, positive where a unit helps. If not, they rank units
            alone, by their absolute value; see `AttributionGraph.importance`.

    Example:
        >>> def by_activation(task, settings):
        ...     with task.running():
        ...         clean = [batch.clean(task.sites) for batch in task.batches()]
        ...     return {site: mean_over_images_and_positions(clean, site) for site in task.sites}
        >>> register_method("activation", by_activation, effects=False)
        >>> graph = attribute(encoder, images, metric, method="activation")
    """
    METHODS[name] = function
    (ONLY_RANK.discard if effects else ONLY_RANK.add)(name)


def without_others(name: str, where: Sequence[str] = ()) -> str:
    """Return what ranks without images of other classes: for Fisher's the gradient, and a line says so of ``where``."""
    if name not in (FISHER, ITERATIVE):
        return name
    if where:
        log.warning(
            "The method %r ranks units by images of the class and of others, but there are no others of %s: the "
            "gradient ranks them there. Give others=, or in a folder more classes, or method='gradient'.",
            name,
            ", ".join(where),
        )
    return GRADIENT


def method_is_outside(name: str) -> bool:
    """Return whether a method was registered: the package's own are named by their place."""
    return not isinstance(METHODS[name], str)


def method_code(name: str) -> str | dict[str, str]:
    """Return what a method is: the place of the package's own, else the digest of its function, or what is unknown."""
    found = METHODS.get(name, name)
    if isinstance(found, str):
        return found
    return part_of((found, name in ONLY_RANK), f"the method {name!r}")


def describe_method(settings: Mapping[str, Any]) -> str:
    """Return two sentences on how the units of a graph were scored and which are kept, from its settings."""
    name = settings.get("method", SITE_PATH)
    function, kept = (
        METHODS.get(name),
        "The units with the largest absolute scores are kept.",
    )
    if isinstance(function, str):
        words = METHOD_WORDS[name]
        words += (
            f", integrated by {settings.get('node_rule', 'an unknown rule')}"
            if name == SITE_PATH
            else ""
        )
    else:
        words = f"The method {name}, registered from outside, scores the units"
        text = getdoc(function) if isroutine(function) else None
        words += f": {text.splitlines()[0].rstrip('.')}" if text else ""
    if name in ONLY_RANK:
        kept = "The first units of this ranking are kept; it measures no effect."
    if function is None:
        kept = "The units that it puts first are kept."
    return f"{words}. {kept}"


def scorer_called(name: str) -> UnitScorer:
    """Return the function of a method."""
    found = METHODS[name]
    scorer: UnitScorer = resolve_name(found) if isinstance(found, str) else found
    return scorer

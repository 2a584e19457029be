"""Methods that score units, and methods that score edges: each a value with a name. No torch.

| method of units | score of a unit | runs |
|---|---|---|
| ``site-path`` | integrated gradients at its site, the study's (`nodes`) | points x sites |
| ``conductance`` | what changes the metric through it along a path of the image (`conductance`) | six |
| ``gradient`` | gradient x (activation - baseline), attribution patching | one |
| ``patching`` | exact effect of putting it to the baseline (`patch_effects`) | one per unit |
| ``fisher`` | squared change of all answers, on images of the class and of others (`fisher`) | one |
| ``iterative-fisher`` | its rank by that, scored again as the weakest units close | eight |
| ``contrast`` | its place where units are cut by what they cost the class alone (`own_part`) | cuts |
| ``learned`` | how surely a mask keeps it that is learned as a whole (`learn_masks`) | steps |

`score_units`, `attribute`, `extract` and `find_circuit` take these names, and `register_method` adds one. Methods of
edges are described in `edge_methods`; `register_edge_method` adds one. Whatever differs between methods is a field of
their value, so nobody asks for a name.

A value can be read without torch, for settings, command lines and reports. So the functions of the package's own
methods are not in it: they are in `unit_methods.SCORERS` and `edge_methods.EDGE_SCORERS`, by the same names.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import getdoc, isroutine
from typing import Annotated, Any

from circuitry.runs.arguments import Condition
from circuitry.runs.errors import shown
from circuitry.runs.leaves import entry_of

SITE_PATH = "site-path"
CONDUCTANCE = "conductance"
GRADIENT = "gradient"
FISHER = "fisher"
ITERATIVE = "iterative-fisher"
CONTRAST = "contrast"
LEARNED = "learned"

log = logging.getLogger(__name__)

UnitScorer = Callable[..., Mapping[str, Any]]
"""Task, `AttributionSettings`, perhaps folds -> scores [units] by site, error units too; see `register_method`."""
EdgeScorer = Callable[..., Mapping[tuple[str, str], Any]]
"""Task, units by site, `QuadratureRule` -> scores [downstream, upstream] by pair of sites; see `EdgeMethod`."""


@dataclass(frozen=True)
class Method:
    """A method that scores units.

    Example:
        >>> Method("mine", "Mine counts", lambda task, settings: {}, effects=False).effects
        False
    """

    name: str
    """Name by which functions and command lines take it."""
    words: str = ""
    """Its description in reports, a sentence without its period (default: the first line of the docstring)."""
    function: UnitScorer | None = None
    """Scores units; None for a method of the package, see `unit_methods.SCORERS`."""
    effects: bool = True
    """Whether scores are effects on the metric, positive where a unit helps. If not, they rank units alone, by their
    absolute value; graphs then have effects by conductance beside them, see `Scores.importance`."""
    takes_others: bool = False
    """Whether it looks at images of other classes; `extract` then reads some."""
    without_others: str | None = None
    """Name of the method that ranks in its place where there are no images of other classes; None if it runs anyway."""
    takes_folds: bool = False
    """Whether it scores folds of the images in one call: then its third argument is None, or the number of the fold of
    each image, and scores are [1 + folds, units], of all images and of each fold in the order of its number."""
    takes_rule: bool = False
    """Whether the quadrature rule of the settings changes its scores."""
    learns_mask: bool = False
    """Whether it learns a mask, which takes minutes (`learn_masks`): circuits of other classes beside one that it found
    are then found by a ranking."""


@dataclass(frozen=True)
class EdgeMethod:
    """A method that scores edges.

    Example:
        >>> def nothing(task, units, rule):
        ...     return {("act1", "act2"): np.zeros((len(units["act2"]), len(units["act1"])))}
        >>> EdgeMethod("nothing", "never", nothing).in_stream
        False
    """

    name: str
    """Name by which functions and command lines take it."""
    words: str = ""
    """Meaning of an edge's score, a clause for reports (default: ``by`` its name)."""
    function: EdgeScorer | None = None
    """From a task, units [k] by site and a `QuadratureRule` to finite scores [units downstream, units upstream] by
    (upstream, downstream) pair of the sites, means over images, positive where an edge helps. None for a method of the
    package, see `edge_methods.EDGE_SCORERS`, and for a method of components alone."""
    components: Callable[..., Any] | None = None
    """From a `ResidualStream`, a task of its components and a rule to `StreamScores`, for `attribute_components`; edges
    between heads and neurons then follow from it, so such a method needs no ``function``."""
    in_stream: bool = False
    """Whether it scores the edges of heads and neurons that add to a residual stream, and of no other units."""
    along_path: bool = False
    """Whether it integrates along a path, by the rule of the nodes unless another is given. Other methods take one
    gradient."""
    measured: bool = False
    """Whether a score is the metric's loss by a cut; else scores rank edges alone."""


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            SITE_PATH,
            "Integrated gradients score each unit: how much the class's metric changes as its site goes from the "
            "activation to the baseline",
            takes_rule=True,
        ),
        Method(
            CONDUCTANCE,
            "Conductance scores each unit: how much of the metric's change passes through it as the image goes "
            "to its baseline",
        ),
        Method(
            GRADIENT,
            "Attribution patching scores each unit: what the metric would lose without it if it were linear, by "
            "one gradient",
        ),
        Method(
            "patching",
            "Activation patching scores each unit: what the metric loses, measured, when this unit alone goes to "
            "the baseline",
        ),
        Method(
            FISHER,
            "Fisher information ranks the units: how far all answers move, on images of the class and of others, as "
            "a unit closes a little",
            effects=False,
            takes_others=True,
            without_others=GRADIENT,
            takes_folds=True,
        ),
        Method(
            ITERATIVE,
            "Fisher information in rounds ranks the units: how far all answers move, on images of the class and of "
            "others, as a unit closes a little, measured again each time that the weakest units have closed",
            effects=False,
            takes_others=True,
            without_others=GRADIENT,
            takes_folds=True,
        ),
        Method(
            CONTRAST,
            "Contrast ranks the units: what the class loses without a unit, over the damage to the answers of other "
            "classes",
            effects=False,
            takes_others=True,
        ),
        Method(
            LEARNED,
            "A learned mask ranks the units: gates that are trained together keep the model's answers while most of "
            "them close",
            effects=False,
            takes_others=True,
            learns_mask=True,
        ),
    )
}
"""Methods that score units, by name."""
SQUARED = "squared"
"""The study's score of edges: squared movements between neighbouring sites."""
CUTS = "cuts"
"""Exact losses by cuts."""
EXACT_READERS = "exact-readers"
EDGE_METHODS: dict[str, EdgeMethod] = {
    method.name: method
    for method in (
        EdgeMethod(
            SQUARED,
            "how far the later unit moves when the earlier one goes to the baseline",
            along_path=True,
        ),
        EdgeMethod(GRADIENT, "by one gradient", in_stream=True),
        EdgeMethod(
            EXACT_READERS,
            "the later unit is run without it, and what follows is taken as linear",
        ),
        EdgeMethod(CUTS, "measured, by a run for each edge", measured=True),
    )
}
"""Methods that score edges, by name; see `edge_methods`."""


def _among(methods: Mapping[str, Any], register: str) -> Condition:
    """Return the condition on the name of a method, known now or registered until it is asked for."""
    return Condition(
        f"one of {', '.join(map(repr, methods))}",
        lambda name: None if name in methods else shown(name),
        f"choose one, or add it with {register}",
        tuple(methods),
    )


MethodName = Annotated[str, _among(METHODS, "register_method")]
EdgeMethodName = Annotated[str, _among(EDGE_METHODS, "register_edge_method")]


def register_method(
    method: Method | str, function: UnitScorer | None = None, *, effects: bool = True
) -> None:
    """Make a method that scores units known: `attribute`, `extract`, `find_circuit` and `score_units` take its name.

    Args:
        method: A `Method` with a function, or a name; a method of the same name is replaced.
        function: Needed with a name. It takes a `Task` and `AttributionSettings`, and returns finite scores [units] for
            every site of the task, as a mapping from sites to arrays or tensors. At a site in a feature basis the
            scores of error units follow those of latents. The settings of graphs store a digest of its code and of
            all that it reads. If these cannot be read, give the function an attribute ``identity``: a text that
            differs between functions.
        effects: With a name: whether scores are effects on the metric, positive where a unit helps. If not, scores only
            rank units, and the method is given images of other classes where there are some.

    Example:
        >>> def by_activation(task, settings):
        ...     with task.running():
        ...         (batch,) = task.batches()
        ...         clean = batch.clean(task.sites)
        ...     return {site: a.movedim(task.encoder.unit_dim(site), 0).flatten(1).mean(1) for site, a in clean.items()}
        >>> register_method("activation", by_activation)
        >>> graph = attribute(encoder, images, metric, method="activation", progress=False)
    """
    if isinstance(method, str):
        # A ranking that measures no effect needs something to tell the class from.
        method = Method(
            method, function=function, effects=effects, takes_others=not effects
        )
    METHODS[method.name] = method


def register_edge_method(
    method: EdgeMethod | str, function: EdgeScorer | None = None
) -> None:
    """Make a method that scores edges known: `score_edges` and `attribute` take its name.

    Args:
        method: An `EdgeMethod` with a function, or a name; a method of the same name is replaced.
        function: With a name: as `EdgeMethod.function`.

    Example:
        >>> def alike(task, units, rule):
        ...     first, second = list(units)[:2]
        ...     return {(first, second): np.ones((len(units[second]), len(units[first])))}
        >>> register_edge_method("alike", alike)
        >>> attribute(encoder, images, metric, edges="alike", progress=False).settings["edge_method"]
        'alike'
    """
    if isinstance(method, str):
        method = EdgeMethod(method, function=function)
    EDGE_METHODS[method.name] = method


def without_others(name: str, where: Sequence[str] = ()) -> str:
    """Return the name of the method that ranks without images of other classes, and warn where there are none.

    Args:
        name: The method that was asked for.
        where: Classes, in words, that have no images of others.
    """
    instead = METHODS[name].without_others
    if instead is None:
        return name
    if where:
        log.warning(
            "The method %r ranks units by images of the class and of others, but there are no others of %s: the "
            "method %r ranks them there. Give others=, or in a folder more classes, or method=%r.",
            name,
            ", ".join(where),
            instead,
            instead,
        )
    return instead


def method_code(name: str) -> str | dict[str, str]:
    """Identify the code of a method of units, for identities; see `code_of`."""
    return code_of(METHODS.get(name, Method(name)))


def code_of(method: Method | EdgeMethod) -> str | dict[str, str]:
    """Return the name of a method of the package, else the digest of its value, or the places that cannot be read."""
    # Functions of the package are in tables elsewhere, and its version is in the provenance.
    value = vars(method)
    if value["function"] is None and value.get("components") is None:
        return f"circuitry: {method.name}"
    return entry_of(value, f"the method {method.name!r}")


def describe_method(settings: Mapping[str, Any]) -> str:
    """Return two sentences on how the units of a graph were scored and which are kept, from its settings."""
    # Graphs of earlier versions, which name no method, are by the site path.
    name = settings.get("method", SITE_PATH)
    from_outside = f"The method {name}, registered from outside, scores the units"
    method = METHODS.get(name)
    if method is None:
        # A graph from another process, whose method nobody registered in this one.
        return f"{from_outside}. The units that it puts first are kept."
    words = method.words
    if not words:
        words = from_outside
        # An object that can be called has the docstring of its class, which says nothing of the method.
        text = getdoc(method.function) if isroutine(method.function) else None
        if text:
            words += f": {text.splitlines()[0].rstrip('.')}"
    if method.takes_rule:
        words += f", integrated by {settings.get('node_rule', 'an unknown rule')}"
    if method.effects:
        return f"{words}. The units with the largest absolute scores are kept."
    return f"{words}. The first units of this ranking are kept; it measures no effect."


def describe_edges(settings: Mapping[str, Any]) -> str:
    """Return sentences on the edges of a graph and the meaning of their scores, from its settings."""
    name = settings.get("edge_method") or SQUARED
    method = EDGE_METHODS.get(name, EdgeMethod(name))
    words = method.words or f"by {name}"
    if method.along_path:
        rule = settings.get("edge_rule", "an unknown rule")
        joined = f"units of neighbouring sites; an edge's score says {words}, integrated by {rule}"
    else:
        says = "is" if method.measured else "estimates"
        joined = (
            "units where a later one reads what an earlier one wrote, also of sites further apart; an edge's score "
            f"{says} what the metric loses when the later unit alone misses that ({words})"
        )
    sentences = (
        f"Edges join kept {joined}. Each unit keeps its few strongest incoming edges."
    )
    if not method.measured:
        sentences += " Scores of edges rank them and do not measure what a cut costs."
    return sentences

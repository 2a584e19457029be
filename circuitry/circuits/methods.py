"""The methods that score units and the methods that score edges, by name.

| method of units | score of a unit | runs of the model |
|---|---|---|
| ``site-path`` | integrated gradients at the unit's site, as in the study (`nodes`) | points x sites |
| ``conductance`` | the change of the metric that passes through the unit (`conductance`) | six |
| ``gradient`` | gradient x (activation - baseline), known as attribution patching | one |
| ``patching`` | exact effect of putting the unit to the baseline (`patch_effects`) | one per unit |
| ``fisher`` | squared change of all answers, on images of the class and of others (`fisher`) | one |
| ``iterative-fisher`` | rank in the order in which units are closed, the weakest by ``fisher`` first | eight |
| ``readout`` | linear way to the answer x activation on the class less on others (`direct_readout`) | one |
| ``contrast`` | place in the order in which `own_part` cuts units | one per cut |
| ``learned`` | the unit's gate in a mask that is learned for all units together (`learn_masks`) | one per step |

`score_units`, `attribute`, `extract` and `find_circuit` accept these names. `register_method` adds a method of units,
and `register_edge_method` a method of edges; methods of edges are described in `edge_methods`.

A method is a `Method` or an `EdgeMethod`. The differences between methods are fields of these objects, so that code
need not compare names. The exception is `OwnParts`, which finds parts by `own_part` for contrast. The objects can be
read without torch, for settings, command lines and reports. Therefore they do not contain the functions of the
package's own methods: these are in `unit_methods.SCORERS` and `edge_methods.EDGE_SCORERS`, by the same names.

Does not import torch.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import getdoc, isroutine
from typing import Annotated, Any

from circuitry.runs.arguments import Condition, checked
from circuitry.runs.errors import InputError, shown
from circuitry.runs.leaves import entry_of

SITE_PATH = "site-path"
CONDUCTANCE = "conductance"
GRADIENT = "gradient"
FISHER = "fisher"
ITERATIVE = "iterative-fisher"
READOUT = "readout"
CONTRAST = "contrast"
LEARNED = "learned"

log = logging.getLogger(__name__)

UnitScorer = Callable[..., Mapping[str, Any]]
"""Takes a task and `AttributionSettings`, and with `Method.takes_folds` the fold of each image. Returns scores [units]
by site, error units included; see `register_method`."""
EdgeScorer = Callable[..., Mapping[tuple[str, str], Any]]
"""Takes a task, units by site and a `QuadratureRule`. Returns scores [downstream, upstream] by pair of sites; see
`EdgeMethod.function`."""


@checked
@dataclass(frozen=True)
class Method:
    """A method that scores units.

    Example:
        >>> Method("mine", "Mine counts", lambda task, settings: {}, effects=False).effects
        False
    """

    name: str
    """Name of the method in functions and on command lines."""
    words: str = ""
    """Description of the method in reports: a sentence without its period (default: the first line of the function's
    docstring)."""
    function: UnitScorer | None = None
    """Function that scores the units. None for a method of the package, whose function is in `unit_methods.SCORERS`."""
    effects: bool = True
    """Whether the scores are effects on the metric, positive for a unit that helps. If False, the scores only rank the
    units by their absolute value. Graphs then store them as `Scores.importance`, and have effects by conductance as
    their scores."""
    takes_others: bool = False
    """Whether the method uses images of other classes. If True, `extract` reads such images."""
    without_others: str | None = None
    """Name of the method that is used instead if there are no images of other classes. None if this method is used all
    the same."""
    takes_folds: bool = False
    """Whether one call scores all images and each fold of the images. If True, the function's third argument is None or
    the index of the fold of each image. With folds the scores have the shape [1 + folds, units]: a row for all images,
    then a row for each fold in the order of the indices."""
    takes_rule: bool = False
    """Whether the quadrature rule of the settings changes the scores."""
    learns_mask: bool = False
    """Whether the method learns a mask, which takes minutes (`learn_masks`). If True, the circuits of other classes,
    which a test compares with a circuit of this method, are found by a ranking instead."""


@checked
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
    """Name of the method in functions and on command lines."""
    words: str = ""
    """Meaning of an edge's score in reports: a clause (default: ``by`` and the name)."""
    function: EdgeScorer | None = None
    """Function that scores edges between units. It takes a task, units [kept] by site and a `QuadratureRule`. It
    returns finite scores [units downstream, units upstream] by (upstream, downstream) pair of sites. Scores are means
    over images, and positive scores mean that the edge helps. None for a method of the package, whose function is in
    `edge_methods.EDGE_SCORERS`, and for a method that only has ``components``."""
    components: Callable[..., Any] | None = None
    """Function that scores edges between components of a transformer, for `attribute_components`. It takes a
    `ResidualStream`, a task whose encoder has the stream's components, and a rule. It returns `StreamScores`. Edges
    between heads and neurons are computed from it as well, so a method with ``components`` needs no ``function``."""
    in_stream: bool = False
    """Whether the method can only score edges between heads and neurons that add to a residual stream."""
    along_path: bool = False
    """Whether the method integrates along a path. The rule is that of the nodes, unless another rule is given. Methods
    without a path compute one gradient."""
    measured: bool = False
    """Whether a score is the measured decrease of the metric when the edge is cut. If False, the scores only rank
    edges."""


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
            READOUT,
            "The direct readout scores the units of the last block: the derivative of the class's metric by a unit, "
            "times how much more active the unit is on images of the class than on those of others",
            takes_others=True,
            without_others=GRADIENT,
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
"""Name of the study's method of edges: squared movements between neighbouring sites."""
CUTS = "cuts"
"""Name of the method that measures how much the metric falls when an edge is cut."""
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
    """Return the condition that a value is the name of a method.

    Names are looked up when a value is checked, so methods that are registered later are accepted, too.

    Args:
        methods: The known methods by name.
        register: Name of the function that adds a method, for the error message.
    """
    return Condition(
        f"one of {', '.join(map(repr, methods))}",
        lambda name: None if name in methods else shown(name),
        f"choose one, or add it with {register}",
        tuple(methods),
    )


MethodName = Annotated[str, _among(METHODS, "register_method")]
EdgeMethodName = Annotated[str, _among(EDGE_METHODS, "register_edge_method")]


@checked
def register_method(
    method: Method | str, function: UnitScorer | None = None, *, effects: bool = True
) -> None:
    """Register a method that scores units.

    Then `attribute`, `extract`, `find_circuit` and `score_units` accept its name. Graphs store in their settings a
    digest of the function's code and of the values that it uses. If the digest cannot be computed, give the function an
    attribute ``identity``: a text that differs between functions.

    Args:
        method: A `Method` with a function, or a name. It replaces a method of the same name.
        function: Needed if ``method`` is a name. It takes a `Task` and `AttributionSettings`. It returns a mapping from
            every site of the task to finite scores [units], as an array or tensor. At a site in a feature basis the
            scores of the latents come first, then the scores of the error units.
        effects: Used if ``method`` is a name: whether the scores are effects on the metric, positive for a unit that
            helps. If False, the scores only rank the units, and the method also gets images of other classes if there
            are any.

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
        # A ranking that does not measure effects needs images of other classes, to distinguish the class from them.
        method = Method(
            method, function=function, effects=effects, takes_others=not effects
        )
        function = None
    if function is not None or method.function is None or not method.name:
        raise _no_method("register_method", method.name, "scores units")
    METHODS[method.name] = method


@checked
def register_edge_method(
    method: EdgeMethod | str, function: EdgeScorer | None = None
) -> None:
    """Register a method that scores edges, so that `score_edges` and `attribute` accept its name.

    Args:
        method: An `EdgeMethod` with a function, or a name. It replaces a method of the same name.
        function: Needed if ``method`` is a name: a function as described at `EdgeMethod.function`.

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
        function = None
    scorer = method.function or method.components
    if function is not None or scorer is None or not method.name:
        raise _no_method("register_edge_method", method.name, "scores edges")
    EDGE_METHODS[method.name] = method


def _no_method(register: str, name: str, does: str) -> InputError:
    """Return the error for a registration that does not give a name and one function."""
    return InputError(
        f"Expected a name and one function that {does}, but {register} was given the name {name!r} and no function or "
        f"two: give {register}('mine', function), or a method that has both."
    )


def without_others(name: str, where: Sequence[str] = ()) -> str:
    """Return the name of the method to use if there are no images of other classes.

    This is the method itself if it can do without such images, otherwise its `Method.without_others`.

    Args:
        name: Name of the requested method.
        where: Descriptions of the sets of images, such as classes, that have no images of other classes. If they are
            given and another method is used, a warning is logged that names them.
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
    """Return the entry that identifies the code of a method of units in an `Identity`; see `code_of`."""
    return code_of(METHODS.get(name, Method(name)))


def code_of(method: Method | EdgeMethod) -> str | dict[str, str]:
    """Return the entry that identifies the code of a method in an `Identity`.

    For a method of the package this is its name. For a registered method this is the digest of the `Method` or
    `EdgeMethod`, including its function. If some values of a registered method cannot be read, this is a dictionary
    that names these values.
    """
    # The functions of the package are not in this object, and the package's version is stored with the results.
    value = vars(method)
    if value["function"] is None and value.get("components") is None:
        return f"circuitry: {method.name}"
    return entry_of(value, f"the method {method.name!r}")


def describe_method(settings: Mapping[str, Any]) -> str:
    """Return two sentences for reports: how the units of a graph were scored, and which units it keeps.

    Args:
        settings: The settings of the graph.
    """
    # Graphs of earlier versions do not name a method: they were made with the site path.
    name = settings.get("method", SITE_PATH)
    from_outside = f"The method {name}, registered from outside, scores the units"
    method = METHODS.get(name)
    if method is None:
        # The graph was made in another process, with a method that is not registered in this one.
        return f"{from_outside}. The units that it puts first are kept."
    words = method.words
    if not words:
        words = from_outside
        # A callable object has the docstring of its class, which does not describe the method.
        text = getdoc(method.function) if isroutine(method.function) else None
        if text:
            words += f": {text.splitlines()[0].rstrip('.')}"
    if method.takes_rule:
        words += f", integrated by {settings.get('node_rule', 'an unknown rule')}"
    if method.effects:
        return f"{words}. The units with the largest absolute scores are kept."
    return f"{words}. The first units of this ranking are kept; it measures no effect."


def describe_edges(settings: Mapping[str, Any]) -> str:
    """Return sentences for reports: which units the edges of a graph join, and what their scores mean.

    Args:
        settings: The settings of the graph.
    """
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

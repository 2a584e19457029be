"""Write the model's answers, and the vectors of components and words, as the page reads them. No torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from circuitry.explorer.packing import DataFolder
from circuitry.runs.provenance import digest

RUNS = ("the whole model", "only the circuit", "all but the circuit")
"""Runs of the model on an image, in the order of an answer's rows."""


Replacement = Literal["zero", "mean", "other-domains"]
"""Replacements of a unit."""


Effects = dict[str, float]
"""``effect``: the metric's loss without some units; ``metric``: its mean over ``images`` images with all units."""


@runtime_checkable
class LiveAnswers(Protocol):
    """A model that answers the page while somebody looks at it; see `LiveModel`."""

    def effects(
        self,
        class_name: str,
        units: Sequence[str],
        by: Replacement,
    ) -> Mapping[str, Effects]:
        """Return the joint effect of units on a class in each domain."""
        ...

    def look(self, class_name: str, domain: str, content: bytes) -> Mapping[str, Any]:
        """Return the model's answers to an image, given the content of its file.

        Returns:
            ``answers``: for each of `RUNS` the likeliest classes, with their shares; ``baseline``: the replacement of
            units that a run leaves out; ``fire``: the active units of the class's circuits by ``site/unit``, as shares
            of their largest activation.
        """
        ...


class ImageAnswers(NamedTuple):
    """The model's answer to one image: the likeliest classes, and their shares."""

    classes: Int[np.ndarray, "runs shown"]
    """Rows of `RUNS`; numbers of classes, the likeliest first."""
    shares: Float[np.ndarray, "runs shown"]  #: Probabilities of these classes.


class ClassVectors(NamedTuple):
    """Contributions of the strongest components to the embedding of a class's images."""

    components: tuple[str, ...]  #: Names of heads and MLPs.
    domains: tuple[str, ...]  #: Domains of the rows of `vectors`.
    vectors: Float[np.ndarray, "domains components d"]
    """Mean over the images of the class in a domain."""


@dataclass(frozen=True, eq=False)
class ModelView:
    """A model's answers and direct effects, from `view_model`.

    Example:
        >>> from circuitry.explorer import view_model
        >>> from circuitry.interventions import CheckSettings
        >>> checks = circuitry.CausalChecks(clip, folder, graphs, CheckSettings(seen=True))
        >>> view = view_model(checks, n_images=1, vocabulary=["star"])
        >>> view.class_names
        ('car', 'clock', 'cup', 'house')
        >>> view.direct["clock"].domains
        ('real', 'sketch')
    """

    class_names: tuple[str, ...]
    """Classes among which the model answers."""
    answers: Mapping[str, ImageAnswers]
    """Answers by the path of the image below the root of the data."""
    baseline: str
    """The replacement of units outside of a run."""
    words: tuple[str, ...]  #: The word of each row of `texts`.
    texts: Float[np.ndarray, "words d"]
    """A vector of length 1 for each word."""
    direct: Mapping[str, ClassVectors]
    """Contributions of components by class; empty where the embedding is not linear in the components."""
    reason: str = ""
    """Why there are no direct effects."""
    circuits: str | None = None
    """Key of the identity of the circuits, where it is known."""

    @property
    def digest(self) -> str:
        """Short digest of all answers and vectors."""
        # Arrays by their bytes, everything else as plain values.
        total = hashlib.sha256()
        arrays = [self.texts]
        arrays += [direct.vectors for direct in self.direct.values()]
        for array in chain(arrays, *self.answers.values()):
            total.update(np.ascontiguousarray(array).tobytes())
        named = [
            self.class_names,
            list(self.answers),
            self.baseline,
            self.words,
            self.reason,
        ]
        direct = [[name, *vectors[:2]] for name, vectors in self.direct.items()]
        return digest([*named, direct, total.hexdigest()])


def pack_view(
    folder: DataFolder,
    view: ModelView,
    classes: Sequence[str],
) -> dict[str, object]:
    """Write the vectors of components and words, and return the view's entries of the index."""
    places: list[int] = []
    for place, class_name in enumerate(classes):
        if class_name in view.direct:
            direct = view.direct[class_name]
            header = {"components": direct.components, "domains": direct.domains}
            folder.script(f"direct/{place}", header, {"vectors": direct.vectors})
            places.append(place)
    if places:
        folder.script("words", {"words": view.words}, {"texts": view.texts})
    return {
        "predicted": view.class_names,
        "ablatedTo": view.baseline,
        "direct": places,
        "directReason": view.reason,
    }


def answer_arrays(
    view: ModelView | None,
    paths: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return the answers to some images [images, runs, shown]; an image without an answer has NaN as shares."""
    if view is None or not view.answers:
        return {}
    # All answers have one shape; an image without an answer gets shares that are not numbers.
    shape = next(iter(view.answers.values())).classes.shape
    no_classes = np.zeros(shape, np.int64)
    none = ImageAnswers(no_classes, np.full(shape, np.nan))
    answers = [view.answers.get(path, none) for path in paths]
    classes = np.stack([answer.classes for answer in answers])
    return {
        "answers": classes.astype(np.uint16),
        "shares": np.stack([answer.shares for answer in answers]),
    }

"""Write what a model adds to the explorer: its answers to images, and vectors from which direct effects are computed.

The direct effect of a component (a head or an MLP) on a word is the dot product of two vectors: what the component
contributes to the embedding, and the text embedding of the word.

Does not import torch.
"""

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
"""The three runs of the model on an image, in words. Arrays with an axis ``runs`` have the runs in this order."""


Replacement = Literal["zero", "mean", "other-domains"]
"""Names of what may replace the activation of a unit."""


Effects = dict[str, float]
"""Entries: ``metric``, the mean of the metric with all units; ``effect``, how much lower this mean is when some units
are replaced; and ``images``, the number of images."""


@runtime_checkable
class LiveAnswers(Protocol):
    """Interface of a model that answers requests of the page while a user looks at it; `LiveModel` implements it."""

    def effects(
        self,
        class_name: str,
        units: Sequence[str],
        by: Replacement,
    ) -> Mapping[str, Effects]:
        """Return the effect of units on a class, by domain, if they are replaced together; see `LiveModel.effects`."""
        ...

    def look(self, content: bytes) -> Mapping[str, Any]:
        """Return why the model gives its answer to an image; see `LiveModel.look`."""
        ...


class ImageAnswers(NamedTuple):
    """The model's answer to one image: the likeliest classes in each of `RUNS`, and their probabilities."""

    classes: Int[np.ndarray, "runs shown"]
    """Indices of the likeliest classes, the likeliest first; a row for each of `RUNS`."""
    shares: Float[np.ndarray, "runs shown"]  #: Probabilities of these classes.


class ClassVectors(NamedTuple):
    """Mean contributions of the strongest components of a model to the embeddings of images of a class."""

    components: tuple[str, ...]  #: Names of components, such as heads and MLPs.
    domains: tuple[
        str, ...
    ]  #: Domains of the images, in the order of the first axis of `vectors`.
    vectors: Float[np.ndarray, "domains components d"]
    """The contribution of each component, averaged over the images of the class in each domain."""


@dataclass(frozen=True, eq=False)
class ModelView:
    """A model's answers to images and direct effects on words, as `view_model` returns them.

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
    """Names of all classes. The indices in `answers` refer to them."""
    answers: Mapping[str, ImageAnswers]
    """Answers to images, by the path of the image below the root of the data set."""
    baseline: str
    """Name of the baseline that replaces the units that a run leaves out."""
    words: tuple[str, ...]  #: The word of each row of `texts`.
    texts: Float[np.ndarray, "words d"]
    """A vector of length 1 for each word."""
    direct: Mapping[str, ClassVectors]
    """Contributions of components, by class. Empty if the embedding is not linear in the components."""
    reason: str = ""
    """Why there are no direct effects; empty if there are direct effects."""
    circuits: str | None = None
    """Key of the identity of the circuits, or None if it is not known."""

    @property
    def digest(self) -> str:
        """Short digest of all answers and vectors."""
        # Arrays are hashed by their bytes; all other values are hashed as JSON.
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
    """Write the vectors of components and words into the folder of an explorer.

    Args:
        folder: The folder of the explorer.
        view: The model's answers and direct effects.
        classes: The classes of the circuits. Files are named by the index of a class in this list.

    Returns:
        Entries for the index of the explorer. ``predicted`` has the names of all classes that the model chooses among.
        ``ablatedTo`` is the name of the baseline. ``direct`` has the indices of the classes with direct effects. If
        there are no direct effects, ``directReason`` says why.
    """
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
    """Return the model's answers to some images as arrays.

    Args:
        view: The model's answers, or None.
        paths: Paths of the images below the root of the data set.

    Returns:
        Two arrays [images, runs, classes], with the runs in `RUNS` and the likeliest classes, the likeliest first.
        ``answers`` has the indices of these classes. ``shares`` has their probabilities, which are NaN for an image
        without an answer. The dictionary is empty if there are no answers at all.
    """
    if view is None or not view.answers:
        return {}
    # All answers have the same shape.
    shape = next(iter(view.answers.values())).classes.shape
    no_classes = np.zeros(shape, np.int64)
    none = ImageAnswers(no_classes, np.full(shape, np.nan))
    answers = [view.answers.get(path, none) for path in paths]
    classes = np.stack([answer.classes for answer in answers])
    return {
        "answers": classes.astype(np.uint16),
        "shares": np.stack([answer.shares for answer in answers]),
    }

"""Answers and effects of the model, and vectors of components and words, as the page reads them. No torch."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from circuitry.runs.provenance import digest

RUNS = ("the whole model", "only the circuit", "all but the circuit")
"""The runs of an answer, in order."""


Replacement = Literal["zero", "mean", "other-domains"]
"""Replacements of a unit."""


Effects = dict[str, float]
"""``effect``: the metric's loss without some units; ``metric``: its mean over ``images`` images with all units."""


@runtime_checkable
class LiveAnswers(Protocol):
    """A model that answers the page while somebody looks at it; see `LiveModel`."""

    def effects(
        self, class_name: str, units: Sequence[str], by: Replacement
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
    shares: Float[np.ndarray, "runs shown"]  #: Of the probability, in the same order.


class ClassVectors(NamedTuple):
    """Contributions of the strongest components to the embedding of a class's images."""

    components: tuple[str, ...]  #: Names of heads and MLPs.
    domains: tuple[str, ...]  #: Domains of the rows of `vectors`.
    vectors: Float[
        np.ndarray, "domains components d"
    ]  #: Mean over the images of the class in a domain.


@dataclass(frozen=True, eq=False)
class ModelView:
    """A model's answers and direct effects, from `view_model`."""

    class_names: tuple[str, ...]
    """Among which the model answers."""
    answers: Mapping[str, ImageAnswers]
    """By path of the image below the root of the data."""
    baseline: str
    """The replacement of units outside of a run."""
    words: tuple[str, ...]  #: What the rows of `texts` say.
    texts: Float[np.ndarray, "words d"]
    """A vector of length 1 for each word."""
    direct: Mapping[str, ClassVectors]
    """By class; empty where the embedding is not linear in the components."""
    reason: str = ""
    """Why there are no direct effects."""
    circuits: str | None = None
    """Key of the identity of the circuits, where it is known."""

    @property
    def digest(self) -> str:
        """Short digest of all of it."""
        total = hashlib.sha256()
        arrays = [self.texts, *(one.vectors for one in self.direct.values())]
        for array in [
            *arrays,
            *(part for answer in self.answers.values() for part in answer),
        ]:
            total.update(np.ascontiguousarray(array).tobytes())
        named = [
            self.class_names,
            list(self.answers),
            self.baseline,
            self.words,
            self.reason,
        ]
        direct = [
            [name, one.components, one.domains] for name, one in self.direct.items()
        ]
        return digest([*named, direct, total.hexdigest()])


Script = Callable[[str, Mapping[str, object], Mapping[str, np.ndarray]], None]
"""Writes a script, by key, header and arrays."""


def pack_view(
    script: Script, view: ModelView, classes: Sequence[str]
) -> dict[str, object]:
    """Write the vectors, and return their entries of the index."""
    there = [place for place, name in enumerate(classes) if name in view.direct]
    for place in there:
        one = view.direct[classes[place]]
        header = {"components": list(one.components), "domains": list(one.domains)}
        script(f"direct/{place}", header, {"vectors": one.vectors})
    if there:
        script("words", {"words": list(view.words)}, {"texts": view.texts})
    about = {"predicted": list(view.class_names), "ablatedTo": view.baseline}
    return {**about, "direct": there, "directReason": view.reason}


def answer_arrays(
    view: ModelView | None, paths: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the answers to some images [images, runs, shown]; shares of images without one are NaN."""
    if view is None or not view.answers or not paths:
        return {}
    shape = next(iter(view.answers.values())).classes.shape
    none = ImageAnswers(np.zeros(shape, np.int64), np.full(shape, np.nan))
    found = [view.answers.get(path, none) for path in paths]
    return {
        "answers": np.stack([one.classes for one in found]).astype(np.uint16),
        "shares": np.stack([one.shares for one in found]),
    }

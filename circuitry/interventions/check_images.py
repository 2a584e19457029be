"""On which images circuits are checked, and by what."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

from torch import Tensor

from circuitry.circuits.budgets import BUDGETS, SAME_SHARE
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.parts import Key
from circuitry.encoder.baselines import ZERO, as_baseline
from circuitry.models.folder_baselines import BASELINE_NAMES
from circuitry.models.folder_work import BaselineChoice, FolderSettings, MetricChoice, TextsChoice
from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Natural, checked, one_of


@checked
@dataclass(frozen=True, kw_only=True)
class CheckSettings(FolderSettings):
    """What `CausalChecks` take; means and draws of a named baseline are over the images that circuits were found on.

    Raises:
        InputError: for a value outside its range, or a baseline with an activation for every image.
    """

    n_images: Count = 6
    """Images of a class in a domain: such as circuits were not found on, fewer where there are fewer."""
    n_others: Natural = 12
    """Images of other classes: per class and domain, one from each class that follows; 0 for none."""
    metric: MetricChoice = None
    """What a class is recognised by: logit, the study's cosine logit; margin, its lead over the mean logit of the other
    classes (default: what the circuits were found by). In Python also a function of text weights and label that returns
    a metric."""
    texts: TextsChoice = None
    """Texts of a class: pooled, own-style, or templates such as "a photo of a {}." (default: what the circuits were
    found with)."""
    baseline: BaselineChoice = None
    """What replaces ablated activations: a name as for finding circuits, or in Python a `Baseline` or counterfactual
    images (default: what the circuits were found with)."""
    seen: bool = False
    """Check on the images that the circuits were found on, instead of others."""
    budget: Annotated[str | None, one_of(*BUDGETS)] = None
    """How a size is shared out over the sites: same-share or global; see `AblationSettings` (default: that of the
    circuits)."""
    keep_error: bool = False
    """Keep what autoencoders miss in every circuit, instead of ablating it, too; see `AblationSettings`."""

    def __post_init__(self) -> None:
        given = self.baseline
        if given is not None and not isinstance(given, str) and as_baseline(given).n_images is not None:
            raise InputError(
                "Causal checks use one baseline for many images, but one with an activation for every image was given: "
                "give the name 'counterfactual', or a baseline for all images."
            )

    @checked
    def as_found(self, config: Mapping[str, Any]) -> "CheckSettings":
        """Return these settings with metric, texts, baseline and budget of the circuits where none is given.

        Args:
            config: The configuration in the manifest of the circuits.

        Raises:
            InputError: where the circuits were found with activations as baseline, which have to be given again.
        """
        names = ("metric", "texts", "baseline", "budget")
        found = {name: config.get(name, SAME_SHARE) for name in names if getattr(self, name) is None}
        baseline = found.get("baseline", ZERO.name)
        if baseline not in BASELINE_NAMES or (baseline != ZERO.name and "baseline_digest" in config):
            raise InputError(
                f"The circuits were found with activations as baseline, {baseline!r}: give a baseline to check them "
                f"with, such as these activations, or one of {', '.join(BASELINE_NAMES)}."
            )
        return replace(self, **found)


class CheckedImages(NamedTuple):
    """The images of a circuit's checks that can be read."""

    own: Tensor
    """Images of the class [B, 3, H, W]."""
    others: Tensor | None
    """Images of other classes, None where there are none."""


class CheckImages:
    """The images that check the circuits of a folder, by class and domain.

    Example:
        >>> CheckImages(images, GraphFolder("runs/x"), CheckSettings()).own(("cat", "real"))
    """

    def __init__(self, images: DomainFolder, graphs: GraphFolder, settings: CheckSettings) -> None:
        """Choose them.

        Raises:
            InputError: when no circuit is of a selected class and domain.
        """
        self.images, self.graphs, self.settings = images, graphs, settings
        self._ranks = dict[Key, tuple[ImageRecord, ...]]()  # the names of a circuit's images are read with its graph
        found = graphs.manifest["config"]
        self.n_found, self.seed_found = int(found["n_images"]), int(found["seed"])
        self.keys: list[Key] = [(c, d) for c, d in graphs if c in images.classes and d in images.domains]
        if not self.keys:
            raise InputError(f"No circuit in {graphs.path} is of a class and domain of {images!r}.")

    @property
    def in_words(self) -> str:
        """Which images these are."""
        return "the images that they were found on" if self.settings.seen else "images that they were not found on"

    def found_on(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return the images of a class and domain on which its circuit was found."""
        return self.ranked(key)[: self.n_found]

    def own(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of a class and domain on which its circuit was not found.

        Raises:
            InputError: when it was found on all of them.
        """
        return self._unseen(key)[: self.settings.n_images]

    def others(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of other classes in the domain on which no circuit was found."""
        (class_name, domain), classes = key, self.images.classes
        place = classes.index(class_name) + 1
        following = [name for name in (*classes[place:], *classes[: place - 1]) if (name, domain) in self.graphs]
        return tuple(self._unseen((name, domain))[0] for name in following[: self.settings.n_others])

    def ranked(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return all images of a class and domain, first those that its circuit was found on, if there is one."""
        if key not in self._ranks:
            ranked = self.images.select(*key, None, self.seed_found)
            found_on = set(self.graphs.image_names(*key)) if key in self.graphs else set()
            if not found_on <= {record.relative for record in ranked[: self.n_found]}:  # found on another draw
                ranked = tuple(sorted(ranked, key=lambda record: record.relative not in found_on))
            self._ranks[key] = ranked
        return self._ranks[key]

    def _unseen(self, key: Key) -> tuple[ImageRecord, ...]:
        ranked = self.ranked(key)
        chosen = ranked if self.settings.seen else ranked[self.n_found :]
        if not chosen:
            raise InputError(
                f"The circuit of {key[0]!r} in {key[1]!r} was found on all of its {len(ranked)} images: find circuits "
                "on fewer (--n-images of circuitry compare), or check on the same ones (--seen; in Python seen=True)."
            )
        return chosen

"""Named sites of a tower. Each site has a TransformerLens hook point, and hooks at it act in every run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from circuitry.encoder.tower_runs import TowerRuns
from circuitry.runs.errors import InputError, unknown_name
from circuitry.runs.identity import UNKNOWN


class RunCache(dict[str, Tensor]):
    """A dictionary of activations by the name of a site or of a hook point.

    Short names of hook points work as in TransformerLens: ``cache["pattern", 1]`` is the activation at the hook point
    of block 1 whose name ends in ``hook_pattern``.

    Example:
        >>> _, cache = circuitry.in_components(vit.encoder).run_with_cache(images)
        >>> cache["pattern", 1] is cache["blocks.1.attn.hook_pattern"]
        True
    """

    def __missing__(self, name: Any) -> Tensor:
        asked = str(name)
        if isinstance(name, tuple) and len(name) == 2:
            short, block = name
            asked = f"blocks.{block}.hook_{short}"
            # TransformerLens expands short names by a table of the hook points of its own models. The hook points of
            # this package have the same names, so the beginning and the end of a name are enough to find it.
            start = f"blocks.{block}."
            for full in self:
                if full.startswith(start) and full.endswith(f".hook_{short}"):
                    return self[full]
        raise unknown_name("activation", asked, self)


class HookedSites(HookedRootModule):  # type: ignore[misc]  # TransformerLens ships no types
    """The sites of an `Encoder` and their hooks."""

    def __init__(
        self, tower: nn.Module, sites: tuple[str, ...], points: Mapping[str, Any]
    ) -> None:
        """Make a hook point for each site.

        Args:
            tower: The tower in whose runs the hooks act.
            sites: Names of the sites in order.
            points: Further hook points inside the stages, by name. These hook points are not sites.
        """
        super().__init__()
        self.tower = tower
        self.sites = sites
        self._points = dict(points)
        self._runs = TowerRuns.of(tower)
        self._position = {site: i for i, site in enumerate(sites)}
        if len(self._position) != len(sites):
            raise InputError(
                f"Site names must differ from each other, but are {', '.join(sites)}."
            )
        self._hook_points: Any = nn.ModuleList(HookPoint() for _ in sites)
        self.setup()

    def setup(self) -> None:
        """Name the hook points after their sites.

        This method replaces TransformerLens' ``setup``, which would name all modules.
        """
        at_sites = zip(self.sites, self._hook_points, strict=True)
        self.hook_dict = dict(at_sites) | self._points
        for name, hook_point in self.hook_dict.items():
            hook_point.name = name
        self.mod_dict = dict(self.hook_dict)

    def position(self, site: str) -> int:
        """Return the index of a site in the chain; raise `InputError` for an unknown site."""
        if site not in self._position:
            known = f"this encoder's sites are {', '.join(self.sites)}"
            if self._points:
                points = list(self._points)
                known += f"; hooks also act at {points[0]}, {points[1]} to {points[-1]}"
            raise InputError(f"There is no site {site!r}; {known}.")
        return self._position[site]

    @property
    def hooked_sites(self) -> tuple[str, ...]:
        """Names of the sites and hook points at which hooks are set now.

        Hooks that another thread has set for a ``with`` block of its own do not count.
        """
        # The lock excludes hooks that another thread has set for a block of its own.
        with self._runs.lock:
            return tuple(
                site
                for site, point in self.hook_dict.items()
                if point.fwd_hooks or point.bwd_hooks
            )

    @property
    def hook_effects(self) -> dict[str, list[str]]:
        """Texts that identify the hooks that are set now: a list with one text for each hook, by site or hook point.

        The text of a `Patch` is its digest. The text of a function without an attribute ``identity`` is `UNKNOWN`.
        """
        effects = {}
        with self._runs.lock:
            for site in self.hooked_sites:
                point = self.hook_dict[site]
                hooks = [hook.user_hook for hook in point.fwd_hooks + point.bwd_hooks]
                effects[site] = [getattr(hook, "identity", UNKNOWN) for hook in hooks]
        return effects

    def check_unhooked(self, why: str, up_to: str | None = None) -> None:
        """Raise `InputError` if hooks are set where they are not allowed.

        Args:
            why: End of the message: the reason why hooks are not allowed.
            up_to: Hooks are allowed at this site and at the sites before it. By default no hooks are allowed.
        """
        honoured = () if up_to is None else self.sites[: self.position(up_to) + 1]
        hooked = [site for site in self.hooked_sites if site not in honoured]
        if hooked:
            raise InputError(f"Hooks act at {', '.join(hooked)}, but {why}.")

    @property
    def points(self) -> dict[str, Any]:
        """The hook points inside the stages, by name. These hook points are not sites."""
        return dict(self._points)

    @contextmanager
    def hooks(self, *args: Any, **kwargs: Any) -> Iterator[Self]:
        """Set hooks for every run within the ``with`` block. Runs of other threads wait until the block ends.

        The arguments are the arguments of TransformerLens' ``hooks``.
        """
        with self._runs.lock, super().hooks(*args, **kwargs):
            yield self

    def run_with_cache(
        self, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the encoder in evaluation mode, and return its output and a dictionary from names to activations.

        The names are the names of sites and of hook points; see `RunCache`.

        The arguments are the arguments of TransformerLens' ``run_with_cache``.
        """
        # TransformerLens silently returns an empty cache for a misspelt name.
        names = kwargs.get("names_filter")
        if isinstance(names, str):
            self._check_hook(names)
        elif isinstance(names, Sequence):
            for name in names:
                self._check_hook(name)
        # In training mode a run would change the running statistics of batch norms.
        with self._runs.evaluating(self.tower):
            output, activations = super().run_with_cache(*args, **kwargs)
        return output, RunCache(activations)

    def _enable_hook_with_name(
        self, name: str, hook: Callable[..., Tensor | None], dir: str
    ) -> None:
        self._check_hook(name)  # TransformerLens itself would only raise KeyError
        super()._enable_hook_with_name(name, hook, dir)

    def _check_hook(self, name: str) -> None:
        if name not in self._points:
            self.position(name)

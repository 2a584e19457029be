"""An image encoder as a chain of stages; between the stages lie named sites.

    image -> [stage] -site-> [stage] -site-> ... -> embedding

1. A `Stage` maps the activation of the site before it to the activation of its own site.
2. Every site carries a TransformerLens HookPoint, so anything can be read or written there (`hooked_sites`).
3. An `Encoder` runs from any site to any later one. Attribution, patching and causal checks are such runs.

The stages run the tower's own modules: with idle hooks the output is bit-equal to the tower's.
Threads take turns: each run, and each block that changes an encoder for a while, holds the lock of its tower.
`adapters` turns architectures into stages; `components` adds hook points inside blocks.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, ClassVar, NoReturn, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from circuitry.encoder.adapters import chain_of
from circuitry.encoder.chain import Chain, Link, ModelScale, check_chain, linked_stages
from circuitry.encoder.hooked_sites import HookedSites
from circuitry.encoder.metrics import SCALE
from circuitry.encoder.modes import own_modes
from circuitry.encoder.sites import INPUT
from circuitry.encoder.stages import Stage
from circuitry.encoder.tokens import TokenGrid
from circuitry.encoder.tower_identity import (
    answers_to_noise,
    global_hooks,
    noise_image,
    precision_of,
    stage_digests,
    tower_digests,
)
from circuitry.encoder.tower_runs import SUMS, check_modules, weight_sums
from circuitry.encoder.unit_kinds import CHANNEL
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.identity import Identity

T = TypeVar("T")


class Encoder(HookedSites):
    """A CLIP image tower as a chain of stages with a hook at every site.

    ``encoder(images)`` gives the tower's embeddings [B, D]. ``start`` and ``stop`` make it a partial run:
    ``encoder(activation, start="layer3.2", stop="layer4.0")``. TransformerLens' ``run_with_cache``,
    ``run_with_hooks`` and ``hooks`` take the same arguments and work for whole and partial runs. A hook writes the
    whole activation. At a site of `in_components` the activation includes the residual stream that is carried past the
    units; `Patch` leaves the stream alone (`carry`).

    Hooks at sites act in every run while they are set, attribution included. The effect of a `Patch` is in the
    `identity` of all results. The effect of another function is unknown, so its results enter no cache and no folder.
    PyTorch's own hooks on modules of the tower are refused, since stages run modules without their containers.

    An encoder that you call follows PyTorch's modes and the tower's training mode. The package's own functions set
    their modes themselves (`running`).

    Threads may share an encoder: one thread at a time runs it or holds a ``with`` block.

    Example:
        >>> encoder = Encoder.from_tower(clip.model.visual)
        >>> encoder.kinds["layer4.0"].name
        'channel'
        >>> embedding, cache = encoder.run_with_cache(images)
        >>> torch.equal(encoder(cache["layer4.0"], start="layer4.0"), embedding)
        True
    """

    HOW_TO_GET: ClassVar = (
        "give clip.encoder of a Clip, or stream.components of a ResidualStream"
    )

    @checked
    def __init__(
        self,
        tower: nn.Module,
        stages: Sequence[Stage],
        image_size: tuple[int, int],
        *,
        points: Mapping[str, HookPoint] | None = None,
        chain: Chain | None = None,
    ) -> None:
        """Make a chain of stages.

        Args:
            tower: The module whose modules the stages run.
            stages: Stages in the order in which they run.
            image_size: Height and width of images.
            points: Further hook points inside the stages, by name; they are no sites.
            chain: The tower's own chain, if the stages divide it more finely (default: the stages are the chain).
        """
        super().__init__(
            tower, (INPUT, *(stage.site for stage in stages)), points or {}
        )
        self.stages = tuple(stages)
        # `fast` replaces `stages` for a while. The identity reads these, so that it is the same within and without.
        self._own_stages = self.stages
        self.chain = chain or Chain(self.stages, image_size, by_hand=True)
        self.image_size = image_size
        # Runs compare this with the tower's modules: stages keep the old ones when somebody replaces a module.
        self._made_of = dict(tower.named_modules())
        # Attribution asks for these a thousand times in a call, so they are dictionaries and no properties.
        self.kinds = {INPUT: CHANNEL} | {
            stage.site: stage.kind for stage in self.stages
        }
        """Kind of the units of each site."""
        self.error_units = {s.site: s.error_units for s in self.stages if s.error_units}
        """By site in a feature basis: the units behind the latents, see `in_feature_basis`; else empty."""
        self.carried = {s.site: s.carried for s in self.stages if s.carried}
        """By site: places behind the units that only carry the residual stream, see `in_components`; else empty."""

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"Encoder of {type(self.tower).__name__}: {len(self.sites)} sites, images of {height} x {width} pixels"

    @classmethod
    @checked
    def from_tower(cls, tower: nn.Module) -> "Encoder":
        """Wrap an image tower of open_clip (``model.visual``), timm, torchvision or transformers.

        Raises:
            InputError: for a tower without an adapter, or a tower whose output differs from its chain.
        """
        return cls._checked(tower, chain_of(tower))

    @classmethod
    @checked
    def from_stages(
        cls,
        tower: nn.Module,
        links: Sequence[Link],
        image_size: tuple[int, int],
        unit_dim: int = 1,
    ) -> "Encoder":
        """Wrap a tower that has no adapter, given the modules that it runs one after the other.

        Args:
            tower: The tower; on images it must give the same output as the chain.
            links: Links in order: a path, a tuple of paths and functions, or a `Stage`; see `linked_stages`.
            image_size: Height and width of images.
            unit_dim: Axis of the units in the outputs of modules; -1 for tokens.

        Example:
            >>> from torch import nn
            >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            >>> circuitry.Encoder.from_stages(net, [("0", "1"), ("2", "3")], (64, 64)).sites
            ('input', '1', '3')
        """
        stages = tuple(linked_stages(tower, links, unit_dim))
        return cls._checked(tower, Chain(stages, image_size, by_hand=True))

    @classmethod
    def _checked(cls, tower: nn.Module, chain: Chain) -> "Encoder":
        encoder = cls(tower, chain.stages, chain.image_size, chain=chain)
        with encoder.running():
            check_chain(tower, chain)
        return encoder

    def blank(self, count: int = 1) -> Float[Tensor, "batch 3 h w"]:
        """Return images of zeros, to learn shapes and memory from a run."""
        return torch.zeros(
            count, 3, *self.image_size, device=self.device, dtype=self.dtype
        )

    def in_channels(self) -> "Encoder":
        """Return an encoder of the tower's own stages: without heads, neurons, latents and hooks."""
        return Encoder(
            self.tower, self.chain.stages, self.chain.image_size, chain=self.chain
        )

    @property
    def token_grid(self) -> TokenGrid:
        """Places of a transformer's tokens in the image.

        Raises:
            InputError: for a tower without known tokens, such as a CNN.
        """
        if self.chain.grid is None:
            raise InputError(
                f"Tokens are those of transformers, but of this {type(self.tower).__name__} none are known: its "
                "positions are those of feature maps, or name its grid in the Chain of a reader "
                "(register_architecture)."
            )
        return self.chain.grid

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled: the stages of a copy would still run the modules of this tower."""
        raise InputError(
            "An encoder is bound to its tower and cannot be copied or pickled itself: copy the tower, and wrap the "
            "copy, as in Encoder.from_tower(copy.deepcopy(encoder.tower))."
        )

    @property
    def device(self) -> torch.device:
        """Device of the tower's weights."""
        return next(self.tower.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the tower's weights."""
        return next(self.tower.parameters()).dtype

    @property
    def scale(self) -> float:
        """Factor from cosines to logits in the tower's model, read at each use; CLIP's usual scale if none is known."""
        # The meta device has no numbers to read.
        scale = self.chain.scale
        if scale is None or scale.known_by.is_meta:
            return SCALE
        return scale.read(self, scale.known_by)

    def of_model(self, scale: ModelScale) -> "Encoder":
        """Return an encoder that knows its model's scale of logits.

        It is this encoder itself, unless this one already knows the scale of another model.
        """
        if self.chain.scale is not None and self.chain.scale.known_by is scale.known_by:
            return self
        chain = replace(self.chain, scale=scale)
        # Two models may share a tower, as after fitting a probe. Each gets an encoder of its own, so that neither
        # changes the probabilities of the other.
        if self.chain.scale is not None:
            return Encoder(
                self.tower,
                self.stages,
                self.image_size,
                points=self.points,
                chain=chain,
            )
        self.chain = chain
        return self

    @property
    def identity(self) -> Identity:
        """Identity of everything that shapes an activation.

        Its entries are weights, modules, stages, feature basis, hooks, precision, and the tower's answers to an image
        of noise. Each access reads the weights and runs the image; within a run (`running`) only the first access does.
        """
        of_tower = self.once("identity", lambda: tower_digests(self.tower))
        # A run whose identity was asked for ends with a comparison of these sums, since results carry the identity.
        self.once(SUMS, lambda: weight_sums(self.tower))
        acting = {
            "behaviour": self.once(("behaviour", self), self._answers_to_noise),
            "stages": self.once(("stages", self), self._read_stages),
            "basis": self.basis,
            "hooks": self.hook_effects | global_hooks(),
            "precision": precision_of(self.device),
        }
        return Identity(of_tower) | acting

    def _read_stages(self) -> dict[str, Any]:
        """Return digests, by site, of stages that no adapter made: a user's, or those of heads, neurons and latents."""
        of_chain = {stage.site: stage for stage in self.chain.stages}
        by_hand = {*of_chain} if self.chain.by_hand else set()
        finer = []
        other_layouts = set()
        for stage in self._own_stages:
            of_tower = of_chain.get(stage.site)
            if stage is not of_tower:
                finer.append(stage)
                # No code tells units along one axis of an activation from units along another.
                if of_tower is not None and stage.kind.layout != of_tower.kind.layout:
                    other_layouts.add(stage.site)
        tower, points = self.tower, self.hook_dict
        read = stage_digests(self.chain.stages, tower, points, by_hand)
        return read | stage_digests(finer, tower, points, other_layouts)

    def _answers_to_noise(self) -> list[float]:
        # Numbers of half precision are rounded by more than `same_entry` takes for equal.
        if self.device.type == "meta" or self.dtype in (torch.bfloat16, torch.float16):
            return []
        image = torch.from_numpy(noise_image(*self.image_size))
        # Not `running`, which refuses a tower with hooks of PyTorch: such a tower has an identity, too.
        with self._runs.evaluating(self.tower), own_modes():
            return answers_to_noise(
                self.chain.stages, image.to(self.device, self.dtype)
            )

    @property
    def basis(self) -> dict[str, Any]:
        """Digest of the definition of the units, by site, where they are not the network's own; see `UnitKind`."""
        digests = {}
        for site, kind in self.kinds.items():
            if kind.made_of is not None:
                digests[site] = kind.digest
        return digests

    def units_of(
        self, site: str, activation: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch ..."]:
        """Return the units of a site's activation, without the stream that it carries past them."""
        return self.units_and_carried(site, activation)[0]

    def n_units(self, site: str, activation: Float[Tensor, "batch ..."]) -> int:
        """Return the number of units of a site, error units included, which its activation tells."""
        return self.units_of(site, activation).shape[self.unit_dim(site)]

    def units_and_carried(
        self, site: str, activation: Float[Tensor, "batch ..."]
    ) -> Sequence[Float[Tensor, "batch ..."]]:
        """Return the units of a site's activation and, as a second tensor, the stream carried past them if there is."""
        past = self.carried.get(site)
        if past is None:
            return [activation]
        return torch.split(activation, [past.start, len(past)], self.unit_dim(site))

    def carry(
        self,
        site: str,
        value: Float[Tensor, "batch ..."],
        activation: Float[Tensor, "batch ..."],
    ) -> Float[Tensor, "batch ..."]:
        """Return ``value`` with the stream that ``activation`` carries past the units of a site."""
        units, *past = self.units_and_carried(site, activation)
        if not past:
            return value
        dim = self.unit_dim(site)
        # A value may be of the units alone, or have a stream of its own, which is dropped.
        return torch.cat([value.narrow(dim, 0, units.shape[dim]), *past], dim)

    def unit_dim(self, site: str) -> int:
        """Return the axis of the units in a site's activation."""
        if site not in self.kinds:
            self.position(site)  # raises: it knows all names
        return self.kinds[site].axis

    def forward(
        self, x: Float[Tensor, "batch ..."], start: str = INPUT, stop: str | None = None
    ) -> Float[Tensor, "rows ..."]:
        """Return the activation of site ``stop`` (default: the last), given the activation ``x`` of site ``start``.

        The hooks of both sites run, too. Hooks may repeat images, so the output may have more rows than ``x``.

        Raises:
            InputError: for unknown sites, a stop before the start, images of another size, or a tower whose modules
                were replaced or have hooks or another ``forward``.
        """
        first = self.position(start)
        last = len(self.stages) if stop is None else self.position(stop)
        if last < first:
            raise InputError(
                f"A run goes from a site to a later one, but {stop!r} lies before {start!r}."
            )
        if first == 0:
            self._check_images(x)
        # Within a run of this thread the modules were checked at its beginning and the lock is held.
        if self._runs.go_on:
            return self._through(x, first, last)
        with self._runs.lock:
            check_modules(self.tower, self._made_of)
            return self._through(x, first, last)

    def _through(self, x: Tensor, first: int, last: int) -> Tensor:
        x = self._hook_points[first](x)
        for index in range(first, last):
            x = self._hook_points[index + 1](self.stages[index].run(x))
        return x

    def read_unhooked(
        self, images: Float[Tensor, "batch ..."], sites: Iterable[str]
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """Return the activations of images at sites, from a run of its own without hooks and gradients."""
        wanted = {self.position(site): site for site in sites}
        self._check_images(images)
        x = images
        activations = {}
        with self.running():
            for index in range(max(wanted, default=-1) + 1):
                if index:
                    x = self.stages[index - 1].run(x)
                if index in wanted:
                    activations[wanted[index]] = x
        return activations

    def _check_images(self, images: Tensor) -> None:
        if images.dim() != 4 or images.shape[1:] != (3, *self.image_size):
            raise InputError(
                f"This encoder takes images [batch, 3, {self.image_size[0]}, {self.image_size[1]}], but was "
                f"given {list(images.shape)}: preprocess the images with the model's own transform."
            )

    @contextmanager
    def fast(self) -> Iterator[None]:
        """Let runs within the block use the ``fast`` functions of the stages, equal up to rounding."""
        with self._runs.lock:
            before = self.stages
            try:
                self.stages = tuple(
                    replace(s, run=s.fast) if s.fast else s for s in before
                )
                yield
            finally:
                self.stages = before

    def running(self, *, gradients: bool = False) -> AbstractContextManager[None]:
        """Hold a run of the encoder within the block, and restore everything behind it.

        Within the block no other thread runs the tower, the tower is in evaluation mode, its weights take no
        gradients, and PyTorch's modes are the package's own (`own_modes`). Activations have gradients with
        ``gradients``.

        Raises:
            InputError: for a tower whose modules were replaced or have hooks or another ``forward``, and with
                ``gradients`` for weights that were made under ``torch.inference_mode()``.
        """
        return self._runs.run(self.tower, self._made_of, gradients=gradients)

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return the result of ``make``, a function of the weights; within a run it is called once for each name."""
        return self._runs.once(name, make)

"""An image encoder as a chain of stages. Each stage ends at a named site, where its output can be read or replaced.

    image -> [stage] -site-> [stage] -site-> ... -> embedding

1. A `Stage` maps the activation of the site before it to the activation of its own site.
2. Every site has a TransformerLens HookPoint, so the activation can be read or replaced there (`hooked_sites`).
3. An `Encoder` runs from any site to any later site. Attribution, patching and causal checks are such runs.

The stages run the tower's own modules. As long as no hook is set, the output is bit-equal to the tower's output. Each
tower has a lock, and a run holds the lock of its tower, so threads take turns. A ``with`` block that sets hooks or
changes how the tower runs holds the lock, too. `adapters` turns towers of known architectures into stages. `components`
divides the blocks of a tower into finer stages.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from circuitry.encoder.adapters import chain_of
from circuitry.encoder.chain import (
    Chain,
    Link,
    ModelScale,
    check_chain,
    check_division,
    linked_stages,
)
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
from circuitry.encoder.tower_runs import (
    SUMS,
    check_modules,
    weight_sums,
    weights_of,
)
from circuitry.encoder.unit_kinds import CHANNEL
from circuitry.runs.arguments import checked, one_of
from circuitry.runs.errors import InputError
from circuitry.runs.identity import Identity

T = TypeVar("T")


class Encoder(HookedSites):
    """A CLIP image tower as a chain of stages with a hook at every site.

    ``encoder(images)`` returns the tower's embeddings [B, D]. ``start`` and ``stop`` select a part of the chain:
    ``encoder(activation, start="layer3.2", stop="layer4.0")`` takes the activation of one site and returns the
    activation of another site. TransformerLens' ``run_with_cache``, ``run_with_hooks`` and ``hooks`` take the same
    arguments and work for whole and partial runs. A hook replaces the whole activation. At a site of `in_components`
    the activation includes the residual stream that is carried past the units. A `Patch` does not change this stream
    (`carry`).

    While hooks are set at sites, they act in every run, also in attribution. If a hook is a `Patch`, its digest is part
    of the `identity` of all results. What any other hook does is unknown, so results that are computed with such a hook
    are neither cached nor written into folders. A tower whose modules have hooks of PyTorch is refused. Such hooks
    would act in some stages only, because stages call modules inside the tower directly, and need not call the parents
    of these modules.

    If you call an encoder, the run follows PyTorch's current modes, such as autocast, and the tower's training mode.
    The package's own functions set these modes themselves (`running`).

    Threads may share an encoder. One thread at a time runs the encoder or is in a ``with`` block of the encoder.

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
        """Make an encoder from stages.

        Args:
            tower: The module whose submodules the stages run.
            stages: Stages in the order in which they run.
            image_size: Height and width of images.
            points: Further hook points inside the stages, by name. These hook points are not sites.
            chain: The chain of the whole tower, as an adapter returns it. Give it if ``stages`` divides the tower in
                another way, for example more finely. Default: a chain of ``stages`` that counts as listed by a user
                (`Chain.by_hand`). An image of noise must have the same output through ``stages`` as through the chain.

        Raises:
            InputError: if ``stages`` and ``chain`` have different outputs.
        """
        super().__init__(
            tower, (INPUT, *(stage.site for stage in stages)), points or {}
        )
        self.stages = tuple(stages)
        # `fast` replaces `stages` for a while. The identity reads `_own_stages`, which `fast` does not replace.
        self._own_stages = self.stages
        self.chain = chain or Chain(self.stages, image_size, by_hand=True)
        self.image_size = image_size
        # Runs compare this with the tower's modules: if a module is replaced, the stages still run the old module.
        self._made_of = dict(tower.named_modules())
        # Attribution reads these a thousand times in a call, so they are dictionaries instead of properties.
        self.kinds = {INPUT: CHANNEL} | {
            stage.site: stage.kind for stage in self.stages
        }
        """Kind of the units of each site."""
        self.error_units = {s.site: s.error_units for s in self.stages if s.error_units}
        """Indices of the error units, which follow the latents, by site. Sites without error units are left out; see
        `in_feature_basis`."""
        self.carried = {s.site: s.carried for s in self.stages if s.carried}
        """Indices after the units, along their axis, that only carry the residual stream, by site. Sites that carry no
        stream are left out; see `in_components`."""
        # Another division of a tower computes what the tower computes. Units that do not fit would give numbers of
        # another network, without any sign of it.
        if self.chain.stages != self.stages:
            with self.running():
                check_division(tower, self.chain, self.stages)

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"Encoder of {type(self.tower).__name__}: {len(self.sites)} sites, images of {height} x {width} pixels"

    @classmethod
    @checked
    def from_tower(cls, tower: nn.Module) -> "Encoder":
        """Wrap an image tower of open_clip (``model.visual``), timm, torchvision or transformers.

        Raises:
            InputError: if no adapter knows the tower, or if the tower's output differs from the output of its chain.
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
        """Wrap a tower that has no adapter, given the modules that the tower runs one after the other.

        Args:
            tower: The tower. Its output for images must equal the output of the chain.
            links: Links in the order in which they run. A link is a path, a tuple of paths and functions, or a `Stage`;
                see `linked_stages`.
            image_size: Height and width of images.
            unit_dim: Axis of the units in the outputs of modules. Use -1 for tokens.

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
        """Return ``count`` images of zeros, for runs that measure shapes of activations or the memory of a run."""
        return torch.zeros(
            count, 3, *self.image_size, device=self.device, dtype=self.dtype
        )

    def in_channels(self) -> "Encoder":
        """Return a new encoder on the same tower, with the stages of the tower's chain and without hooks.

        The units of the new encoder are the units of this chain, such as channels or features of tokens. They are never
        heads, neurons or latents.
        """
        return Encoder(
            self.tower, self.chain.stages, self.chain.image_size, chain=self.chain
        )

    @checked
    def in_precision(
        self, name: Annotated[str, one_of("float32", "bfloat16", "float16")]
    ) -> "Encoder":
        """Return an encoder on the same tower, with the same stages, that runs in another precision.

        Hooks at sites do not act in the new encoder. Both encoders share the hook points inside the stages (`points`):
        a hook there acts in both, until a block of hooks of either encoder ends.

        PyTorch computes matrix products and convolutions in the given type (autocast). The weights stay as they are,
        and embeddings have the type of the weights. The precision is part of the `identity`. Scores of edges are always
        computed in the type of the weights, because they are small differences of two runs. If the encoder already runs
        in this precision, it is returned itself.

        Args:
            name: ``bfloat16`` or ``float16``. With ``float32`` runs compute in the type of the weights.

        Example:
            >>> fast = encoder.in_precision("bfloat16")
            >>> fast.identity["precision"]
            ['bfloat16 autocast']
        """
        lower = None if name == "float32" else name
        if lower == self.chain.lower_precision:
            return self
        return Encoder(
            self.tower,
            self._own_stages,
            self.image_size,
            points=self.points,
            chain=replace(self.chain, lower_precision=lower),
        )

    def in_type_of_weights(self) -> "Encoder":
        """Return the encoder with the same stages that runs in the type of the weights, for scores of edges.

        If this is another encoder, it is made once and kept, because caches know encoders by the object.

        Raises:
            InputError: if hooks are set, which the other encoder would lose.
        """
        if self.chain.lower_precision is None:
            return self
        self.check_unhooked(
            "edges are scored in the type of the weights, by an encoder without these hooks: set them on "
            "encoder.in_precision('float32') instead"
        )
        return self._type_of_weights

    @cached_property
    def _type_of_weights(self) -> "Encoder":
        return self.in_precision("float32")

    @property
    def token_grid(self) -> TokenGrid:
        """The grid of a transformer's tokens in the image.

        Raises:
            InputError: if the tower has no tokens, because it is a CNN, or if the package does not know its tokens.
        """
        if self.chain.grid is None:
            raise InputError(
                f"Tokens are those of transformers, but of this {type(self.tower).__name__} none are known: its "
                "positions are those of feature maps, or name its grid in the Chain of a reader "
                "(register_architecture)."
            )
        return self.chain.grid

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Raise `InputError`: an encoder can be neither copied nor pickled.

        The stages of a copy would still run the modules of this tower.
        """
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
        """Logit scale of the tower's model: the factor that turns cosines into logits.

        The scale is read from the model at each access. If the encoder does not know its model, the scale is `SCALE`.
        """
        # The meta device has no numbers to read.
        scale = self.chain.scale
        if scale is None or scale.known_by.is_meta:
            return SCALE
        return scale.read(self, scale.known_by)

    def of_model(self, scale: ModelScale) -> "Encoder":
        """Return an encoder that knows the logit scale of a model.

        If this encoder does not know a scale yet, it gets the scale and is returned. If it knows the scale of another
        model on the same tower, it stays as it is, and a new encoder is returned.

        Args:
            scale: How to read the scale of the model.
        """
        if self.chain.scale is not None and self.chain.scale.known_by is scale.known_by:
            return self
        chain = replace(self.chain, scale=scale)
        # Two models may share a tower, for example after a probe was fitted. Each model gets an encoder of its own, so
        # that neither model changes the probabilities of the other model.
        if self.chain.scale is not None:
            return Encoder(
                self.tower,
                self.stages,
                self.image_size,
                points=self.points,
                chain=chain,
            )
        self.chain = chain
        # It does not know the scale.
        self.__dict__.pop("_type_of_weights", None)
        return self

    @property
    def identity(self) -> Identity:
        """Identity of everything that an activation depends on.

        Its entries describe weights, modules, stages, feature basis, hooks, precision, and the tower's output for an
        image of noise. Each access reads the weights and runs the image of noise. Within a run (`running`) only the
        first access does so.
        """
        # If the identity was read within a run, results carry it. So the end of the run compares these sums.
        sums = self.once(SUMS, lambda: weight_sums(weights_of(self.tower)))
        of_tower = self.once("identity", lambda: tower_digests(self.tower, sums=sums))
        acting = {
            "behaviour": self.once(("behaviour", self), self._answers_to_noise),
            "stages": self.once(("stages", self), self._read_stages),
            "basis": self.basis,
            "hooks": self.hook_effects | global_hooks(),
            "precision": self._precision(),
        }
        return Identity(of_tower) | acting

    def _precision(self) -> list[str]:
        modes = precision_of(self.device)
        lower = self.chain.lower_precision
        return modes if lower is None else [*modes, f"{lower} autocast"]

    def _read_stages(self) -> dict[str, Any]:
        """Return digests, by site, of the stages that are not determined by the weights and modules of the tower.

        A stage gets a digest in three cases: a user listed it; it runs code of a user (see `stage_digests`); or it
        replaces a stage of the tower's chain but has other units (see `UnitKind.layout`).
        """
        of_chain = {stage.site: stage for stage in self.chain.stages}
        by_hand = {*of_chain} if self.chain.by_hand else set()
        finer = []
        other_layouts = set()
        for stage in self._own_stages:
            of_tower = of_chain.get(stage.site)
            if stage is not of_tower:
                finer.append(stage)
                # Stages with units along different axes of an activation may run the same code.
                if of_tower is not None and stage.kind.layout != of_tower.kind.layout:
                    other_layouts.add(stage.site)
        tower, points = self.tower, self.hook_dict
        read = stage_digests(self.chain.stages, tower, points, by_hand)
        return read | stage_digests(finer, tower, points, other_layouts)

    def _answers_to_noise(self) -> list[float]:
        # Half precision rounds numbers by more than the difference that `same_entry` accepts as equal.
        if self.device.type == "meta" or self.dtype in (torch.bfloat16, torch.float16):
            return []
        image = torch.from_numpy(noise_image(*self.image_size))
        # `running` is not used, because it refuses a tower with hooks of PyTorch. Such a tower has an identity, too.
        with self._runs.evaluating(self.tower), own_modes():
            return answers_to_noise(
                self.chain.stages, image.to(self.device, self.dtype)
            )

    @property
    def basis(self) -> dict[str, Any]:
        """Digests of the definitions of units (`UnitKind.made_of`), by site.

        Sites whose units are channels or other units of the network itself are left out, because they need no
        definition.
        """
        digests = {}
        for site, kind in self.kinds.items():
            if kind.made_of is not None:
                digests[site] = kind.digest
        return digests

    def units_of(
        self, site: str, activation: Float[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch ..."]:
        """Return a site's activation without the residual stream that the site carries past its units."""
        return self.units_and_carried(site, activation)[0]

    def n_units(self, site: str, activation: Float[Tensor, "batch ..."]) -> int:
        """Return the number of units of a site, including error units. ``activation`` is any activation of the site."""
        return self.units_of(site, activation).shape[self.unit_dim(site)]

    def count_units(self, sites: Iterable[str]) -> dict[str, int]:
        """Return the number of units of each of some sites, including error units. A blank image is run for it."""
        activations = self.read_unhooked(self.blank(), sites)
        return {site: self.n_units(site, a) for site, a in activations.items()}

    def units_and_carried(
        self, site: str, activation: Float[Tensor, "batch ..."]
    ) -> Sequence[Float[Tensor, "batch ..."]]:
        """Split a site's activation into its units and the residual stream that is carried past the units.

        Returns:
            A sequence of tensors. The first tensor holds the units. If the site carries the stream, a second tensor
            holds the stream.
        """
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
        """Return an activation that has the units of ``value`` and the residual stream of ``activation``.

        ``value`` may hold the units alone. If it also holds a stream, this stream is replaced. If the site carries no
        stream past its units, ``value`` is returned as it is.
        """
        units, *past = self.units_and_carried(site, activation)
        if not past:
            return value
        dim = self.unit_dim(site)
        # A value may hold the units alone. If it also holds a stream, this stream is dropped.
        return torch.cat([value.narrow(dim, 0, units.shape[dim]), *past], dim)

    def unit_dim(self, site: str) -> int:
        """Return the axis of the units in a site's activation."""
        if site not in self.kinds:
            self.position(site)  # raises, because the site is unknown
        return self.kinds[site].axis

    def forward(
        self, x: Float[Tensor, "batch ..."], start: str = INPUT, stop: str | None = None
    ) -> Float[Tensor, "rows ..."]:
        """Run the stages from site ``start`` to site ``stop``, and return the activation of ``stop``.

        The hooks at ``start`` and ``stop`` run, too. A hook may repeat images, so the output may have more rows than
        ``x``.

        Args:
            x: Activation of ``start``. By default ``start`` is the image itself.
            start: First site.
            stop: Last site (default: the last site of the encoder, the embedding).

        Raises:
            InputError: if a site is unknown, if ``stop`` lies before ``start``, if images have another size than the
                tower takes, or if modules of the tower have changed since the encoder was made (they were replaced,
                have hooks of PyTorch, or have another ``forward``).
        """
        first = self.position(start)
        last = len(self.stages) if stop is None else self.position(stop)
        if last < first:
            raise InputError(
                f"A run goes from a site to a later one, but {stop!r} lies before {start!r}."
            )
        if first == 0:
            self._check_images(x)
        # Within a run of this thread the lock is held, and the modules were checked when the run began.
        if self._runs.go_on:
            return self._through(x, first, last)
        with self._runs.lock:
            check_modules(self.tower, self._made_of)
            return self._through(x, first, last)

    def _through(self, x: Tensor, first: int, last: int) -> Tensor:
        lower = self.chain.lower_precision
        if lower is None:
            return self._in_order(x, first, last)
        with torch.autocast(self.device.type, getattr(torch, lower)):
            x = self._in_order(x, first, last)
        # Metrics compute in the type of the weights.
        return x.to(self.dtype) if last == len(self.stages) else x

    def _in_order(self, x: Tensor, first: int, last: int) -> Tensor:
        x = self._hook_points[first](x)
        for index in range(first, last):
            x = self._hook_points[index + 1](self.stages[index].run(x))
        return x

    def read_unhooked(
        self, images: Float[Tensor, "batch ..."], sites: Iterable[str]
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """Run images without the hooks at sites and without gradients, and return their activations at ``sites``.

        Hooks at hook points inside the stages (`points`) still act.
        """
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
        """Run the faster form of each stage within the ``with`` block, if the stage has one (`Stage.fast`).

        Activations are equal to the usual activations up to rounding.
        """
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
        """Treat a ``with`` block as one run of the encoder, and restore all modes after the block.

        Within the block no other thread runs the tower, the tower is in evaluation mode, and its weights get no
        gradients. PyTorch's global modes are set as `own_modes` sets them: for example, autocast is off.

        Args:
            gradients: Whether PyTorch records gradients of activations.

        Raises:
            InputError: if modules of the tower have changed since the encoder was made (they were replaced, have hooks
                of PyTorch, or have another ``forward``). If ``gradients`` is True, the error is also raised if weights
                were made under ``torch.inference_mode()``, or if a layer is quantised.
        """
        return self._runs.run(self.tower, self._made_of, gradients=gradients)

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return the result of ``make``, a function whose result depends on the weights of the tower only.

        Within a run (`running`), ``make`` is called once for each ``name``, and its result is kept until the run ends.
        Outside of a run, ``make`` is called each time.
        """
        return self._runs.once(name, make)

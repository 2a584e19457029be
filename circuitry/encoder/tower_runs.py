"""Runs of a tower: which thread may run it, and what does not change within a run.

1. Threads take turns: each tower has a lock, which all encoders on the tower share, and a run holds this lock.
2. Weights do not change within a run. So values that depend on the weights are computed once in a run
   (`TowerRuns.once`) and forgotten when the run ends. No such value is used after a change of the weights, however the
   weights were changed.
3. Stages call modules inside the tower directly. They need not call the parents of these modules, such as the tower
   itself. And they call the modules that the tower had when the encoder was made. So if a module is replaced, has hooks
   of PyTorch, or has another ``forward``, this change would act in some stages and not in other stages. Therefore a run
   raises `InputError` if there is such a change (`check_modules`).
"""

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from threading import RLock, get_ident
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from circuitry.encoder.doubles import in_double
from circuitry.encoder.modes import own_modes
from circuitry.runs.errors import InputError

T = TypeVar("T")

SUMS = "sums"
"""Name of the sums of the weights in `TowerRuns.once`. If the sums change within a run, the run raises `InputError`."""
_ROW = 4096
"""Number of entries that `weight_sums` adds up before it adds up these sums."""
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


class TowerRuns:
    """The lock of a tower, and the values that the current run of the tower has computed."""

    def __init__(self) -> None:
        self.lock = RLock()
        self._thread: int | None = None
        self._made: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, tower: nn.Module) -> "TowerRuns":
        """Return the `TowerRuns` of a tower. All encoders on the tower share this object."""
        return _RUNS.setdefault(tower, cls())

    @property
    def go_on(self) -> bool:
        """Whether the calling thread is within a run."""
        return self._thread == get_ident()

    @contextmanager
    def evaluating(self, tower: nn.Module) -> Iterator[None]:
        """Keep the tower in evaluation mode within a ``with`` block, and restore the mode of each module after it."""
        with self.lock:
            # The mode is restored module by module, because a caller may train a head above frozen layers. Within a run
            # all modules are in evaluation mode already.
            was_training = list[nn.Module]()
            if not self.go_on:
                was_training = [m for m in tower.modules() if m.training]
            try:
                if was_training:
                    tower.eval()
                yield
            finally:
                for module in was_training:
                    module.training = True

    @contextmanager
    def run(
        self,
        tower: nn.Module,
        made_of: Mapping[str, nn.Module],
        *,
        gradients: bool = False,
    ) -> Iterator[None]:
        """Treat a ``with`` block as one run; see `Encoder.running`.

        If the block lies within another run, it only switches gradients on or off.

        Args:
            tower: The tower that runs.
            made_of: The modules that the tower had when the encoder was made, by name.
            gradients: Whether PyTorch records gradients of activations.
        """
        if gradients:
            _check_followed(tower)
        if self.go_on:
            with torch.set_grad_enabled(gradients):
                yield
            return
        with self.evaluating(tower), own_modes(gradients=gradients):
            check_modules(tower, made_of)
            # Gradients with respect to weights would cost time and memory, and would add up in the caller's ``grad``.
            had_gradient = [p for p in tower.parameters() if p.requires_grad]
            try:
                for parameter in had_gradient:
                    parameter.requires_grad_(False)
                self._thread = get_ident()
                yield
            finally:
                self._thread = None
                made = self._made
                self._made = {}
                for parameter in had_gradient:
                    parameter.requires_grad_(True)
            # After `finally`, because an error of the block itself is more important than this error.
            if SUMS in made and made[SUMS] != weight_sums(weights_of(tower)):
                raise InputError(
                    f"The weights of the {type(tower).__name__} changed within a run, whose results are of neither "
                    "model: change them before or after it."
                )

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return the result of ``make``, a function whose result depends on the weights of the tower only.

        Within a run, ``make`` is called once for each ``name``, and its result is kept until the run ends. Outside of a
        run, ``make`` is called each time.
        """
        if not self.go_on:
            return make()
        if name not in self._made:
            self._made[name] = make()
        value: T = self._made[name]
        return value


def _check_followed(tower: nn.Module) -> None:
    """Raise `InputError` if PyTorch cannot compute gradients through weights or layers of a tower.

    Scores would miss all paths through such layers.
    """
    if any(parameter.is_inference() for parameter in tower.parameters()):
        raise InputError(
            "Gradients need weights that PyTorch follows, but these were made under torch.inference_mode(): load "
            "the model outside of it."
        )
    for name, module in tower.named_modules():
        is_quantised = type(module).__module__.startswith("torch.ao.nn.")
        if is_quantised and hasattr(module, "_packed_params"):
            raise InputError(
                f"Gradients need layers that PyTorch follows, but {name!r} ({type(module).__name__}) is quantised: "
                "give the model before it was quantised."
            )


def weights_of(tower: nn.Module) -> Iterator[Tensor]:
    """Return an iterator over the parameters and buffers of a tower."""
    return chain(tower.parameters(), tower.buffers())


def weight_sums(tensors: Iterable[Tensor]) -> list[str]:
    """Return a weighted sum of the entries of each tensor as text, to notice changes of weights.

    The factors of the entries differ, so that a sum also changes if entries change places. The sums are in double
    precision: a change of an entry of float32 is seen if it is larger than about 1e-16 of the sum. Computing the sums
    takes a third of the time of a digest of the weights. Tensors on the meta device are left out.
    """
    measured = list[Tensor]()
    for tensor in tensors:
        if not tensor.is_meta:
            dense = tensor.detach().to_dense()
            if dense.is_complex():
                dense = torch.view_as_real(dense)
            measured.append(dense.reshape(-1))
    # The factors are computed once, because a tower has many tensors.
    n_rows = max((len(flat) // _ROW for flat in measured), default=0)
    places = in_double(torch.arange(max(n_rows, _ROW), device="cpu"))
    factors = (1 + places).cos()
    sums = list[Tensor]()
    for flat in measured:
        n_rows = len(flat) // _ROW
        rest = in_double(flat[n_rows * _ROW :])
        factors = factors.to(rest.device)
        total = rest @ factors[: len(rest)]
        # Small towers have many small tensors, for which a product without rows takes as long as the sum.
        if n_rows:
            rows = flat[: n_rows * _ROW].view(-1, _ROW)
            # Some rows at a time, because their doubles stay in the cache of a processor.
            of_rows = [
                in_double(some) @ factors[:_ROW] for some in torch.split(rows, 64)
            ]
            total = factors[:n_rows] @ torch.cat(of_rows) + total
        sums.append(total)
    # The sums are read together, because Python waits for the GPU at each read. They are texts, because NaN as a number
    # would differ from itself.
    if not sums:
        return []
    together = torch.stack([total.to(sums[0].device) for total in sums])
    return [str(number) for number in together.tolist()]


_RUNS: weakref.WeakKeyDictionary[nn.Module, TowerRuns] = weakref.WeakKeyDictionary()


def check_modules(tower: nn.Module, made_of: Mapping[str, nn.Module]) -> None:
    """Raise `InputError` if a module of a tower was replaced, has hooks of PyTorch, or has another ``forward``.

    Args:
        tower: The tower to check.
        made_of: The modules that the tower had when the encoder was made, by name.
    """
    modules = dict(tower.named_modules())
    if modules != made_of:
        names = (*modules, *made_of)
        other = next(n for n in names if modules.get(n) is not made_of.get(n))
        raise InputError(
            f"{type(tower).__name__} has another module {other!r} than when the encoder was made, which runs the old "
            "one: make it again, as by Encoder.from_tower(tower)."
        )
    for name, module in modules.items():
        own = vars(module)
        # Some libraries wrap a module by setting ``forward`` on the object. This replaces the ``forward`` of its class.
        has_forward = "forward" in own
        if has_forward or any(own.get(hooks) for hooks in _HOOKS):
            kind = type(module).__name__
            which = f"The module {name!r} ({kind})" if name else f"The {kind} itself"
            what = "another forward" if has_forward else "hooks of PyTorch"
            raise InputError(
                f"{which} has {what}, which would act in some runs and not in others: take that off, and put hooks at "
                "sites instead (Encoder.hooks, patched)."
            )

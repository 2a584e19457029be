"""Who runs a tower, and what holds within a run.

1. Threads take turns: a run holds the lock of its tower, which all encoders on it share.
2. Within a run weights stand still, so what is made of them is made once (`TowerRuns.once`) and forgotten at the end:
   nothing outlives a change of the weights, however they were changed.
3. Stages run the modules that the tower had when they were made, and not its containers. So a tower whose modules were
   replaced, or carry hooks or another ``forward``, is refused (`TowerModules.check`): some runs would act on them, and
   others would not.
"""

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from circuitry.encoder.modes import own_modes
from circuitry.runs.errors import InputError
from circuitry.runs.turns import TurnLock

T = TypeVar("T")

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class TowerRuns:
    """The runs of one tower."""

    def __init__(self) -> None:
        self.lock = TurnLock("this encoder")
        self._kept: dict[Hashable, Any] | None = None

    @classmethod
    def of(cls, tower: nn.Module) -> "TowerRuns":
        """Return the runs of a tower: the same for every encoder on it."""
        return _RUNS.setdefault(tower, cls())

    @property
    def running(self) -> bool:
        """Whether the thread that holds the lock is within a run."""
        return self._kept is not None

    @contextmanager
    def evaluating(self, tower: nn.Module) -> Iterator[None]:
        """Within the block the tower is in evaluation mode; then every module is in the mode it was in before."""
        with self.lock:
            was_training = [] if self.running else [module for module in tower.modules() if module.training]
            try:
                if was_training:
                    tower.eval()
                yield
            finally:
                for module in was_training:
                    module.training = True

    @contextmanager
    def run(self, tower: nn.Module, *, gradients: bool = False) -> Iterator[None]:
        """Within the block a run goes on; see `Encoder.running`. One within another changes only whether gradients are
        taken."""
        if gradients and any(parameter.is_inference() for parameter in tower.parameters()):
            raise InputError(
                "Gradients need weights that PyTorch follows, but these were made under torch.inference_mode(): load "
                "the model outside of it."
            )
        with self.lock:
            if self.running:
                with torch.set_grad_enabled(gradients):
                    yield
                return
            with self.evaluating(tower), _frozen(tower), own_modes(gradients=gradients):
                self._kept = {}
                try:
                    yield
                finally:
                    self._kept = None

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` makes of the weights: within a run once, else anew."""
        with self.lock:
            if self._kept is None:
                return make()
            if name not in self._kept:
                self._kept[name] = make()
            found: T = self._kept[name]
            return found


@contextmanager
def _frozen(tower: nn.Module) -> Iterator[None]:
    had_gradient = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    try:
        for parameter in had_gradient:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in had_gradient:
            parameter.requires_grad_(True)


_RUNS: weakref.WeakKeyDictionary[nn.Module, TowerRuns] = weakref.WeakKeyDictionary()


class TowerModules:
    """The modules of a tower, as they are now."""

    def __init__(self, tower: nn.Module) -> None:
        self._names = {module: name for name, module in tower.named_modules()}
        self._children = [(module, tuple(module._modules.values())) for module in self._names]

    def check(self) -> None:
        """Check that the modules are still the same and that nothing but their own ``forward`` acts.

        Raises:
            InputError: for a module that was replaced, has hooks of PyTorch's, or another ``forward``.
        """
        for module, children in self._children:
            own = module.__dict__
            if tuple(own["_modules"].values()) != children:
                raise InputError(
                    f"{self._named(module)} has other modules than when the encoder was made, which runs the old ones: "
                    "make it again, as by Encoder.from_tower(tower)."
                )
            if "forward" in own or any(own.get(hooks) for hooks in _HOOKS):
                raise InputError(
                    f"{self._named(module)} has {'another forward' if 'forward' in own else 'hooks of PyTorch'}, which "
                    "would act in some runs and not in others: take that off, and put hooks at sites instead "
                    "(Encoder.hooks, patched)."
                )

    def _named(self, module: nn.Module) -> str:
        name = self._names[module]
        return f"The module {name!r} ({type(module).__name__})" if name else f"The {type(module).__name__} itself"

"""Run open_clip's trainer in this process, with six additions to the arguments of ``open_clip_train.main``.

- ``--model`` can also be a JSON file with the configuration of a model.
- ``--end-with-stdin``: end this process when its standard input is closed, which happens when the parent process dies.
- ``--keep-untrained``: write the model before its first step as ``epoch_0.pt``.
- ``--upright``: turn pictures upright and put them on white before they are transformed, as `load_image` does.
- ``--start=FILE``: take the weights in this file before training. Other weights of the model are new.
- ``--freeze-norms``: batch norms of the image tower keep their statistics.

On a CPU the weights are stored channels last, which makes convolutions faster.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

# timm would import wandb, which leaves folders on the disk if the process is killed.
if "wandb" not in sys.modules:
    sys.modules["wandb"] = None  # type: ignore[assignment]

import open_clip
import open_clip_train.main as trainer
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms import Compose

from circuitry.data.images import picture_formats, upright

_parallel = nn.parallel.DistributedDataParallel


def parallel_on_any_device(
    module: nn.Module, device_ids: Sequence[Any] | None = None, **settings: Any
) -> nn.Module:
    """Return the module, wrapped in PyTorch's `DistributedDataParallel`.

    The device ids are ignored if the module is on the CPU. open_clip passes them there, too, but PyTorch refuses them.
    """
    on_cpu = next(module.parameters()).device.type == "cpu"
    return _parallel(module, device_ids=None if on_cpu else device_ids, **settings)


def with_registered_model(arguments: Sequence[str]) -> list[str]:
    """Register the model configuration that a command line names with open_clip, and return a changed command line.

    If a JSON file follows ``--model``, it is registered. In the returned arguments, the name of the model replaces this
    file. The name of the model is the name of the file without its suffix. Otherwise the arguments are not changed.
    """
    known = list(arguments)
    for place, argument in enumerate(known):
        if argument.endswith(".json") and known[place - 1] == "--model":
            open_clip.add_model_config(argument)
            known[place] = Path(argument).stem
    return known


def end_with_stdin() -> None:
    """End this process as soon as its standard input is closed."""

    def watch() -> None:
        # sys.stdin is not used, because its lock would be held when the interpreter shuts down.
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def keep_untrained() -> None:
    """Make the trainer write the model before its first step. If there are several processes, only the first writes."""
    train_one_epoch = trainer.train_one_epoch

    def train(
        model: nn.Module, data: Any, loss: Any, epoch: int, *more: Any, **named: Any
    ) -> Any:
        args = next(part for part in more if hasattr(part, "checkpoint_path"))
        if epoch == 0 and args.rank == 0:
            state = {"epoch": 0, "name": args.name, "state_dict": model.state_dict()}
            temporary = Path(args.checkpoint_path, "tmp.pt")
            torch.save(state, temporary)
            temporary.replace(temporary.with_name("epoch_0.pt"))
        return train_one_epoch(model, data, loss, epoch, *more, **named)

    trainer.train_one_epoch = train


Created = tuple[nn.Module, Any, Any]
"""A model, its transform of images in training, and its transform in validation."""


def after_creation(change: Callable[..., Created]) -> None:
    """Make the trainer change the model and the transforms that it creates. The function takes and returns them."""
    create = trainer.create_model_and_transforms

    def created(*given: Any, **named: Any) -> Created:
        return change(*create(*given, **named))

    trainer.create_model_and_transforms = created


def decoding_upright(model: nn.Module, training: Any, validation: Any) -> Created:
    """Turn pictures upright and put them on white before the transforms are applied."""
    return model, Compose([upright, training]), Compose([upright, validation])


def channels_last(model: nn.Module, training: Any, validation: Any) -> Created:
    """Store weights channels last if the model is on a CPU."""
    for weight in model.parameters():
        if weight.device.type == "cpu" and weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return model, training, validation


def freezing_norms(model: nn.Module, training: Any, validation: Any) -> Created:
    """Let the batch norms of the image tower stay in evaluation mode, where they do not change their statistics."""
    for module in model.get_submodule("visual").modules():
        if isinstance(module, _BatchNorm):
            # The trainer puts the whole model into training mode before each epoch.
            module.train = MethodType(_stay_in_evaluation, module)  # type: ignore[method-assign]
            module.eval()
    return model, training, validation


def _stay_in_evaluation(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)


def starting_from(
    weights: Path, model: nn.Module, training: Any, validation: Any
) -> Created:
    """Give a model the weights in a file, which may be some of its weights."""
    state = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict(state, strict=False)
    return model, training, validation


if __name__ == "__main__":
    given = sys.argv[1:]
    # This also holds for the files that the trainer's data sets open. So no file is handed to another program.
    Image.ID[:] = picture_formats()
    changes: dict[str, Callable[[], None]] = {
        "--end-with-stdin": end_with_stdin,
        "--keep-untrained": keep_untrained,
        "--upright": partial(after_creation, decoding_upright),
        "--freeze-norms": partial(after_creation, freezing_norms),
    }
    after_creation(channels_last)
    for option in [word for word in given if word.startswith("--start=")]:
        given.remove(option)
        weights = Path(option.removeprefix("--start="))
        after_creation(partial(starting_from, weights))
    for option in changes.keys() & given:
        given.remove(option)
        changes[option]()
    torch.nn.parallel.DistributedDataParallel = parallel_on_any_device  # type: ignore[assignment,misc]
    sys.exit(trainer.main(with_registered_model(given)) or 0)

"""Run open_clip's trainer in this process, with four additions to the arguments of ``open_clip_train.main``.

- ``--model`` also takes a JSON file;
- ``--end-with-stdin``: end when the standard input is closed, as happens when the parent process dies;
- ``--keep-untrained``: write the model before its first step as ``epoch_0.pt``;
- ``--upright``: turn pictures upright and put them over white before they are transformed, as `load_image` does.
"""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Timm imports it, and it leaves folders behind in a process that is killed.
if "wandb" not in sys.modules:
    sys.modules["wandb"] = None  # type: ignore[assignment]

import open_clip
import open_clip_train.main as trainer
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import Compose

from circuitry.data.images import picture_formats, upright

_parallel = nn.parallel.DistributedDataParallel


def parallel_on_any_device(
    module: nn.Module, device_ids: Sequence[Any] | None = None, **settings: Any
) -> nn.Module:
    """Leave out the device ids that open_clip passes even on the CPU, where PyTorch refuses them."""
    on_cpu = next(module.parameters()).device.type == "cpu"
    return _parallel(module, device_ids=None if on_cpu else device_ids, **settings)


def with_registered_model(arguments: Sequence[str]) -> list[str]:
    """Register the JSON file after ``--model`` with open_clip, and replace it by its name, the file's stem."""
    known = list(arguments)
    for place, argument in enumerate(known):
        if argument.endswith(".json") and known[place - 1] == "--model":
            open_clip.add_model_config(argument)
            known[place] = Path(argument).stem
    return known


def end_with_stdin() -> None:
    """End this process as soon as its standard input is closed."""

    def watch() -> None:
        # Not sys.stdin: its lock would be held when the interpreter shuts down.
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def keep_untrained() -> None:
    """Let the first process write the model before its first step."""
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


def decode_upright() -> None:
    """Let the trainer's transforms turn pictures upright first."""
    create = trainer.create_model_and_transforms

    def created(*given: Any, **named: Any) -> tuple[nn.Module, Any, Any]:
        model, training, validation = create(*given, **named)
        return model, Compose([upright, training]), Compose([upright, validation])

    trainer.create_model_and_transforms = created


if __name__ == "__main__":
    given = sys.argv[1:]
    # What its data sets open, too: no file is handed to another program.
    Image.ID[:] = picture_formats()
    changes = {
        "--end-with-stdin": end_with_stdin,
        "--keep-untrained": keep_untrained,
        "--upright": decode_upright,
    }
    for option in changes.keys() & given:
        given.remove(option)
        changes[option]()
    torch.nn.parallel.DistributedDataParallel = parallel_on_any_device  # type: ignore[assignment,misc]
    sys.exit(trainer.main(with_registered_model(given)) or 0)

"""The process in which open_clip's trainer runs: makes a model config known, then hands its arguments on.

Takes the arguments of ``open_clip_train.main``, and

- after ``--model`` also a JSON file;
- ``--end-with-stdin``: end when the standard input is closed, as it is when the process that started this one dies;
- ``--keep-untrained``: write the model before its first step as ``epoch_0.pt``.

For several devices: ``torchrun --nproc-per-node 8 circuitry/training/open_clip_main.py --model my-model.json
--train-data ...``. It imports nothing of this package, so it runs as a plain file wherever the package lies.
"""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import open_clip_train.main as trainer
import torch
from torch import nn

END_WITH_STDIN = "--end-with-stdin"
KEEP_UNTRAINED = "--keep-untrained"


class OnAnyDevice(nn.parallel.DistributedDataParallel):
    """open_clip names the device of every process to this class, which refuses the name of the CPU."""

    def __init__(self, module: nn.Module, device_ids: Sequence[Any] | None = None, **settings: Any) -> None:
        on_cpu = next(module.parameters()).device.type == "cpu"
        super().__init__(module, device_ids=None if on_cpu else device_ids, **settings)


def with_registered_model(arguments: Sequence[str]) -> list[str]:
    """Register the JSON file after ``--model`` with open_clip and put its name, the file's stem, in its place."""
    known = list(arguments)
    for place, argument in enumerate(known):
        if argument.endswith(".json") and known[place - 1] == "--model":
            open_clip.add_model_config(argument)
            known[place] = Path(argument).stem
    return known


def end_with_stdin() -> None:
    """End this process as soon as nobody holds the other end of its standard input any more."""

    def watch() -> None:
        while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter shuts down
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def keep_untrained() -> None:
    """Have the model written before its first step, and by the first of the processes alone."""
    train_one_epoch = trainer.train_one_epoch

    def train(model: nn.Module, data: Any, loss: Any, epoch: int, *more: Any, **named: Any) -> Any:
        args = next(part for part in more if hasattr(part, "checkpoint_path"))
        if epoch == 0 and args.rank == 0:
            state = {"epoch": 0, "name": args.name, "state_dict": model.state_dict()}
            temporary = Path(args.checkpoint_path, "tmp.pt")
            torch.save(state, temporary)
            temporary.replace(temporary.with_name("epoch_0.pt"))
        return train_one_epoch(model, data, loss, epoch, *more, **named)

    trainer.train_one_epoch = train


if __name__ == "__main__":
    given = sys.argv[1:]
    if END_WITH_STDIN in given:
        given.remove(END_WITH_STDIN)
        end_with_stdin()
    if KEEP_UNTRAINED in given:
        given.remove(KEEP_UNTRAINED)
        keep_untrained()
    torch.nn.parallel.DistributedDataParallel = OnAnyDevice  # type: ignore[assignment,misc]
    sys.exit(trainer.main(with_registered_model(given)) or 0)

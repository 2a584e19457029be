"""Is anything lost or wrong when commands are killed and their files are damaged?

Every command runs twice from nothing on a tiny model and tiny images: what it leaves and prints is the reference. Then
it is ended at a random time, by SIGKILL and SIGTERM in turn, and runs again to its end; and in a finished folder a file
is emptied, torn, removed, replaced by another one of its kind, or one of its bits changes, and the command runs again.

A disturbance ends well where everything is made again and equal, where the command refuses the damaged file by its
name, or where the damaged file stays as it is and all others, and what is printed, are right. One trial that ends
otherwise refutes it: WRONG (another result, or another end than a sentence), lost (a sound file is gone) or litter (a
file too many, in the folder or in that of temporary files).

    python experiments/chaos.py      # 100 kills and 100 damages: a quarter of an hour
"""

import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from circuitry.runs import InputError, run_script
from circuitry.commands import run_command
from circuitry.data import DomainFolder
from circuitry.data.drawn import DrawingSettings, write_toy
from circuitry.models.open_clip_models import register_model
from circuitry.reports.result_tables import KeepSettings
from circuitry.training import clip_preset, generated_captions, record_run
from experiments.study.__main__ import PROGRAMS
from experiments.study.__main__ import main as run_program
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import MixtureSettings, mixture

import open_clip
import pandas as pd
import torch
from safetensors.torch import save_file
from tqdm import tqdm

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "patch_size": None},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
DRAWN = DrawingSettings(
    n_train=3, n_test=4, classes=("car", "fish", "key", "star"), styles=("quickdraw", "real", "sketch"), size=32
)
SUBJECT = ("--model", "{ready}/tiny.json", "--checkpoint", "{ready}/tiny.safetensors", "--data", "{ready}/toy")
FEW = ("--classes", "fish", "key", "--domains", "real", "sketch")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "circuits": ("compare", *SUBJECT, *FEW, "--n-images", "2", "--rule", "left-2", "--parts", "2",
                 "--out", "{out}"),
    "faithfulness": ("check", *SUBJECT, *FEW, "--circuits", "{ready}/circuits", "--n-images", "1",
                     "--n-others", "2", "--random-draws", "1", "--out", "{out}"),
    "transfer": ("check", "--transfer", *SUBJECT, *FEW, "--circuits", "{ready}/circuits", "--n-images", "1",
                 "--n-others", "2", "--out", "{out}"),
    "representations": ("represent", *SUBJECT, "--parts", "2", "--n-images", "4", "--permutations", "20",
                        "--folds", "2", "--out", "{out}"),
    "features": ("features", *SUBJECT, "--training.steps", "300", "--parts", "2", "--out", "{out}"),
    "autoencoder": ("train-sae", *SUBJECT, "--steps", "1500", "--resample-every", "100", "--batch-size", "16",
                    "--out", "{out}"),
    "supervised": ("train-supervised", "--model", "{ready}/tiny.json", "--data", "{ready}/toy", "--epochs", "3",
                   "--milestones", "2", "--batch-size", "12", "--device", "cpu", "--workers", "0", "--out", "{out}"),
    "evaluation": ("generalization", "--runs", "{out}/runs", "--data", "{ready}/toy", "--out", "{out}/tables"),
}  # fmt: skip
"""Arguments of each command."""
DAMAGES = ("emptied", "torn", "removed", "foreign", "bit", "bit at the end")
INTERRUPTED = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM}
"""The status of a command that a signal ends, where it has begun."""
GOOD = ("made again and equal", "refused by name", "left, right")


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the trials."""

    out: Path = Path("runs/chaos")
    """Folder of models, images, folders of commands, and their logs."""
    trials: int = 100
    """How many runs are ended at a random time, and how many files are damaged."""
    seed: int = 0
    """Seed of times, files and damages."""


class Ended(NamedTuple):
    """How a command ended: its status, what it printed on the two outputs, and its seconds."""

    status: int
    printed: str
    said: str
    seconds: float


class Damaged(NamedTuple):
    """A file below the folder of a command, and what the damage left of it; None where it is gone."""

    path: str
    content: bytes | None


class Reference(NamedTuple):
    """An undisturbed run: what it left, what it prints then, its seconds, and the files that hold times."""

    finished: Path
    again: str
    seconds: float
    varying: frozenset[str]


def main(config: Config) -> None:
    """Make the subject, run undisturbed, disturb, and print the table."""
    for module in pkgutil.walk_packages(importlib.import_module("circuitry").__path__, "circuitry."):
        if not module.name.endswith("open_clip_main"):  # a program
            importlib.import_module(module.name)  # once, here: the processes of the trials are forks of this one
    if config.out.exists() and any(config.out.iterdir()):
        raise InputError(f"The trials need an empty folder, but {config.out} has files: remove them.")
    torch.set_num_threads(1)  # a child forked while other threads run may wait for them for ever
    tqdm.monitor_interval = 0
    trials = Trials(config)
    rows = list[tuple[str, ...]]()
    for i in tqdm(range(config.trials)):
        turn, place = divmod(i, len(COMMANDS))
        rows += [disturb([*COMMANDS][place], turn) for disturb in (trials.kill, trials.damage)]
    table = pd.DataFrame(rows, columns=["command", "disturbance", "file", "outcome", "detail"])
    counts = table.groupby(["command", "disturbance", "outcome"], sort=False).size().unstack(fill_value=0)
    columns = [*GOOD, *sorted(set(counts.columns) - set(GOOD))]
    summary = counts.reindex(columns=columns, fill_value=0).reset_index()
    config.keep({"chaos": summary, "trials": table}, shown=["chaos"])
    print(table[~table["outcome"].isin(GOOD)].to_string())


class Trials:
    """The commands, their undisturbed runs, and what disturbs them."""

    def __init__(self, config: Config) -> None:
        self.config, self.random = config, random.Random(config.seed)
        out = config.out.absolute()
        self.ready, self.work, self.temporary = out / "ready", out / "work", out / "tmp"
        self.logs = out / "printed.txt", out / "said.txt"
        prepare(self.ready)
        self._start_empty("circuits")
        self._run_to_its_end("circuits")
        shutil.copytree(self.work / "circuits", self.ready / "circuits")
        self.references = {name: self._undisturbed(name) for name in COMMANDS}

    def run(self, name: str, end: tuple[float, int] | None = None) -> Ended:
        """Run a command in a process of its own; end it after so many seconds by a signal, if it still runs."""
        given = [argument.format(ready=self.ready, out=self.work) for argument in COMMANDS[name]]
        started = time.perf_counter()
        child = os.fork()  # not a new interpreter, whose imports take longer than the work
        if not child:
            self._become(given)
        if end is not None:
            seconds, number = end
            time.sleep(seconds)
            os.kill(child, number)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed, said = (log.read_text(errors="replace") for log in self.logs)
        return Ended(status, printed, said, time.perf_counter() - started)

    def _become(self, arguments: list[str]) -> None:
        """Turn this process into one that runs the command ``circuitry``, and end it."""
        status = 1
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a new process, until the command sets its own
        try:
            for number, log in enumerate(self.logs, start=1):
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            tempfile.tempdir = str(self.temporary)
            sys.modules["kaleido"] = None  # type: ignore[assignment]  # a browser for every page takes too long
            sys.argv = ["circuitry", *arguments]
            run_program() if arguments[0] in PROGRAMS else run_command()
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _start_empty(self, name: str) -> None:
        """Begin with what a command needs in its folder."""
        for folder in (self.work, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        if name == "evaluation":
            shutil.copytree(self.ready / "runs", self.work / "runs")

    def _undisturbed(self, name: str) -> Reference:
        kept = self.config.out / "finished" / name
        self._start_empty(name)
        first = self._run_to_its_end(name)
        shutil.copytree(self.work, kept)
        self._start_empty(name)
        self._run_to_its_end(name)
        differing = self._differing(kept)
        if set(differing.values()) - {"differs"}:
            raise InputError(f"Two undisturbed runs of {name} leave other files: {', '.join(differing)}.")
        varying = frozenset(differing)
        again = self._run_to_its_end(name)
        print(f"{name}: {first.seconds:.1f} s; files that differ between two runs: {', '.join(varying) or 'none'}")
        return Reference(kept, again.printed, first.seconds, varying)

    def _run_to_its_end(self, name: str) -> Ended:
        """Run a command undisturbed."""
        ended = self.run(name)
        if ended.status:
            raise InputError(f"The command {name} fails undisturbed: see {self.logs[1]}.")
        return ended

    def kill(self, name: str, turn: int) -> tuple[str, ...]:
        """End a run, run it again, and return the row of the table."""
        number, reference = (signal.SIGKILL, signal.SIGTERM)[turn % 2], self.references[name]
        self._start_empty(name)
        ended = self.run(name, (self.random.uniform(0, reference.seconds), number))
        outcome, detail = self._outcome(reference, self.run(name))
        if "Traceback" in ended.said or ended.status not in (0, -number, INTERRUPTED[number]):
            outcome, detail = "WRONG", f"status {ended.status} at the signal: {ended.said[-300:]}"
        return name, number.name, "", outcome, detail

    def damage(self, name: str, turn: int) -> tuple[str, ...]:
        """Damage a file of a finished folder, run again, and return the row of the table."""
        kind, reference = DAMAGES[turn % len(DAMAGES)], self.references[name]
        self._start_empty("")
        shutil.copytree(reference.finished, self.work, dirs_exist_ok=True)
        files = sorted(path for path in self.work.rglob("*") if path.is_file() and path.stat().st_size)
        chosen = self.random.choice(files)
        damage(chosen, kind, files, self.random)
        path = chosen.relative_to(self.work).as_posix()
        damaged = Damaged(path, contents(self.work).get(path))
        outcome, detail = self._outcome(reference, self.run(name), damaged)
        return name, kind, path, outcome, detail

    def _outcome(self, reference: Reference, again: Ended, damaged: Damaged | None = None) -> tuple[str, str]:
        """Return in a word how a disturbance ended, and what is not as it should be."""
        if damaged is not None and again.status == 2 and Path(damaged.path).name in again.said:
            return "refused by name", again.said.strip().splitlines()[-1]
        if again.status:
            return "WRONG", f"status {again.status}: {again.said[-300:]}"
        found = self._differing(reference.finished)
        left = damaged is not None and contents(self.work).get(damaged.path) == damaged.content
        may_differ = reference.varying - ({damaged.path} if damaged is not None and left else set())
        differing = {path: how for path, how in found.items() if how != "differs" or path not in may_differ}
        if leftovers := [path.name for path in self.temporary.iterdir()]:
            return "litter", f"temporary files: {', '.join(leftovers)}"
        if not differing:
            return "made again and equal", ""
        if damaged is not None and list(differing) == [damaged.path]:
            same = again.printed == reference.again
            return ("left, right", "") if same else ("WRONG", f"prints {again.printed[-300:]}")
        kinds = set(differing.values())
        word = "lost" if "lost" in kinds else "litter" if kinds == {"litter"} else "WRONG"
        return word, "; ".join(f"{path} {what}" for path, what in differing.items())

    def _differing(self, finished: Path) -> dict[str, str]:
        """Return what differs from a finished folder: its path, and how."""
        ours, theirs = contents(self.work), contents(finished)
        how = dict.fromkeys(theirs.keys() - ours.keys(), "lost") | dict.fromkeys(ours.keys() - theirs.keys(), "litter")
        how |= {path: "differs" for path in ours.keys() & theirs.keys() if ours[path] != theirs[path]}
        return dict(sorted(how.items()))


def prepare(ready: Path) -> None:
    """Write images, a tiny model with random weights, and a run of it to evaluate."""
    write_toy(ready / "toy", DRAWN, workers=1, progress=False)
    (ready / "tiny.json").write_text(json.dumps(MODEL))
    torch.manual_seed(0)
    save_file(open_clip.create_model(register_model(ready / "tiny.json")).state_dict(), ready / "tiny.safetensors")
    run = ready / "runs" / "run"
    (run / "checkpoints").mkdir(parents=True)
    for epoch in (0, 1):
        shutil.copy(ready / "tiny.safetensors", run / "checkpoints" / f"epoch_{epoch}.safetensors")
    settings = MixtureSettings("cg-high", "quickdraw", ("fish",))
    chosen = mixture(DomainFolder(ready / "toy", split="train").records, settings)
    table = write_mixture(chosen, generated_captions(), ready / "train.tsv", settings)
    record_run(run, table, replace(clip_preset("rn-tiny"), model=ready / "tiny.json"))


def damage(path: Path, kind: str, files: list[Path], chance: random.Random) -> None:
    """Damage a file."""
    content = bytearray(path.read_bytes())
    if kind == "removed":
        path.unlink()
        return
    if kind == "foreign":
        others = [file for file in files if file.read_bytes() != bytes(content)]
        alike = [file for file in others if file.suffix == path.suffix]
        content = bytearray(chance.choice(alike or others).read_bytes())
    elif kind == "torn":
        del content[len(content) // 2 :]
    elif kind == "emptied":
        content.clear()
    elif content:
        content[-1 if kind == "bit at the end" else chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(content))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    run_script(Config, main, __doc__)

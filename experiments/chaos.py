"""Is anything lost or wrong when commands are killed, meet in a folder, and find their files damaged?

Every command runs on a tiny model and tiny images, three times as a new process: with other hash seeds, time zones,
locales and working folders all files are equal byte for byte, except what `VARYING` names; with two threads numbers of
graphs and tables differ by `ROUNDING` at most. Then a process of it is disturbed, and another one runs to its end:

1. SIGKILL ends it as it syncs a file, whose second half is lost, or SIGTERM as it renames one. No file is half there.
2. Two processes are in one folder at once. Both end well, print the same and leave the same.
3. A file of a finished folder is emptied, torn, removed, replaced by another of its kind, or a bit of it changes. The
   public readers of stored results read what they read before, or refuse. Then the command runs again: the file is made
   again, or refused by a sentence about this very file. A given file may stay, where all else is right.

One trial that ends otherwise refutes it: WRONG (another result, a damaged one that stays, another end than a sentence),
torn (half a file), lost (a sound file is gone) or litter (a file too many, or a temporary one).

    python experiments/chaos.py      # 12 writes, 12 files and 3 pairs of processes a command
"""

import contextlib
import importlib
import itertools
import multiprocessing
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.runs import Count, InputError, JobFolder, run_script
from circuitry import Comparison, GraphFolder
from circuitry.cards import CardFolder
from circuitry.commands import run_command
from circuitry.interventions import FaithfulnessCurve
from circuitry.reports.result_tables import KeepSettings
from circuitry.runs.manifest import NAME as MANIFEST
from circuitry.runs.manifest import read_sealed
from experiments.drawn import DrawingSettings, write_toy
from experiments.study import __main__ as study

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load

MODEL = """{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 4, "patch_size": null},
"text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}"""
DRAWN = DrawingSettings(
    3,
    4,
    classes=("car", "fish", "key", "star"),
    styles=("quickdraw", "real", "sketch"),
    size=32,
)
TRAINED = "{root}/finished/train/clip/checkpoints/epoch_2.pt"
TINY = f"--model {{root}}/tiny.json --checkpoint {TRAINED} --data {{root}}/toy"
FEW = f"{TINY} --classes fish key --domains real sketch"
FOUND, TWO = "--circuits {root}/finished/compare/circuits", "--n-images 2 --n-others 2"
TRAIN = "--model {root}/tiny.json --data {root}/toy --batch-size 12 --device cpu --workers 0"
COMMANDS: Mapping[str, str] = {  # without --out
    "quickstart": f"quickstart --classes bicycle car key cup --domains real quickdraw {TWO} --processes 1",
    "mixtures": "mixtures --data {root}/toy --held-out fish --test-domain quickdraw",
    "train": f"train {TRAIN} --table {{root}}/finished/mixtures/cg-high-quickdraw.tsv --epochs 2 --warmup 1",
    "own-parts": f"own-parts --model rn-tiny --data {{root}}/toy --domains real sketch {TWO} --shares 0.1",
    "separation": f"separation --models a={TRAINED} --model {{root}}/tiny.json --data {{root}}/toy --map pca",
    "compare": f"compare {FEW} --n-images 2 --rule left-2 --parts 2 --units channels",
    "components": f"compare {FEW} --n-images 2 --rule left-1 --parts 2 --units components --shares",
    "find": f"find {TINY} --domain real --class fish {TWO} --size 0.3",
    "cards": f"cards {FOUND} --n-images 2 --top 2 --exact-units 1",
    "explore": f"explore {FOUND} --cards {{root}}/finished/cards",
    "check": f"check {FOUND} --n-images 1 --n-others 2 --random-draws 1",
    "transfer": f"check --transfer {FOUND} --n-images 1 --n-others 2",
    "represent": f"represent {TINY} --parts 2 --n-images 4 --permutations 20 --folds 2",
    "features": f"features {TINY} --training.steps 300 --parts 2",
    "train-sae": f"train-sae {TINY} --steps 1500 --resample-every 100 --batch-size 16",
    "train-supervised": f"train-supervised {TRAIN} --epochs 3 --milestones 2",
    "evaluate": f"evaluate {TINY} --held-out fish",
    "generalization": "generalization --runs {out}/runs --data {root}/toy",
}
ELSEWHERE: Mapping[
    str, Mapping[str, str]
] = {  # environments of new processes; all others are forks
    "somewhere": {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C", "PWD": "/tmp"},
    "elsewhere": {
        "PYTHONHASHSEED": "2",
        "TZ": "Asia/Kolkata",
        "LC_ALL": "C.UTF-8",
        "PWD": "/",
    },
    "two threads": {"PYTHONHASHSEED": "3", "OMP_NUM_THREADS": "2", "PWD": "/"},
}
VARYING: Mapping[
    str, tuple[bytes, str]
] = {  # by name of a file what may differ between two runs, and why
    "*.html": (
        rb"[0-9a-f]{8}-[0-9a-f-]{27}",
        "the name that plotly draws for a figure",
    ),
    "*metrics.csv": (rb"(?m),[\d.]+$", "images per second"),
    "*.log": (rb"(?s).*", "times, as open_clip's trainer logs them line by line"),
}
ROUNDING = {
    ".safetensors": 1e-5,
    ".csv": 5e-3,
}  # of a file's largest number, for two threads; tables hold quotients
DAMAGES = ("emptied", "torn", "removed", "foreign", "bit", "bit at the end")
GOOD = ("equal", "refused by name", "left, right")
Row = tuple[
    str, str, str, str, str
]  # the command, what disturbs it, the file, how it ends, and what is amiss
CONTEXT = multiprocessing.get_context(
    "fork"
)  # not new interpreters, whose imports take longer than the work


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the trials."""

    out: Path = Path("runs/chaos")
    """Folder of models, images, folders of commands, and their logs."""
    commands: tuple[str, ...] = tuple(COMMANDS)
    """Commands that are tried."""
    trials: Count = 12
    """How many writes end a command, and how many files are damaged; two processes meet a quarter as often."""


def main(config: Config) -> None:
    """Make the subject, try every command, and print the table."""
    preload()
    if config.out.exists() and any(config.out.iterdir()):
        raise InputError(
            f"The trials need an empty folder, but {config.out} has files: remove them."
        )
    write_toy(config.out / "toy", DRAWN, workers=1, progress=False)
    (config.out / "tiny.json").write_text(MODEL)
    names = list(config.commands)
    for name in ("cards", "compare", "train", "mixtures"):
        names = [name] * any(
            f"finished/{name}" in COMMANDS[one] for one in names
        ) + names
    trials = {name: Trials(config.out, name, config.trials) for name in names}
    rows = [
        row
        for name in names[: -len(config.commands)]
        for row in trials[name].undisturbed()
    ]
    with ProcessPoolExecutor(os.cpu_count(), CONTEXT) as pool:
        rows += itertools.chain(
            *pool.map(Trials.disturbed, [trials[name] for name in config.commands])
        )
    table = pd.DataFrame(
        rows, columns=["command", "disturbance", "file", "outcome", "detail"]
    )
    summary = pd.crosstab(
        [table["command"], table["disturbance"]], table["outcome"]
    ).reset_index()
    config.keep({"chaos": summary, "trials": table}, shown=["chaos"])
    print(table[~table["outcome"].isin(GOOD)].to_string())


def preload() -> None:
    """Import the package once, here: the processes of the trials are forks of this one."""
    for module in pkgutil.walk_packages(
        importlib.import_module("circuitry").__path__, "circuitry."
    ):
        if not module.name.endswith("open_clip_main"):  # a program
            importlib.import_module(module.name)


class Trials:
    """A command, its undisturbed runs, and what disturbs them."""

    def __init__(self, out: Path, name: str, n: int) -> None:
        self.name, self.n, self.root, self.random = (
            name,
            n,
            out.absolute(),
            random.Random(name),
        )
        self.finished, *self.emptied = (
            self.root / at / name for at in ("finished", "work", "tmp", "cache", "logs")
        )
        self.work, self.temporary, self.cache, self.logs = self.emptied

    def undisturbed(self) -> list[Row]:
        """Run as new processes elsewhere, then as a fork; return how they agree with the first, a row each."""
        rows = list[Row]()
        for where, elsewhere in [*ELSEWHERE.items(), ("fork", {})]:
            self._begin()
            self.given = contents(self.work)
            ended = self._end(self._start(elsewhere=elsewhere))
            if not self.finished.exists():
                if ended[0]:
                    raise InputError(
                        f"The command {self.name} fails undisturbed: {ended[2][-2000:]}"
                    )
                shutil.copytree(self.work, self.finished)
                self.left, self.printed = contents(self.finished), {ended[1]}
            rows.append(
                (
                    self.name,
                    where,
                    "",
                    *self._outcome(ended, rounded=where == "two threads"),
                )
            )
        lines = (self.logs / "only.writes").read_text().splitlines()
        self.writes, self.whole = (
            len(lines),
            {*lines, *noted(self.given), *noted(self.left)},
        )
        self.printed.add(self._end(self._start())[1])
        return rows

    def disturbed(self) -> list[Row]:
        """Run once for each disturbance; return how they end, a row each."""
        rows = [] if self.finished.exists() else self.undisturbed()
        writes = sorted(
            self.random.sample(range(1, self.writes + 1), min(self.n, self.writes))
        )
        rows += [self.kill(write) for write in writes]
        rows += [self.double(turn / 8) for turn in range(0, self.n, 4)]
        files = self.random.sample(sorted(self.left), len(self.left))
        places = [os.path.dirname(path) for path in files]
        turns = {
            path: places[:i].count(places[i])
            for i, path in enumerate(files)
            if self.left[path]
        }
        chosen = sorted(turns, key=turns.__getitem__)[
            : self.n
        ]  # one of each folder, then the second of each
        return rows + [
            self.damage(path, DAMAGES[i % len(DAMAGES)])
            for i, path in enumerate(chosen)
        ]

    def kill(self, write: int) -> Row:
        """End a run within a write, look at what it left, and run again."""
        self._begin()
        status, _, said = self._end(self._start(write))
        there = noted(
            {
                path: one
                for path, one in contents(self.work).items()
                if "/." not in f"/{path}"
            }
        )
        torn = [there[line] for line in there.keys() - self.whole]
        outcome = self._outcome(self._end(self._start()))
        if (
            torn
            or "Traceback" in said
            or status not in (-signal.SIGKILL, 128 + signal.SIGTERM)
        ):
            outcome = (
                "torn" if torn else "WRONG",
                f"{', '.join(torn)}, status {status} at the signal: {said[-300:]}",
            )
        name = "SIGTERM" if status == 128 + signal.SIGTERM else "SIGKILL"
        return self.name, name, f"write {write} of {self.writes}", *outcome

    def double(self, later: float) -> Row:
        """Start a second process in the folder some seconds after the first one."""
        self._begin()
        first = self._start(log="first")
        time.sleep(later)
        second = self._start(log="second")
        outcome = self._outcome(self._end(first, "first"), self._end(second, "second"))
        return self.name, "two processes", f"the second {later} s later", *outcome

    def damage(self, path: str, kind: str) -> Row:
        """Damage a file of the finished folder, and run again."""
        self._begin()
        shutil.copytree(self.finished, self.work, dirs_exist_ok=True)
        whole = readings(self.work)
        spoil(self.work / path, kind, self.random)
        read = readings(self.work)
        misread = sorted(
            name for name in whole.keys() & read.keys() if read[name] != whole[name]
        )
        outcome = self._outcome(self._end(self._start()), damaged=path)
        return (
            self.name,
            kind,
            path,
            *(("WRONG", f"reads another {misread[0]}") if misread else outcome),
        )

    def _begin(self) -> None:
        """Empty the folders, except for a run that the command reads in its own."""
        for folder in self.emptied:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        if "{out}" in COMMANDS[self.name]:
            shutil.copytree(
                self.root / "finished" / "train", self.work / "runs" / "run"
            )

    def _start(
        self,
        write: int = 0,
        elsewhere: Mapping[str, str] | None = None,
        log: str = "only",
    ) -> Any:
        """Start the command in a process of its own, which ends within a write; in a new one elsewhere."""
        words = f"{COMMANDS[self.name]} --out {{out}}".format(
            root=self.root, out=self.work
        ).split()
        places = {
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(self.cache),
            "PWD": str(self.temporary),
        }
        environment = {"OMP_NUM_THREADS": "1", **places, **(elsewhere or {})}
        logs = [
            str(self.logs / f"{log}.{kind}") for kind in ("printed", "said", "writes")
        ]
        process = CONTEXT.Process(
            target=run, args=(environment, logs, write, str(self.work), words)
        )
        process.start()
        return process

    def _end(self, process: Any, log: str = "only") -> tuple[int, str, str]:
        process.join()
        printed, said = (
            (self.logs / f"{log}.{kind}").read_text(errors="replace")
            for kind in ("printed", "said")
        )
        return process.exitcode or 0, re.sub(r"\d+ s in all", "", printed), said

    def _outcome(
        self, *ended: tuple[int, str, str], damaged: str = "", rounded: bool = False
    ) -> tuple[str, str]:
        """Return in a word how a trial ended, and what is not as it should be."""
        ours, theirs = contents(self.work), self.left
        how = dict.fromkeys(theirs.keys() - ours.keys(), "lost") | dict.fromkeys(
            ours.keys() - theirs.keys(), "litter"
        )
        both = [
            path for path in ours.keys() & theirs.keys() if ours[path] != theirs[path]
        ]
        how |= {
            path: "WRONG"
            for path in both
            if not rounded or not close(path, ours[path], theirs[path])
        }
        stays = how.pop(damaged, "")
        left = [
            path
            for path in self.temporary.iterdir()
            if not path.name.startswith("torchinductor")
        ]
        how |= {f"temporary file {path.name}": "litter" for path in left}
        for status, printed, said in ended:
            sentence = (said.strip().splitlines() or [""])[-1]
            subject = re.search(rf"{self.work}/[^\s:;,()'\"]*", sentence)
            if (
                damaged
                and status == 2
                and subject
                and subject[0].rstrip(".") == str(self.work / damaged)
                and not how
            ):
                return "refused by name", sentence
            if status or not (rounded or printed in self.printed):
                return (
                    "WRONG",
                    f"status {status}, prints {printed[-300:]}, says {said[-300:]}",
                )
        if how:
            return max(how.values()), "; ".join(sorted(how))
        good = damaged in self.given or not stays
        return (
            "left, right" if stays else "equal"
        ) if good else "WRONG", damaged if stays else ""


def run(
    environment: Mapping[str, str],
    logs: Sequence[str],
    write: int,
    work: str,
    words: list[str],
) -> None:
    """Run a command in this process, or in a new one where the hash seed is another; its n-th write ends it."""
    if environment.get("PYTHONHASHSEED") not in (
        None,
        os.environ.get("PYTHONHASHSEED"),
    ):
        code = f"from experiments.chaos import run; run{(dict(environment), logs, write, work, words)}"
        os.execve(
            sys.executable, [sys.executable, "-c", code], {**os.environ, **environment}
        )
    os.environ |= environment
    os.chdir(environment["PWD"])
    for number, log in enumerate(logs[:2], start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    # The environment's, not that of the process that was forked.
    tempfile.tempdir = None
    sys.modules["kaleido"] = None  # type: ignore[assignment]  # a browser for every page takes too long
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    turns = itertools.count(1)

    def counted(call: Callable[..., None], source: Any, *target: Any) -> None:
        path = Path(target[0] if target else os.readlink(f"/proc/self/fd/{source}"))
        if path.is_relative_to(work) and not path.is_dir():
            if next(turns) == write:
                if not target:
                    os.ftruncate(
                        source, os.fstat(source).st_size // 2
                    )  # what is not synced may be lost
                os.kill(os.getpid(), signal.SIGTERM if target else signal.SIGKILL)
            name, content = (
                path.relative_to(work).as_posix(),
                Path(source if target else path).read_bytes(),
            )
            with open(logs[2], "a") as file:
                file.writelines(
                    f"{line}\n" for line in noted({name: cleaned(name, content)})
                )
        call(source, *target)

    calls = [
        lambda *given, call=call: counted(call, *given)
        for call in (os.fsync, os.replace)
    ]
    os.fsync, os.replace = calls  # type: ignore[assignment]
    sys.argv = ["circuitry", *words]
    study.main() if words[0] in study.PROGRAMS else run_command()


def spoil(path: Path, kind: str, chance: random.Random) -> None:
    """Damage a file."""
    content = bytearray(path.read_bytes())
    others = [
        one.read_bytes()
        for one in sorted(path.parent.glob(f"*{path.suffix}"))
        if one.is_file() and one != path
    ]
    damaged = {
        "emptied": b"",
        "torn": bytes(content[: len(content) // 2]),
        "foreign": chance.choice(others or [b"0"]),
    }
    content[-1 if kind == "bit at the end" else chance.randrange(len(content))] ^= (
        1 << chance.randrange(8)
    )
    path.unlink() if kind == "removed" else path.write_bytes(
        damaged.get(kind, bytes(content))
    )


def readings(folder: Path) -> dict[str, bytes]:
    """Return what public readers of stored results give, by what they read; nothing of what they refuse."""
    found = dict[str, bytes]()
    for manifest in folder.rglob(MANIFEST):
        for read in (read_job_files, read_circuits, read_cards):
            with contextlib.suppress(InputError):
                found |= {
                    f"{manifest.parent} {name}": value
                    for name, value in read(manifest.parent)
                }
    for place in folder.glob("**/comparisons/*"):
        with contextlib.suppress(InputError):
            found[str(place)] = Comparison.load(place).values.to_csv().encode()
    for path in folder.glob("**/faithfulness/*/*.safetensors"):
        with contextlib.suppress(InputError):
            curve = FaithfulnessCurve.load(path)  # which says itself of what it is
            found[
                f"{curve.class_name} {curve.domain} {curve.ranking} {curve.settings['sites']}"
            ] = curve.kept.tobytes()
    return found


def read_job_files(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of each job of a folder."""
    manifest = read_sealed(place / MANIFEST, "")
    for job in JobFolder.made(place, manifest).jobs if "jobs" in manifest else ():
        with contextlib.suppress(InputError):
            for path in JobFolder.made(place, manifest).files(job):
                yield str(path), path.read_bytes()


def read_circuits(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the circuits of a folder, with their parts, and the table of lesions."""
    graphs = GraphFolder(place)
    with contextlib.suppress(InputError):
        if graphs.lesions is not None:
            yield "lesions", graphs.lesions.to_csv().encode()
    for key in graphs:
        with contextlib.suppress(InputError):
            for graph in (graphs[key], *graphs.parts(*key).values()):
                yield (
                    f"{key} {graph.settings['part']}",
                    graph.to_pandas().to_csv().encode(),
                )


def read_cards(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the effects on the cards of a folder."""
    cards = CardFolder(place)
    for site, unit in cards.units():
        with contextlib.suppress(InputError):
            yield f"{site}/{unit}", cards.card(site, unit).effects.tobytes()


def contents(folder: Path) -> dict[str, bytes]:
    """Return what is compared of every file below a folder."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {name: cleaned(name, path.read_bytes()) for name, path in files.items()}


def cleaned(name: str, content: bytes) -> bytes:
    """Return a file's bytes without what may vary."""
    patterns = [
        pattern for known, (pattern, _) in VARYING.items() if Path(name).match(known)
    ]
    return re.sub(b"|".join(patterns), b"", content) if patterns else content


def noted(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return a line for each file, which tells its content, and its path."""
    return {f"{path} {hash(content)}": path for path, content in files.items()}


def close(name: str, *files: bytes) -> bool:
    """Return whether two graphs or tables differ by rounding; other files, which show what these hold, always do."""
    if name.endswith(".safetensors"):
        ours, theirs = (
            np.concatenate([array.ravel() for _, array in sorted(load(one).items())])
            for one in files
        )
    else:
        ours, theirs = (
            np.array(
                re.findall(rb"-?\d+\.?\d*(?:e[+-]?\d+)?", one) * name.endswith(".csv"),
                float,
            )
            for one in files
        )
    share = ROUNDING.get(Path(name).suffix, 0.0)
    most = share * np.nanmax(np.abs(ours), initial=0)
    return ours.shape == theirs.shape and np.allclose(
        ours, theirs, share, most, equal_nan=True
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)

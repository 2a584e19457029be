"""Plans: order, resuming after kills, other plans, room, and jobs of SLURM's that wait for each other."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from circuitry import InputError
from circuitry.runs.files import file_lock
from experiments.study.plan import Cost, Plan, Step


def appending(name: str, *needs: str, first: str = "") -> Step:
    """Return a step that writes its name after what it needs has written; ``first`` runs at its first call only."""
    code = f"""
import os, pathlib, signal
called = pathlib.Path("{name}.called")
if not called.exists():
    called.touch()
    {first or "pass"}
before = "".join(pathlib.Path(need + ".txt").read_text() for need in {list(needs)!r})
pathlib.Path("{name}.txt").write_text(before + "{name} ")
with open("calls", "a") as file: file.write("{name} ")
"""
    kind = "figures" if name.startswith("figure") else "work"
    return Step(
        name,
        kind,
        ("python", "-c", code),
        (f"{name}.txt",),
        needs,
        Cost(1e12, 2.0, 4, 0.5),
    )


def chain(first: str = "") -> list[Step]:
    middle = [appending("b", "a", first=first), appending("c", "b", first=first)]
    return [appending("a"), *middle, appending("figure", "c")]


def plan(folder: Path, steps: list[Step]) -> Plan:
    return Plan(folder, steps, where=folder)


def test_a_plan_is_done_in_order_and_only_once(tmp_path: Path) -> None:
    one = plan(tmp_path, chain())
    assert [step.name for step in one.unfinished()] == ["a", "b", "c", "figure"]
    assert [step.name for step in one.chosen(["figures", "a"])] == ["a", "figure"]
    assert not list(tmp_path.iterdir())  # asking writes nothing
    one.run()
    one.run()
    assert (tmp_path / "calls").read_text() == "a b c figure "
    assert (tmp_path / "figure.txt").read_text() == "a b c figure "
    (tmp_path / "b.txt").write_text("damaged")
    assert [step.name for step in plan(tmp_path, chain()).unfinished()] == ["b"]
    plan(tmp_path, chain()).run(["b"])
    assert (tmp_path / "figure.txt").read_text() == "a b c figure "


def run_in_a_process(folder: Path, first: str) -> int:
    """Run a plan whose steps b and c begin with some code, and return how the process ended."""
    code = (
        "from pathlib import Path\nfrom tests.study.test_plan import chain, plan\n"
        f"plan(Path({str(folder)!r}), chain({first!r})).run()"
    )
    return subprocess.run(
        [sys.executable, "-c", code], check=False, env=os.environ
    ).returncode


def test_a_plan_that_is_killed_twice_ends_as_one_that_is_not(tmp_path: Path) -> None:
    killing = "os.kill(os.getppid(), signal.SIGKILL); os._exit(1)"
    ended = [run_in_a_process(tmp_path, killing) for _ in range(4)]
    assert ended == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    assert (
        tmp_path / "calls"
    ).read_text() == "a b c figure "  # nothing finished is done again
    assert (tmp_path / "figure.txt").read_text() == "a b c figure "


def test_a_plan_that_is_asked_to_end_takes_its_step_along(tmp_path: Path) -> None:
    asking = "pathlib.Path('pid').write_text(str(os.getpid())); os.kill(os.getppid(), 15); import time; time.sleep(60)"
    assert run_in_a_process(tmp_path, asking) == -signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("steps", "names", "words"),
    [
        (chain(), ["figur"], "'figur'.*figure"),
        (chain(), ["figures"], "'figure'.*'c'"),
        ("raise SystemExit('no images')", [], r"'a'.*no images.*a\.log"),
        ("pass", [], r"'a'.*a\.txt.*a\.log"),
    ],
)
def test_plans_that_cannot_be_done_say_why(
    tmp_path: Path, steps: list[Step] | str, names: list[str], words: str
) -> None:
    given = (
        [Step("a", "work", ("python", "-c", steps), ("a.txt",))]
        if isinstance(steps, str)
        else steps
    )
    with pytest.raises(InputError, match=words):
        plan(tmp_path, given).run(names)


def test_disk_and_time_are_checked_before_it_starts(tmp_path: Path) -> None:
    one = plan(tmp_path / "new" / "folder", chain())
    one.check_room()
    one.check_room(disk_gib=2.0, hours=8.0)
    for disk, hours, words in (
        (1.0, None, "2 GiB.* 1:"),
        (None, 7.0, "8 GPU hours.* 7 "),
    ):
        with pytest.raises(InputError, match=words):
            one.check_room(disk_gib=disk, hours=hours)
    one.check_room(["a"], disk_gib=0.5, hours=2.0)
    assert not (tmp_path / "new").exists()
    assert Cost(1.0, 2.0, 4, 8.0) + Cost(1.0, 1.0, 1, 1.0) == Cost(2.0, 3.0, 4, 9.0)


def test_one_process_runs_a_plan(tmp_path: Path) -> None:
    with file_lock(tmp_path, "plan"), pytest.raises(InputError, match=str(tmp_path)):
        plan(tmp_path, chain()).run()


def test_jobs_wait_for_those_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A SLURM of two programs: one that notes what was submitted, one that is only looked for.
    programs = tmp_path / "bin"
    programs.mkdir()
    note = f"#!/bin/sh\nn=$(ls {tmp_path}/submitted* 2>/dev/null | wc -l)\ncp $1 {tmp_path}/submitted$n\n"
    for name, text in (
        ("sbatch", f"{note}echo Submitted batch job 10$n\n"),
        ("srun", "#!/bin/sh\n"),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    one = plan(tmp_path / "plan", chain())
    one.folder.mkdir()
    one.run(["a"])
    with pytest.raises(InputError, match=r"'c'.*'b'"):
        one.submit(["c"])
    assert one.submit(options={"slurm_partition": "gpu"}) == {
        "b": "100",
        "c": "101",
        "figure": "102",
    }
    scripts = [(tmp_path / f"submitted{i}").read_text() for i in range(3)]
    assert all(
        "#SBATCH --partition=gpu" in text and "--gpus-per-node=4" in text
        for text in scripts
    )
    assert "dependency" not in scripts[0]  # what it needs is finished
    assert "#SBATCH --dependency=afterok:100" in scripts[1]
    assert "#SBATCH --dependency=afterok:101" in scripts[2]
    one.run_steps(["b"])  # as its job does
    assert one.submit(["c"]) == {"c": "103"}

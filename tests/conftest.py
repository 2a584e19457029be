"""Shared fixtures: towers, the lent material beside the project."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import nn

from tests.support import checked_calls  # isort: skip, before the package is imported
from circuitry import Clip
from circuitry.runs import short_waits
from tests.support.tiny_clip import Tiny
from tests.support.towers import TOWERS, make_tower

os.environ.update(
    {"OMP_NUM_THREADS": "1", **short_waits(os.environ)}
)  # of the processes that tests start
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread, before any fixture computes: sums depend on it, and test processes share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed_and_thread() -> None:
    """Every test begins with one seed and, whatever ran before, one thread; its calls are checked."""
    checked_calls.begin_test()
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Text weights and embeddings do not come from, or go to, the user's cache; processes that tests start see this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files are on the disk when the system likes: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_static_images() -> Iterator[None]:
    """Reports have no PNG figures: a browser takes seconds for those of a report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitry.reports.page.write_static", lambda *_: [])
        yield


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls go through as users have them, not checked against their annotations first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(params=list(TOWERS))
def any_tower(request: pytest.FixtureRequest) -> nn.Module:
    return make_tower(request.param)


@pytest.fixture
def resnet() -> nn.Module:
    return make_tower("resnet")


def shared(path: str) -> Path:
    """Return a file of the material that may lie beside the project, or skip the test."""
    file = SHARED / path
    if not file.exists():
        pytest.skip(
            f"needs {path} of the shared material, which is not beside this checkout"
        )
    return file


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def clip(tiny: Tiny) -> Clip:
    return tiny.load()

"""What a tower is, as entries of its identity: settings, stages, packed weights, answers to noise."""

import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitry import (
    Encoder,
    InputError,
    attribute,
    class_logit,
    mean_baseline,
)
from circuitry.encoder import tower_identity
from circuitry.encoder.tower_runs import weight_sums
from circuitry.runs.arrays import cached_arrays
from circuitry.runs.identity import UNKNOWN, Identity, same_entry
from circuitry.runs.manifest import claim
from circuitry.runs.provenance import weights_digest
from tests.support.identities import identities
from tests.support.second_device import DEVICE, second_device

ROOT = Path(__file__).parents[2]


@dataclass
class Cfg:
    gain: float = 1.0

    def amplify(self, x: Tensor) -> Tensor:
        return self.gain * x


class Plain:
    def __init__(self, gain: float) -> None:
        self.within = {"gain": Cfg(gain)}


class Kind(Enum):
    SUM = "sum"
    MEAN = "mean"


class Net(nn.Module):
    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.cfg, self.plain, self.kind, self._gain = Cfg(), Plain(1.0), Kind.SUM, 1.0
        self.chosen, self.cut, self.array, self.power = (
            {1, 2},
            slice(0, 3),
            np.zeros(3),
            None,
        )
        self.hidden: Any = [nn.Linear(1, 1)]  # a list that PyTorch does not look into
        self.conv, self.scales, self.table, self.act = (
            nn.Conv2d(3, 4, 1),
            [1.0, 2.0],
            {"on": True},
            torch.relu,
        )
        self.shift: Any = torch.zeros(1)
        self.end = nn.Identity()

    def forward(self, x: Tensor) -> Any:
        return (self.act(self.conv(x)) * self.scales[0] + self.shift).mean((2, 3))


def times(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: factor * x


CHANGES: list[Callable[[Any], object]] = [
    lambda net: net.scales.__setitem__(0, -1.0),
    lambda net: net.table.update(on=False),
    lambda net: setattr(net, "act", torch.tanh),
    lambda net: setattr(net, "act", times(2)),
    lambda net: setattr(net, "act", times(3)),
    lambda net: setattr(net, "act", lambda x: x - 1),
    lambda net: setattr(net, "act", partial(torch.clamp, min=0.0)),
    lambda net: setattr(net, "act", partial(torch.clamp, min=1.0)),
    lambda net: net.shift.add_(1),
    lambda net: setattr(net.conv, "padding_mode", "reflect"),
    lambda net: setattr(net.cfg, "gain", 7.0),
    lambda net: setattr(net.plain.within["gain"], "gain", 7.0),
    lambda net: setattr(net, "kind", Kind.MEAN),
    lambda net: net.chosen.add(3),
    lambda net: setattr(net, "cut", slice(0, 2)),
    lambda net: net.array.__setitem__(1, 1.0),
    lambda net: setattr(net, "power", 2.0),
    lambda net: setattr(net, "_gain", 7.0),
    lambda net: setattr(type(net), "gain", 7.0),
    lambda net: setattr(net, "act", from_module("def act(x):\n    return x")),
    lambda net: setattr(net, "act", from_module("def act(x):\n    return 7 * x")),
    lambda net: setattr(
        net, "act", from_module("def act(x, *, by=1):\n    return by * x")
    ),
    lambda net: setattr(
        net, "act", from_module("def act(x, *, by=2):\n    return by * x")
    ),
    lambda net: setattr(net, "act", Cfg(1.0).amplify),
    lambda net: setattr(net, "act", Cfg(2.0).amplify),
    lambda net: net.hidden[0].weight.data.add_(1),
]


def from_module(code: str) -> Any:
    """Return a function that could be imported by its name, whatever its code is."""
    module = ModuleType("somebodys_module")
    exec(code, vars(module))
    return vars(module)["act"]


def test_settings_of_modules_are_an_entry_whatever_they_are_kept_in() -> None:
    torch.manual_seed(0)
    net = Net()
    links = [("conv", torch.relu), ("end", lambda x: x.mean((2, 3)))]

    def entries() -> tuple[str, ...]:
        identity = Encoder.from_stages(net, links, (4, 4)).identity
        return identity["weights"], identity["modules"]

    (weights, first), found = entries(), set[str]()
    assert entries() == (weights, first)
    encoder = Encoder.from_stages(net, links, (4, 4))
    for change in CHANGES:
        change(net)
        found.add(encoder.identity["modules"])
        assert encoder.identity["weights"] == weights
    assert len(found | {first}) == len(CHANGES) + 1


def test_a_setting_that_cannot_be_read_is_unknown_unless_it_says_what_it_is(
    tmp_path: Path,
) -> None:
    net = Net()
    encoder = Encoder.from_stages(
        net, [("conv", torch.relu), ("end", lambda x: x.mean((2, 3)))], (4, 4)
    )
    assert encoder.identity.unknown == ()
    with (tmp_path / "file").open("w") as opened:
        net.conv.log = opened  # type: ignore[assignment]
        assert encoder.identity["modules"] == {"conv.log": UNKNOWN}
        net.plain.within["log"] = opened  # type: ignore[assignment]
        assert {*encoder.identity["modules"]} == {"conv.log", "Net.plain.within['log']"}
        with pytest.raises(
            InputError, match=r"(?s)'modules'.*conv\.log.*attribute identity"
        ):
            encoder.identity.check_known()
        del net.plain.within["log"]
        net.conv.identity = "conv 1"  # type: ignore[assignment]
        first = encoder.identity
        assert first.unknown == ()
        net.conv.identity = "conv 2"  # type: ignore[assignment]
        assert encoder.identity["modules"] != first["modules"]


def test_a_mean_of_a_model_with_another_setting_is_refused() -> None:
    net, plain = Net(), [("conv", torch.relu), ("end", lambda x: x.mean((2, 3)))]
    encoder = Encoder.from_stages(net, plain, (4, 4))
    mean = mean_baseline(encoder, torch.randn(2, 3, 4, 4))
    mean.check_made_of(encoder)
    net.cfg.gain = 3.0
    with pytest.raises(InputError, match="modules"):
        mean.check_made_of(encoder)


class Quadratic(nn.Module):
    """Code that changes where no setting does: in what it adds, or in the length of it all."""

    def forward(self, x: Tensor) -> Tensor:
        return LENGTH[0] * (x.mean((2, 3)) + FACTOR[0] * x.amax((2, 3)))


FACTOR, LENGTH = [1.0], [1.0]


@pytest.mark.parametrize("changed", [FACTOR, LENGTH], ids=["direction", "length"])
def test_what_no_reader_sees_is_seen_by_the_answers_to_noise(
    changed: list[float],
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), Quadratic())
    encoder = Encoder.from_stages(net, ["0", "1"], (4, 4))
    first = encoder.identity
    assert encoder.identity == first
    try:
        changed[0] = 1.2
        other = encoder.identity
    finally:
        changed[0] = 1.0
    assert [name for name in first if other[name] != first[name]] == ["behaviour"]
    with pytest.raises(InputError, match="behaviour"):
        first.check(other, "one", "another")
    assert all(isinstance(number, float) for number in first["behaviour"])


def test_answers_to_noise_agree_up_to_rounding_and_are_in_no_key(
    tmp_path: Path,
) -> None:
    one = Identity(weights="0", behaviour=[0.25, 0.5, 3.0])
    near, far = (one | {"behaviour": [0.25 + by, 0.5, 3.0]} for by in (1e-4, 1e-2))
    one.check(near, "one", "near")
    with pytest.raises(InputError, match="behaviour"):
        one.check(far, "one", "far")
    assert one.key == near.key == far.key != Identity(weights="1").key
    claim(tmp_path / "out", "format 1", one)
    assert claim(tmp_path / "out", "format 1", near)["config"] == one
    with pytest.raises(InputError, match="behaviour"):
        claim(tmp_path / "out", "format 1", far)
    for made_of, value, expected in (
        (one, 1.0, 1.0),
        (near, 2.0, 1.0),
        (far, 3.0, 3.0),
    ):
        make: Any = partial(dict, x=np.array([value]))
        assert (
            cached_arrays(tmp_path, made_of, "cache 1", "numbers", make)["x"]
            == expected
        )


class Layered(nn.Module):
    """Stages around linear layers, as a transformer's, which may be quantised."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.end = (
            nn.Conv2d(3, 4, 2, 2),
            nn.Linear(4, 4),
            nn.Linear(4, 3),
        )

    def forward(self, x: Tensor) -> Any:
        return self.end(self.fc(self.conv(x).mean((2, 3))))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_packed_weights_are_weights_and_give_no_gradients() -> None:
    def quantised(factor: float) -> Encoder:
        torch.manual_seed(0)
        net = Layered()
        net.fc.weight.data.mul_(factor)
        quantise: Any = torch.ao.quantization.quantize_dynamic
        packed: nn.Module = quantise(net, {nn.Linear})
        return Encoder.from_stages(
            packed, [("conv", lambda x: x.mean((2, 3))), "fc", "end"], (4, 4)
        )

    one, again, other = quantised(1), quantised(1), quantised(3)
    assert one.identity == again.identity
    assert one.identity.unknown == ()
    assert one.identity["weights"] != other.identity["weights"]
    assert not same_entry(one.identity["behaviour"], other.identity["behaviour"])
    images = torch.randn(2, 3, 4, 4)
    with pytest.raises(InputError, match=r"'fc'.*quantised"):
        attribute(
            one, images, class_logit(torch.eye(3), 0), method="gradient", progress=False
        )


def test_weights_are_digested_once_and_again_after_any_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(40, 200)
    net = nn.Sequential(nn.Conv2d(3, 40, 8), nn.Flatten(), linear)
    encoder = Encoder.from_stages(net, [("0", "1"), "2"], (8, 8))
    weight = linear.weight
    calls = list[int]()

    def digest(tensors: Any) -> str:
        calls.append(len(tensors))
        return weights_digest(tensors)

    monkeypatch.setattr(tower_identity, "weights_digest", digest)

    def digested() -> str:
        name: str = encoder.identity["weights"]
        assert name == weights_digest(dict(net.named_parameters()))
        return name

    digests = [digested()]
    assert [digested(), calls] == [digests[0], [4]]
    # PyTorch counts writes into `weight`, not into `weight.data`. If entries change places, a plain sum stays.
    for change in (
        lambda: weight.data.copy_(weight.data.flip(0)),
        lambda: weight.data[7:9].copy_(weight.data[7:9].flip(1)),
        lambda: weight.data[150, 3:].mul_(1 + 1e-4),
        lambda: weight.data[17, 5].mul_(1 + 1e-3),
        lambda: setattr(linear, "bias", nn.Parameter(linear.bias.detach().flip(0))),
    ):
        change()
        digests.append(digested())
    assert len(set(digests)) == len(digests) == len(calls)


@pytest.mark.parametrize("seed", range(4))
def test_a_small_change_of_a_single_weight_changes_the_sums(seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    weight = torch.randn(2_000_000, generator=drawn) * 0.02
    seen = {tuple(weight_sums([weight]))}
    places = torch.randint(len(weight), (50,), generator=drawn)
    for place in places:
        weight.data[place] *= 1.001
        seen.add(tuple(weight_sums([weight])))
    assert len(seen) == 1 + len(places)


def test_sums_are_those_of_any_tensors() -> None:
    sparse = torch.eye(3).to_sparse()
    phases = torch.tensor([1.0, 1j])
    with second_device():
        of_all = weight_sums([torch.ones(2), torch.ones(2).to(DEVICE), sparse, phases])
        turned = weight_sums([phases * 1j])
    assert of_all[0] == of_all[1]
    assert of_all[2] == weight_sums([torch.eye(3)])[0]
    assert of_all[3] != turned[0]


def test_sparse_buffers_are_weights() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    net.register_buffer("mask", torch.eye(3).to_sparse())
    encoder = Encoder.from_stages(net, ["0", "1"], (4, 4))
    first = encoder.identity["weights"]
    assert encoder.identity["weights"] == first
    net.mask = 2 * torch.eye(3).to_sparse()
    assert encoder.identity["weights"] != first


def test_identities_of_towers_and_functions_are_known_and_the_same_in_another_process() -> (
    None
):
    script = "import json; from tests.support.identities import identities; print(json.dumps(identities()))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    there, here = json.loads(done.stdout), identities()
    assert here.keys() == there.keys()
    for name, identity in here.items():
        assert Identity(identity).unknown == ()
        assert same_entry(identity, there[name]), name


def test_what_stages_are_cut_into_is_an_entry() -> None:
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 1), end=nn.Flatten()))
    ways: Any = [("0.conv", torch.relu), "0.end"], ["0.conv", (torch.relu, "0.end")]
    before, behind = (
        Encoder.from_stages(
            nn.Sequential(net, nn.ReLU()).requires_grad_(False), links, (4, 4)
        )
        for links in ways
    )
    assert before.identity["stages"] != behind.identity["stages"]

"""The device that tests use in place of a GPU: it refuses what CUDA refuses, and computes what the CPU computes."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.second_device import DEVICE, second_device


@pytest.fixture(autouse=True)
def _there() -> Iterator[None]:
    with second_device():
        yield


def there(*shape: int) -> Tensor:
    return torch.randn(*shape).to(DEVICE)


ROWS = torch.tensor([0, 1])
"""An index on the CPU."""
REFUSED: dict[str, Callable[[Tensor], object]] = {
    "a sum with a vector": lambda x: x + torch.randn(4),
    "a vector of the CPU times a number there": lambda x: torch.randn(4) * x.sum(),
    "a product": lambda x: x @ torch.randn(4, 2),
    "a layer of the CPU": lambda x: torch.nn.Linear(4, 2)(x),
    "a concatenation": lambda x: torch.cat([x, torch.randn(3, 4)]),
    "a choice": lambda x: torch.where(torch.ones(3, 4, dtype=torch.bool), x, x),
    "a mask that is filled": lambda x: x.masked_fill(
        torch.ones(3, 4, dtype=torch.bool), 0.0
    ),
    "index_select": lambda x: x.index_select(0, ROWS),
    "index_copy": lambda x: x.index_copy(0, ROWS, x[:2]),
    "index_add": lambda x: x.index_add(0, ROWS, x[:2]),
    "gather": lambda x: x.gather(0, ROWS[:, None]),
    "scatter": lambda x: x.scatter(0, ROWS[:, None], 1.0),
    "written places": lambda x: x.index_put((ROWS,), x[:2]),
    "a tensor of the CPU read at places there": lambda x: torch.randn(4)[
        ROWS.to(DEVICE)
    ],
    "a tensor of the CPU that is written in place": lambda x: torch.zeros(3, 4).add_(x),
    "a comparison": lambda x: torch.equal(x, x.cpu()),
    "a generator of the CPU": lambda x: torch.randn(
        3, generator=torch.Generator(), device=DEVICE
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_devices_is_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"same device|device type for generator"):
        REFUSED[name](there(3, 4))


@pytest.mark.parametrize(
    "make", [lambda x: x.numpy(), np.asarray], ids=["numpy", "asarray"]
)
def test_no_array_is_made_of_it(make: Callable[[Tensor], object]) -> None:
    with pytest.raises(TypeError, match=r"Tensor\.cpu\(\)"):
        make(there(2))


TAKEN: dict[str, Callable[[Tensor], Tensor]] = {
    "a number of the CPU": lambda x: x * torch.tensor(2.0),
    "a filled number of the CPU": lambda x: x.masked_fill(x > 0, torch.tensor(0.5)),
    "reading at an index of the CPU": lambda x: x[ROWS],
    "reading by a mask of the CPU": lambda x: x[
        :, torch.tensor([True, False, True, False])
    ],
    "a list as an index": lambda x: x[[0, 2]],
    "writing at a list": lambda x: x.clone().index_put_(
        (torch.tensor([0], device=x.device),), x[:1]
    ),
    "attention": lambda x: torch.nn.functional.scaled_dot_product_attention(
        x[None], x[None], x[None]
    ),
    "writing to a view": lambda x: (y := x.clone(), y.view(4, 3)[0].zero_())[0],
    "what is made like it": lambda x: (
        x + torch.ones_like(x) + x.new_tensor([1.0, 2.0, 3.0, 4.0]) + x.new_zeros(4)
    ),
    "forward differentiation": lambda x: torch.func.jvp(
        lambda y: (y @ y.T).relu(), (x,), (torch.ones_like(x),)
    )[1],
    "many vectors at once": lambda x: torch.func.vmap(lambda y: (y * 2).sum())(x),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_equals_the_cpu(name: str) -> None:
    x = torch.randn(3, 4)
    found = TAKEN[name](x.to(DEVICE))
    assert found.device == DEVICE
    torch.testing.assert_close(found.cpu(), TAKEN[name](x))


def test_tensors_are_made_there_and_moved() -> None:
    for made in (
        torch.zeros(2, device=DEVICE),
        torch.tensor([1.0, 2.0], device=DEVICE),
        torch.as_tensor(np.ones(2), device=DEVICE),
        torch.arange(3, device=DEVICE),
        torch.ones(2).to(there(1)),
    ):
        assert made.device == DEVICE
        assert type(made.cpu()) is Tensor
        assert made.cpu().device.type == "cpu"
    assert torch.tensor([1.0, 2.0], device=DEVICE).tolist() == [1.0, 2.0]
    assert float(torch.ones(3, device=DEVICE).sum()) == 3.0
    assert torch.zeros(2).device.type == "cpu"


def test_gradients_equal_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
    )
    x = torch.randn(2, 3, 6, 6)

    def gradients(x: Tensor) -> list[Tensor]:
        x = x.clone().requires_grad_()
        out = net(x)[torch.tensor([1, 0])].square().sum()
        return list(torch.autograd.grad(out, [x, *net.parameters()]))

    expected = gradients(x)
    net.to(DEVICE)
    for ours, theirs in zip(gradients(x.to(DEVICE)), expected, strict=True):
        assert ours.device == DEVICE
        torch.testing.assert_close(ours.cpu(), theirs)

"""Maps of pixels: exact in a linear network, complete elsewhere, zero where nothing is kept."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from circuitry import Encoder, Task, Work, class_logit, patched
from circuitry.interventions import ablate_all_but, circuit_of, logit_pixels, unit_pixels
from tests.interventions.test_patching import linear_encoder
from tests.support.assert_same import assert_same
from tests.support.towers import make_tower
from tests.support.work import QUIET


def task_of(tower: str, n: int = 2, each: bool = False) -> Task:
    encoder = Encoder.from_tower(make_tower(tower).double())
    images = 0.5 * torch.randn(n, 3, *encoder.image_size, dtype=torch.double)
    metric = class_logit(F.normalize(torch.randn(3, 16, dtype=torch.double), dim=-1), 1)
    return Task(encoder, images, metric, baseline=torch.randn_like(images) if each else "zero", work=QUIET)


def test_a_linear_unit_is_its_gradient_times_the_pixels() -> None:
    encoder, images = linear_encoder(), torch.randn(2, 3, 6, 6, dtype=torch.double)
    one = images.clone().requires_grad_()
    activation = encoder(one, stop="first").movedim(encoder.unit_dim("first"), 1)[:, 2].reshape(2, -1).mean(1)
    gradient = torch.autograd.grad(activation.sum(), one)[0]
    found = unit_pixels(Task(encoder, images, lambda e: e[:, 0], work=QUIET), "first", 2)
    assert_same(found, (gradient * images).sum(1), 1e-2)


@pytest.mark.parametrize("tower", ["resnet", "vit"])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("each", [False, True], ids=["zero", "one baseline for every image"])
def test_maps_sum_to_what_the_path_changes(tower: str, kept: bool, each: bool) -> None:
    task = task_of(tower, each=each)
    encoder, images = task.encoder, task.images
    assert isinstance(images, torch.Tensor)
    circuit = circuit_of(task, {encoder.sites[2]: [0, 1, 2]} if kept else {})
    found = logit_pixels(task, circuit if kept else None)
    with torch.no_grad(), patched(encoder, ablate_all_but(encoder, circuit, task.baseline)):
        change = task.metric(encoder(images)) - task.metric(encoder(torch.zeros_like(images)))
    assert found.shape == (2, *encoder.image_size)
    assert found.sum((1, 2)).tolist() == pytest.approx(change.tolist(), abs=5e-2)
    assert not any(hook.fwd_hooks for hook in encoder.hook_dict.values())


def test_nothing_kept_has_no_pixels_and_memory_changes_nothing() -> None:
    task = task_of("resnet", 3)
    assert not logit_pixels(task, circuit_of(task, {"layer4.0": []})).any()
    small = replace(task, work=Work(progress=False, memory_gib=1e-6))
    assert_same(logit_pixels(small), logit_pixels(task), 1e-7)

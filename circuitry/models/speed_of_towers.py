"""Measure how fast a tower runs on its device, for the `Plan` of some work."""

import time
from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor

from circuitry.data.domains import ImageRecord
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import bytes_per_image, rows_that_fit
from circuitry.gates.images_under_gates import UnitsUnderGates
from circuitry.models.clip import Clip
from circuitry.models.image_pass import image_batches
from circuitry.runs.errors import InputError
from circuitry.runs.plan import Speed
from circuitry.runs.workers import Work

N_IMAGES = 3
"""Number of images that are read."""
SECONDS = 0.3
"""Each timed run has about as many copies of the images as take this time, since few images at once are slower."""
TIMES = 3
"""How often each run is timed. The shortest time counts, since other programs can only make a run longer."""


def tower_speed(
    clip: Clip, records: Sequence[ImageRecord], work: Work = Work()
) -> Speed:
    """Measure the seconds that runs of the tower take an image, with gates on the units as the work runs it.

    Args:
        clip: The model.
        records: Image files. The first readable ones are read twice and run.
        work: The memory of a run.

    Raises:
        InputError: if no image can be read.

    Example:
        >>> speed = circuitry.models.tower_speed(clip, folder.records)
        >>> speed.device
        'cpu'
    """
    encoder = clip.encoder
    rows = rows_that_fit(encoder, work.memory_gib)

    def read_some() -> list[Tensor]:
        batches = image_batches(encoder, clip.preprocess, records, batch_size=1)
        return [batch for _, batch in islice(batches, N_IMAGES)]

    read_some()  # first uses load libraries, which is not timed
    started = time.perf_counter()
    read = read_some()
    seconds_to_read = time.perf_counter() - started
    if not read:
        raise InputError(
            f"Expected an image by which the speed is measured, but none of {len(records)} can be read: give images."
        )
    # Any metric and baseline take the same runs.
    task = Task(
        encoder,
        torch.cat(read),
        lambda embeddings: embeddings[:, 0],
        sites=counted_sites(encoder),
        work=work,
    )
    with task.running(gradients=True):
        runs = UnitsUnderGates(task)

        def forward(places: Tensor) -> None:
            with torch.no_grad():
                runs.run(torch.ones(len(places), runs.n_gates), places).cpu()

        def forward_and_back(places: Tensor) -> None:
            gates = torch.ones(len(places), runs.n_gates, requires_grad=True)
            torch.autograd.grad(runs.run(gates, places).sum(), gates)[0].cpu()

        few = torch.arange(min(len(read), rows))
        n_images = int(SECONDS / _seconds_an_image(forward_and_back, few))
        places = torch.arange(min(max(n_images, len(read)), rows)) % len(read)
        alone = _seconds_an_image(forward, places)
        back = _seconds_an_image(forward_and_back, places)
    return Speed(
        device=str(encoder.device),
        alone=alone,
        back=back,
        read=seconds_to_read / len(read),
        memory=bytes_per_image(encoder),
        rows=rows,
        rows_alone=rows_that_fit(encoder, work.memory_gib, gradients=False),
    )


def matrix_rate(
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Return how many operations a second the products of square matrices reach; a multiply-add is two operations.

    The matrices have 1024 rows and columns, and on a GPU 8192.

    Args:
        device: The device.
        dtype: Type of the numbers.

    Example:
        >>> circuitry.models.matrix_rate("cpu") > 1e6
        True
    """
    side = 1024 if torch.device(device).type == "cpu" else 8192
    matrices = torch.randn(2, side, side, device=device).to(dtype)

    def multiply(places: Tensor) -> None:
        product = matrices[0] @ matrices[1]
        product[0, 0].cpu()  # waits for the device

    seconds = _seconds_an_image(multiply, torch.zeros(1))
    return 2 * side**3 / seconds


def _seconds_an_image(run: Callable[[Tensor], None], places: Tensor) -> float:
    """Return the seconds an image of the fastest of several runs, after a first run that is not timed."""
    run(places)
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        run(places)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / len(places)

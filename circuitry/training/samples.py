"""Samples of the activations of a site, in memory or in pieces on disk, and an endless iterator over their batches.

A sample is the vector of all units at one position of one image. A piece is a tensor of samples [n, units] that is in
memory as a whole.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.data.decoding import Preprocess
from circuitry.data.domains import ImageRecord
from circuitry.data.file_check import FileCheck, check_file
from circuitry.data.images import image_listing
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.modes import own_modes
from circuitry.models.image_pass import activations
from circuitry.runs.arguments import Count, Seed
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.workers import Work
from circuitry.training.trainer_table import read_chunks

_FORMAT = "circuitry samples 1"


@own_modes()
def sample_activations(
    encoder: Encoder,
    preprocess: Preprocess,
    records: Sequence[ImageRecord],
    site: str | None = None,
    *,
    positions_per_image: Count | None = None,
    seed: Seed = 0,
    work: Work = Work(),
) -> Float[Tensor, "samples units"]:
    """Return the activations of a site as samples of its units, on the CPU.

    Args:
        encoder: The encoder.
        preprocess: Function that prepares an image for the encoder.
        records: The images.
        site: Site to read (default: the embedding).
        positions_per_image: Number of positions of each image to keep, which are drawn without replacement (default:
            all positions). The samples need images times positions times units times four bytes of memory, and twice as
            much for a moment.
        seed: Seed of the positions.
        work: Progress bar, and whether unreadable images raise an error instead of being left out.

    Raises:
        InputError: if no image is readable.

    Example:
        >>> from circuitry.training import sample_activations
        >>> records = folder.records[:3]
        >>> quiet = circuitry.Work(progress=False)
        >>> sample_activations(encoder, clip.preprocess, records, "layer3.0", positions_per_image=4, work=quiet).shape
        torch.Size([12, 192])
    """
    if site is None:
        site = encoder.sites[-1]
    unit_dim = encoder.unit_dim(site)
    generator = torch.Generator().manual_seed(seed)
    samples = []
    bar = work.bar(f"activations at {site}")
    for _, found in activations(
        encoder, preprocess, records, [site], strict=work.strict, progress=bar
    ):
        activation = found[site].movedim(unit_dim, -1)
        flat = (
            activation.reshape(len(activation), -1, activation.shape[-1]).float().cpu()
        )
        if positions_per_image is not None and positions_per_image < flat.shape[1]:
            # Positions are drawn image by image, so that they do not depend on how images are divided into batches.
            chosen = [
                torch.randperm(flat.shape[1], generator=generator)[:positions_per_image]
                for _ in flat
            ]
            flat = flat.gather(
                1, torch.stack(chosen)[:, :, None].expand(-1, -1, flat.shape[2])
            )
        samples.append(flat.flatten(0, 1))
    if not samples:
        raise InputError(
            "Samples need at least one readable image, but there was none: give other images."
        )
    return torch.cat(samples)


def image_files(
    records: Sequence[ImageRecord], tables: Sequence[Path] = ()
) -> np.ndarray:
    """Return the files of images as one array of paths in bytes, where each file occurs once.

    Args:
        records: Image records, whose files come first.
        tables: Tables with the column ``filepath``, whose files follow. A relative path starts from the folder of its
            table.

    Raises:
        InputError: if a table, or a file that it names, does not exist.
    """
    parts = (
        [np.array([os.fsencode(record.path) for record in records])] if records else []
    )
    for table in tables:
        check_file(table, "a table of images", "give one with the column filepath")
        folder, there = table.absolute().parent, FileCheck("refuse")
        for lines in read_chunks(table, ("filepath",)):
            paths = [os.path.join(folder, file) for file in lines["filepath"].dropna()]
            found = [os.fsencode(path) for path in paths if there.keeps(path)]
            parts += [np.array(found)] if found else []
        there.refuse(
            f"The table {table} names",
            "remove their lines; relative paths start from its folder",
        )
    names = np.concatenate([np.zeros(0, dtype="S1"), *parts])
    return np.asarray(names[np.sort(np.unique(names, return_index=True)[1])])


def _records(files: np.ndarray) -> list[ImageRecord]:
    paths = [Path(os.fsdecode(name)) for name in files.tolist()]
    return [ImageRecord(path, str(path), "", path.parent.name) for path in paths]


class SampleFiles(Sequence[Tensor]):
    """A sequence of pieces on disk. A piece is a tensor of samples [n, units], and has a file of its own.

    A piece is read from its file each time it is accessed.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(np.load(self._paths[place]))


def extract_samples(
    encoder: Encoder,
    preprocess: Preprocess,
    files: np.ndarray,
    out: Path,
    about: Mapping[str, Any],
    *,
    work: Work = Work(),
) -> SampleFiles:
    """Write the samples of many images to disk in pieces, and return the pieces.

    Pieces that exist and are not damaged are not written again. Several processes can share the work. If a process is
    killed, it can be started again, and continues after its last complete piece. If all images fit into one piece, they
    keep their order. Otherwise images are assigned to pieces at random, so that each piece is a random sample of all
    images.

    Args:
        encoder: The encoder.
        preprocess: Function that prepares an image for the encoder.
        files: Files of the images, from `image_files`.
        out: Folder of the pieces.
        about: A mapping with the keys ``site``, ``positions_per_image`` and ``seed`` (see `sample_activations`) and
            ``piece`` (the number of images in a piece). Further entries describe what else influences the samples. The
            identity of the encoder is added.
        work: The rank of this process among the processes that share the work, and whether progress bars are shown.
    """
    seed, size = about["seed"], about["piece"]
    places = np.arange(len(files))
    if len(files) > size:
        places = np.random.default_rng(seed).permutation(len(files))
    jobs: dict[Job, int] = {(f"piece_{i}",): i for i in range(-(-len(files) // size))}
    listing = {"images": image_listing(_records(files))}
    folder = JobFolder(out, _FORMAT, {**encoder.identity, **about}, list(jobs), listing)

    def write(job: Job, nothing: Any) -> list[Path]:
        i = jobs[job]
        samples = sample_activations(
            encoder, preprocess, _records(files[places[i * size : (i + 1) * size]]), about["site"],
            positions_per_image=about["positions_per_image"], seed=seed + i, work=work,
        )  # fmt: skip
        path = folder.path / f"{job[0]}.npy"
        with whole_file(path) as temporary:
            np.save(temporary, samples.numpy())
        return [path]

    folder.run(write, rank=work.rank)
    return SampleFiles([path for job in jobs for path in folder.files(job)])


class SampleBatches:
    """An endless iterator over batches of samples.

    Each pass goes through all pieces in a new random order, and through the samples of each piece in random order.

    Args:
        pieces: Pieces of samples [n, d]. Only one piece is in memory at a time.
        batch_size: Number of samples in a batch. If a piece has fewer samples, it is one batch.
        drop_last: If True, the samples after the last full batch of a piece are left out. Otherwise they are a smaller
            batch.
        generator: Generator of the random orders.
    """

    def __init__(
        self,
        pieces: Sequence[Tensor],
        batch_size: int,
        *,
        drop_last: bool,
        generator: torch.Generator,
    ) -> None:
        self._pieces = pieces
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._generator = generator
        self._left: list[int] = []  # pieces to come in this pass
        self._piece = -1
        self._order = torch.zeros(0, dtype=torch.long)  # samples to come
        self._samples = torch.zeros(0)

    def __next__(self) -> Tensor:
        while not len(self._order):
            if not self._left:
                self._left = torch.randperm(
                    len(self._pieces), generator=self._generator
                ).tolist()
            self._open(self._left.pop(0))
            n = len(self._samples)
            self._order = torch.randperm(n, generator=self._generator)
            if self._drop_last:
                self._order = self._order[: self.batches_of(n) * self._size]
        chosen = self._order[: self._size]
        self._order = self._order[self._size :]
        return self._samples[chosen]

    def batches_of(self, samples: int) -> int:
        """Return the number of batches of a piece that has this number of samples."""
        size = max(1, min(self._batch_size, samples))
        return samples // size if self._drop_last else -(-samples // size)

    def state(self) -> dict[str, Tensor]:
        """Return the state of the iterator. The state of the generator is not included."""
        return {
            "left": torch.tensor([self._piece, *self._left]),
            "order": self._order.clone(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state that `state` returned."""
        piece, *self._left = state["left"].tolist()
        self._order = state["order"]
        if piece >= 0:
            self._open(piece)

    def _open(self, piece: int) -> None:
        self._samples = torch.zeros(0)  # so that two pieces are never in memory
        self._piece = piece
        self._samples = self._pieces[piece]
        self._size = max(1, min(self._batch_size, len(self._samples)))

"""Read image files, preprocess them in batches, and run them through an encoder.

A file that cannot be read is skipped with a warning. Therefore each batch is returned with the records of the images
that it holds. All functions that read many images use this module.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.data.decoding import Preprocess, numbered_batches
from circuitry.data.domains import ImageRecord
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.modes import own_modes
from circuitry.encoder.site_activations import checked_sites, clean_activations
from circuitry.encoder.tensor_batches import pixel_digests
from circuitry.models.clip import Clip
from circuitry.runs.arguments import Count, Names, checked
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar

BATCH_SIZE = 64
"""Number of images in one run of the encoder. Another number changes results by rounding only."""


def image_batches(
    encoder: Encoder,
    preprocess: Preprocess,
    records: Sequence[ImageRecord],
    *,
    batch_size: Count = BATCH_SIZE,
    strict: bool = False,
    progress: str | None = None,
) -> Iterator[tuple[list[ImageRecord], Tensor]]:
    """Yield (records, images [B, 3, H, W]) for the images that can be read, in the order of ``records``.

    Args:
        encoder: The encoder to whose device and floating-point type the images are moved.
        preprocess: Function of an RGB picture that returns a tensor [3, H, W], such as `Clip.preprocess`.
        records: The images.
        batch_size: Largest number of images in a batch.
        strict: Whether an unreadable file raises an error. If False, the file is skipped with a warning.
        progress: Name of a progress bar (default: no bar).

    Raises:
        InputError: if ``preprocess`` returns images of another size than the encoder's.

    Example:
        >>> from circuitry.models import image_batches
        >>> for records, batch in image_batches(encoder, clip.preprocess, folder.records[:3]):
        ...     print(len(records), batch.shape)
        3 torch.Size([3, 3, 64, 64])
    """
    paths = [record.path for record in records]
    # Between two batches of this generator the caller's modes of torch must hold. So `own_modes` wraps the
    # preprocessing of each picture, and not the generator.
    prepare = own_modes()(preprocess)
    read = numbered_batches(paths, prepare, batch_size, strict=strict)
    is_hidden = progress is None
    with Bar(total=len(paths), unit="image", desc=progress, disable=is_hidden) as bar:
        for places, batch in read:
            of_batch = [records[place] for place in places]
            if batch.shape[1:] != (3, *encoder.image_size):
                height, width = encoder.image_size
                raise InputError(
                    f"This encoder takes images [3, {height}, {width}], but preprocess made {list(batch.shape[1:])} of "
                    f"{of_batch[0].path}: let preprocess return images of the encoder's size."
                )
            yield of_batch, batch.to(encoder.device, encoder.dtype)
            bar.update(len(batch))


def activations(
    encoder: Encoder,
    preprocess: Preprocess,
    records: Sequence[ImageRecord],
    sites: Names,
    *,
    batch_size: Count = BATCH_SIZE,
    strict: bool = False,
    progress: str | None = None,
) -> Iterator[tuple[list[ImageRecord], dict[str, Tensor]]]:
    """Yield (records, activations by site) for each batch of the images that can be read.

    Each batch runs within `Encoder.running`, which leaves the tower as it was.

    Args:
        encoder: The encoder.
        preprocess: Function of an RGB picture that returns a tensor [3, H, W].
        records: The images.
        sites: The sites of the encoder whose activations are returned.
        batch_size: Largest number of images in a batch.
        strict: Whether an unreadable file raises an error. If False, the file is skipped with a warning.
        progress: Name of a progress bar (default: no bar).

    Example:
        >>> from circuitry.models import activations
        >>> for records, by_site in activations(encoder, clip.preprocess, folder.records[:3], ["layer3.0"]):
        ...     means = by_site["layer3.0"].mean((2, 3))
        >>> len(means)
        3
    """
    wanted = checked_sites(encoder, sites)
    batches = image_batches(
        encoder,
        preprocess,
        records,
        batch_size=batch_size,
        strict=strict,
        progress=progress,
    )
    # The run ends before `yield`. Otherwise a caller that stops between two batches would keep the tower locked.
    for of_batch, batch in batches:
        try:
            with encoder.running():
                clean = clean_activations(encoder, batch, wanted)
        except InputError as error:
            raise InputError(
                f"{error} The first of these {len(of_batch)} images is {of_batch[0].path}."
            ) from error
        yield of_batch, {site: encoder.units_of(site, clean[site]) for site in clean}


@checked
def read_images(
    clip: Clip, records: Sequence[ImageRecord], *, strict: bool = False
) -> tuple[list[ImageRecord], Float[Tensor, "batch 3 h w"]]:
    """Return the records and the tensor of the images that can be read; both are empty if no image can be read.

    Args:
        clip: The model whose preprocessing and device are used.
        records: The images.
        strict: Whether an unreadable file raises an error. If False, the file is skipped with a warning.

    Raises:
        InputError: for images that the model's linear probe was fitted on, and for copies of these images in other
            files. If ``strict``, also for an unreadable file.

    Example:
        >>> from circuitry.models import read_images
        >>> records, photos = read_images(clip, folder.select("clock", "real", 2))
        >>> photos.shape
        torch.Size([2, 3, 64, 64])
    """
    encoder = clip.encoder
    read = list[ImageRecord]()
    # The empty batch gives the result the right shape if no image can be read.
    batches = [encoder.blank(0)]
    for of_batch, batch in image_batches(
        encoder, clip.preprocess, records, strict=strict
    ):
        _refuse_fitted(clip, of_batch, batch)
        read += of_batch
        batches.append(batch)
    return read, torch.cat(batches)


def _refuse_fitted(clip: Clip, records: Sequence[ImageRecord], images: Tensor) -> None:
    """Raise `InputError` for images that the model's linear probe was fitted on.

    Pixels are compared, so an image in another file is recognised as well.
    """
    if not clip.fitted_on:
        return
    digests = pixel_digests(images)
    # strict=False, because images on the meta device have no digests.
    known = [r for r, d in zip(records, digests, strict=False) if d in clip.fitted_on]
    if known:
        raise InputError(
            f"A linear probe is fitted on other images than those that it explains, but it was fitted on the pixels of "
            f"{known[0].path}, and of {len(known)} of {len(records)} images here: fit it on other images, or leave "
            "these out."
        )

"""One pass of images through an encoder: records -> preprocessed batches -> activations at sites.

Files that cannot be read are left out, with one warning each, so every batch comes with the records that are in it.
Everything that looks at many images goes through here.
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
from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Names, checked
from circuitry.runs.progress import Bar

BATCH_SIZE = 64
"""Images in one run; it changes numbers by rounding only."""


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
        encoder: Its device and floating-point type are the images'.
        preprocess: RGB picture -> tensor [3, H, W], `Clip.preprocess`.
        strict: Whether an unreadable file is an error instead of left out with a warning.
        progress: What a bar over images is called (default: no bar).
    """
    paths = [record.path for record in records]
    with Bar(
        total=len(paths), unit="image", desc=progress, disable=progress is None
    ) as bar:
        for places, batch in numbered_batches(
            paths, own_modes()(preprocess), batch_size, strict=strict
        ):
            yield (
                [records[place] for place in places],
                batch.to(encoder.device, encoder.dtype),
            )
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
    """Yield (records, activations by site) for the images that can be read; see `image_batches`.

    The tower is run as by `Encoder.running` and left as it was.

    Example:
        >>> for records, found in activations(clip.encoder, clip.preprocess, images.records, ["layer3.0"]):
        ...     means = found["layer3.0"].mean((2, 3))
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
    for there, batch in batches:
        try:
            with encoder.running():
                found = clean_activations(encoder, batch, wanted)
        except InputError as error:
            raise InputError(
                f"{error} The first of these {len(there)} images is {there[0].path}."
            ) from error
        yield (
            there,
            {
                site: encoder.units_of(site, activation)
                for site, activation in found.items()
            },
        )


@checked
def read_images(
    clip: Clip, records: Sequence[ImageRecord], *, strict: bool = False
) -> tuple[list[ImageRecord], Float[Tensor, "batch 3 h w"]]:
    """Return the images that can be read, perhaps none, with their records; see `image_batches`.

    Raises:
        InputError: for pictures that the model's linear probe was fitted on, under whatever name; and as
            `image_batches`.

    Example:
        >>> records, photos = read_images(clip, images.select("cat", "real", 8))
    """
    parts: list[tuple[list[ImageRecord], Tensor]] = [([], clip.encoder.blank(0))]
    for there, batch in image_batches(
        clip.encoder, clip.preprocess, records, strict=strict
    ):
        _refuse_fitted(clip, there, batch)
        parts.append((there, batch))
    return [record for there, _ in parts for record in there], torch.cat(
        [batch for _, batch in parts]
    )


def _refuse_fitted(clip: Clip, records: Sequence[ImageRecord], images: Tensor) -> None:
    """Refuse images that the model's linear probe was fitted on, whatever their files are called."""
    digests = pixel_digests(images) if clip.fitted_on else ()
    known = [
        record
        for record, digest in zip(records, digests, strict=False)
        if digest in clip.fitted_on
    ]
    if known:
        raise InputError(
            f"A linear probe is fitted on other images than those that it explains, but it was fitted on the pixels of "
            f"{known[0].path}, and of {len(known)} of {len(records)} images here: fit it on other images, or leave "
            "these out."
        )

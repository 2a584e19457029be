"""Partners of pictures: the same picture with one thing changed, or a picture of another class. Does not import torch.

Activation patching compares a picture with a partner, which is the corrupt picture of TransformerLens. What the two
pictures share has no effect, so a partner decides which question is asked:

| partner | question |
|---|---|
| a text written into the picture (`with_text`) | Which units answer the word? |
| the object or its background is blank (`with_blank`) | Which units answer the object, and which its background? |
| shades of grey (`in_grey`) | Which units answer colours? |
| a picture of another class (`of_another_class`) | Which units distinguish the classes? |
| a folder of the user's own partners (`partners_in`) | any |
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageFont

from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.names import drawn_by_name
from circuitry.runs.arguments import Seed, Share, checked, one_of
from circuitry.runs.errors import InputError, number_of

MEASURED = 100
"""Size of the letters by which the width of a text is measured, in pixels."""
LOWEST_LETTERS = 4
"""Smallest size of letters in pixels. Smaller ones cannot be read, and Pillow draws none below one pixel."""
BLANK = (128, 128, 128)
"""Colour of blank pixels: middle grey."""


@checked
def with_text(
    picture: Image.Image, text: str, *, height: Share = 0.2, middle: Share = 0.5
) -> Image.Image:
    """Return the picture with a text on a white label, as in a typographic attack (Goh et al. 2021, "Multimodal
    neurons").

    Args:
        picture: The picture. It is not changed.
        text: The text. Pillow's own font draws letters of European languages.
        height: Height of the letters as a share of the picture's height. They are smaller where the text would be wider
            than the picture.
        middle: Where the middle of the line is, as a share of the picture's height from the top.

    Raises:
        InputError: if the text has nothing to draw, or if its letters would be too small to be read.

    Example:
        >>> picture = circuitry.data.load_image(folder.records[0].path)
        >>> labelled = circuitry.data.with_text(picture, "iPod", middle=0.8)
        >>> labelled.size == picture.size
        True
    """
    changed = picture.convert("RGB")
    draw = ImageDraw.Draw(changed)
    measured = draw.textbbox((0, 0), text, ImageFont.load_default(MEASURED))
    width = measured[2] / MEASURED
    if not text.strip() or not width:
        raise InputError(
            f"A text in a picture needs letters, but {text!r} was given: give a word."
        )
    size = min(height * picture.height, picture.width / width)
    if size < LOWEST_LETTERS:
        raise InputError(
            f"Letters have at least {LOWEST_LETTERS} pixels, but {text!r} gets {size:.1f} in a picture of "
            f"{picture.width} x {picture.height}: give a larger picture, a shorter text or a larger height."
        )
    font = ImageFont.load_default(size)
    place = (picture.width / 2, middle * picture.height)
    draw.rectangle(draw.textbbox(place, text, font, anchor="mm"), fill="white")
    draw.text(place, text, "black", font, anchor="mm")
    return changed


@checked
def with_blank(
    picture: Image.Image,
    mask: Bool[np.ndarray, "height width"],
    blank: Annotated[str, one_of("object", "background")] = "object",
) -> Image.Image:
    """Return the picture with its object, or its background, in middle grey.

    Args:
        picture: The picture. It is not changed.
        mask: True at the pixels of the object, in the size of the picture.
        blank: Which pixels become grey.

    Raises:
        InputError: if the mask has another size than the picture.

    Example:
        >>> picture = circuitry.data.load_image(folder.records[0].path)
        >>> lower = np.arange(picture.height)[:, None].repeat(picture.width, 1) >= picture.height // 2
        >>> circuitry.data.with_blank(picture, lower).getpixel((0, picture.height - 1))
        (128, 128, 128)
    """
    pixels = np.array(picture.convert("RGB"))
    if mask.shape != pixels.shape[:2]:
        raise InputError(
            f"A mask has the height and width of its picture, here {list(pixels.shape[:2])}, but a mask "
            f"{list(mask.shape)} was given: resize it to the picture."
        )
    pixels[mask == (blank == "object")] = BLANK
    return Image.fromarray(pixels)


@checked
def in_grey(picture: Image.Image) -> Image.Image:
    """Return the picture in shades of grey, still with three channels.

    Example:
        >>> picture = circuitry.data.load_image(folder.records[0].path)
        >>> red, green, blue = circuitry.data.in_grey(picture).getpixel((32, 32))
        >>> red == green == blue
        True
    """
    return picture.convert("L").convert("RGB")


@checked
def of_another_class(
    pictures: DomainFolder,
    record: ImageRecord,
    class_name: str | None = None,
    seed: Seed = 0,
) -> ImageRecord:
    """Return a random picture of another class in the same domain.

    The draw depends on the seed and on the names of both pictures. So two pictures of a class mostly get two partners.

    Args:
        pictures: Where the partner is drawn from.
        record: The picture that gets a partner.
        class_name: Class of the partner (default: any other class).

    Raises:
        InputError: if there is no such picture.

    Example:
        >>> clock = folder.select("clock", "real")[0]
        >>> partner = circuitry.data.of_another_class(folder, clock, "cup")
        >>> partner.class_name, partner.domain
        ('cup', 'real')
    """
    wanted = set(pictures.classes if class_name is None else [class_name])
    wanted.discard(record.class_name)
    in_domain = [one for one in pictures.records if one.domain == record.domain]
    found = [one for one in in_domain if one.class_name in wanted]
    if not found:
        named = "another class" if class_name is None else f"the class {class_name!r}"
        raise InputError(
            f"The partner of {record.relative}, a picture of {record.class_name!r}, is of another class in the domain "
            f"{record.domain!r}, but there is no picture of {named} there: give a folder that has one, or another "
            "class."
        )

    def order(other: ImageRecord) -> bytes:
        return drawn_by_name(seed, f"{record.relative}\0{other.relative}")

    return min(found, key=order)


@checked
def partners_in(
    folder: str | os.PathLike[str], records: Sequence[ImageRecord]
) -> list[ImageRecord]:
    """Return the partners that lie in a folder under the same paths as the pictures, in the order of the pictures.

    Read them with ``read_images(clip, partners, strict=True)``, so that no picture gets the partner of another one.

    Args:
        folder: The folder. The partner of ``real/cup/1.png`` is ``folder/real/cup/1.png``.
        records: The pictures.

    Raises:
        InputError: if a picture has no partner there.

    Example:
        >>> clocks = folder.select("clock", "real", n=2)
        >>> for clock in clocks:
        ...     file = Path("partners", clock.relative)
        ...     file.parent.mkdir(parents=True, exist_ok=True)
        ...     circuitry.data.in_grey(circuitry.data.load_image(clock.path)).save(file)
        >>> len(circuitry.data.partners_in("partners", clocks))
        2
    """
    root = Path(folder).absolute()
    partners = [replace(record, path=root / record.relative) for record in records]
    missing = [partner.relative for partner in partners if not partner.path.is_file()]
    if missing:
        raise InputError(
            f"Each picture has a partner under its own path in {root}, but {number_of(len(missing), 'picture')} of "
            f"{len(records)} have none, such as {missing[0]}: write them there."
        )
    return partners

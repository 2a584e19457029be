"""Load a vision model of transformers by a hub id, from a local folder, or from memory.

The model's own processor prepares images. Its own tokenizer and text model encode class texts. A model with a
classifier becomes a `Classifier`. A model that has neither a text model nor a classifier needs a `linear_probe`.
"""

import copy
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from open_clip.model import set_model_preprocess_cfg
from PIL import Image
from torch import Tensor, nn

from circuitry.encoder.encoder import Encoder
from circuitry.encoder.transformers_towers import vision_kind
from circuitry.models.checkpoints import loading
from circuitry.models.classifier import as_classifier
from circuitry.models.clip import Clip, checked_device, read_no_text
from circuitry.runs.errors import InputError

_UNUSED = ("pooler.", "mask_token")
"""Substrings of names of weights that change no embedding. A checkpoint may lack these weights."""


def load_transformers(
    source: str | Path | nn.Module, device: str | torch.device
) -> Clip:
    """Load a vision model of transformers; see `load_clip`.

    Args:
        source: A hub id, a local folder, or a model in memory. A model in memory is copied, and its processor and
            tokenizer are read from the place that the model was loaded from.
        device: Device of the model.
    """
    where = checked_device(device)
    given: Any = source if isinstance(source, nn.Module) else None
    if given is None:
        place = str(source)
        _check_place(place)
        config = _from(place, "configuration", transformers.AutoConfig)
        vision_kind(config)
        model = _weights(place, config)
    else:
        place = str(getattr(given, "name_or_path", ""))
        if not place:
            raise InputError(
                "The processor of a model in memory is read where the model was loaded, but this "
                f"{type(given).__name__} was made from a configuration: save it with its processor and give the "
                "folder, or take Encoder.from_tower(model) alone."
            )
        _check_place(place)
        config = given.config
        vision_kind(config)
        model = copy.deepcopy(given)
    processor: Any = _from(place, "image processor", transformers.AutoImageProcessor)
    preprocess = partial(_preprocessed, processor)
    shown = _shown(place, processor, preprocess)
    tokenizer: Callable[[Sequence[str]], Tensor] = read_no_text
    if hasattr(model, "get_text_features"):
        tokenizer = _tokenizer(place, config.text_config.max_position_embeddings)
    # The version of the library and the path change no embedding, so the identity does not contain them.
    made_by = json.loads(config.to_json_string())
    for name in ("transformers_version", "_name_or_path"):
        made_by.pop(name, None)
    classifier = getattr(model, "classifier", None)
    set_model_preprocess_cfg(model, shown)
    model.to(where).eval().requires_grad_(False)
    if isinstance(classifier, nn.Linear):
        outputs = {}
        times = Counter(config.id2label.values())
        for i, label in config.id2label.items():
            # ImageNet has two classes "crane". To equal labels the index of the output is added.
            name = f"{label} ({i})" if times[label] > 1 else label
            outputs[name] = (i,)
        named = {"transformers": made_by}
        return as_classifier(place, model, preprocess, named, outputs)
    encoder = Encoder.from_tower(model)
    return Clip(place, model, encoder, preprocess, tokenizer, configuration=made_by)


def _check_place(place: str) -> None:
    folder = Path(place)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(
            f"The folder {folder} has no config.json, so nobody knows what model its files are of: add the one that "
            "save_pretrained or the hub gives with the weights."
        )


def _from(place: str, what: str, auto: Any, **options: Any) -> Any:
    with loading(f"the {what} of {place!r} by transformers"):
        return auto.from_pretrained(place, **options)


def _weights(place: str, config: Any) -> Any:
    """Load the weights of a model, and return the model. Its Python class is the class that its configuration names.

    Raises:
        InputError: if weights are missing.
    """
    # AutoModel would drop a classifier or a projection, even if the checkpoint has weights for it.
    name, *_ = config.architectures or ("AutoModel",)
    auto: Any = getattr(transformers, name, transformers.AutoModel)
    model, info = _from(place, "weights", auto, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    for unused in _UNUSED:
        missing = [name for name in missing if unused not in name]
    if missing:
        raise InputError(
            f"The weights in {place!r} are not all of a {type(model).__name__}: {missing[0]} and "
            f"{len(missing) - 1} others are missing."
        )
    return model


def _preprocessed(processor: Any, image: Image.Image) -> Tensor:
    prepared = processor(images=image.convert("RGB"), return_tensors="pt")
    pixels: Tensor = prepared["pixel_values"][0]
    return pixels


def _shown(
    place: str, processor: Any, preprocess: Callable[[Image.Image], Tensor]
) -> dict[str, Any]:
    """Return the settings of a model's preprocessing.

    Args:
        place: Where the model was loaded from, for error messages.
        processor: The model's image processor.
        preprocess: The function that applies the processor to a picture.

    Returns:
        ``mean`` and ``std`` of the normalisation, ``size`` (height and width) of the prepared images, and all settings
        of the ``processor``.

    Raises:
        InputError: if pictures of different shapes become images of different shapes.
    """
    # An encoder takes images of one size, but a processor that does not crop keeps the shape of the picture.
    wide = preprocess(Image.new("RGB", (96, 64))).shape
    high = preprocess(Image.new("RGB", (64, 96))).shape
    if wide != high or len(wide) != 3:
        raise InputError(
            f"An encoder takes images of one size, but the processor of {place!r} makes {list(wide)} of a wide "
            f"one and {list(high)} of a high one: set its size and crop in preprocessor_config.json."
        )
    settings = json.loads(processor.to_json_string())
    # A processor may store mean and deviation without using them.
    stated = settings if settings.get("do_normalize", True) else {}
    return {
        "mean": tuple(stated.get("image_mean") or (0.0,) * 3),
        "std": tuple(stated.get("image_std") or (1.0,) * 3),
        "size": tuple(wide[1:]),
        "processor": settings,
    }


def _tokenizer(place: str, length: int) -> Callable[[Sequence[str]], Tensor]:
    """Return a function that takes texts and returns their tokens [texts, length].

    Shorter texts are padded to ``length`` tokens, as in the training of these models. Longer texts are cut.
    """

    # The tokenizer is read when the first text is encoded, because work with images alone needs no tokenizer.
    @cache
    def loaded() -> Any:
        tokenizer = _from(place, "tokenizer", transformers.AutoTokenizer)
        folder = Path(place)
        names = sorted(set(tokenizer.vocab_files_names.values()))
        if folder.is_dir() and not any((folder / name).is_file() for name in names):
            raise InputError(
                f"Class texts are read by the model's own tokenizer, but the folder {folder} has none (no "
                f"{' or '.join(names)}): save it there, too, by tokenizer.save_pretrained(FOLDER)."
            )
        return tokenizer

    def tokens(texts: Sequence[str], context_length: int = length) -> Tensor:
        read = loaded()(
            list(texts),
            padding="max_length",
            max_length=context_length,
            truncation=True,
            return_tensors="pt",
        )
        ids: Tensor = read["input_ids"]
        return ids

    return tokens

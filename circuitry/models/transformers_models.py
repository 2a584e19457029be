"""Load a vision model of transformers: by a hub id, from a local folder, or one that is already in memory.

Images pass the model's own processor, class texts its own tokenizer and text model. A model with a classifier becomes a
`Classifier`. A model without texts and classifier takes a `linear_probe`.
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
"""Weights that no embedding depends on, which checkpoints may lack."""


def load_transformers(
    source: str | Path | nn.Module, device: str | torch.device
) -> Clip:
    """Load a vision model of transformers; see `load_clip`.

    A model in memory is copied; its processor and tokenizer come from where it was loaded.
    """
    where = checked_device(device)
    given = source if isinstance(source, nn.Module) else None
    place = (
        str(getattr(source, "name_or_path", "")) if given is not None else str(source)
    )
    _check_place(place, given)
    config: Any = (
        _from(place, "configuration", transformers.AutoConfig)
        if given is None
        else given.config
    )
    vision_kind(config)
    model: Any = _weights(place, config) if given is None else copy.deepcopy(given)
    processor: Any = _from(place, "image processor", transformers.AutoImageProcessor)
    preprocess = partial(_preprocessed, processor)
    shown = _shown(place, processor, preprocess)
    texts = hasattr(model, "get_text_features")
    length = config.text_config.max_position_embeddings if texts else 0
    tokenizer = _tokenizer(place, length) if texts else read_no_text
    settings = json.loads(config.to_json_string())
    made_by = {
        name: value
        for name, value in settings.items()
        if name not in ("transformers_version", "_name_or_path")
    }
    classifier = getattr(model, "classifier", None)
    set_model_preprocess_cfg(model, shown)
    model.to(where).eval().requires_grad_(False)
    if isinstance(classifier, nn.Linear):
        times = Counter(
            config.id2label.values()
        )  # labels that are equal, as ImageNet's two cranes, get the number
        outputs = {
            f"{label} ({i})" if times[label] > 1 else label: (i,)
            for i, label in config.id2label.items()
        }
        return as_classifier(
            place, model, preprocess, {"transformers": made_by}, outputs
        )
    return Clip(
        place,
        model,
        Encoder.from_tower(model),
        preprocess,
        tokenizer,
        configuration=made_by,
    )


def _check_place(place: str, given: nn.Module | None) -> None:
    if given is not None and not place:
        raise InputError(
            f"The processor of a model in memory is read where the model was loaded, but this {type(given).__name__} "
            "was made from a configuration: save it with its processor and give the folder, or take "
            "Encoder.from_tower(model) alone."
        )
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
    """Return the model that a checkpoint says it is of, all of its weights there."""
    auto: Any = getattr(
        transformers, next(iter(config.architectures or ()), ""), transformers.AutoModel
    )
    model, found = _from(place, "weights", auto, output_loading_info=True)
    missing = sorted(
        name
        for name in found["missing_keys"]
        if not any(unused in name for unused in _UNUSED)
    )
    if missing:
        raise InputError(
            f"The weights in {place!r} are not all of a {type(model).__name__}: {missing[0]} and "
            f"{len(missing) - 1} others are missing."
        )
    return model


def _preprocessed(processor: Any, image: Image.Image) -> Tensor:
    found: Tensor = processor(images=image.convert("RGB"), return_tensors="pt")[
        "pixel_values"
    ]
    return found[0]


def _shown(
    place: str, processor: Any, preprocess: Callable[[Image.Image], Tensor]
) -> dict[str, Any]:
    """Return the settings of preprocessing, with the size that images have behind it, wide or high."""
    shapes = [
        tuple(preprocess(Image.new("RGB", size)).shape) for size in ((96, 64), (64, 96))
    ]
    if shapes[0] != shapes[1] or len(shapes[0]) != 3:
        raise InputError(
            f"An encoder takes images of one size, but the processor of {place!r} makes {list(shapes[0])} of a wide "
            f"one and {list(shapes[1])} of a high one: set its size and crop in preprocessor_config.json."
        )
    settings = json.loads(processor.to_json_string())
    mean, std = (
        tuple(settings[name])
        if settings.get("do_normalize", True) and settings.get(name)
        else (default,) * 3
        for name, default in (("image_mean", 0.0), ("image_std", 1.0))
    )
    return {"mean": mean, "std": std, "size": shapes[0][1:], "processor": settings}


def _tokenizer(place: str, length: int) -> Callable[[Sequence[str]], Tensor]:
    """Return how texts become tokens, all padded to the text model's length, as these models were trained."""

    @cache
    def loaded() -> Any:
        found = _from(place, "tokenizer", transformers.AutoTokenizer)
        folder, names = Path(place), sorted(set(found.vocab_files_names.values()))
        if folder.is_dir() and not any((folder / name).is_file() for name in names):
            raise InputError(
                f"Class texts are read by the model's own tokenizer, but the folder {folder} has none (no "
                f"{' or '.join(names)}): save it there, too, by tokenizer.save_pretrained(FOLDER)."
            )
        return found

    def tokens(texts: Sequence[str], context_length: int = length) -> Tensor:
        limit = {
            "padding": "max_length",
            "max_length": context_length,
            "truncation": True,
        }
        found = loaded()(list(texts), **limit, return_tensors="pt")
        ids: Tensor = found["input_ids"]
        return ids

    return tokens

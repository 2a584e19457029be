"""The vision transformers of the library transformers as chains, by the role of their modules.

Stages are embeddings (CLIP's with the norm before the blocks), each block, and one stage of all that follows: the last
norm, the class token or attention pooling, and a projection or classifier where there is one. transformers renames
modules within one major version, so each is found under either of its names, and the chain is checked against the
model's own output where an encoder is made.

An embedding is what the model itself calls its image features or pooled output. A ViT's is its class token behind the
last norm: its pooler is often not trained.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from circuitry.encoder.chain import (
    Chain,
    TransformerBlock,
    class_token,
    height_and_width,
)
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import PlacedBlock, Stage, nowhere
from circuitry.encoder.tokens import CLASS_TOKEN, TokenGrid
from circuitry.runs.errors import InputError

FAMILIES = ("CLIP", "SigLIP", "DINOv2", "DINOv2 with registers", "DINOv3", "ViT")
"""What can be wrapped, in words; SigLIP 2 of a fixed resolution is of the kind SigLIP."""
_KINDS = {
    "clip": "clip",
    "clip_vision_model": "clip",
    "siglip": "siglip",
    "siglip_vision_model": "siglip",
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2",
    "dinov3_vit": "dinov3",
    "vit": "vit",
}
"""Kind of a model by the name of its configuration."""
_VISION = ("vision_model", "vit", "dinov2", "dinov2_with_registers")
_BLOCKS = ("encoder.layers", "encoder.layer", "layers", "model.layer", "layer")
_NORMS = ("post_layernorm", "layernorm", "norm")
_BLOCK_ARGUMENTS = {
    "clip": "attention_mask",
    "siglip": "attention_mask",
    "dinov3": "position_embeddings",
}
"""What blocks are given besides the stream."""


def from_transformers(module: nn.Module) -> bool:
    """Say whether a module is one of transformers', or of a class derived from one."""
    return any(
        kind.__module__.startswith("transformers.models.")
        for kind in type(module).__mro__
    )


def vision_kind(config: Any) -> str:
    """Return the kind of vision tower that a configuration of transformers describes."""
    name = str(getattr(config, "model_type", type(config).__name__))
    if name in _KINDS:
        return _KINDS[name]
    if name.startswith("siglip2"):
        raise InputError(
            "SigLIP 2 with images of any size (NaFlex) reads patches, masks and shapes instead of images: take one of "
            "its checkpoints of a fixed resolution, such as google/siglip2-base-patch16-224."
        )
    raise InputError(
        f"Towers of transformers are those of {', '.join(FAMILIES)}, but this is a model of type {name!r}: give one of "
        "these, or its stages to Encoder.from_stages."
    )


def read_transformers(tower: nn.Module) -> Chain | None:
    """Return the chain of a vision model of transformers; none of a model of another library."""
    model: Any = tower
    if not from_transformers(tower) or not hasattr(tower, "config"):
        return None
    kind = vision_kind(model.config)
    path, vision = _vision(model)
    config = getattr(model.config, "vision_config", None) or model.config
    size = getattr(tower, "preprocess_cfg", {}).get("size") or config.image_size
    height, width = height_and_width(size)
    blocks = _blocks(path, vision, kind, (height, width))
    entry = [name for name in ("embeddings", "pre_layrnorm") if hasattr(vision, name)]
    stages = (
        Stage(
            path + entry[-1], in_order(*(getattr(vision, name) for name in entry)), -1
        ),
        *(Stage(site, block, -1) for site, block in blocks.items()),
        _last_stage(model, path, vision, kind),
    )
    return Chain(
        stages,
        (height, width),
        blocks,
        _grid(config, kind, height, width),
        partial(_embed, model, kind),
    )


def found_by_role(module: nn.Module, role: str, *names: str) -> tuple[str, Any]:
    """Return the first of some paths that leads to a part of a module, and the part."""
    for name in names:
        part: Any = module
        for step in name.split("."):
            part = getattr(part, step, None)
        if part is not None:
            return name, part
    raise InputError(
        f"The {role} of a {type(module).__name__} is expected under {' or '.join(names)}, but its modules are "
        f"{', '.join(name for name, _ in module.named_children())}: this version of transformers calls it otherwise."
    )


def _vision(model: Any) -> tuple[str, Any]:
    """Return the vision model inside a model and its path with a dot, or the model itself."""
    for name in _VISION:
        if hasattr(model, name):
            return f"{name}.", getattr(model, name)
    return "", model


def _blocks(
    path: str, vision: Any, kind: str, size: tuple[int, int]
) -> dict[str, TransformerBlock]:
    name, modules = found_by_role(vision, "list of blocks", *_BLOCKS)
    argument = _BLOCK_ARGUMENTS.get(kind)
    places: Callable[[], Any] = (
        partial(_rotary, vision, size) if kind == "dinov3" else nowhere
    )
    return {
        f"{path}{name}.{i}": block
        if argument is None
        else PlacedBlock(block, argument, places)
        for i, block in enumerate(modules)
    }


def _rotary(vision: Any, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the patches' places; only the shape of images, their type and device matter."""
    weight: Tensor = next(vision.parameters())
    found: tuple[Tensor, Tensor] = vision.rope_embeddings(weight.new_empty(1, 3, *size))
    return found


def _last_stage(model: Any, path: str, vision: Any, kind: str) -> Stage:
    name, norm = found_by_role(vision, "last norm", *_NORMS)
    classifier = getattr(model, "classifier", None)
    registers = int(getattr(model.config, "num_register_tokens", 0))

    def class_and_mean(x: Tensor) -> Tensor:
        return torch.cat([x[:, 0], x[:, 1 + registers :].mean(1)], 1)

    if kind == "siglip":
        head = getattr(vision, "head", None)
        return Stage(
            f"{path}{name if head is None else 'head'}",
            in_order(norm, head or _mean),
            1,
        )
    if kind == "clip":  # which norms the class token alone
        projection = getattr(model, "visual_projection", None)
        site = f"{path}{name}" if projection is None else "visual_projection"
        return Stage(
            site,
            in_order(class_token, norm, *([] if projection is None else [projection])),
            1,
        )
    if classifier is None:
        return Stage(f"{path}{name}", in_order(norm, class_token), 1)
    return Stage(
        "classifier",
        in_order(norm, class_and_mean if kind == "dinov2" else class_token, classifier),
        1,
    )


def _mean(x: Tensor) -> Tensor:
    return x.mean(1)


def _grid(config: Any, kind: str, height: int, width: int) -> TokenGrid:
    first = () if kind == "siglip" else (CLASS_TOKEN,)
    registers = tuple(
        f"register {i + 1}"
        for i in range(int(getattr(config, "num_register_tokens", 0)))
    )
    return TokenGrid(
        (*first, *registers), height // config.patch_size, width // config.patch_size
    )


def pooled_output(out: Any) -> Tensor:
    """Return a tensor, or the pooled output in what a model of transformers returns."""
    found: Tensor = out if isinstance(out, Tensor) else out.pooler_output
    return found


def _embed(model: Any, kind: str, images: Tensor) -> Tensor:
    """Return the model's own image features, logits of classes or pooled output."""
    if hasattr(model, "get_image_features"):
        return pooled_output(model.get_image_features(images))
    out = model(images)
    for name in ("image_embeds", "logits"):
        if getattr(out, name, None) is not None:
            return getattr(out, name)  # type: ignore[no-any-return]
    if kind == "vit":
        return class_token(out.last_hidden_state)
    return (
        _mean(out.last_hidden_state)
        if out.pooler_output is None
        else pooled_output(out)
    )

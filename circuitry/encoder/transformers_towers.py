"""The vision transformers of the library transformers as chains.

The stages are the embeddings (for CLIP with the norm before the blocks), each block, and a last stage. The last stage
is the last norm, then the class token or a pooling, then the projection or classifier if there is one. The library
renames modules even within one major version, so modules are looked up under all names that they have in some version
(`found_by_role`). When an encoder is made, the output of the chain is compared with the model's own output.

The embedding is the model's own image features, class logits or pooled output. For a ViT without a classifier it is the
class token after the last norm, because the pooler of a ViT is often not trained.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from circuitry.encoder.chain import (
    Chain,
    TransformerBlock,
    class_token,
    height_and_width,
    token_stages,
)
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.stages import PlacedBlock, Stage, nowhere
from circuitry.encoder.tokens import CLASS_TOKEN, TokenGrid, register_names
from circuitry.encoder.unit_kinds import EMBEDDING_FEATURE, FEATURE
from circuitry.runs.errors import InputError

FAMILIES = ("CLIP", "SigLIP", "DINOv2", "DINOv2 with registers", "DINOv3", "ViT")
"""Families of models that can be wrapped, for messages. SigLIP 2 with a fixed resolution counts as SigLIP."""
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
"""Kind of a model, by the ``model_type`` of the configuration of the model."""
_VISION = ("vision_model", "vit", "dinov2", "dinov2_with_registers")
_BLOCKS = ("encoder.layers", "encoder.layer", "layers", "model.layer", "layer")
_NORMS = ("post_layernorm", "layernorm", "norm")
_BLOCK_ARGUMENTS = {
    "clip": "attention_mask",
    "siglip": "attention_mask",
    "dinov3": "position_embeddings",
}
"""Name of the second argument of a block, by kind of model."""


def from_transformers(module: nn.Module) -> bool:
    """Return whether the class of a module, or one of its base classes, is from the library transformers."""
    return any(
        kind.__module__.startswith("transformers.models.")
        for kind in type(module).__mro__
    )


def vision_kind(config: Any) -> str:
    """Return the kind of vision tower that a configuration of the library transformers describes, such as ``"clip"``.

    Raise `InputError` if the package does not know the type of the model.
    """
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
    """Return the chain of a vision model of the library transformers. Return None for any other model."""
    model: Any = tower
    if not from_transformers(tower) or not hasattr(tower, "config"):
        return None
    kind = vision_kind(model.config)
    path, vision = _vision(model)
    # A whole CLIP or SigLIP has a configuration for images inside its own configuration. If the processor has a size,
    # this size is used, because the processor may cut images to another size than the model's configuration says.
    config = getattr(model.config, "vision_config", None) or model.config
    size = getattr(tower, "preprocess_cfg", {}).get("size") or config.image_size
    height, width = height_and_width(size)
    blocks = _blocks(path, vision, kind, (height, width))
    entered = Stage(f"{path}embeddings", vision.embeddings, FEATURE)
    if hasattr(vision, "pre_layrnorm"):  # as transformers writes it
        run = in_order(vision.embeddings, vision.pre_layrnorm)
        entered = Stage(f"{path}pre_layrnorm", run, FEATURE)
    stages = (entered, *token_stages(blocks), _last_stage(model, path, vision, kind))
    grid = _grid(config, kind, height, width)
    embed = partial(_embed, model, kind)
    return Chain(stages, (height, width), blocks, grid, embed)


def found_by_role(module: nn.Module, role: str, *names: str) -> tuple[str, Any]:
    """Find an attribute of a module, such as a submodule, whose path differs between versions of the library.

    Args:
        module: The module that has the attribute.
        role: What the attribute is, for the message.
        names: Paths of the attribute in different versions. The first path that exists is used.

    Returns:
        (path, value) of the attribute.

    Raises:
        InputError: if the module has an attribute under none of these paths.
    """
    for name in names:
        with suppress(AttributeError):
            member = attrgetter(name)(module)
            if member is not None:
                return name, member
    raise InputError(
        f"The {role} of a {type(module).__name__} is expected under {' or '.join(names)}, but its modules are "
        f"{', '.join(name for name, _ in module.named_children())}: this version of transformers calls it otherwise."
    )


def member_by_role(module: nn.Module, role: str, *names: str) -> Any:
    """Return an attribute of a module whose path differs between versions of the library; see `found_by_role`."""
    return found_by_role(module, role, *names)[1]


def _vision(model: Any) -> tuple[str, Any]:
    """Return (path, vision model): the vision model inside a model, and the path to it with a dot at its end.

    If there is no vision model inside the model, return an empty path and the model itself.
    """
    for name in _VISION:
        if hasattr(model, name):
            return f"{name}.", getattr(model, name)
    return "", model


def _blocks(
    path: str, vision: Any, kind: str, size: tuple[int, int]
) -> dict[str, TransformerBlock]:
    """Return the blocks of a vision model, by the site at which each block ends.

    Args:
        path: Path of the vision model in the model, with a dot at its end.
        vision: The vision model.
        kind: Kind of the model, such as ``"clip"`` (a value of `_KINDS`).
        size: Height and width of images.
    """
    name, modules = found_by_role(vision, "list of blocks", *_BLOCKS)
    argument = _BLOCK_ARGUMENTS.get(kind)
    rotary = partial(_rotary, vision, size)
    blocks = dict[str, TransformerBlock]()
    for i, block in enumerate(modules):
        if argument is not None:
            # CLIP and SigLIP require a mask as an argument. It is None for images.
            places = rotary if kind == "dinov3" else nowhere
            block = PlacedBlock(block, argument, places)
        blocks[f"{path}{name}.{i}"] = block
    return blocks


def _rotary(vision: Any, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary embedding of the patches."""
    # `rope_embeddings` reads the shape, type and device of images, but not their values.
    weight: Tensor = next(vision.parameters())
    image = weight.new_empty(1, 3, *size)
    rotary: tuple[Tensor, Tensor] = vision.rope_embeddings(image)
    return rotary


def _last_stage(model: Any, path: str, vision: Any, kind: str) -> Stage:
    """Return the stage from the last block to the embedding. It is named after the last module that it runs."""
    name, norm = found_by_role(vision, "last norm", *_NORMS)
    head = getattr(vision, "head", None)
    projection = getattr(model, "visual_projection", None)
    classifier = getattr(model, "classifier", None)
    registers = int(getattr(model.config, "num_register_tokens", 0))

    def class_and_mean(x: Tensor) -> Tensor:
        # DINOv2's classifier reads the class token and the mean over patches. Registers are not patches.
        return torch.cat([x[:, 0], x[:, 1 + registers :].mean(1)], 1)

    site = f"{path}{name}"
    steps: list[Callable[[Tensor], Tensor]] = [norm, class_token]
    if kind == "siglip":
        if head is not None:
            site = f"{path}head"
        steps = [norm, head or _mean]
    elif kind == "clip":
        # CLIP norms the class token alone. Norming all tokens first would give the same output and cost more.
        steps = [class_token, norm]
        if projection is not None:
            site = "visual_projection"
            steps.append(projection)
    elif classifier is not None:
        site = "classifier"
        pool = class_and_mean if kind == "dinov2" else class_token
        steps = [norm, pool, classifier]
    return Stage(site, in_order(*steps), EMBEDDING_FEATURE)


def _mean(x: Tensor) -> Tensor:
    return x.mean(1)


def _grid(config: Any, kind: str, height: int, width: int) -> TokenGrid:
    first = () if kind == "siglip" else (CLASS_TOKEN,)
    registers = register_names(int(getattr(config, "num_register_tokens", 0)))
    patch = config.patch_size
    return TokenGrid((*first, *registers), height // patch, width // patch)


def pooled_output(out: Any) -> Tensor:
    """Return the pooled output, given what a method of a model of the library transformers has returned.

    The method has returned either the pooled output itself or an object that holds the pooled output.
    """
    # Version 5 returns an object where version 4 returned a tensor.
    output: Tensor = out if isinstance(out, Tensor) else out.pooler_output
    return output


def _embed(model: Any, kind: str, images: Tensor) -> Tensor:
    """Return the model's own image features, class logits or pooled output for images."""
    if hasattr(model, "get_image_features"):
        return pooled_output(model.get_image_features(images))
    out = model(images)
    for name in ("image_embeds", "logits"):
        if getattr(out, name, None) is not None:
            return getattr(out, name)  # type: ignore[no-any-return]
    if kind == "vit":
        return class_token(out.last_hidden_state)
    # SigLIP without its attention pooling.
    if out.pooler_output is None:
        return _mean(out.last_hidden_state)
    return pooled_output(out)

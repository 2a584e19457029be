"""Small towers of transformers, timm and torchvision with random weights, and what each itself says of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import transformers as hf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from torchvision import models as torchvision_models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig

from tests.support.towers import randomise

_IMAGES = {"image_size": 32, "patch_size": 8}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    **_IMAGES,
}
WIDE: dict[str, Any] = SIZES | {"intermediate_size": 48}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


def clip_model() -> Any:
    return hf.CLIPModel(
        hf.CLIPConfig(vision_config=WIDE, text_config=TEXT, projection_dim=16)
    )


def siglip_model() -> Any:
    return hf.SiglipModel(
        hf.SiglipConfig(vision_config=WIDE, text_config=TEXT | {"projection_size": 32})
    )


def _dinov2(**options: Any) -> Any:
    return hf.Dinov2Model(hf.Dinov2Config(**SIZES, mlp_ratio=2, **options))


def _registers() -> Any:
    return hf.Dinov2WithRegistersModel(
        hf.Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, num_register_tokens=3)
    )


def _dinov3(**options: Any) -> Any:
    return hf.DINOv3ViTModel(
        hf.DINOv3ViTConfig(**WIDE, num_register_tokens=2, **options)
    )


TRANSFORMERS: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Tensor]]] = {
    "clip": (clip_model, lambda m, x: _pooled(m.get_image_features(x))),
    "clip-projected": (
        lambda: hf.CLIPVisionModelWithProjection(
            hf.CLIPVisionConfig(**WIDE, projection_dim=16)
        ),
        lambda m, x: m(x).image_embeds,
    ),
    "clip-vision": (
        lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**WIDE)),
        lambda m, x: m(x).pooler_output,
    ),
    "siglip": (siglip_model, lambda m, x: _pooled(m.get_image_features(x))),
    "siglip-headless": (
        lambda: hf.SiglipVisionModel(
            hf.SiglipVisionConfig(**WIDE, vision_use_head=False)
        ),
        lambda m, x: m(x).last_hidden_state.mean(1),
    ),
    "dinov2": (_dinov2, lambda m, x: m(x).pooler_output),
    "dinov2-gated": (
        lambda: _dinov2(use_swiglu_ffn=True),
        lambda m, x: m(x).pooler_output,
    ),
    "dinov2-registers": (_registers, lambda m, x: m(x).pooler_output),
    "dinov2-classifier": (
        lambda: hf.Dinov2ForImageClassification(
            hf.Dinov2Config(**SIZES, mlp_ratio=2, num_labels=5)
        ),
        lambda m, x: m(x).logits,
    ),
    "dinov3": (_dinov3, lambda m, x: m(x).pooler_output),
    "dinov3-gated": (
        lambda: _dinov3(use_gated_mlp=True),
        lambda m, x: m(x).pooler_output,
    ),
    "vit": (
        lambda: hf.ViTModel(hf.ViTConfig(**WIDE)),
        lambda m, x: m(x).last_hidden_state[:, 0],
    ),
    "vit-classifier": (
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**WIDE, num_labels=5)),
        lambda m, x: m(x).logits,
    ),
}
"""How each is made, and its own output."""


def _pooled(out: Any) -> Tensor:
    found: Tensor = out if isinstance(out, Tensor) else out.pooler_output
    return found


def _timm(name: str, size: int = 32, **options: Any) -> Any:
    net = timm.create_model(name, num_classes=6, **options)
    net.pretrained_cfg = {"input_size": (3, size, size)}
    return net


def _small(net: Any) -> Any:
    """torchvision's networks do not say how large their images are."""
    net.preprocess_cfg = {"size": (32, 32)}
    return net


_VIT: dict[str, Any] = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 32,
    "mlp_dim": 48,
    **_IMAGES,
}
NETS: dict[str, Callable[[], Any]] = {
    "timm-resnet": lambda: _timm("resnet10t"),
    "timm-regnet": lambda: _timm("regnetx_002"),
    "timm-convnext": lambda: _timm(
        "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)
    ),
    "timm-efficientnet": lambda: _timm("efficientnet_b0"),
    "timm-mobilenet": lambda: _timm("mobilenetv3_small_050"),
    "timm-fastvit": lambda: _timm(
        "fastvit_mci0", size=64, layers=(1, 1, 1, 1), embed_dims=(8, 16, 32, 32)
    ),
    "timm-vit": lambda: _timm(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=32, num_heads=2
    ),
    "torchvision-resnet": lambda: _small(
        torchvision_models.ResNet(
            torchvision_models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=6
        )
    ),
    "torchvision-regnet": lambda: _small(
        torchvision_models.regnet_x_400mf(num_classes=6)
    ),
    "torchvision-convnext": lambda: _small(
        torchvision_models.ConvNeXt(
            [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=6
        )
    ),
    "torchvision-efficientnet": lambda: _small(
        torchvision_models.EfficientNet(
            [
                MBConvConfig(2, 3, 1, 8, 8, 1, 1, 1),
                MBConvConfig(4, 3, 2, 8, 12, 1, 1, 1),
            ],
            0.1,
            num_classes=6,
        )
    ),
    "torchvision-mobilenet-v2": lambda: _small(
        torchvision_models.mobilenet_v2(width_mult=0.25, num_classes=6)
    ),
    "torchvision-mobilenet-v3": lambda: _small(
        torchvision_models.mobilenet_v3_small(width_mult=0.5, num_classes=6)
    ),
    "torchvision-vit": lambda: torchvision_models.VisionTransformer(
        **_VIT, num_classes=6
    ),
}
"""How each network is made; its own output is what calling it returns."""


def save_model(model: Any, folder: Path, image: Any = None) -> Path:
    """Save a model of transformers with an image processor and a tokenizer of a few words; return the folder."""
    size = {"height": 32, "width": 32}
    processor = image or hf.ViTImageProcessor(
        size=size, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]
    )
    words = [
        "<pad>",
        "<unk>",
        "<start>",
        "<end>",
        "a",
        "photo",
        "of",
        "cat",
        "dog",
        ".",
    ]
    tokens = Tokenizer(
        WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokens.pre_tokenizer = Whitespace()
    tokens.post_processor = TemplateProcessing(
        "<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", unk_token="<unk>"
    )
    for part in (model, processor, tokenizer):
        part.save_pretrained(folder)
    return folder


def library_tower(name: str, seed: int = 0) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """Return a tower in evaluation mode whose every parameter is random, and its own output."""
    torch.manual_seed(seed)
    make, own = (
        TRANSFORMERS[name]
        if name in TRANSFORMERS
        else (NETS[name], lambda net, x: net(x))
    )
    tower = make().eval().requires_grad_(False)
    randomise(tower)
    for module in tower.modules():
        for key, parameter in module.named_parameters(recurse=False):
            if key == "lambda1":
                nn.init.uniform_(parameter, 0.5, 1.0)
            elif parameter.dim() >= 2 and (name in TRANSFORMERS or "vit" in name):
                nn.init.normal_(parameter, std=0.2)
    return tower, lambda x: own(tower, x)

"""Small image towers of every supported architecture, with weights that leave nothing at its initial value."""

from collections.abc import Callable
from functools import partial
from typing import Any

import open_clip
import timm
import torch
from open_clip.timm_model import TimmModel
from timm.layers import RmsNorm
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.vision_transformer import ResPostBlock
from timm.models.vitamin import GeGluMlp
from torch import nn

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
RESNET = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 64,
        "layers": [1, 2, 1, 1],
        "width": 8,
        "patch_size": None,
    },
    "text_cfg": TEXT,
}
VIT = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "layers": 2,
        "head_width": 16,
    },
    "text_cfg": TEXT,
}


def _clip_tower(config: dict[str, object], **vision: object) -> nn.Module:
    config = config | {"vision_cfg": config["vision_cfg"] | vision}  # type: ignore[operator]
    model: Any = open_clip.model.CLIP(**config)
    tower: nn.Module = model.visual
    return tower


def _timm_tower(trunk: Any, size: int) -> nn.Module:
    tower: Any = TimmModel(
        "test_vit", embed_dim=16, image_size=size, pool="", proj="linear"
    )
    tower.trunk = trunk
    tower.head = nn.Sequential(nn.Linear(trunk.num_features, 16))
    made: nn.Module = tower
    return made


SWIN = {
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": (2, 1),
    "num_heads": (1, 2),
    "window_size": 4,
}
SIMPLE = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def timm_vit(kind: Any = timm.models.VisionTransformer, **options: Any) -> nn.Module:
    """A vision transformer of timm's of two blocks on four patches, whose heads look at single positions."""
    sizes = {
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 0,
    }
    trunk = kind(**sizes | options)
    for block in trunk.blocks:
        for weight in block.attn.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.5)
    return _timm_tower(trunk, 16)


EVA02 = {
    "use_rot_pos_emb": True,
    "ref_feat_shape": (2, 2),
    "global_pool": "token",
    "qkv_fused": False,
}
EVA02 |= {
    "swiglu_mlp": True,
    "scale_mlp": True,
    "scale_attn_inner": True,
    "mlp_ratio": 2.0,
}
"""Rotary embeddings, gated neurons, norms inside attention and MLP, a matrix each for queries, keys and values."""


def _efficientnet(classes: int) -> nn.Module:
    """A block of each kind: depthwise separable, inverted residual (with and without a shortcut), squeeze-excite."""
    net = timm.models.EfficientNet(
        decode_arch_def(
            [
                ["ds_r1_k3_s1_e1_c8"],
                ["ir_r2_k3_s2_e3_c12"],
                ["ir_r1_k5_s2_e3_c16_se0.25"],
            ]
        ),
        num_classes=classes,
        num_features=32,
        stem_size=8,
        act_layer=nn.ReLU6,
        pad_type="same",
    )
    net.pretrained_cfg = {"input_size": (3, 32, 32)}
    made: nn.Module = net
    return made


TOWERS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: _clip_tower(RESNET),
    "vit": lambda: _clip_tower(VIT),
    "vit-average-pooling": lambda: _clip_tower(
        VIT, pool_type="avg", final_ln_after_pool=True, no_ln_pre=True
    ),
    "vit-attentional-pooling": lambda: _clip_tower(
        VIT, attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=3
    ),
    "swin": lambda: _timm_tower(timm.models.SwinTransformer(**SWIN, num_classes=0), 32),
    "convnext": lambda: _timm_tower(
        timm.models.ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 8, 16, 16), num_classes=0),
        64,
    ),
    "timm-vit": lambda: _timm_tower(
        timm.models.VisionTransformer(**SIMPLE, num_classes=0), 32
    ),
    "eva02": partial(timm_vit, timm.models.Eva, **EVA02),
    "efficientnet": lambda: _efficientnet(16),
    "clip-efficientnet": lambda: _timm_tower(_efficientnet(0), 32),
}


CUSTOM: dict[str, Callable[[], nn.Module]] = {
    "layer-scale": lambda: _clip_tower(VIT, ls_init_value=0.5),
    "custom": lambda: _clip_tower(VIT, block_type="custom"),
    "query-key-norm": lambda: _clip_tower(VIT, qk_norm=True),
    "scaled-heads": lambda: _clip_tower(VIT, scale_heads=True, scale_attn_inner=True),
    "cosine": lambda: _clip_tower(VIT, scaled_cosine_attn=True, scale_heads=True),
    "norms": lambda: _clip_tower(
        VIT, scale_attn=True, scale_fc=True, ls_init_value=0.5
    ),
}
"""open_clip's transformers with blocks of their own."""
EVA = timm.models.Eva
RELATIVE = timm.models.VisionTransformerRelPos
ROTARY = {"attn_type": "rope", "use_rot_pos_emb": True}
FURTHER: dict[str, Callable[[], nn.Module]] = {
    "quick-gelu": lambda: _clip_tower(VIT | {"quick_gelu": True}),
    "registers-and-layer-scale": partial(timm_vit, reg_tokens=2, init_values=0.1),
    "siglip": partial(timm_vit, class_token=False, global_pool="map"),
    "average-and-query-key-norm": partial(
        timm_vit, class_token=False, global_pool="avg", qk_norm=True
    ),
    "root-mean-square": partial(timm_vit, norm_layer=RmsNorm),
    "norms-behind": partial(timm_vit, block_fn=ResPostBlock),
    "vitamin": partial(
        timm_vit, class_token=False, global_pool="avg", mlp_layer=GeGluMlp
    ),
    "eva": partial(timm_vit, EVA, init_values=0.1),
    "eva-norms-behind": partial(timm_vit, EVA, use_post_norm=True),
    "perception-encoder": partial(
        timm_vit, EVA, **ROTARY, use_pre_transformer_norm=True, global_pool="map"
    ),
    "shared-keys": partial(timm_vit, EVA, **ROTARY, num_kv_heads=1, qkv_fused=False),
    "gated": partial(timm_vit, EVA, **ROTARY, rope_type="mixed", swiglu_mlp=True),
    "half-turns": partial(
        timm_vit,
        EVA,
        **ROTARY,
        rope_rotate_half=True,
        num_reg_tokens=1,
        swiglu_mlp=True,
        swiglu_align_to=8,
    ),
    "relative-positions": partial(
        timm_vit, RELATIVE, rel_pos_type="bias", class_token=True, qk_norm=True
    ),
    "shared-relative-positions": partial(timm_vit, RELATIVE, shared_rel_pos=True),
}
"""Transformers whose blocks, pooling or positions are of other kinds."""


def make_tower(name: str, seed: int = 0) -> nn.Module:
    """Return a tower in evaluation mode whose every parameter and statistic is random."""
    torch.manual_seed(seed)
    tower = (TOWERS | CUSTOM | FURTHER)[name]().eval().requires_grad_(False)
    randomise(tower)
    return tower


def randomise(tower: nn.Module) -> None:
    """Move norms and scales off their initial ones and zeros, which would switch whole branches off."""
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.1 * torch.randn(module.num_features)
            module.running_var = 0.5 + torch.rand(module.num_features)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, RmsNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith("gamma") or name == "head_scale":
                nn.init.uniform_(parameter, 0.5, 1.0)
            elif name in ("q_bias", "v_bias", "logit_scale"):
                nn.init.normal_(parameter)

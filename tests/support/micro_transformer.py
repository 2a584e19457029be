"""A transformer small enough for paper: two tokens of width two, two heads, two neurons, no norms.

A token is (a, b), the red and green of its pixel; head 1 looks at where b is, head 0 everywhere alike.

    head 0:  pattern 1/2, 1/2          v = 2a + 4b    writes z to b
    head 1:  q = a ln 3,  k = b        v = 4b         writes z to a
    neurons: n0 = relu(2a - b) to a;   n1 = relu(b - a - 2), three times to b
    embedding: the sum over tokens of (a, b);  metric: a + 2b of the embedding

The image is the tokens (1, 0) and (1, 1):

    head 0:  v = 2, 6, so z = 4        head 1: scores 0 and ln 3, so pattern 1/4, 3/4; v = 0, 4, so z = 3
    streams behind attention (1 + 3, 0 + 4) = (4, 4) and (4, 5);  n0 = 4, 3;  n1 = relu(-2), relu(-1) = 0, 0
    streams at the end (8, 4) and (7, 5);  embedding (15, 9);  metric 15 + 18 = 33
"""

import math
from typing import Any

import timm
import torch
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

IMAGE = torch.tensor([[[[1.0, 1.0]], [[0.0, 1.0]], [[0.0, 0.0]]]], dtype=torch.float64)
"""Red, green and blue of the two tokens."""


def metric(embedding: Tensor) -> Tensor:
    return embedding[:, 0] + 2 * embedding[:, 1]


def blank_tower(depth: int = 1, width: int = 2) -> Any:
    """Return a tower of the micro transformer's tokens whose heads and neurons do nothing."""
    trunk = timm.models.VisionTransformer(
        img_size=(1, 2),
        patch_size=1,
        embed_dim=width,
        depth=depth,
        num_heads=2,
        mlp_ratio=1,
        class_token=False,
        global_pool="avg",
        pos_embed="none",
        num_classes=0,
        norm_layer=nn.Identity,
        act_layer=nn.ReLU,
    )
    tower: Any = TimmModel(
        "test_vit", embed_dim=2, image_size=(1, 2), pool="", proj="linear"
    )
    tower.trunk = trunk
    tower.head = nn.Linear(width, 2, bias=False)
    tower.double().eval().requires_grad_(False)
    for parameter in tower.parameters():
        parameter.zero_()
    trunk.patch_embed.proj.weight[:2, :2, 0, 0] = torch.eye(2)
    tower.head.weight[:, :2] = 2 * torch.eye(2)  # the pool is a mean over two tokens
    return tower


def micro_tower() -> Any:
    tower = blank_tower()
    block = tower.trunk.blocks[0]
    q, k, v = block.attn.qkv.weight.view(3, 2, 2)  # [head, (a, b)] of each
    q[1] = torch.tensor([math.log(3), 0], dtype=q.dtype)
    k[1] = torch.tensor([0, 1])
    v[0] = torch.tensor([2, 4])
    v[1] = torch.tensor([0, 4])
    block.attn.proj.weight += torch.tensor([[0, 1], [1, 0]])
    block.mlp.fc1.weight += torch.tensor([[2, -1], [-1, 1]])
    block.mlp.fc1.bias += torch.tensor([0, -2])
    block.mlp.fc2.weight += torch.tensor([[1, 0], [0, 3]])
    return tower


def scaling_tower() -> Any:
    """Return a tower of two blocks whose two heads read (a, b) and write (a, 2b) and (3a, 4b): (5a, 7b) with (a, b)."""
    tower = blank_tower(depth=2, width=4)
    for block in tower.trunk.blocks:
        block.attn.qkv.weight.view(3, 2, 2, 4)[2, :, :, :2] = torch.eye(2)
        block.attn.proj.weight[:2] += torch.tensor([[1, 0, 3, 0], [0, 2, 0, 4]])
    return tower

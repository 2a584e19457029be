"""Accuracy with one head or MLP, or all heads of a layer, mean-ablated (Gandelsman et al. 2024, arXiv 2310.05916).

A component that adds the same to every image can be mean-ablated without loss.
"""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.bases.residual import ResidualStream
from circuitry.encoder.baselines import mean_baseline
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task
from circuitry.interventions.gated import circuit_of, kept_embeddings
from circuitry.runs.given import checked
from circuitry.runs.workers import Work


@own_modes()
@checked
def mean_ablation_accuracy(
    stream: ResidualStream,
    images: Float[Tensor, "batch 3 h w"],
    labels: Int[np.ndarray, " batch"],
    weights: Float[Tensor, "classes d"],
    *,
    work: Work = Work(),
) -> pd.DataFrame:
    """Return the zero-shot accuracy with a component of each layer at its mean over the images, position by position.

    Args:
        stream: The tower; see `ResidualStream.of`.
        images: Images to classify.
        labels: Their classes, rows of ``weights``.
        weights: Text weights.
        work: Memory and progress.

    Returns:
        Table: block, component (``none``, a head's number, ``heads``: all of the layer, ``mlp``), accuracy. The first
        row is the whole model's, with block -1.
    """
    mean = mean_baseline(stream.components, torch.split(images, 64))
    task = Task(stream.components, images, lambda embedding: embedding[:, 0], baseline=mean, work=work)  # any metric
    rows: list[tuple[int, str]] = [(-1, "none")]
    kept: list[dict[str, np.ndarray]] = [{}]
    for i, block in enumerate(stream.blocks):
        attn, mlp = stream.sites[1 + 2 * i : 3 + 2 * i]
        rows += [*((i, str(head)) for head in range(block.n_heads)), (i, "heads"), (i, "mlp")]
        kept += [{attn: np.delete(np.arange(block.n_heads), head)} for head in range(block.n_heads)]
        kept += [{attn: np.arange(0)}, {mlp: np.arange(0)}]
    found = kept_embeddings(task, [circuit_of(task, units) for units in kept])
    answers = (F.normalize(found, dim=-1) @ weights.to(found).T).argmax(2).cpu().numpy()
    shares = (answers == labels).mean(1).tolist()
    table = [(*row, share) for row, share in zip(rows, shares, strict=True)]
    return pd.DataFrame(table, columns=["block", "component", "accuracy"])

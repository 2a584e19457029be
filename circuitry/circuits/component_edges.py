"""Edges of a graph in heads and neurons: between kept units of any two sites, through the residual stream.

Units are chosen by their node scores first. The score of an edge is then, by attribution patching as in
`residual_edges`, how much it carries for the metric when it is cut alone:

    score[reader, writer] = mean over images of  sum over positions of  (a - b)_writer . sum_k w_k * G_reader at t_k

1. writers are the dimensions of the stream before the first block, heads (what they add through the output matrix) and
   neurons (their activation times their row of the output matrix);
2. readers are heads (query, key and value together), neurons before their nonlinearity, and units of the embedding; G
   is the gradient of the metric by what such a reader reads, passed back through its weights and norm;
3. the points t_k lie on the line from clean to baseline of the stream before the first block.

A head's node score at the clean point is the sum of all its edges to later readers.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from circuitry.circuits.edges import edge_effects
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.circuits.stream_gradients import Tap, images_at_once, passed_back, read_by_ports, tapped_run
from circuitry.models.blocks import Block
from circuitry.models.encoder import Encoder
from circuitry.models.residual import ResidualStream, adds_up
from circuitry.models.sites import INPUT
from circuitry.models.task import Task
from circuitry.runs.errors import InputError

Kept = Mapping[str, Int[Tensor, " kept"]]


def edges_between(
    task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], rule: QuadratureRule
) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores of edges as they are defined for an encoder's units, by pair of sites.

    In heads and neurons that is `component_edge_effects`; elsewhere, and where a norm lies between heads or neurons and
    the stream, `edge_effects`. Arguments and errors are theirs.
    """
    if in_stream(task.encoder):
        return component_edge_effects(ResidualStream.of(task.encoder), task, kept_units, rule)
    return edge_effects(task, kept_units, rule)


def in_stream(encoder: Encoder) -> bool:
    """Say whether an encoder's edges run through the residual stream; their scores are means over images."""
    return bool(encoder.carried) and adds_up(encoder)


def component_edge_effects(
    stream: ResidualStream, task: Task, kept_units: Mapping[str, Int[np.ndarray, " kept"]], rule: QuadratureRule
) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of the edges between every two sites, the earlier one first.

    Args:
        stream: The stream of the task's encoder.
        task: With gradients running. The gradients of all readers are held for as many images as fit its memory.
        kept_units: Units of the circuit by site.
        rule: Points and weights of the path.

    Raises:
        InputError: for scores that are not finite.
    """
    encoder = stream.components
    inner = [site for site in task.sites if site != INPUT]
    kept = {site: torch.from_numpy(kept_units[site]).to(encoder.device) for site in inner}
    pairs, n_units = list(combinations(inner, 2)), sum(map(len, kept.values()))
    sums = {(up, down): np.zeros((len(kept[down]), len(kept[up]))) for up, down in pairs}
    first, done = stream.sites[0], 0
    with tqdm(desc="edges", unit="image", disable=not task.work.progress, leave=False) as bar:
        for batch in task.batches(images_at_once(stream, n_units, task.work.memory_gib)):
            with torch.no_grad():
                clean = batch.clean(stream.sites)
                other = batch.ends(clean)
            gradients: dict[str, Tensor] = {}
            for t, weight in zip(rule.points, rule.weights, strict=True):
                taps = tapped_run(stream, task.metric, clean[first] + t * (other[first] - clean[first]))
                for site in inner[1:]:
                    found = weight * _read(stream, site, kept[site], taps)
                    gradients[site] = gradients[site] + found if site in gradients else found
            for up in inner[:-1]:
                change = _written(stream, up, kept[up], clean[up] - other[up]).flatten(1).T
                for down in inner[inner.index(up) + 1 :]:
                    sums[up, down] += (gradients[down].flatten(1) @ change).cpu().double().numpy()
            done += len(batch.images)
            bar.update(len(batch.images))
    scores = {pair: total / done for pair, total in sums.items()}
    if not all(np.isfinite(one).all() for one in scores.values()):
        raise InputError(
            "Scores of edges are NaN or infinite, although the metric is finite: look at its derivative on the path to "
            "the baseline, or give an encoder of higher precision."
        )
    return scores


def _read(
    stream: ResidualStream, site: str, units: Int[Tensor, " kept"], taps: Mapping[str, Tap]
) -> Float[Tensor, "kept batch position d_model"]:
    """Return the gradient of the metric by the stream that each of some units reads."""
    place = stream.sites.index(site) if site in stream.sites else len(stream.sites)
    index, is_mlp = divmod(place - 1, 2)
    if index == len(stream.blocks):
        last, end = stream.encoder.stages[-1].run, taps[f"blocks.{index - 1}.hook_resid_post"].value
        gradient = taps[site].gradient
        return passed_back(last, end, _one_hot(units, gradient.shape[-1], gradient)[:, None] * gradient)
    block, path = stream.blocks[index], f"blocks.{index}"
    if is_mlp:
        into = taps[f"{path}.mlp.hook_pre"].gradient
        places = [units + first for first in range(0, into.shape[-1], block.n_neurons)]  # two of a gated neuron
        read = torch.stack([_read_at(stream, block, some, into) for some in places]).sum(0)
        return passed_back(block.norm_mlp, taps[f"{path}.hook_resid_mid"].value, read)
    read = read_by_ports(stream, index, taps).sum(0)[units]
    return passed_back(block.norm_attention, taps[f"{path}.hook_resid_pre"].value, read)


def _read_at(
    stream: ResidualStream, block: Block, places: Int[Tensor, " kept"], gradient: Tensor
) -> Float[Tensor, "kept batch position d_model"]:
    """Return the gradient of the metric by what an MLP reads, through each of some pre-activations."""
    rows = passed_back(
        block.mlp_in, _zeros(stream, 1, block.width), _one_hot(places, gradient.shape[-1], gradient)[:, None]
    )
    return gradient[..., places].movedim(-1, 0)[..., None] * rows[:, None]


def _written(
    stream: ResidualStream, site: str, units: Int[Tensor, " kept"], activation: Tensor
) -> Float[Tensor, "kept batch position d_model"]:
    """Return what each of some units adds to the stream, given the activation of their site; it is linear."""
    index, is_mlp = divmod(stream.sites.index(site) - 1, 2)
    own = stream.components.units_of(site, activation)
    if index < 0:
        rows = _one_hot(units, own.shape[-1], own)
    elif is_mlp:
        block = stream.blocks[index]
        ones = _one_hot(units, block.n_neurons, own)
        rows = (block.mlp_out(ones[:, None]) - block.mlp_out(torch.zeros_like(ones[:1])[:, None]))[:, 0].detach()
    else:
        weights = stream.write_weights[index][units]
        return torch.einsum("bphd,hdm->hbpm", own[:, :, units], weights)
    return torch.einsum("bpn,nm->nbpm", own[..., units], rows)


def _one_hot(units: Int[Tensor, " kept"], size: int, like: Tensor) -> Float[Tensor, "kept size"]:
    return torch.nn.functional.one_hot(units, size).to(like)


def _zeros(stream: ResidualStream, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=stream.encoder.dtype, device=stream.encoder.device)

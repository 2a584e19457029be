"""Do methods find a circuit that was built by hand? Small networks with planted circuits, and the score of each method.

1. `planted_convolution` and `planted_attention` build an encoder, images, a metric and the true circuit. The networks
   have distractors, whose activations are large but do not reach the metric. They have a saturated unit, whose gradient
   is zero, and weak random weights everywhere else.
2. `score_methods` ranks units and edges by every method. It returns the area under the ROC curve of the planted units
   or edges. The area is 1 if they all come first. A method with areas near 0.5, the chance level, does not find the
   circuit.

The score of an edge is about its downstream unit, not about the metric. So only edges into planted units are ranked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from circuitry.runs import Amount, Work
from circuitry.bases.gated_reading import joined_sites
from circuitry.circuits.attribution import attribute
from circuitry.circuits.circuit_settings import MaskSettings
from circuitry.circuits.edge_cuts import cut_effects
from circuitry.circuits.masks import learn_masks
from circuitry.circuits.methods import SITE_PATH
from circuitry.circuits.quadrature import gauss_radau_rule, left_rule, midpoint_rule
from circuitry.encoder.doubles import in_double
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.encoder.stages import Stage
from circuitry.encoder.task import Task
from circuitry.gates.edges import Edges
from circuitry.gates.patches import Patch, patched
from circuitry.gates.patching import patch_effects
from circuitry.interventions.finding_circuits import propose_circuits
from circuitry.interventions.kept_circuits import circuit_of

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

RULES = {
    "left 10": left_rule(10),
    "Gauss-Radau 5": gauss_radau_rule(5),
    "midpoint 10": midpoint_rule(10),
    "gradient x activation": left_rule(1),
}
"""Quadrature rules by the name of the method. A single left point gives zero for edges, because the squared movement
has no gradient at the clean activation."""
EXACT = "exact patching"
CUTS = "edge cuts"
LEARNED_MASKS = "learned masks"
SEARCHED = {"conductance": "conductance", LEARNED_MASKS: "learned"}
"""Methods of `find_circuit` that rank units; masks are learned on edges, too."""

MASK_SIZE = 0.2
"""Share of units that learned masks keep, near the share of planted units; half as many edges are kept."""

SIZE = 8
"""Height and width of the images, in pixels."""
N_IMAGES = 16
"""Images that methods are judged on."""
WEAK = 0.02
"""Standard deviation of the weak weights between all units."""


PlantedEdges = dict[tuple[str, str], tuple[tuple[int, int], ...]]
"""(downstream unit, upstream unit) by pair of consecutive sites."""


@dataclass(frozen=True, eq=False)
class PlantedCircuit:
    """A network and the circuit that was built into it."""

    name: str  #: What is planted.
    encoder: Encoder  #: The network, with random units beside the planted ones.
    images: Callable[[int, int], Tensor]
    """(number, seed) -> images [B, 3, 8, 8]."""
    nodes: dict[str, tuple[int, ...]]
    """Planted units by site."""
    edges: PlantedEdges  #: Planted edges by pair of sites.

    def metric(self, embedding: Tensor) -> Tensor:
        """Return the first number of the embedding, the circuit's output [B]."""
        return embedding[:, 0]


def planted_convolution(noise: Amount = WEAK) -> PlantedCircuit:
    """Build a convolutional network, whose metric is a weighted sum of red above a threshold and of saturated green.

    The sites are conv1 (unit 0 is red, unit 1 is green), conv2 (clamped to [0, 1]; unit 0 is red above the threshold,
    unit 1 is saturated green) and head. The distractors are blue and a copy of red. They are loud and lead nowhere.

    Args:
        noise: Standard deviation of the weak random weights.
    """
    conv1 = nn.Conv2d(3, 8, 3, padding=1)
    conv2 = nn.Conv2d(8, 8, 3, padding=1)
    head = nn.Linear(8, 4)
    tower = nn.ModuleList([conv1, conv2, head]).requires_grad_(False)
    _noisy(tower, noise)
    # (row, column) = (downstream unit, upstream unit), at the middle of each 3 x 3 kernel. Units 2 and 3 of each layer
    # are the distractors.
    _add(conv1.weight[:, :, 1, 1], {(0, 0): 1.0, (1, 1): 1.0, (2, 2): 9.0, (3, 0): 9.0})
    _add(conv2.weight[:, :, 1, 1], {(0, 0): 1.0, (1, 1): 1.0, (2, 2): 0.1, (3, 3): 0.1})
    # The threshold of red.
    assert conv2.bias is not None
    conv2.bias[0] -= 0.3
    # The head reads the distractors into outputs 1 and 2; the metric is output 0.
    _add(head.weight, {(0, 0): 2.0, (0, 1): 1.0, (1, 2): 3.0, (2, 3): 3.0})
    stages = (
        Stage("conv1", lambda x: conv1(x).relu(), 1),
        Stage("conv2", lambda x: conv2(x).clamp(0, 1), 1),
        Stage("head", lambda x: head(x.mean((2, 3))), 1),
    )

    def images(n: int, seed: int) -> Tensor:
        # Green is at least 2.5, far above the 1 at which conv2 clamps: the gradient of its unit is zero everywhere.
        low = torch.tensor([0.0, 2.5, 0.0])[:, None, None]
        generator = torch.Generator().manual_seed(seed)
        return low + torch.rand(n, 3, SIZE, SIZE, generator=generator)

    nodes = {"conv1": (0, 1), "conv2": (0, 1), "head": (0,)}
    edges: PlantedEdges = {
        ("conv1", "conv2"): ((0, 0), (1, 1)),
        ("conv2", "head"): ((0, 0), (0, 1)),
    }
    return PlantedCircuit(
        "convolution", Encoder(tower, stages, (SIZE, SIZE)), images, nodes, edges
    )


def planted_attention(noise: Amount = WEAK) -> PlantedCircuit:
    """Build an attention block and an MLP, in which the class token reads red from the greenest patch.

    The sites are embed (a class token and four patches; unit 0 is red, unit 1 is green, unit 7 is 1 at the class token
    alone), attention (unit 4 is the red that was read), mlp (unit 5 is this red above a threshold) and head. The
    distractors are blue and a copy of red.

    Args:
        noise: Standard deviation of the weak random weights.
    """
    # Query and key are strong: at the class token the score of the green patch is 9, so the softmax is near 1 there.
    entries = {
        "query": {(0, 7): 3.0},
        "key": {(0, 1): 3.0},
        "value": {(4, 0): 1.0},
        "up": {(0, 4): 1.0},
        "down": {(5, 0): 1.0},
    }
    embed = nn.Linear(3, 8, bias=False)
    head = nn.Linear(8, 4)
    block = nn.ModuleDict(
        {name: nn.Linear(8, 8, bias=name == "up") for name in entries}
    )
    tower = nn.ModuleList([embed, block, head]).requires_grad_(False)
    _noisy(tower, noise)
    _add(embed.weight, {(0, 0): 1.0, (1, 1): 1.0, (2, 2): 3.0, (3, 0): 3.0})
    for name, entry in entries.items():
        _add(block.get_submodule(name).get_parameter("weight"), entry)
    # The threshold of the red that was read.
    block.get_submodule("up").get_parameter("bias")[0] -= 0.2
    _add(head.weight, {(0, 5): 1.0, (1, 2): 3.0, (2, 3): 3.0})

    def embedded(x: Tensor) -> Tensor:
        patches = F.avg_pool2d(x, SIZE // 2).flatten(2).transpose(1, 2)
        tokens: Tensor = embed(patches)
        # The class token is the same for every image: 1 in unit 7, [images, 1, 8].
        flag = F.one_hot(torch.tensor([7], device=x.device), 8).to(x)
        return torch.cat([flag.expand(len(x), 1, 8), tokens], 1)

    def attended(x: Tensor) -> Tensor:
        pattern = block["query"](x) @ block["key"](x).transpose(1, 2)
        out: Tensor = x + torch.softmax(pattern, -1) @ block["value"](x)
        return out

    stages = (
        Stage("embed", embedded, -1),
        Stage("attention", attended, -1),
        Stage("mlp", lambda x: x + block["down"](block["up"](x).relu()), -1),
        Stage("head", lambda x: head(x[:, 0]), 1),
    )

    def images(n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(n, 3, SIZE, SIZE, generator=generator)
        # Red is never dark, so the threshold is crossed in every image.
        x[:, 0] += 0.5
        greenest = torch.randint(0, 4, (n,), generator=generator)
        # [n, 2, 2] patches become [n, SIZE, SIZE] pixels: one patch is green, the other three have no green.
        patches = F.one_hot(greenest, 4).view(n, 2, 2).to(x)
        rows = patches.repeat_interleave(SIZE // 2, 1)
        x[:, 1] = rows.repeat_interleave(SIZE // 2, 2)
        return x

    nodes = {"embed": (0, 1, 7), "attention": (4,), "mlp": (5,), "head": (0,)}
    edges: PlantedEdges = {
        ("embed", "attention"): ((4, 0), (4, 1), (4, 7)),
        ("attention", "mlp"): ((5, 4),),
        ("mlp", "head"): ((0, 5),),
    }
    return PlantedCircuit(
        "attention", Encoder(tower, stages, (SIZE, SIZE)), images, nodes, edges
    )


def score_methods(planted: PlantedCircuit) -> pd.DataFrame:
    """Return how well every method finds the planted units and edges.

    The columns are network, method, kind (``node`` or ``edge``), site (for an edge, the downstream site) and auroc.
    A site is left out if all or none of its units or edges are planted.
    """
    encoder = planted.encoder
    images = planted.images(N_IMAGES, 0)
    sites = [site for site in encoder.sites if site != INPUT]
    rows: list[tuple[str, str, str, str, float]] = []

    def add(
        method: str, kind: str, site: str, scores: np.ndarray, truth: np.ndarray
    ) -> None:
        # Without both kinds there is no ROC curve.
        if truth.any() and not truth.all():
            # By magnitude: a unit whose removal raises the metric belongs to the circuit, too.
            area = float(roc_auc_score(truth.ravel(), np.abs(scores).ravel()))
            rows.append((planted.name, method, kind, site, area))

    def score(
        method: str,
        nodes: Mapping[str, np.ndarray],
        edges: Mapping[tuple[str, str], np.ndarray],
    ) -> None:
        for site, values in nodes.items():
            is_planted = np.isin(np.arange(len(values)), planted.nodes[site])
            add(method, "node", site, values, is_planted)
        for pair, values in edges.items():
            # [units downstream, units upstream]
            truth = np.zeros(values.shape, dtype=bool)
            truth[tuple(np.transpose(planted.edges[pair]))] = True
            # Only rows of planted units: the other rows rank edges by their effect on units that do not matter.
            into = list(planted.nodes[pair[1]])
            add(method, "edge", pair[1], values[into], truth[into])

    for method, rule in RULES.items():
        graph = attribute(
            encoder, images, planted.metric, 1.0, rule, method=SITE_PATH, progress=False
        )
        in_order = {}
        for (up, down), scores in graph.edge_scores.items():
            # A graph holds units in order of their scores; the truth holds them in order of their indices.
            rows_in_order = np.argsort(graph.kept_units[down])
            columns_in_order = np.argsort(graph.kept_units[up])
            in_order[up, down] = scores[np.ix_(rows_in_order, columns_in_order)]
        score(method, {site: graph.node_scores[site] for site in sites}, in_order)
    # The reference: each unit, and each edge, is set to its baseline in a run of its own.
    task = Task(encoder, images, planted.metric, sites=sites, work=Work(progress=False))
    exact = patch_effects(task)
    score(EXACT, exact.scores, edge_movements(task))
    # A circuit of everything, whose edges masks and cuts choose from.
    units = {site: np.arange(len(exact.scores[site])) for site in sites}
    every_unit = circuit_of(task, units)
    every_edge = Edges.between(every_unit.units, joined_sites(encoder, sites))
    masks = MaskSettings(batch_size=N_IMAGES)
    for name, method in SEARCHED.items():
        circuits = propose_circuits(task, [MASK_SIZE], method=method, masks=masks)
        score(name, circuits[0].source.ranked_by, {})
    gated = learn_masks(
        task,
        [MASK_SIZE / 2],
        replace(masks, steps=150),
        among=replace(every_unit, edges=every_edge),
    )
    # Scores of masks may be negative, for edges that are not kept; `add` takes magnitudes, so they are made positive.
    kept = {pair: expit(scores) for pair, scores in gated.scores.scores.items()}
    score(LEARNED_MASKS, {}, kept)
    score(CUTS, {}, cut_effects(task, every_edge).scores)
    return pd.DataFrame(rows, columns=["network", "method", "kind", "site", "auroc"])


def edge_movements(task: Task) -> dict[tuple[str, str], np.ndarray]:
    """Return how far each downstream unit moves if a single upstream unit is set to its baseline.

    The movement is the squared distance from the clean activation, averaged over images and positions. Each upstream
    unit takes a run of the stages between the two sites. The images of the task must fit one batch.

    Returns:
        Movements [units downstream, units upstream] by pair of the task's consecutive sites.
    """
    encoder = task.encoder
    movements = {}
    with task.running():
        (batch,) = task.batches()
        clean = batch.clean(task.sites)
        for up, down in pairwise(task.sites):
            upstream = clean[up]
            unit_dim = encoder.unit_dim(down)
            columns = []
            for unit in range(upstream.shape[encoder.unit_dim(up)]):
                with patched(encoder, Patch(up, task.baseline, units=unit)):
                    moved = encoder(upstream, start=up, stop=down)
                # [units downstream, images x positions]
                moves = (moved - clean[down]).movedim(unit_dim, 0).flatten(1)
                columns.append(in_double(moves).square().mean(1).cpu().numpy())
            movements[up, down] = np.stack(columns, 1)
    return movements


def _noisy(tower: nn.Module, noise: float) -> None:
    """Set all weights to weak random values, the same in every call, in place of PyTorch's initial values."""
    generator = torch.Generator().manual_seed(0)
    for parameter in tower.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(float(noise) * values)


def _add(weight: Tensor, entries: Mapping[tuple[int, int], float]) -> None:
    """Add values to a weight in place, by (downstream unit, upstream unit)."""
    for place, value in entries.items():
        weight[place] += value

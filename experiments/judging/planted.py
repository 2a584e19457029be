"""Planted circuits: small networks with a circuit built by hand, to test methods against the truth.

Every method ranks units and edges; the area under the ROC curve of the planted ones is 1 if they come first, and 0.5 by
chance.

1. `planted_convolution` and `planted_attention` build an encoder, images, a metric, and the truth. The networks have
   distractors with large activations that do not reach the metric, a saturated unit (its gradient is zero), and weak
   random weights everywhere else;
2. `score_methods` ranks units and edges by every method and returns the areas.

An edge score is about its downstream unit, not about the metric, so edges are ranked among those into planted units.
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
"""One left point gives zero for edges: the squared movement has no gradient at the clean activation."""
EXACT = "exact patching"
CUTS = "edge cuts"
LEARNED_MASKS = "learned masks"
SEARCHED = {"conductance": "conductance", LEARNED_MASKS: "learned"}
"""Methods of `find_circuit`, of units; masks are also learned on edges."""

MASK_SIZE = 0.2
"""Share of units that learned masks keep, near that of the planted ones; half of it for edges."""

SIZE = 8
"""Height and width of the images, in pixels."""
N_IMAGES = 16
"""Images that methods are judged on."""
WEAK = 0.02
"""Standard deviation of the weak weights between everything."""


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
    """Build a convolutional network: red -> above a threshold, green -> saturated; the metric is their weighted sum.

    Sites conv1 (units 0 red, 1 green), conv2 (clamped to [0, 1]: units 0 and 1), head. Loud distractors: blue and a
    copy of red, which lead nowhere.
    """
    conv1 = nn.Conv2d(3, 8, 3, padding=1)
    conv2 = nn.Conv2d(8, 8, 3, padding=1)
    head = nn.Linear(8, 4)
    tower = nn.ModuleList([conv1, conv2, head]).requires_grad_(False)
    _noisy(tower, noise)
    _add(conv1.weight[:, :, 1, 1], {(0, 0): 1.0, (1, 1): 1.0, (2, 2): 9.0, (3, 0): 9.0})
    _add(conv2.weight[:, :, 1, 1], {(0, 0): 1.0, (1, 1): 1.0, (2, 2): 0.1, (3, 3): 0.1})
    assert conv2.bias is not None
    conv2.bias[0] -= 0.3
    _add(head.weight, {(0, 0): 2.0, (0, 1): 1.0, (1, 2): 3.0, (2, 3): 3.0})
    stages = (
        Stage("conv1", lambda x: conv1(x).relu(), 1),
        Stage("conv2", lambda x: conv2(x).clamp(0, 1), 1),
        Stage("head", lambda x: head(x.mean((2, 3))), 1),
    )

    def images(n: int, seed: int) -> Tensor:
        low = torch.tensor([0.0, 2.5, 0.0])[:, None, None]
        return low + torch.rand(
            n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)
        )

    nodes = {"conv1": (0, 1), "conv2": (0, 1), "head": (0,)}
    edges: PlantedEdges = {
        ("conv1", "conv2"): ((0, 0), (1, 1)),
        ("conv2", "head"): ((0, 0), (0, 1)),
    }
    return PlantedCircuit(
        "convolution", Encoder(tower, stages, (SIZE, SIZE)), images, nodes, edges
    )


def planted_attention(noise: Amount = WEAK) -> PlantedCircuit:
    """Build an attention block and an MLP: the class token reads red from the patch that is greenest.

    Sites embed (four patches and a class token; units 0 red, 1 green, 7 one at the class token), attention (unit 4:
    what was read), mlp (unit 5: that above a threshold), head. Loud distractors: blue and a copy of red.
    """
    names = ("query", "key", "value", "up", "down")
    embed = nn.Linear(3, 8, bias=False)
    head = nn.Linear(8, 4)
    block = nn.ModuleDict({name: nn.Linear(8, 8, bias=name == "up") for name in names})
    tower = nn.ModuleList([embed, block, head]).requires_grad_(False)
    _noisy(tower, noise)
    _add(embed.weight, {(0, 0): 1.0, (1, 1): 1.0, (2, 2): 3.0, (3, 0): 3.0})
    entries = {
        "query": (0, 7),
        "key": (0, 1),
        "value": (4, 0),
        "up": (0, 4),
        "down": (5, 0),
    }
    weights = {
        name: block.get_submodule(name).get_parameter("weight") for name in names
    }
    for name, place in entries.items():
        _add(weights[name], {place: 3.0 if name in ("query", "key") else 1.0})
    block.get_submodule("up").get_parameter("bias")[0] -= 0.2
    _add(head.weight, {(0, 5): 1.0, (1, 2): 3.0, (2, 3): 3.0})

    def embedded(x: Tensor) -> Tensor:
        patches = F.avg_pool2d(x, SIZE // 2).flatten(2).transpose(1, 2)
        tokens: Tensor = embed(patches)
        flag = (
            F.one_hot(torch.tensor([7], device=x.device), 8).to(x).expand(len(x), 1, 8)
        )
        return torch.cat([flag, tokens], 1)

    def attended(x: Tensor) -> Tensor:
        q, k, v = (block[name](x) for name in ("query", "key", "value"))
        out: Tensor = x + torch.softmax(q @ k.transpose(1, 2), -1) @ v
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
        x[:, 0] += 0.5
        greenest = torch.randint(0, 4, (n,), generator=generator)
        patches = F.one_hot(greenest, 4).view(n, 2, 2).to(x)
        x[:, 1] = patches.repeat_interleave(SIZE // 2, 1).repeat_interleave(
            SIZE // 2, 2
        )
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

    Columns network, method, kind (``node`` or ``edge``), site (the downstream one of an edge), auroc. Sites where
    everything or nothing was planted are left out.
    """
    encoder = planted.encoder
    images = planted.images(N_IMAGES, 0)
    sites = [site for site in encoder.sites if site != INPUT]
    rows: list[tuple[str, str, str, str, float]] = []

    def add(
        method: str, kind: str, site: str, scores: np.ndarray, truth: np.ndarray
    ) -> None:
        if truth.any() and not truth.all():
            area = float(roc_auc_score(truth.ravel(), np.abs(scores).ravel()))
            rows.append((planted.name, method, kind, site, area))

    def score(
        method: str,
        nodes: Mapping[str, np.ndarray],
        edges: Mapping[tuple[str, str], np.ndarray],
    ) -> None:
        for site in nodes:
            add(
                method,
                "node",
                site,
                nodes[site],
                np.isin(np.arange(len(nodes[site])), planted.nodes[site]),
            )
        for pair in edges:
            into = list(planted.nodes[pair[1]])
            truth = np.zeros(edges[pair].shape, dtype=bool)
            truth[tuple(np.transpose(planted.edges[pair]))] = True
            add(method, "edge", pair[1], edges[pair][into], truth[into])

    for method, rule in RULES.items():
        graph = attribute(
            encoder, images, planted.metric, 1.0, rule, method=SITE_PATH, progress=False
        )
        in_order = {
            (up, down): scores[
                np.ix_(
                    np.argsort(graph.kept_units[down]), np.argsort(graph.kept_units[up])
                )
            ]
            for (up, down), scores in graph.edge_scores.items()
        }
        score(method, {site: graph.node_scores[site] for site in sites}, in_order)
    task = Task(encoder, images, planted.metric, sites=sites, work=Work(progress=False))
    exact = patch_effects(task)
    score(EXACT, exact.scores, edge_movements(task))
    every_unit = circuit_of(
        task, {site: np.arange(len(exact.scores[site])) for site in sites}
    )
    every_edge = Edges.between(every_unit.units, joined_sites(encoder, sites))
    masks = MaskSettings(batch_size=N_IMAGES)
    for name, method in SEARCHED.items():
        score(
            name,
            propose_circuits(task, [MASK_SIZE], method=method, masks=masks)[
                0
            ].source.ranked_by,
            {},
        )
    gated = learn_masks(
        task,
        [MASK_SIZE / 2],
        replace(masks, steps=150),
        among=replace(every_unit, edges=every_edge),
    )
    score(
        LEARNED_MASKS,
        {},
        {pair: expit(scores) for pair, scores in gated.scores.scores.items()},
    )
    score(CUTS, {}, cut_effects(task, every_edge).scores)
    return pd.DataFrame(rows, columns=["network", "method", "kind", "site", "auroc"])


def edge_movements(task: Task) -> dict[tuple[str, str], np.ndarray]:
    """Return how far each downstream unit moves when one upstream unit is at the baseline, of one batch of images.

    Mean over images and positions of the squared distance from the clean activation, with only the stages between
    the two sites run; one run per upstream unit.

    Returns:
        Scores [units downstream, units upstream] by pair of the task's consecutive sites.
    """
    encoder = task.encoder
    found = {}
    with task.running():
        (batch,) = task.batches()
        clean = batch.clean(task.sites)
        for up, down in pairwise(task.sites):
            a = clean[up]
            units = clean[down].movedim(encoder.unit_dim(down), 0)
            columns = []
            for unit in range(a.shape[encoder.unit_dim(up)]):
                with patched(encoder, Patch(up, task.baseline, units=unit)):
                    moved = encoder(a, start=up, stop=down).movedim(
                        encoder.unit_dim(down), 0
                    )
                columns.append(
                    in_double((moved - units).flatten(1)).square().mean(1).cpu().numpy()
                )
            found[up, down] = np.stack(columns, 1)
    return found


def _noisy(tower: nn.Module, noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in tower.parameters():
        parameter.copy_(
            float(noise) * torch.randn(parameter.shape, generator=generator)
        )


def _add(weight: Tensor, entries: Mapping[tuple[int, int], float]) -> None:
    for place, value in entries.items():
        weight[place] += value

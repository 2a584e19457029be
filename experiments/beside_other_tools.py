"""How much processor time do captum, TransformerLens, nnsight and plain PyTorch need for the scores of this package?

In each job all tools score the same units of the same tower, on the same images, with the same baseline and the same
number of points. A run has at most as many rows as a run of this package, so memory is the same, too. Tools take turns
in each round. The seconds are those of the processor, of one thread, in the round that took least.

    python experiments/beside_other_tools.py
    python experiments/beside_other_tools.py --jobs "patching of heads" --rounds 5

The rows of nnsight need ``pip install nnsight``; without it they are left out.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

from circuitry.runs import Work, run_script
from circuitry import AttributionGraph, Encoder, Task, class_logit, load_clip
from circuitry.bases import in_components
from circuitry.circuits import (
    AttributionSettings,
    attribute_components,
    gauss_legendre_rule,
    score_units,
)
from circuitry.data import chosen_names
from circuitry.encoder import Metric
from circuitry.encoder.operations import OperationCounter
from circuitry.encoder.tensor_batches import rows_that_fit
from circuitry.gates.fisher import default_answers
from experiments.kept_tables import KeepSettings
from experiments.other_tools import (
    N_POINTS,
    BridgeHeads,
    HeadTool,
    Layers,
    NnsightHeads,
    PlainHeads,
)

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

N_IMAGES = {
    "rn-tiny": 4,
    "vit-tiny": 8,
    "efficientnet-lite0": 2,
    "ViT-S/32": 2,
    "ViT-B/32": 1,
}
"""Number of images by tower."""
SIZES = {
    "vit-tiny": {
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "intermediate_size": 384,
        "image_size": 64,
        "patch_size": 16,
    },
    # Other settings are by default those of a ViT-B of 224 pixels.
    "ViT-S/32": {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "patch_size": 32,
    },
    "ViT-B/32": {"patch_size": 32},
}
"""Settings of the ViTs of transformers whose heads are scored, by the tower that has this size."""
JOBS = (
    "integrated gradients",
    "conductance",
    "gradient x activation",
    "ablation",
    "Fisher information in rounds",
    "patching of heads",
    "attribution patching of heads",
    "edges between heads and MLPs",
)
HAS_NNSIGHT = find_spec("nnsight") is not None
CIRCUITRY = "circuitry"
PLAIN = "plain PyTorch"


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the measurements."""

    towers: tuple[str, ...] = tuple(N_IMAGES)
    """Towers whose units or heads are scored."""
    jobs: tuple[str, ...] = JOBS
    """How they are scored."""
    rounds: int = 3
    """Number of rounds in which the tools of a job take turns."""


class Job(NamedTuple):
    """Scores, and the tools that compute them."""

    name: str
    """One of `JOBS`."""
    images: Tensor
    """The images on which units are scored."""
    forward: Callable[[Tensor], Any]
    """The tower, whose operations on one image are the unit of operations."""
    tools: Mapping[str, Callable[[], np.ndarray]]
    """For each tool, a function that returns all scores, in the same order."""


def main(config: Config) -> None:
    """Measure all jobs, print and write the table."""
    rows = list[dict[str, Any]]()
    jobs = chosen_names("job", config.jobs, JOBS)
    for tower in chosen_names("tower", config.towers, list(N_IMAGES)):
        for job in jobs_of(tower):
            if job.name in jobs:
                rows += measured(job, tower, config.rounds)
    # The version of TransformerLens is kept with those of the package.
    facts: dict[str, Any] = {"captum": version("captum")}
    if HAS_NNSIGHT:
        facts["nnsight"] = version("nnsight")
    threads = torch.get_num_threads()
    config.keep({"tools": pd.DataFrame(rows)}, threads=threads, **facts)


def measured(job: Job, tower: str, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each tool: its seconds, its operations, and how far its scores are from those of circuitry."""
    with OperationCounter() as one_forward, torch.no_grad():
        job.forward(job.images[:1])
    scores = dict[str, np.ndarray]()
    operations = dict[str, float]()
    # This first run is not timed: it loads code, and tools keep what they compute once for a tower.
    for tool, score in job.tools.items():
        with OperationCounter() as counter:
            scores[tool] = score()
        operations[tool] = counter.total / one_forward.total
    seconds: dict[str, list[float]] = {tool: [] for tool in job.tools}
    for _ in range(rounds):
        for tool, score in job.tools.items():
            started = time.process_time()
            score()
            seconds[tool].append(time.process_time() - started)
    ours = scores[CIRCUITRY]
    rows = list[dict[str, Any]]()
    for tool, of_tool in seconds.items():
        difference = np.abs(scores[tool] - ours).max() / np.abs(ours).max()
        row = {
            "tower": tower,
            "job": job.name,
            "images": len(job.images),
            "scores": len(ours),
            "tool": tool,
            "seconds": min(of_tool),
            "slowest seconds": max(of_tool),
            "ratio": min(of_tool) / min(seconds[CIRCUITRY]),
            "operations in forward runs of an image": operations[tool],
            "largest difference relative to the largest score": difference,
        }
        rows.append(row)
    print(pd.DataFrame(rows).to_string(index=False, header=False), flush=True)
    return rows


def jobs_of(tower: str) -> Iterator[Job]:
    """Return the jobs of a tower."""
    if tower not in ("ViT-S/32", "ViT-B/32"):
        yield from unit_jobs(load_clip(tower).encoder, N_IMAGES[tower])
    if tower in SIZES:
        yield from head_jobs(ViTConfig(**SIZES[tower], num_labels=16), N_IMAGES[tower])


def pictures_and_metric(
    encoder: Encoder, n_images: int
) -> tuple[Tensor, Tensor, Metric]:
    """Return random images, as many for the baseline, and the logit of the first of ten random classes."""
    torch.manual_seed(0)
    coarse = torch.randn(2 * n_images, 3, 8, 8)
    pictures = F.interpolate(coarse, encoder.image_size, mode="bilinear")
    images, others = torch.split(pictures.clamp(-1.7, 2), n_images)
    with torch.no_grad():
        width = encoder(images[:1]).shape[-1]
    weights = F.normalize(torch.randn(10, width), dim=-1)
    return images, others, class_logit(weights, 0)


def unit_jobs(encoder: Encoder, n_images: int) -> Iterator[Job]:
    """Return the jobs that score the units of all sites that are the output of a module of the tower."""
    tower = encoder.tower
    modules = dict(tower.named_modules())
    sites = [site for site in encoder.sites if site in modules]
    images, others, metric = pictures_and_metric(encoder, n_images)

    with torch.no_grad():
        _, activations = encoder.run_with_cache(images[:1])
    layers = Layers(
        tower,
        metric,
        {site: modules[site] for site in sites},
        {site: encoder.unit_dim(site) for site in sites},
        images,
        others,
        default_answers(metric),
        [encoder.n_units(site, activations[site]) for site in sites],
        rows_that_fit(encoder, None),
    )

    def ours(method: str, baseline: Any = others, **of_class: Tensor) -> np.ndarray:
        task = Task(
            encoder,
            images,
            metric,
            baseline=baseline,
            sites=sites,
            work=Work(progress=False),
            **of_class,
        )
        rule = AttributionSettings(rule=gauss_legendre_rule(N_POINTS))
        return np.concatenate([*score_units(task, method, rule).values()])

    by_captum = {
        "integrated gradients": (
            layers.integrated_gradients,
            lambda: ours("site-path"),
        ),
        "conductance": (layers.conductance, lambda: ours("conductance")),
        "gradient x activation": (layers.gradients, lambda: ours("gradient", "zero")),
        "ablation": (layers.ablation, lambda: ours("patching")),
    }
    for name, (captum, circuitry) in by_captum.items():
        yield Job(name, images, tower, {"captum": captum, CIRCUITRY: circuitry})
    ranks = {
        PLAIN: layers.ranks,
        CIRCUITRY: lambda: ours("iterative-fisher", "zero", others=others),
    }
    yield Job("Fisher information in rounds", images, tower, ranks)


def head_jobs(config: ViTConfig, n_images: int) -> Iterator[Job]:
    """Return the jobs that score the heads, and the edges between heads and MLPs, of a ViT with random weights."""
    torch.manual_seed(0)
    vit = ViTForImageClassification(config).eval().requires_grad_(False)
    for weight in vit.parameters():
        # With the weights of a new ViT all heads do nearly nothing.
        weight.mul_(3)
    encoder = Encoder.from_tower(vit)
    in_heads = in_components(encoder)
    images, others, metric = pictures_and_metric(encoder, n_images)
    sites = [site for site in in_heads.sites if site.endswith(".attn")]
    rows = rows_that_fit(in_heads, None)

    def task(encoder: Encoder, **sites: Any) -> Task:
        work = Work(progress=False)
        return Task(encoder, images, metric, baseline=others, work=work, **sites)

    def ours(method: str) -> np.ndarray:
        scores = score_units(task(in_heads, sites=sites), method)
        return np.concatenate([*scores.values()])

    # Each of them gets a ViT of its own, since they change what its modules run.
    kinds: dict[str, type[HeadTool]] = {
        "TransformerLens": BridgeHeads,
        "nnsight": NnsightHeads,
        PLAIN: PlainHeads,
    }
    if not HAS_NNSIGHT:
        print("The rows of nnsight are left out; for them: pip install nnsight")
        del kinds["nnsight"]
    tools = {
        name: kind(copy.deepcopy(vit), images, others, metric, rows)
        for name, kind in kinds.items()
    }
    patching = {name: tool.patching for name, tool in tools.items()}
    patching[CIRCUITRY] = lambda: ours("patching")
    yield Job("patching of heads", images, vit, patching)
    gradients = {name: tool.gradients for name, tool in tools.items()}
    gradients[CIRCUITRY] = lambda: ours("gradient")
    yield Job("attribution patching of heads", images, vit, gradients)
    edges = {name: tool.edges for name, tool in tools.items()}
    edges[CIRCUITRY] = lambda: edges_of(
        attribute_components(task(in_heads), ports=True)
    )
    yield Job("edges between heads and MLPs", images, vit, edges)


def edges_of(graph: AttributionGraph) -> np.ndarray:
    """Return the scores of a graph of components in the order of `HeadTool.edges`."""
    # Kept units are listed from the strongest on.
    in_order = {site: np.argsort(kept) for site, kept in graph.kept_units.items()}
    scores = list[np.ndarray]()
    for down in graph.sites:
        into = list[np.ndarray]()
        for up in graph.sites:
            if (up, down) in graph.edge_scores:
                of_pair = graph.edge_scores[up, down]
                into.append(of_pair[in_order[down]][:, in_order[up]])
        if into:
            scores.append(np.concatenate(into, 1).ravel())
    return np.concatenate(scores)


if __name__ == "__main__":
    run_script(Config, main, __doc__)

"""Which quadrature rule is worth its cost? The error of node and edge scores by rule, on a trained model.

The scores of a few circuits by each rule are set against those of the midpoint rule with many points: the relative
error (norm of the difference over norm, per site or pair of sites, then the mean), the share of kept units that agree,
and the operations that the rule takes relative to the study's left rule with ten points. Edges are scored between the
units that the reference keeps, so that their error is that of the rule alone. A default is refuted by a rule that is
cheaper and no worse.

    python experiments/benchmark_rules.py      # the model and images of the quickstart
    python experiments/benchmark_rules.py --checkpoint runs/emoji-clip/clip/checkpoints/epoch_18.pt --data EmojiDomains
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from circuitry import Clip, DomainFolder, class_logit, load_clip
from circuitry.circuits.cost import count_operations
from circuitry.circuits.edges import edge_effects
from circuitry.circuits.nodes import keep_units, node_effects
from circuitry.circuits.quadrature import parse_rule
from circuitry.circuits.settings import AttributionSettings
from circuitry.interventions.circuits_under_test import read_images
from circuitry.models.batches import ImageBatches, rows_that_fit
from circuitry.models.metrics import Metric
from circuitry.runs.command_line import run_script
from circuitry.runs.files import whole_file

STUDY = "left-10"


@dataclass(frozen=True)
class Config:
    """Settings of the comparison of rules."""

    model: str = "rn-tiny"
    """open_clip model name, a name shipped here (rn-tiny), or the path of a model-config JSON."""
    checkpoint: Path = Path("runs/quickstart/clip/checkpoints/epoch_16.pt")
    """Weights of a trained model."""
    data: Path = Path("runs/quickstart/toy")
    """Folder of the images: <domain>/<class>/<file>."""
    circuits: int = 8
    """How many circuits: the first class in the first domain, the second in the second, and so on."""
    n_images: int = 6
    """Images per circuit."""
    rules: tuple[str, ...] = (
        *(STUDY, "left-1", "midpoint-1", "midpoint-2", "midpoint-3", "midpoint-4", "midpoint-5"),
        *("midpoint-6", "midpoint-8", "midpoint-10"),
        *("gauss-legendre-3", "gauss-legendre-4", "gauss-legendre-6"),
        *("gauss-radau-3", "gauss-radau-4", "gauss-radau-5", "gauss-radau-6", "gauss-radau-7"),
    )
    """Rules to compare."""
    seed: int = 0
    """Seed of the choice of images."""
    reference: str = "midpoint-200"
    """What is taken for exact."""
    out: Path | None = None
    """CSV file for the table."""


def main(config: Config) -> None:
    """Score the circuits by every rule and print the table."""
    clip = load_clip(config.model, checkpoint=config.checkpoint)
    images = DomainFolder(config.data, split="test")
    weights = clip.text_weights(images.all_classes)
    tables = []
    for i in range(config.circuits):
        class_name, domain = images.classes[i % len(images.classes)], images.domains[i % len(images.domains)]
        records = images.select(class_name, domain, config.n_images, config.seed)
        if records:
            loaded = read_images(clip, records, strict=True)
            tables.append(errors(clip, loaded, class_logit(weights, images.label(class_name)), config))
    table = pd.concat(tables).groupby("rule", sort=False).mean()
    table = table.join(relative_costs(clip, class_logit(weights, 0), config.rules))
    print(f"{len(tables)} circuits of {config.n_images} images, against {config.reference}")
    print(table.to_string(float_format=lambda v: f"{v:.3f}"))
    if config.out is not None:
        with whole_file(config.out) as temporary:
            table.to_csv(temporary, float_format="%.4f")


def errors(clip: Clip, images: Tensor, metric: Metric, config: Config) -> pd.DataFrame:
    """Return the errors of every rule for one circuit: columns rule, node error, edge error, kept units."""
    encoder = clip.encoder
    batches = ImageBatches(images, encoder, rows_that_fit(encoder, 1.0))

    def nodes(rule: str) -> dict[str, np.ndarray]:
        return node_effects(encoder, batches, metric, AttributionSettings(rule=parse_rule(rule))).scores

    def edges(rule: str) -> dict[tuple[str, str], np.ndarray]:
        return edge_effects(encoder, batches, kept, AttributionSettings(rule=parse_rule(rule)))

    found = []
    with encoder.frozen(), encoder.fast():
        exact_nodes = nodes(config.reference)
        kept = {site: keep_units(scores, 0.1) for site, scores in exact_nodes.items()}
        exact_edges = edges(config.reference)
        for rule in config.rules:
            scores = nodes(rule)
            same = [np.isin(keep_units(scores[site], 0.1), units).mean() for site, units in kept.items()]
            moved = edges(rule)
            found.append((rule, _relative(scores, exact_nodes), _relative(moved, exact_edges), np.mean(same)))
    return pd.DataFrame(found, columns=["rule", "node error", "edge error", "kept units"])


def _relative(scores: Mapping[Any, np.ndarray], exact: Mapping[Any, np.ndarray]) -> float:
    """Return the norm of the difference over the norm, mean over sites; sites without any effect are left out."""
    ratios = [np.linalg.norm(scores[k] - v) / np.linalg.norm(v) for k, v in exact.items() if np.linalg.norm(v)]
    return float(np.mean(ratios))


def relative_costs(clip: Clip, metric: Metric, rules: tuple[str, ...]) -> pd.DataFrame:
    """Return the counted operations of nodes and edges by rule, relative to the study's rule."""
    counts = {
        rule: count_operations(clip.encoder, metric, AttributionSettings(rule=parse_rule(rule)))
        for rule in dict.fromkeys([STUDY, *rules])
    }
    rows = [(r, n / counts[STUDY].nodes, e / counts[STUDY].edges) for r, (n, e) in counts.items()]
    return pd.DataFrame(rows, columns=["rule", "node cost", "edge cost"]).set_index("rule")


if __name__ == "__main__":
    run_script(Config, main, __doc__)

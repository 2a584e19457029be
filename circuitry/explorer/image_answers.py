"""What a model answers to images: the whole model, the circuit alone, and all but the circuit.

The circuit alone: all kept units, everything else at the baseline.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry.data.parts import Key
from circuitry.explorer.view_files import ImageAnswers
from circuitry.interventions.circuit_checks import CausalChecks
from circuitry.interventions.gated import kept_embeddings
from circuitry.models.classifier import Classifier
from circuitry.runs.workers import Work

SHOWN_ANSWERS = 3
"""Classes that an answer names."""


def circuit_embeddings(checks: CausalChecks, key: Key, images: Tensor, work: Work) -> Tensor:
    """Return the embeddings [runs, images, d] of some images; see `RUNS`."""
    circuit = checks.circuit(key)
    runs = [circuit.nothing().complement(), circuit, circuit.complement()]
    return kept_embeddings(checks.task(key, images, work=work), runs)


@torch.no_grad()
def image_answers(checks: CausalChecks, domain: str, embeddings: Tensor) -> list[ImageAnswers]:
    """Return the model's answer to each image, given embeddings [runs, images, d] and the domain of its texts."""
    rows, weights = embeddings.flatten(0, 1), checks.weights(domain)
    no_text = isinstance(checks.clip, Classifier)
    logits = F.normalize(rows, dim=-1) @ weights.T if no_text else checks.clip.pair_logits(rows, weights)
    shares = logits.softmax(-1).reshape(*embeddings.shape[:2], -1)
    best = shares.topk(min(SHOWN_ANSWERS, shares.shape[-1]), dim=-1)
    values, classes = best.values.cpu().numpy(), best.indices.cpu().numpy()
    return [ImageAnswers(classes[:, i], values[:, i]) for i in range(values.shape[1])]

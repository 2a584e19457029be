"""A linear probe on a tower as a classifier: for models that read no text and have no classifier of their own.

The standardisation of `ridge` is folded into its rows and biases, so that these act on embeddings themselves. The rows
then replace class texts, as the rows of a `Classifier` do.
"""

from collections.abc import Sequence

import numpy as np
import torch

from circuitry.data.domains import ImageRecord
from circuitry.encoder.modes import own_modes
from circuitry.models.classifier import Classifier
from circuitry.models.clip import Clip
from circuitry.models.image_pass import activations
from circuitry.models.ridge import ridge_probe
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked


@own_modes()
@checked
def linear_probe(clip: Clip, records: Sequence[ImageRecord]) -> Classifier:
    """Return a model whose class texts are the rows of a linear probe on its embeddings; its own texts are not used.

    Take other images than the images to explain: the probe has seen its own.

    Raises:
        InputError: for images of fewer than two classes, or embeddings that are not finite.

    Example:
        >>> dino = load_clip("facebook/dinov2-base")
        >>> clip = linear_probe(dino, DomainFolder(root, split="train").records)
        >>> metric = class_logit(clip.text_weights(["cat", "dog"]), label=0)
    """
    last = clip.encoder.sites[-1]
    embeddings, names = [], list[str]()
    for there, found in activations(clip.encoder, clip.preprocess, records, [last]):
        embeddings.append(found[last].detach().cpu().double().numpy())
        names += [record.class_name for record in there]
    classes = sorted(set(names))
    if len(classes) < 2:
        raise InputError(
            f"A linear probe tells at least two classes apart, but the images are of {', '.join(classes) or 'none'}."
        )
    probe = ridge_probe().fit(np.concatenate(embeddings), names)
    scaler, ridge = probe[0], probe[1]
    rows = np.atleast_2d(ridge.coef_) / scaler.scale_
    bias = ridge.intercept_ - rows @ scaler.mean_
    if len(classes) == 2:  # scikit-learn keeps the second class's alone
        rows, bias = np.concatenate([-rows, rows]), np.concatenate([-bias, bias])
    outputs = {name: (i,) for i, name in enumerate(classes)}
    last_layer = {
        name: torch.from_numpy(values).to(clip.encoder.device, clip.encoder.dtype)
        for name, values in (("rows", rows), ("bias", bias))
    }
    configuration = {**clip.configuration, "classes": outputs}
    return Classifier(**{**vars(clip), **last_layer, "classes": outputs, "configuration": configuration})

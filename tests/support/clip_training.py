"""The smallest CLIP model, and how it is trained."""

import json
from pathlib import Path
from typing import Any

from circuitry.training import ClipTraining, TrainingWork

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
WORK = TrainingWork("cpu", workers=0, progress=False)


def written(config: dict[str, Any], path: Path) -> ClipTraining:
    """Write a model's configuration, and return settings to train it."""
    path.write_text(json.dumps(config))
    return ClipTraining(model=path, epochs=2, batch_size=4, lr=1e-3, warmup=1)

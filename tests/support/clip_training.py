"""The smallest CLIP model, and how it is trained."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from circuitry.training import ClipTraining, TrainingWork

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": [1, 1, 1, 1],
        "width": 8,
        "patch_size": None,
    },
    "text_cfg": {
        "context_length": 8,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
WORK = TrainingWork("cpu", workers=0, progress=False)


def written(config: dict[str, Any], path: Path) -> ClipTraining:
    path.write_text(json.dumps(config))
    return ClipTraining(model=path, epochs=2, batch_size=4, lr=1e-3, warmup=1)


def write_images(folder: Path, n: int) -> Path:
    lines = ["filepath\ttitle"]
    for i in range(n):
        Image.new("RGB", (32, 32), (25 * i, 0, 255 - 25 * i)).save(folder / f"{i}.png")
        lines.append(f"{folder / f'{i}.png'}\ta picture of number {i}")
    table = folder / "train.tsv"
    table.write_text("\n".join(lines) + "\n")
    return table

"""Train a tiny CLIP on drawn images from scratch, in the way in which the shipped weights were trained.

The model sees photos, cliparts, infographs, paintings, sketches and quickdraws. A quarter of the classes is left out of
the quickdraws (compositional generalization, high diversity). Training takes two minutes on two cores. Another
processor gives slightly different weights.

    python -m experiments.drawn.tiny_clips --out runs/tiny
    circuitry evaluate --model rn-tiny --checkpoint runs/tiny/clip --data runs/tiny/toy
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from circuitry.runs import run_script, versions
from circuitry import DomainFolder, load_clip
from circuitry.analysis.quickstart_settings import HELD_OUT, TEST_DOMAIN
from circuitry.data.names import in_a_sentence
from circuitry.models.prompts import default_templates
from circuitry.models.shipped_weights import write_packed
from circuitry.runs.provenance import command
from circuitry.training import (
    clip_preset,
    read_captions,
    record_run,
    train_clip,
    with_captions,
    write_captioned_table,
)
from experiments.drawn.drawing import TOY_CLASSES, DrawingSettings, write_toy

import torch

SHIPPED = DrawingSettings(30, 20)
"""The image set of the shipped weights: 30 training images and 20 test images of each class in each style."""
EPOCHS = {"rn-tiny": 16, "vit-tiny": 40}
"""Passes over the images, by model."""


@dataclass(frozen=True)
class TinyClip:
    """Settings of a model that is trained on drawn images; the defaults are the settings of the shipped weights."""

    out: Path = Path("runs/tiny")
    """Folder of the images (``toy``), the training (``clip``) and the packed weights."""
    model: Literal["rn-tiny", "vit-tiny"] = "rn-tiny"
    """Preset of the model: ``rn-tiny`` is a ResNet, ``vit-tiny`` a transformer."""
    test_domain: str = TEST_DOMAIN
    """Domain whose training images lack the held-out classes."""
    held_out: tuple[str, ...] = HELD_OUT
    """Classes that are left out of the training images of the test domain."""
    drawing: DrawingSettings = SHIPPED
    """The images; the shipped pictures are the test images of the default."""
    epochs: int | None = None
    """Passes over the images (default: 16 for ``rn-tiny`` and 40 for ``vit-tiny``)."""
    seed: int = 0
    """Seed of the training."""


def main(config: TinyClip) -> None:
    """Draw the images, train the model, and print the path of the weights."""
    print(train(config, write_toy(config.out / "toy", config.drawing)))


def train(config: TinyClip, root: Path) -> Path:
    """Train on the images in ``root``. Return the path of the weights, packed as the package ships them."""
    captions = read_captions(root)
    # The held-out classes are seen in every other style, so that the model can combine class and style.
    records = [
        record
        for record in DomainFolder(root, split="train").records
        if record.domain != config.test_domain
        or record.class_name not in config.held_out
    ]
    table = write_captioned_table(
        with_captions(records, captions), config.out / "train.tsv"
    )
    training = replace(
        clip_preset(config.model),
        epochs=config.epochs or EPOCHS[config.model],
        seed=config.seed,
    )
    checkpoint = train_clip(table, config.out / "clip", training)
    record_run(config.out / "clip", table, training)
    clip = load_clip(config.model, checkpoint)
    prompts = list[str]()
    for template in default_templates():
        prompts += [template.replace("{}", in_a_sentence(name)) for name in TOY_CLASSES]
    # Most tokens occur in no text of this set: packed weights leave out their embeddings, which were never trained.
    texts = clip.tokenizer([*captions.values(), *prompts])
    tokens = torch.tensor(sorted(set(texts.flatten().tolist())))
    weights = config.out / f"{config.model}.safetensors"
    # Everything that is needed to make the same weights again.
    made_by = {
        "command": command(),
        "training": asdict(training),
        "left_out": {"domain": config.test_domain, "classes": config.held_out},
        "images": asdict(config.drawing),
        "versions": versions(),
    }
    write_packed(clip.model.state_dict(), tokens, weights, made_by)
    return weights


if __name__ == "__main__":
    run_script(TinyClip, main, __doc__)

"""Train a tiny CLIP on drawn images, as the weights that come with the package were: everything from nothing.

It sees photos, cliparts, infographs, paintings, sketches and quickdraws, with a quarter of the classes left out of the
quickdraws (compositional generalization, high diversity). It takes two minutes of two cores, and another processor
gives other numbers.

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
"""The images of the shipped weights: their first 30 of a class in a style train."""
EPOCHS = {"rn-tiny": 16, "vit-tiny": 40}


@dataclass(frozen=True)
class TinyClip:
    """A model that is trained on drawn images; the defaults are those of the shipped weights."""

    out: Path = Path("runs/tiny")
    """Folder of the images (``toy``), the training (``clip``) and the packed weights."""
    model: Literal["rn-tiny", "vit-tiny"] = "rn-tiny"
    """A ResNet or a transformer."""
    test_domain: str = TEST_DOMAIN
    """Domain that the held-out classes are left out of."""
    held_out: tuple[str, ...] = HELD_OUT
    """Classes that are left out of the training images of the test domain."""
    drawing: DrawingSettings = SHIPPED
    """The images; the shipped pictures are the test images of these."""
    epochs: int | None = None
    """Passes over the images (default: 16, of the transformer 40)."""
    seed: int = 0
    """Seed of the training."""


def main(config: TinyClip) -> None:
    """Draw, train, and say where the weights are."""
    print(train(config, write_toy(config.out / "toy", config.drawing)))


def train(config: TinyClip, root: Path) -> Path:
    """Train on the images in ``root``; return the weights as they come with the package."""
    captions = read_captions(root)
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
    prompts = [
        template.replace("{}", in_a_sentence(name))
        for template in default_templates()
        for name in TOY_CLASSES
    ]
    texts = clip.tokenizer([*captions.values(), *prompts])
    tokens = torch.tensor(sorted(set(texts.flatten().tolist())))
    weights = config.out / f"{config.model}.safetensors"
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

"""Train the supervised baseline of a CLIP: the same image tower, with a linear head of classes instead of captions.

From a folder (``--data``) it takes the train lists (root/<domain>_train.txt) of the chosen domains; ``--table`` is a
table of images (filepath, and class unless that is the name of an image's folder), a training mixture for one. The
outputs of the head are the classes found; with ``--imagenet-classes`` those of ImageNet and
DomainNet together, where an ImageNet class with a partner in DomainNet counts as that class. Prints the accuracy on
the test lists of ``--data``, among the classes there, and the path of the checkpoint. A killed run goes on after its
last whole epoch.

    python experiments/train_supervised.py --data EmojiDomains --out runs/emoji-supervised --model rn-tiny --epochs 30
    torchrun --nproc-per-node 8 experiments/train_supervised.py --table mixture.tsv --data DomainNet --model RN50 \\
        --imagenet-classes wnids.txt --out runs/rn50-supervised
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from circuitry import DomainFolder, load_supervised
from circuitry.data.mixtures.class_table import imagenet_partners
from circuitry.runs.command_line import run_script
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.workers import this_rank
from circuitry.training.evaluation import accuracy_table, predictions
from circuitry.training.labels import LabelTable, merged_labels
from circuitry.training.study import record_run, supervised_head
from circuitry.training.supervised import train_supervised


@dataclass(frozen=True)
class Config:
    """Settings of a training run; the defaults of the numbers are the study's."""

    out: Path
    """Folder of the run."""
    data: Path | None = None
    """Folder of the images, with train and test lists; with --table only its test lists and classes are used."""
    table: Path | None = None
    """Table of training images with the column filepath, and class unless folders are named so."""
    model: str = "RN50"
    """open_clip model name, a name shipped here, or the path of a model-config JSON."""
    domains: tuple[str, ...] | None = None
    """Domains of the folder; all unless told."""
    imagenet_classes: Path | None = None
    """ImageNet's classes by index, one a line, as the table or its folders name them."""
    partners: Path | None = None
    """JSON file: DomainNet class -> indices of the ImageNet classes that count as it; DomainNet's own unless told."""
    epochs: int = 90
    """Passes over the images."""
    batch_size: int = 256
    """Images per step of all processes together."""
    lr: float = 0.01
    """Learning rate at the start."""
    milestones: tuple[int, ...] = (30, 50, 70)
    """Epochs, counted from 0, from which on it is a tenth of what it was."""
    weight_decay: float = 1e-4
    """Of all weights but those of norms and biases."""
    crop_scale: float = 0.9
    """Least share of an image's area that a random crop keeps."""
    keep_checkpoints: int = 0
    """Keep a checkpoint after every so many epochs; 0 keeps only the last."""
    skip_missing: bool = False
    """Train without the images whose files do not exist, instead of refusing the table."""
    device: str | None = None
    """cpu, cuda or mps; a GPU where there is one unless told, under torchrun one for each process."""
    workers: int = 2
    """Processes that read images, for each that trains."""
    precision: str = "fp32"
    """fp32, or amp_bf16: forward passes in bfloat16 where PyTorch finds it safe."""
    seed: int = 0
    """Seed of training."""


def main(config: Config) -> None:
    """Train, evaluate, print."""
    table = config.table or table_of_folder(config)
    checkpoint = train_supervised(
        table,
        config.out / "supervised",
        model=config.model,
        labels=label_table(config),
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        milestones=config.milestones,
        weight_decay=config.weight_decay,
        crop_scale=config.crop_scale,
        seed=config.seed,
        workers=config.workers,
        device=config.device,
        precision=config.precision,
        keep_checkpoints=config.keep_checkpoints,
        skip_missing=config.skip_missing,
    )
    if this_rank().worker:
        return
    record_run(config.out / "supervised", table, config.model, config.seed, supervised=True)
    if config.data is not None:
        accuracy = accuracy_on(DomainFolder(config.data, split="test", domains=config.domains), checkpoint)
        print(accuracy.drop(columns="part").to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print(f"checkpoint: {checkpoint}")


def table_of_folder(config: Config) -> Path:
    """Write the table of all train lists of the folder."""
    if config.data is None:
        raise InputError("expected a folder of images as --data, a table of them as --table, or both; given neither")
    records = DomainFolder(config.data, split="train", domains=config.domains).records
    path = config.out / "train.tsv"
    with whole_file(path) as temporary:
        columns = {"filepath": [str(r.path) for r in records], "class": [r.class_name for r in records]}
        pd.DataFrame(columns).to_csv(temporary, sep="\t", index=False, lineterminator="\n")
    return path


def label_table(config: Config) -> LabelTable | None:
    """Return the outputs of ImageNet and DomainNet together, or None where they are the classes found."""
    if config.imagenet_classes is None and config.partners is None:
        return None
    if config.imagenet_classes is None or config.data is None:
        raise InputError("the classes of both data sets need --imagenet-classes, and DomainNet as --data")
    imagenet = config.imagenet_classes.read_text(encoding="utf-8").splitlines()
    partners: Mapping[str, Sequence[int] | None] = imagenet_partners()
    if config.partners is not None:
        partners = json.loads(config.partners.read_text(encoding="utf-8"))
    return merged_labels(imagenet, DomainFolder(config.data, split="train").all_classes, partners)


def accuracy_on(images: DomainFolder, checkpoint: Path) -> pd.DataFrame:
    """Return the accuracy by domain, every image taken for one of the classes of the folder."""
    model = load_supervised(checkpoint)
    heads = {"supervised": supervised_head(model, images.all_classes)}
    return accuracy_table(predictions(model.encoder, heads, model.preprocess, images))


if __name__ == "__main__":
    run_script(Config, main, __doc__)

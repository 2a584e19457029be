"""Train a small CLIP on images sorted by domain and class, to have a model whose circuits can be compared.

Takes all images of the train lists (root/<domain>_train.txt) of the chosen domains and their captions
(root/captions.tsv: filepath<TAB>title), and trains through open_clip's own trainer. Prints the zero-shot accuracy on
the test lists and the path of the checkpoint. A killed run goes on after its last whole epoch.

    python experiments/train_clip.py --data EmojiDomains --out runs/emoji-clip
"""

from dataclasses import dataclass
from pathlib import Path

from circuitry import DomainFolder, load_clip
from circuitry.command_line import run_script
from circuitry.data.captions import readable
from circuitry.data.mixture_files import read_captions, write_mixture
from circuitry.training.clip import train_clip
from circuitry.training.evaluation import zero_shot_accuracy


@dataclass(frozen=True)
class Config:
    """Settings of a training run."""

    data: Path
    """Folder of the images, with train and test lists and captions.tsv."""
    out: Path
    """Folder of the run."""
    model: str = "rn-tiny"
    """open_clip model name, a name shipped here, or the path of a model-config JSON."""
    domains: tuple[str, ...] | None = None
    """Domains to train on; all unless told."""
    name_class: bool = False
    """Add the class to every caption, "baby chick, animal bird": for captions that name something finer."""
    epochs: int = 20
    """Passes over the images."""
    batch_size: int = 128
    """Images per step."""
    lr: float = 3e-3
    """Peak learning rate."""
    warmup: int = 50
    """Steps until the peak learning rate."""
    crop_scale: float = 0.6
    """Least share of an image's area that a random crop keeps."""
    seed: int = 0
    """Seed of training."""


def main(config: Config) -> None:
    """Train, evaluate, print."""
    records = DomainFolder(config.data, split="train", domains=config.domains).records
    captions = read_captions(config.data)
    if config.name_class:
        captions |= {r.relative: f"{captions.get(r.relative, '')}, {readable(r.class_name)}" for r in records}
    checkpoint = train_clip(
        write_mixture(records, captions, config.out / "train.tsv"),
        config.out / "clip",
        model=config.model,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        warmup=config.warmup,
        seed=config.seed,
        extra=("--aug-cfg", f"scale=({config.crop_scale},1.0)"),
    )
    images = DomainFolder(config.data, split="test", domains=config.domains)
    clip = load_clip(config.model, checkpoint=checkpoint)
    accuracy = zero_shot_accuracy(clip.encoder, clip.preprocess, clip.text_weights(images.all_classes), images)
    print(accuracy.drop(columns="part").to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print(f"checkpoint: {checkpoint}")


if __name__ == "__main__":
    run_script(Config, main, __doc__)

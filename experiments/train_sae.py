"""Train a sparse autoencoder on one site of a CLIP image encoder, and say how well it describes it.

Takes all images of the train lists of the chosen domains. The input is the normalised image embedding unless a site is
named; there every position is a sample. Prints dead features, active features per sample (L0) and explained variance,
on the training images and on the test images. An autoencoder that explains little variance, or whose features
are mostly dead or mostly active, says little about the model.

    python experiments/train_sae.py      # the quickstart's model
    python experiments/train_sae.py --model RN50 --checkpoint epoch_32.pt --data DomainNet --site layer3.5 \
        --positions-per-image 8 --out runs/sae-layer3.5
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from circuitry import diagnose_sae, sample_activations, train_sae_on_images
from circuitry.data.batches import load_batches
from circuitry.models.settings import ModelSettings
from circuitry.runs.command_line import run_script


@dataclass(frozen=True)
class Config(ModelSettings):
    """Settings of a training run; the defaults are the quickstart's model and the study's numbers."""

    train_split: str | None = "train"
    """Which of DomainNet's lists to train on, where there are lists."""
    site: str | None = None
    """Site of the encoder; the normalised embedding unless told."""
    positions_per_image: int | None = None
    """Positions of each image that are samples, at random; all unless told. It bounds memory."""
    out: Path = Path("runs/sae")
    """Folder for sae.safetensors and history.csv."""
    expansion: int = 4
    """Features per unit."""
    l1: float = 1e-4
    """Weight of the sum of features against the mean squared error."""
    lr: float = 1e-4
    """Learning rate of Adam."""
    batch_size: int = 2048
    """Samples per step."""
    steps: int = 5000
    """Steps of the optimiser."""
    resample_every: int = 1000
    """Steps between two checks for dead features."""
    seed: int = 0
    """Seed of positions, weights and batches."""


def main(config: Config) -> None:
    """Train, measure, write, print."""
    clip, images = config.clip(), config.images_of(config.train_split)
    sae = train_sae_on_images(
        clip,
        images,
        config.site,
        positions_per_image=config.positions_per_image,
        seed=config.seed,
        expansion=config.expansion,
        l1=config.l1,
        lr=config.lr,
        batch_size=config.batch_size,
        steps=config.steps,
        resample_every=config.resample_every,
    )
    path = config.out / "sae.safetensors"
    sae.save(path)
    pd.DataFrame(sae.about["history"]).to_csv(config.out / "history.csv", index=False)
    test = config.images()
    batches = load_batches([record.path for record in test.records], clip.preprocess, 64)
    samples = sample_activations(
        clip.encoder, batches, sae.site, positions_per_image=config.positions_per_image, seed=config.seed
    )
    rows = {"training images": sae.about["diagnostics"], "test images": diagnose_sae(sae, samples)._asdict()}
    print(f"{sae.n_features} features of {sae.d} units at {sae.site}")
    print(pd.DataFrame(rows).T.to_string(float_format=lambda value: f"{value:.3f}"))
    print(f"sparse autoencoder: {path}")


if __name__ == "__main__":
    run_script(Config, main, __doc__)

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
import tyro

from circuitry.models.settings import ModelSettings
from circuitry.runs.command_line import run_script
from circuitry.training import diagnose_sae, sample_activations, train_sae_on_images
from circuitry.training.settings import SaeTraining


@dataclass(frozen=True)
class Config(ModelSettings):
    """Settings of a training run; the defaults are the quickstart's model and the study's numbers."""

    train_split: str | None = "train"
    """Which of DomainNet's lists to train on, where there are lists."""
    site: str | None = None
    """Site of the encoder (default: the embedding, normalised)."""
    positions_per_image: int | None = None
    """Positions of each image that are samples, at random (default: all). It bounds memory."""
    out: Path = Path("runs/sae")
    """Folder for sae.safetensors and history.csv."""
    training: tyro.conf.OmitArgPrefixes[SaeTraining] = SaeTraining()
    """What to train with; the defaults are the study's."""


def main(config: Config) -> None:
    """Train, measure, write, print."""
    clip, images = config.clip(), config.images_of(config.train_split)
    sae = train_sae_on_images(
        clip, images, config.training, site=config.site, positions_per_image=config.positions_per_image
    )
    path = config.out / "sae.safetensors"
    sae.save(path)
    pd.DataFrame(sae.about["history"]).to_csv(config.out / "history.csv", index=False)
    test = config.images()
    samples = sample_activations(
        clip.encoder, clip.preprocess, test.records, sae.site,
        positions_per_image=config.positions_per_image, seed=config.training.seed,
    )  # fmt: skip
    rows = {"training images": sae.about["diagnostics"], "test images": diagnose_sae(sae, samples)._asdict()}
    print(f"{sae.n_features} features of {sae.d} units at {sae.site}")
    print(pd.DataFrame(rows).T.to_string(float_format=lambda value: f"{value:.3f}"))
    print(f"sparse autoencoder: {path}")


if __name__ == "__main__":
    run_script(Config, main, __doc__)

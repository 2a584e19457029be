"""Train a sparse autoencoder, and measure it."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from circuitry.commands.train_sae_command import Config
from circuitry.comparison.table import write_named_table
from circuitry.data import image_listing
from circuitry.data.file_check import check_file
from circuitry.models import load_sae
from circuitry.runs import Job, JobFolder
from circuitry.training import diagnose_sae, sample_activations, train_sae_on_images
from circuitry.training.run_folder import described

FORMAT = "circuitry trained autoencoder 1"


def main(config: Config) -> None:
    """Train, measure, write, print."""
    for table in config.more_tables:
        check_file(table, "a table of images", "give one with the column filepath")
    clip, images = config.clip(), config.images_of(config.train_split)
    clip.encoder.position(
        config.site or clip.encoder.sites[-1]
    )  # refuses a site before the folder is claimed
    path, history = config.out / "sae.safetensors", config.out / "history.csv"
    made_with = {
        "model": clip.name,
        **clip.identity,
        "site": config.site,
        "positions_per_image": config.positions_per_image,
        "tables": [described(table) for table in config.more_tables],
    }
    listings = {"images": image_listing(images.records)}
    folder = JobFolder(
        config.out,
        FORMAT,
        asdict(config.training) | made_with,
        [("autoencoder",)],
        listings,
    )

    def train(job: Job, nothing: object) -> list[Path]:
        sae = train_sae_on_images(
            clip, images, config.training, tables=config.more_tables, folder=config.out,
            site=config.site, positions_per_image=config.positions_per_image,
        )  # fmt: skip
        sae.save(path)
        write_named_table(history, pd.DataFrame(sae.about["history"]))
        return [path, history]

    folder.run(train)
    (config.out / "state.safetensors").unlink(missing_ok=True)
    shutil.rmtree(config.out / "activations", ignore_errors=True)
    sae = load_sae(path, config.device)
    test = config.images()
    samples = sample_activations(
        clip.encoder, clip.preprocess, test.records, sae.site,
        positions_per_image=config.positions_per_image, seed=config.training.seed,
    )  # fmt: skip
    rows = {
        "training images": sae.about["diagnostics"],
        "test images": diagnose_sae(sae, samples)._asdict(),
    }
    print(f"{sae.n_features} features of {sae.d} units at {sae.site}")
    print(pd.DataFrame(rows).T.to_string(float_format=lambda value: f"{value:.3f}"))
    print(f"sparse autoencoder: {path}")

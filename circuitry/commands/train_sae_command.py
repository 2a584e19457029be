"""Train a sparse autoencoder on one site of a CLIP image encoder, and measure it.

Takes all images of the train lists of the chosen domains. The input is the normalised image embedding unless a site is
named; there every position is a sample. Prints dead features, active features per sample (L0) and explained variance,
on the training images and on the test images. An autoencoder that explains little variance, or whose features
are mostly dead or mostly active, says little about the model. Activations are kept on disk in pieces and streamed; a
killed run goes on after the last thousand steps. With ``--study`` it is trained as the study did: on DomainNet's
training images and CC12M's together, 200 times over. A table of CC12M's images is any mixture with it: images of
DomainNet in it count once.

    circuitry train-sae      # the quickstart's model
    circuitry train-sae --model RN50 --checkpoint epoch_32.pt --data DomainNet --site layer3.5 \\
        --positions-per-image 8 --out runs/sae-layer3.5
    circuitry train-sae --study --model RN50 --checkpoint epoch_32.pt --data DomainNet \\
        --more-tables mixtures/cc12m-cg-high-sketch.tsv --device cuda --out runs/sae
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from circuitry import comparison, data, models, training
from circuitry.analysis import QuickstartModel
from circuitry.data.file_check import check_file
from circuitry.runs import Job, JobFolder
from circuitry.runs.arguments import Count
from circuitry.training import SaeTraining

FORMAT = "circuitry trained autoencoder 1"


@dataclass(frozen=True)
class Config(QuickstartModel):
    """Settings of a training run; the defaults are the quickstart's model and the study's numbers."""

    train_split: str | None = "train"
    """Which of DomainNet's lists to train on, where there are lists."""
    more_tables: tuple[Path, ...] = ()
    """Tables of more images to train on: with the column filepath, such as a mixture with a base set. Relative paths
    start from the table's folder; images that do not exist are refused."""
    site: str | None = None
    """Site of the encoder (default: the embedding, normalised)."""
    positions_per_image: Count | None = None
    """Positions of each image that are samples, at random (default: all). It bounds memory."""
    out: Path = Path("runs/sae")
    """Folder of the results: sae.safetensors and history.csv; activations in it may be removed afterwards."""
    training: tyro.conf.OmitArgPrefixes[SaeTraining] = SaeTraining()
    """What to train with; the defaults are the study's."""


def main(config: Config) -> None:
    """Train, measure, write, print."""
    import pandas as pd  # here, so that a wrong line is answered at once

    # Refused at once rather than after the images of --data.
    for table in config.more_tables:
        check_file(table, "a table of images", "give one with the column filepath")
    clip = config.clip()
    images = config.images_of(config.train_split)
    # Refuses a site before the folder is claimed.
    clip.encoder.position(config.site or clip.encoder.sites[-1])
    path = config.out / "sae.safetensors"
    history = config.out / "history.csv"
    made_with = {
        "model": clip.name,
        **clip.identity,
        "site": config.site,
        "positions_per_image": config.positions_per_image,
        "tables": [training.described(table) for table in config.more_tables],
    }
    # One job: a folder of other settings is refused, and a finished autoencoder is read.
    folder = JobFolder(
        config.out,
        FORMAT,
        asdict(config.training) | made_with,
        [("autoencoder",)],
        {"images": data.image_listing(images.records)},
    )

    def train(job: Job, nothing: object) -> list[Path]:
        sae = training.train_sae_on_images(
            clip,
            images,
            config.training,
            tables=config.more_tables,
            folder=config.out,
            site=config.site,
            positions_per_image=config.positions_per_image,
        )
        sae.save(path)
        comparison.write_named_table(history, pd.DataFrame(sae.about["history"]))
        return [path, history]

    folder.run(train)
    # State and activations take gigabytes, and serve only a run that goes on.
    (config.out / "state.safetensors").unlink(missing_ok=True)
    shutil.rmtree(config.out / "activations", ignore_errors=True)
    sae = models.load_sae(path, config.device)
    samples = training.sample_activations(
        clip.encoder,
        clip.preprocess,
        config.images().records,
        sae.site,
        positions_per_image=config.positions_per_image,
        seed=config.training.seed,
    )
    rows = {
        "training images": sae.about["diagnostics"],
        "test images": training.diagnose_sae(sae, samples)._asdict(),
    }
    print(f"{sae.n_features} features of {sae.d} units at {sae.site}")
    print(pd.DataFrame(rows).T.to_string(float_format="{:.3f}".format))
    print(f"sparse autoencoder: {path}")

"""Train a sparse autoencoder on one site of a CLIP image encoder, and measure it.

The training images are all images in the train lists of the chosen domains. By default, each sample is the normalised
embedding of an image. If a site is named, each sample is the activation at one position of this site. The command
prints three measures, for the training images and for the test images: the number of dead features, the number of
active features per sample (L0), and the explained variance. If an autoencoder explains little variance, or if its
features are mostly dead or mostly active, it says little about the model.

Activations are stored on disk, and read in chunks during the training. If the training is killed, the same command goes
on after the last thousand steps.

With ``--study`` the autoencoder is trained as in the study, in 200 passes over the training images of DomainNet and of
CC12M together. The images of CC12M are given by ``--more-tables``, in any table that contains them, such as a training
mixture. If such a table also contains images of DomainNet, each of these images is used only once.

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
    """Settings of a training run. The default model and images are the quickstart's."""

    train_split: str | None = "train"
    """Which of DomainNet's lists to train on, if there are lists."""
    more_tables: tuple[Path, ...] = ()
    """Tables of more images to train on, with the column filepath, such as a training mixture. Relative paths start
    from the folder of the table. Images that do not exist are an error."""
    site: str | None = None
    """Site of the encoder whose activations are encoded (default: the normalised embedding)."""
    positions_per_image: Count | None = None
    """Number of positions of each image that are used as samples, chosen at random (default: all). A smaller number
    needs less memory."""
    out: Path = Path("runs/sae")
    """Folder of the results: sae.safetensors and history.csv. Activations are stored in it during the training."""
    training: tyro.conf.OmitArgPrefixes[SaeTraining] = SaeTraining()
    """Settings of the training. The default expansion, penalty, learning rate and batch size are the study's."""


def main(config: Config) -> None:
    """Train an autoencoder, write it, and print how well it reconstructs activations."""
    import pandas as pd  # here, so that a wrong line is answered at once

    # A wrong table is refused at once, before the images of --data are read.
    for table in config.more_tables:
        check_file(table, "a table of images", "give one with the column filepath")
    clip = config.clip()
    images = config.images_of(config.train_split)
    # An unknown site is refused before the folder is claimed.
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
    # The training is a single job, so that a folder of other settings is refused, and a finished autoencoder is read.
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
    # The state and the activations take gigabytes, and are needed only to resume an unfinished training.
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

"""Do domains share a representation, and where in the encoder? CKA between domains and linear probes at every site.

At every site: are the classes arranged alike in two domains (CKA of class means, linear and rbf kernel, without bias)?
Can the domain be read off by a linear classifier, can the class, and can the class by a classifier that has not seen
the domain? Read against two halves of the same images, permuted classes, and guessing.

Representations are shared if with depth CKA comes near that of halves, the domain fades, and classes are read off
across domains as well as within them. It is refuted by a CKA near that of permuted classes at the last sites, or by
class probes that fail on the domain that was left out.

    python experiments/representations.py      # the model and images of the quickstart
    python experiments/representations.py --model RN50 --checkpoint epoch_32.pt --data DomainNet --n-images 50 \
        --out runs/domainnet/representations
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from circuitry import (
    compare_representation_halves,
    compare_representations,
    probe_sites,
    study_representations,
)
from circuitry.models.settings import ModelSettings
from circuitry.reports.figures.style import domain_marks
from circuitry.reports.page import Report, write_results
from circuitry.reports.sections.representations import add_cka, add_probes, add_reading_guide
from circuitry.runs.command_line import run_script
from circuitry.runs.provenance import versions


@dataclass(frozen=True)
class Config(ModelSettings):
    """Settings of the study; the defaults are the quickstart's model and images."""

    sites: tuple[str, ...] | None = None
    """Sites of the encoder; all unless told."""
    n_images: int = 20
    """Images per class and domain, at random by --seed; all where there are fewer."""
    rows: str = "class-means"
    """What CKA compares: class-means (the study's setting) or images, image i of every class for each i."""
    permutations: int = 1000
    """Permutations of classes for CKA's null."""
    folds: int = 5
    """Parts of the images for probes."""
    out: Path = Path("runs/representations")
    """Folder for representations, tables and the report; temporary files of 8 bytes per class and feature, too."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    memory_gib: float = 1.0
    """Memory for activations, in GiB."""
    seed: int = 0
    """Seed of the choice of images, of permutations and folds."""


def main(config: Config) -> None:
    """Represent, compare, probe, write; print where the report is."""
    clip, images = config.clip(), config.images()
    found = study_representations(
        clip,
        images,
        config.out / config.rows,
        rows=config.rows,
        n_images=config.n_images,
        sites=config.sites,
        seed=config.seed,
        memory_gib=config.memory_gib,
    )
    similarity = compare_representations(
        [one.grams for one in found], permutations=config.permutations, seed=config.seed
    )
    ceilings = compare_representation_halves(one.halves for one in found)
    probes = probe_sites(
        {site: np.concatenate([one.unit_means[site] for one in found]) for site in found[0].unit_means},
        [name for one in found for name in one.image_classes],
        [one.grams.domain for one in found for _ in one.image_classes],
        folds=config.folds,
        seed=config.seed,
    )
    tables = {
        "cka": similarity.pairs,
        "cka_over_depth": similarity.domains,
        "cka_ceilings": ceilings,
        "probes": probes.sites,
        "probes_left_out": probes.left_out,
    }
    report = Report(
        f"Do domains share the representations of {clip.name}?",
        f"CKA and linear probes at {len(found[0].unit_means)} sites, on "
        f"{sum(len(one.image_classes) for one in found):,} images of {len(images.classes)} classes in "
        f"{len(found)} domains.",
    )
    add_cka(report, similarity, ceilings, domain_marks(images.domains))
    add_probes(report, probes)
    add_reading_guide(report)
    settings = {name: value for name, value in asdict(config).items() if name not in ("out", "results", "memory_gib")}
    provenance = {**settings, "model_digest": clip.digest, **versions()}
    write_results(report, tables, config.out, config.results, provenance)


if __name__ == "__main__":
    run_script(Config, main, __doc__)

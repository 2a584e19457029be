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
    torchrun --nproc-per-node 2 experiments/representations.py      # two processes share the domains
"""

from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from circuitry.models.settings import ModelSettings
from circuitry.reports.figures.style import domain_marks
from circuitry.reports.page import Report, write_results
from circuitry.reports.sections.representations import add_cka, add_probes, add_reading_guide
from circuitry.representations import (
    RepresentationSettings,
    compare_representation_halves,
    compare_representations,
    extract_representations,
    probe_sites,
    read_representations,
)
from circuitry.representations.grams import FORMAT
from circuitry.representations.study import check_comparable
from circuitry.runs.command_line import run_script
from circuitry.runs.manifest import read_manifest
from circuitry.runs.provenance import versions
from circuitry.runs.workers import Work, WorkSettings


@dataclass(frozen=True)
class Config(ModelSettings, WorkSettings):
    """Settings of the study; the defaults are the quickstart's model and images."""

    sites: tuple[str, ...] | None = None
    """Sites of the encoder; default: all."""
    n_images: int = 20
    """Images per class and domain, at random by --seed; all where there are fewer."""
    permutations: int = 1000
    """Permutations of classes for CKA's null."""
    folds: int = 5
    """Parts of the images for probes."""
    out: Path = Path("runs/representations")
    """Folder for representations, tables and the report; temporary files of 8 bytes per class and feature, too."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    seed: int = 0
    """Seed of the choice of images, of permutations and folds."""

    @property
    def representations(self) -> Path:
        """Folder of the representations."""
        return self.out / "domains"


def main(config: Config) -> None:
    """Represent, compare, probe, write; print where the report is."""
    images = config.images()
    check_comparable(images)
    if not config.share_out(partial(represent, config), config.out / "jobs"):
        return
    found = read_representations(config.representations)
    made = read_manifest(config.representations, FORMAT)["config"]
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
        f"Do domains share the representations of {made['model']}?",
        f"CKA and linear probes at {len(found[0].unit_means)} sites, on "
        f"{sum(len(one.image_classes) for one in found):,} images of {len(images.classes)} classes in "
        f"{len(found)} domains.",
    )
    add_cka(report, similarity, ceilings, domain_marks(images.domains))
    add_probes(report, probes)
    add_reading_guide(report)
    unimportant = {"out", "results", *(field.name for field in fields(WorkSettings))}
    settings = {name: value for name, value in asdict(config).items() if name not in unimportant}
    provenance = {**settings, "model_digest": made["model_digest"], **versions()}
    print(write_results(report, tables, config.out, config.results, provenance))


def represent(config: Config, work: Work) -> None:
    """Do one process's share of representing the domains."""
    settings = RepresentationSettings(config.n_images, config.sites, config.seed)
    extract_representations(config.clip(work.rank), config.images(), config.representations, settings, work)


if __name__ == "__main__":
    run_script(Config, main, __doc__)

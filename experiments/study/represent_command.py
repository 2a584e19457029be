"""Do domains share a representation, and where in the encoder? CKA between domains and linear probes at every site.

At every site: do two domains arrange the classes in the same way (CKA of class means, linear and rbf kernel, without
bias; of all classes, of held-out classes and of the others)? Can a linear classifier read the domain, the class, and
the class in a domain that it was not trained on? The references are two parts of the same images, permuted classes, and
guessing.

Representations are shared if, with depth, CKA approaches that of parts, the domain fades, and classes are read across
domains as well as within them. A CKA near that of permuted classes at the last sites, or class probes that fail on the
domain that was left out, refute it. Comparisons are saved in OUT/comparisons for `compare_models`.

    python -m experiments.study represent      # the model and images of the quickstart
    python -m experiments.study represent --model RN50 --checkpoint epoch_32.pt --data DomainNet --study \\
        --out runs/domainnet/representations
    torchrun --nproc-per-node 2 -m experiments.study represent      # two processes share the domains
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated

from circuitry.runs import InputError, Work, WorkSettings, read_manifest, versions
from circuitry.analysis import QuickstartModel
from circuitry.comparison import Comparison
from circuitry.data.imagenet_classes import class_key
from circuitry.data.names import chosen_names
from circuitry.data.parts import DEFAULT_PARTS
from circuitry.reports import Report, write_results
from circuitry.reports.figures import domain_marks
from circuitry.reports.listings import listings_of
from circuitry.reports.page import Written
from circuitry.representations import (
    RepresentationSettings,
    RepresentationSimilarity,
    compare_representation_parts,
    compare_representations,
    extract_representations,
    probe_sites,
    read_representations,
)
from circuitry.representations.grams import REPRESENTATIONS_FORMAT, Grams
from circuitry.representations.kernel_alignment import FEWEST_ROWS
from circuitry.representations.representation_folder import Positions, check_enough_images
from circuitry.representations.similarity import cka_ceilings
from circuitry.runs.given import Count, Seed, at_least
from experiments.study.representation_pages import (
    add_cka,
    add_probes,
    add_representation_guide,
    representation_findings,
)

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Config(QuickstartModel, WorkSettings):
    """Settings of the comparison; the defaults are the quickstart's model and images."""

    sites: tuple[str, ...] | None = None
    """Sites: of the encoder, in its order (default: all)."""
    n_images: Count | None = 20
    """Images of a class in a domain, at random by --seed; all where there are fewer, or with None."""
    positions: Positions = "averaged"
    """Features of CKA: each unit averaged over positions, as in the study, or all positions of all (flattened)."""
    parts: Annotated[int, at_least(2)] = DEFAULT_PARTS
    """Parts of the images of a class in a domain, cut by item: the similarity of parts is the ceiling."""
    held_out: tuple[str, ...] = ()
    """Held-out classes: a group of their own (OOD); CKA is also computed for them and for the others (ID)."""
    apart: str | None = None
    """A domain to set against the others."""
    common_classes: bool = False
    """Compare every two domains over the classes that all domains have; otherwise over those that both have."""
    permutations: Count = 1000
    """Permutations of classes for CKA's null."""
    folds: Annotated[int, at_least(2)] = 5
    """Parts of the images for probes."""
    out: Path = Path("runs/representations")
    """Folder of the results: representations, tables, the report; temporary files, too (see
    `extract_representations`)."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    seed: Seed = 0
    """Seed of all random choices: images, permutations and folds."""

    @property
    def representations(self) -> Path:
        """Folder of the representations."""
        return self.out / "domains"


def main(config: Config) -> Written | None:
    """Represent, compare, probe, write; print where the report is."""
    images = config.images()
    check_enough_images(images, config.parts)
    groups = class_groups_of(config, images.classes)
    if not config.share_out(partial(represent, config), config.out / "jobs"):
        return None
    found = read_representations(config.representations)
    if config.common_classes:
        groups = in_all_domains(groups, [one.grams for one in found])
    made = read_manifest(config.representations, REPRESENTATIONS_FORMAT)["config"]
    report = Report(
        f"Do domains share the representations of {made['model']}?",
        f"CKA and linear probes at {len(found[0].unit_means)} sites, on "
        f"{sum(len(one.image_classes) for one in found):,} images of {len(images.classes)} classes in "
        f"{len(found)} domains.",
    )
    add_representation_guide(report)
    tables: dict[str, list[pd.DataFrame]] = {}
    comparisons: dict[str, Comparison] = {}
    first: tuple[RepresentationSimilarity, pd.DataFrame] | None = None
    for group, classes in groups.items():
        similarity = compare_representations(
            [one.grams.only(classes) for one in found],
            permutations=config.permutations,
            apart=config.apart,
            seed=config.seed,
        )
        parts = compare_representation_parts(found, classes=classes)
        first = first or (similarity, parts.values)
        add_cka(report, similarity, parts.values, domain_marks(images.domains), group)
        for one in similarity.comparisons(parts.values).values():
            comparisons[f"{one.measure}-{group}"] = one
        for name, table in {
            "cka": similarity.pairs,
            "cka_over_depth": similarity.domains,
            "cka_apart": similarity.apart,
            "cka_ceilings": cka_ceilings(parts.values),
            "cka_parts": parts.values,
            "cka_parts_without_class": parts.without_class,
        }.items():
            tables.setdefault(name, []).append(table.assign(group=group))
    probes = probe_sites(
        {site: np.concatenate([one.unit_means[site] for one in found]) for site in found[0].unit_means},
        [name for one in found for name in one.image_classes],
        [one.grams.domain for one in found for _ in one.image_classes],
        [item for one in found for item in one.image_items],
        folds=config.folds,
        seed=config.seed,
    )
    add_probes(report, probes)
    if first is not None:
        report.summary(representation_findings(*first, probes))
    joined = {name: pd.concat(found, ignore_index=True) for name, found in tables.items()}
    written = {name: table for name, table in joined.items() if len(table)}
    written |= {"probes": probes.sites, "probes_left_out": probes.left_out}
    small = [name for name in written if not name.startswith("cka_parts")]
    about, looked_at = provenance(config, made["model_digest"]), listings_of(images, config.n_images, config.seed)
    return write_results(report, written, config.out, config.results, about, small, looked_at, comparisons)


def class_groups_of(config: Config, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the groups of classes: all, and with held-out classes, these and the others.

    Raises:
        InputError: for an unknown held-out class, or a group with too few classes for CKA.
    """
    groups = {"all": tuple(classes)}
    if config.held_out:
        held_out = chosen_names("held-out class", config.held_out, classes, class_key)
        groups |= {"held-out": held_out, "seen": tuple(name for name in classes if name not in held_out)}
    for name, members in groups.items():
        if len(members) < FEWEST_ROWS:
            raise InputError(
                f"CKA needs at least {FEWEST_ROWS} classes, but the group {name!r} has {len(members)}: give more "
                "--held-out classes, or none."
            )
    return groups


def in_all_domains(groups: Mapping[str, Sequence[str]], domains: Sequence[Grams]) -> dict[str, tuple[str, ...]]:
    """Return the classes of each group that every domain has at every site."""
    common = set.intersection(*(set(one.present(site)) for one in domains for site in one.by_site))
    return {name: tuple(one for one in classes if one in common) for name, classes in groups.items()}


def provenance(config: Config, model_digest: str) -> dict[str, object]:
    """Return the settings that shape the numbers, and the versions."""
    unimportant = {"out", "results", *(field.name for field in fields(WorkSettings))}
    settings = {name: value for name, value in asdict(config).items() if name not in unimportant}
    return {**settings, "model_digest": model_digest, **versions()}


def represent(config: Config, work: Work) -> None:
    """Do one process's share of representing the domains."""
    settings = RepresentationSettings(config.n_images, config.sites, config.seed, config.positions, config.parts)
    extract_representations(config.clip(work.rank), config.images(), config.representations, settings, work)

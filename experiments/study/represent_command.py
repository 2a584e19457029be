"""Do domains share a representation, and where in the encoder? CKA between domains and linear probes at every site.

At every site: do two domains arrange the classes in the same way (CKA of class means, linear and rbf kernel, without
bias; of all classes, of held-out classes and of the others)? Can a linear classifier read the domain, the class, and
the class in a domain that it was not trained on? The references are two folds of the same images, permuted classes, and
guessing.

Representations are shared if, with depth, CKA approaches that of folds, the domain fades, and classes are read across
domains as well as within them. A CKA near that of permuted classes at the last sites, or class probes that fail on the
domain that was left out, refute it. Comparisons are saved in OUT/comparisons for `compare_models`.

    python -m experiments.study represent      # the model and images of the quickstart
    python -m experiments.study represent --model RN50 --checkpoint epoch_32.pt --data DomainNet --study \\
        --out runs/domainnet/representations
    torchrun --nproc-per-node 2 -m experiments.study represent      # two processes share the domains
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from circuitry.runs import Count, Work, WorkSettings, at_least, versions
from circuitry.analysis import QuickstartModel
from circuitry.comparison import Comparison
from circuitry.data import (
    DEFAULT_FOLDS,
    Folds,
    SeedOption,
    SmallTables,
    chosen_names,
    class_key,
)
from circuitry.reports import (
    Finding,
    Report,
    Written,
    add_matrix,
    add_over_depth,
    add_two_lines,
    how_much_shared,
    listings_of,
    measure_name,
    which_differs,
    with_intervals,
    write_results,
)
from circuitry.reports.figures import Mark, domain_marks
from experiments.representations.grams import read_representations
from experiments.representations.probes import SiteProbes, probe_sites
from experiments.representations.representation_folder import (
    RepresentationSettings,
    check_enough_images,
    extract_representations,
)
from experiments.representations.similarity import (
    RepresentationSimilarity,
    cka_ceilings,
    compare_representation_folds,
    compare_representations,
)
from experiments.study.measure_charts import probes_over_depth

import numpy as np
import pandas as pd


def what_probes_decode(sites: pd.DataFrame) -> Finding:
    """Say what linear probes decode at the last site against the first: from ``sites`` of `probe_sites`."""
    said = sites.assign(
        said="the " + sites["target"] + " " + with_intervals(sites, ".2f")
    )
    said["guess"] = "the " + sites["target"] + sites["chance"].map(" {:.2f}".format)
    first, last = (said[said["site"] == site] for site in said["site"].iloc[[0, -1]])
    return Finding(
        f"At {last['site'].iloc[0]} a linear probe decodes {', '.join(last['said'])} (balanced accuracy).",
        "95 % intervals over folds, or over the domain that is left out. Guessing: "
        f"{', '.join(first['guess'])}. At {first['site'].iloc[0]}: {', '.join(first['said'])}.",
        "Other images; a non-linear probe. A probe shows what can be decoded, not what the model uses.",
    )


def add_cka(
    report: Report,
    similarity: RepresentationSimilarity,
    comparisons: Sequence[Comparison],
    marks: Mapping[str, Mark],
    of: str,
) -> None:
    """Add the section on CKA ``of`` some classes: over depth by every kernel, between all domains at the last site."""
    report.section(f"Are classes arranged in the same way in every domain?{of}")
    for comparison in comparisons:
        add_over_depth(report, comparison, marks, "CKA compares the means of classes.")
        kernel = similarity.apart["kernel"] == comparison.measure.removeprefix("cka_")
        add_two_lines(
            report,
            similarity.apart[kernel],
            comparison.sites,
            measure_name(comparison.measure),
        )
    site = comparisons[0].sites[-1]
    title = f"CKA at {site}{of}"
    more = f"Of class means at {site}, the last site."
    add_matrix(report, comparisons[0].at(site), marks, title=title, more=more)


def add_probes(report: Report, probes: SiteProbes) -> None:
    """Add the section on linear probes."""
    report.section("What can be decoded, and where?")
    report.figure(
        probes_over_depth(probes.sites),
        "Balanced accuracy of linear classifiers on each unit's activation averaged over positions (bars: 95 % "
        "intervals over folds, and over domains where one is left out); images of one item are never on both sides.",
    )
    by_domain = probes.left_out.pivot_table("value", "site", "domain", sort=False)
    report.table(
        by_domain.rename_axis(columns=None),
        "Class across domains: accuracy on the images of one domain, by a classifier of all other domains.",
        formats=dict.fromkeys(by_domain.columns, ".0%"),
    )


def add_representation_guide(report: Report) -> None:
    """Add the section on what was computed and how to read it."""
    report.section("How to read this", folded=True)
    report.text(
        "CKA asks whether classes that are close in one domain are close in the other, in whatever directions. It is 1 "
        "if the arrangements differ only by a rotation and a scale, and has no bias: its mean is 0 for unrelated "
        "arrangements. Compare it with two folds of the same images, which have fewer images than the whole, and with "
        "permuted classes. By default features are units averaged over positions, as in the study.\n\n"
        "A probe shows what a linear classifier can decode from a representation, not what the model makes of it. A "
        "class that is decoded within domains but not across them is represented differently in each domain."
    )


@dataclass(frozen=True)
class Config(QuickstartModel, WorkSettings):
    """Settings of the comparison; the defaults are the quickstart's model and images."""

    sites: tuple[str, ...] | None = None
    """Sites: of the encoder, in its order (default: all)."""
    n_images: Count | None = 20
    """Images of a class in a domain, at random by --seed; all where there are fewer, or with None."""
    folds: Folds = DEFAULT_FOLDS
    held_out: tuple[str, ...] = ()
    """Held-out classes: a group of their own (OOD); CKA is also computed for them and for the others (ID)."""
    apart: str | None = None
    """A domain to set against the others."""
    common_classes: bool = False
    """Compare every two domains over the classes that all domains have; otherwise over those that both have."""
    permutations: Count = 1000
    """Permutations of classes for CKA's null."""
    probe_folds: Annotated[int, at_least(2)] = 5
    """Folds of the images of a domain for probes: a probe is tested on each, trained on the others."""
    out: Path = Path("runs/representations")
    """Folder of the results: representations, tables, the report; temporary files, too (see
    `extract_representations`)."""
    results: SmallTables = None
    seed: SeedOption = 0

    @property
    def representations(self) -> Path:
        """Folder of the representations."""
        return self.out / "domains"


def main(config: Config) -> Written | None:
    """Represent, compare, probe, write; print where the report is."""
    images = config.images()
    check_enough_images(images, config.folds)
    groups = class_groups_of(config, images.classes)
    if not config.share_out(partial(represent, config), config.out / "jobs"):
        return None
    found = read_representations(config.representations)
    if config.common_classes:
        groups = in_all_domains(groups, [one.grams for one in found])
    made = json.loads((config.representations / "manifest.json").read_text())["config"]
    n_images = sum(len(one.image_classes) for one in found)
    report = Report(
        f"Do domains share the representations of {made['model']}?",
        f"CKA and linear probes at {len(found[0].unit_means)} sites, on {n_images:,} images of {len(images.classes)} "
        f"classes in {len(found)} domains.",
    )
    add_representation_guide(report)
    tables: dict[str, list[pd.DataFrame]] = {}
    comparisons: dict[str, Comparison] = {}
    for group, classes in groups.items():
        grams = [one.grams.only(classes) for one in found]
        draws = config.permutations
        similarity = compare_representations(
            grams, permutations=draws, apart=config.apart, seed=config.seed
        )
        folds = compare_representation_folds(found, classes=classes)
        of_group = {
            f"{one.measure}-{group}": one
            for one in similarity.comparisons(folds.values).values()
        }
        of = "" if group == "all" else f", {group} classes"
        add_cka(
            report,
            similarity,
            list(of_group.values()),
            domain_marks(images.domains),
            of,
        )
        comparisons |= of_group
        for name, table in {
            "cka": similarity.pairs,
            "cka_over_depth": similarity.domains,
            "cka_apart": similarity.apart,
            "cka_ceilings": cka_ceilings(folds.values),
            "cka_folds": folds.values,
            "cka_folds_without_class": folds.without_class,
        }.items():
            tables.setdefault(name, []).append(table.assign(group=group))
    probes = probe_sites(
        {
            site: np.concatenate([one.unit_means[site] for one in found])
            for site in found[0].unit_means
        },
        [name for one in found for name in one.image_classes],
        [one.grams.domain for one in found for _ in one.image_classes],
        [item for one in found for item in one.image_items],
        folds=config.probe_folds,
        seed=config.seed,
    )
    add_probes(report, probes)
    first = next(iter(comparisons.values()))
    last = first.at(first.sites[-1])
    arranged = how_much_shared(last, "arrangement of the classes")
    report.summary([arranged, which_differs(last), what_probes_decode(probes.sites)])
    joined = {
        name: pd.concat(found, ignore_index=True) for name, found in tables.items()
    }
    written = {name: table for name, table in joined.items() if len(table)}
    written |= {"probes": probes.sites, "probes_left_out": probes.left_out}
    small = [name for name in written if not name.startswith("cka_folds")]
    unimportant = {"out", "results", *(field.name for field in fields(WorkSettings))}
    settings = {
        name: value for name, value in asdict(config).items() if name not in unimportant
    }
    about = {**settings, "weights": made["weights"], **versions()}
    looked_at = listings_of(images, config.n_images, config.seed)
    return write_results(
        report,
        written,
        config.out,
        config.results,
        about,
        small,
        looked_at,
        comparisons,
    )


def class_groups_of(
    config: Config, classes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the groups of classes: all, and with held-out classes, these and the others."""
    groups = {"all": tuple(classes)}
    if config.held_out:
        held_out = chosen_names("held-out class", config.held_out, classes, class_key)
        groups |= {
            "held-out": held_out,
            "seen": tuple(name for name in classes if name not in held_out),
        }
    return groups


def in_all_domains(
    groups: Mapping[str, Sequence[str]], domains: Sequence[Any]
) -> dict[str, tuple[str, ...]]:
    """Return the classes of each group that every domain has at every site."""
    common = set.intersection(
        *(set(one.present(site)) for one in domains for site in one.by_site)
    )
    return {
        name: tuple(one for one in classes if one in common)
        for name, classes in groups.items()
    }


def represent(config: Config, work: Work) -> None:
    """Do one process's share of representing the domains."""
    settings = RepresentationSettings(
        config.n_images, config.sites, config.seed, config.folds
    )
    extract_representations(
        config.clip(work.rank), config.images(), config.representations, settings, work
    )

"""Do domains share a representation, and where in the encoder? CKA between domains and linear probes at every site.

At every site: do two domains arrange the classes in the same way? CKA of class means answers, with a linear and an rbf
kernel, without bias, for all classes, for held-out classes and for all other classes. Can a linear classifier read the
domain, the class, and the class in a domain that it was not trained on? The references are two folds of the same
images, permuted classes, and guessing.

Representations are shared if, with depth, CKA approaches the CKA of two folds, the domain fades, and classes are read
across domains as well as within domains. This is refuted if CKA at the last sites is near the CKA of permuted classes,
or if class probes fail on the domain that was left out. Comparisons are saved in OUT/comparisons for `compare_models`.

    python -m experiments.study represent      # the model and images of the quickstart
    python -m experiments.study represent --model RN50 --checkpoint epoch_32.pt --data DomainNet --study \\
        --out runs/domainnet/representations
    torchrun --nproc-per-node 2 -m experiments.study represent      # two processes share the domains
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

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
from experiments.representations.grams import (
    DomainRepresentation,
    Grams,
    read_representations,
)
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
    """Say what linear probes decode at the first and at the last site, from ``sites`` of `probe_sites`."""
    target = "the " + sites["target"]
    told = sites.assign(
        said=target + " " + with_intervals(sites, ".2f"),
        guess=target + sites["chance"].map(" {:.2f}".format),
    )
    # A site has a row for each target; sites are in the order of depth.
    first = told[told["site"] == told["site"].iloc[0]]
    last = told[told["site"] == told["site"].iloc[-1]]
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
    """Add the section on CKA: a figure over depth for each kernel, and the matrix of all domains at the last site.

    Args:
        comparisons: CKA of the same classes, by each kernel.
        marks: Colours and symbols of the domains.
        of: Words that name the classes in titles; empty for all classes.
    """
    report.section(f"Are classes arranged in the same way in every domain?{of}")
    for comparison in comparisons:
        add_over_depth(report, comparison, marks, "CKA compares the means of classes.")
        kernel = comparison.measure.removeprefix("cka_")
        apart = similarity.apart[similarity.apart["kernel"] == kernel]
        name = measure_name(comparison.measure)
        add_two_lines(report, apart, comparison.sites, name)
    # At the last site the model gives its answer, so whole matrices are shown of this site alone.
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
    # Unsorted, so that sites stay in the order of depth.
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
    """Sites of the encoder that are compared, in its order (default: all)."""
    n_images: Count | None = 20
    """Images of a class in a domain, at random by --seed; all where there are fewer, or with None."""
    folds: Folds = DEFAULT_FOLDS
    held_out: tuple[str, ...] = ()
    """Held-out classes (OOD): CKA is also computed for them alone, and for all other classes (ID) alone."""
    apart: str | None = None
    """A domain that is compared with the mean of all other domains."""
    common_classes: bool = False
    """Compare every two domains over the classes that all domains have; otherwise over the classes of both domains."""
    permutations: Count = 1000
    """Permutations of classes for CKA's null."""
    probe_folds: Annotated[int, at_least(2)] = 5
    """Folds of the images of a domain for probes: a probe is tested on each fold, and trained on all other folds."""
    out: Path = Path("runs/representations")
    """Folder of the representations, the tables, the report, and the temporary files of `extract_representations`."""
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
    domains = read_representations(config.representations)
    if config.common_classes:
        groups = in_all_domains(groups, [domain.grams for domain in domains])
    # The manifest knows the weights: this process may not have loaded the model.
    made = json.loads((config.representations / "manifest.json").read_text())["config"]
    n_images = sum(len(domain.image_classes) for domain in domains)
    report = Report(
        f"Do domains share the representations of {made['model']}?",
        f"CKA and linear probes at {len(domains[0].unit_means)} sites, on {n_images:,} images of "
        f"{len(images.classes)} classes in {len(domains)} domains.",
    )
    add_representation_guide(report)
    marks = domain_marks(images.domains)
    tables: dict[str, list[pd.DataFrame]] = {}
    comparisons: dict[str, Comparison] = {}
    for group, classes in groups.items():
        grams = [domain.grams.only(classes) for domain in domains]
        draws = config.permutations
        similarity = compare_representations(
            grams, permutations=draws, apart=config.apart, seed=config.seed
        )
        folds = compare_representation_folds(domains, classes=classes)
        by_kernel = similarity.comparisons(folds.values)
        of = "" if group == "all" else f", {group} classes"
        add_cka(report, similarity, list(by_kernel.values()), marks, of)
        for comparison in by_kernel.values():
            comparisons[f"{comparison.measure}-{group}"] = comparison
        for name, table in {
            "cka": similarity.pairs,
            "cka_over_depth": similarity.domains,
            "cka_apart": similarity.apart,
            "cka_ceilings": cka_ceilings(folds.values),
            "cka_folds": folds.values,
            "cka_folds_without_class": folds.without_class,
        }.items():
            tables.setdefault(name, []).append(table.assign(group=group))
    probes = probed(domains, config)
    add_probes(report, probes)
    # The first comparison is of all classes, by the linear kernel.
    first = next(iter(comparisons.values()))
    last = first.at(first.sites[-1])
    arranged = how_much_shared(last, "arrangement of the classes")
    report.summary([arranged, which_differs(last), what_probes_decode(probes.sites)])
    written = dict[str, pd.DataFrame]()
    for name, of_groups in tables.items():
        joined = pd.concat(of_groups, ignore_index=True)
        # Without a domain ``apart`` its table is empty, and is not written.
        if len(joined):
            written[name] = joined
    written |= {"probes": probes.sites, "probes_left_out": probes.left_out}
    small = [name for name in written if not name.startswith("cka_folds")]
    about = asdict(config)
    # Where results lie and how the work is shared out change no number.
    for name in ("out", "results", *asdict(WorkSettings())):
        del about[name]
    about |= {"weights": made["weights"], **versions()}
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


def probed(domains: Sequence[DomainRepresentation], config: Config) -> SiteProbes:
    """Train the linear probes at every site, on the images of all domains."""
    means: dict[str, list[np.ndarray]] = {}
    classes: list[str] = []
    names: list[str] = []
    items: list[str] = []
    # The four lists have one entry for each image, in the same order.
    for domain in domains:
        for site, of_images in domain.unit_means.items():
            means.setdefault(site, []).append(of_images)
        classes += domain.image_classes
        names += [domain.grams.domain] * len(domain.image_classes)
        items += domain.image_items
    return probe_sites(
        {site: np.concatenate(of_domains) for site, of_domains in means.items()},
        classes,
        names,
        items,
        folds=config.probe_folds,
        seed=config.seed,
    )


def class_groups_of(
    config: Config, classes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the groups of classes by name: all classes and, if classes are held out, held-out and seen classes."""
    groups = {"all": tuple(classes)}
    if config.held_out:
        held_out = chosen_names("held-out class", config.held_out, classes, class_key)
        groups |= {
            "held-out": held_out,
            "seen": tuple(name for name in classes if name not in held_out),
        }
    return groups


def in_all_domains(
    groups: Mapping[str, Sequence[str]], domains: Sequence[Grams]
) -> dict[str, tuple[str, ...]]:
    """Return the classes of each group that every domain has at every site."""
    common = set(groups["all"])
    for domain in domains:
        for site in domain.by_site:
            common.intersection_update(domain.present(site))
    chosen: dict[str, tuple[str, ...]] = {}
    for group, classes in groups.items():
        chosen[group] = tuple(name for name in classes if name in common)
    return chosen


def represent(config: Config, work: Work) -> None:
    """Represent this process's share of the domains."""
    settings = RepresentationSettings(
        config.n_images, config.sites, config.seed, config.folds
    )
    extract_representations(
        config.clip(work.rank), config.images(), config.representations, settings, work
    )

"""Are the circuits of my CLIP model shared between the domains of my images?

For any open_clip model and any images laid out as root/<domain>/<class>/<file> (DomainNet's lists are used where
they exist), it answers in this order: Does the model know the classes in each domain? Do their circuits work, and are
they the class's own? Which units are the class's own part, and is it the same in two domains? How similar are the
circuits? It writes tables and one HTML report. A second run with the same settings goes on where the first one stopped.

    circuitry compare --model RN50 --checkpoint epoch_32.pt --data DomainNet \\
        --classes axe lion pizza --n-images 50 --out runs/domainnet
    torchrun --nproc-per-node 8 -m circuitry compare --device cuda ...      # eight GPUs
    circuitry compare --cluster slurm --jobs 32 --device cuda ... # an array of SLURM jobs
    circuitry compare --sae layer3.0=runs/sae.safetensors ...     # features in place of channels
    circuitry compare --baseline counterfactual --texts own-style ...
    circuitry compare --study ...                                 # as the study did it
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from circuitry import analysis, circuits, comparison, data, questions
from circuitry.circuits.circuit_settings import OwnShare
from circuitry.data import chosen_names, class_key
from circuitry.data.shared_options import EdgesPerNode, HeldOut, NUnseen, SmallTables
from circuitry.interventions import CheckSettings
from circuitry.models import ModelOptions
from circuitry.questions import ExtractionSettings
from circuitry.runs import InputError, Work, WorkSettings
from circuitry.runs.arguments import Count, ShareOrZero

if TYPE_CHECKING:
    from circuitry.analysis import Analysis
    from circuitry.data import DomainFolder
    from circuitry.reports import Written

Choice = Literal["by-name", "shuffled"]


@dataclass(frozen=True, kw_only=True)
class Config(ExtractionSettings, WorkSettings, ModelOptions):
    """Settings of a comparison."""

    out: Path = Path("runs/compare")
    """Folder of the results: graphs, tables and the report."""
    results: SmallTables = None
    choice: Choice = "by-name"
    """Choice of the images: by-name, by a hash of seed and path, whatever else there is; shuffled: as in the study, one
    random stream through all lists, the held-out classes first."""
    edges_per_node: EdgesPerNode = 3
    held_out: HeldOut = ()
    pair: tuple[str, str, str] | None = None
    """Class and two domains whose circuits are drawn (default: the first class in its two least similar domains)."""
    kernel_depths: tuple[Count, ...] = (1,)
    """Depths of the Weisfeiler-Lehman kernel."""
    any_sign: bool = False
    """Count edges with a score of zero or less."""
    all_sites: bool = False
    """Let sites that repeat another, or keep few units, take part in means over sites."""
    apart: str | None = None
    """A domain to set against the others."""
    accuracy: bool = True
    """Measure zero-shot accuracy on all images of the chosen classes and domains, too."""
    least_accuracy: ShareOrZero = 0.5
    """A class with a smaller share of right images in a domain is left out of own parts and comparisons there; 0 leaves
    none out."""
    n_unseen: NUnseen = 4
    shares: tuple[OwnShare, ...] = (0.005, 0.01, 0.02)
    """Shares of the units that own parts have, as in circuitry own-parts; none for no own parts."""
    dry_run: bool = False
    """Only count the jobs, do the first two, and estimate the time of the others."""

    def images_of(self, split: str | None) -> "DomainFolder":
        """Return the images of another list."""
        # The study drew images by one stream of random numbers, which other classes would shift.
        if self.choice == "by-name":
            return super().images_of(split)
        return data.ShuffledImages(
            self.data,
            split,
            first=self.held_out,
            domains=self.domains,
            classes=self.classes,
        )


def main(config: Config) -> "Written | None":
    """Extract, compare, write; print where the report is."""
    images = config.images()
    held_out: tuple[str, ...] = ()
    others: list[str] = []
    # Names in the spelling of the folder, whatever the case of the given ones.
    if config.held_out:
        held_out = chosen_names(
            "class of --held-out", config.held_out, images.all_classes, class_key
        )
        config = replace(config, held_out=held_out)
        others = [name for name in images.classes if name not in held_out]
    # Names, and too few classes or images, are told of before the model is loaded.
    check_names(config, images)
    tell(comparison.too_few(len(images.classes), len(images.domains)))
    tell(circuits_without_tests(config, images))
    if config.dry_run:
        run = analysis_of(config, config.work())
        for line in run.extraction().estimate(config.work()):
            tell(line)
        return None
    # Of several processes one goes on to the comparison.
    if not config.share_out(partial(find_and_test, config), config.out / "jobs"):
        return None
    run = find_and_test(config, config.work())
    if config.accuracy:
        run.accuracy(held_out, work=config.work(), least=config.least_accuracy)
    kernels = [circuits.Measure("wl_kernel", depth) for depth in config.kernel_depths]
    compared = run.compare(
        {"held-out": held_out, "others": others},
        ["node_overlap", "edge_jaccard", *kernels],
    )
    apart = config.apart
    if compared:
        edges = compared["edge_jaccard"]
        # The domain may have no circuits in common with the others, which is no reason to lose the report.
        print(edges.matrix().to_string(float_format="{:.3f}".format))
        if apart not in edges.domains:
            apart = None
    else:
        print(run.introduction)
    # The identity of a model is a digest; a reader wants to know the files.
    weights = {
        "weights": config.checkpoint or config.pretrained,
        "data": config.data,
        "sae": list(config.sae),
    }
    return run.report(
        results=config.results, provenance=weights, apart=apart, pair=config.pair
    )


def tell(sentence: str) -> None:
    """Print a sentence at once, if there is one."""
    if sentence:
        print(sentence, flush=True)


def analysis_of(config: Config, work: Work) -> "Analysis":
    """Return the analysis of the model and images, for one process."""
    reading = circuits.ReadingSettings(
        edges_per_node=config.edges_per_node,
        any_sign=config.any_sign,
        all_sites=config.all_sites,
        seed=config.seed,
    )
    # With --n-unseen 0 nothing is tested, but settings of a test take one image at least.
    checks = CheckSettings(n_images=max(1, config.n_unseen), baseline=config.baseline)
    return analysis.Analysis(
        config.clip(work.rank, components=True),
        config.images(),
        config.out,
        config,
        checks,
        reading,
    )


def find_and_test(config: Config, work: Work) -> "Analysis":
    """Do one process's share of the circuits, of the tests on images that they were not found on, and of own parts."""
    run = analysis_of(config, work)
    run.circuits(work)
    if config.n_unseen:
        run.curves(work)
    if config.shares:
        run.own_parts(config.shares, work)
    return run


def circuits_without_tests(config: Config, images: "DomainFolder") -> str:
    """Say which circuits will have no images to be tested on; nothing where all have."""
    if not config.n_unseen:
        return ""
    # The split is known from the names of the files, before any circuit is found.
    split = data.Split(images, config.n_images, config.seed, config.leave_unseen)
    keys = [(name, domain) for name in images.classes for domain in images.domains]
    found = [key for key in keys if split.found_on(key)]
    untested = [key for key in found if not split.unseen(key)]
    return questions.without_images(untested, len(found)) if untested else ""


def check_names(config: Config, images: "DomainFolder") -> None:
    """Refuse unknown names before the work begins, and a pair that cannot be drawn."""
    if config.apart is not None:
        chosen_names("domain of --apart", [config.apart], images.domains)
    if config.pair is None:
        return
    class_name, *domains = config.pair
    chosen_names("class of --pair", (class_name,), images.classes)
    chosen_names("domain of --pair", domains, images.domains)
    wrong = ""
    if len(set(domains)) < 2:
        wrong = f"{domains[0]} was given twice"
    for domain in domains:
        if not images.select(class_name, domain, 1):
            wrong = f"there are no images of {class_name} in {domain}"
    if wrong:
        raise InputError(
            f"--pair is a class and two domains in which it has images, but {wrong}."
        )

"""Are the circuits of my CLIP model shared between the domains of my images?

The model may be any open_clip model, and the images any folder root/<domain>/<class>/<file>. If the folder has
DomainNet's lists of images, the lists are used. The results are tables and one HTML report, which answers these
questions in this order:

1. Does the model know the classes in each domain?
2. Do the circuits of the classes recover the model's answer, and do circuits of other classes do so, too?
3. Which units are a class's own part (the class needs them, other classes do not), and is it the same in two domains?
4. How similar are the circuits of a class between the domains?

A second run with the same settings goes on where the first run stopped.

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

from circuitry import analysis, circuits, comparison, data, models, questions
from circuitry.circuits.circuit_settings import OwnShare
from circuitry.data import chosen_names, class_key
from circuitry.data.shared_options import EdgesPerNode, HeldOut, NUnseen, SmallTables
from circuitry.interventions import CheckSettings
from circuitry.models import ModelOptions
from circuitry.questions import ExtractionSettings
from circuitry.runs import InputError, Plan, PlanSettings, Work, WorkSettings
from circuitry.runs.arguments import Count, ShareOrZero

if TYPE_CHECKING:
    from circuitry.analysis import Analysis
    from circuitry.data import DomainFolder
    from circuitry.reports import Written

Choice = Literal["by-name", "shuffled"]


@dataclass(frozen=True, kw_only=True)
class Config(ExtractionSettings, WorkSettings, PlanSettings, ModelOptions):
    """Settings of a comparison."""

    out: Path = Path("runs/compare")
    """Folder of the results: circuits, tables and the report."""
    results: SmallTables = None
    choice: Choice = "by-name"
    """How images are chosen. by-name: by a hash of the seed and the path of an image, so that the choice does not
    depend on other images. shuffled: as in the study, by one stream of random numbers for all lists, which begins with
    the held-out classes."""
    edges_per_node: EdgesPerNode = 3
    held_out: HeldOut = ()
    pair: tuple[str, str, str] | None = None
    """Class and two domains whose circuits are drawn (default: the first class in its two least similar domains)."""
    kernel_depths: tuple[Count, ...] = (1,)
    """Depths of the Weisfeiler-Lehman kernel, a similarity of circuits."""
    any_sign: bool = False
    """Also count edges with a score of zero or less."""
    all_sites: bool = False
    """Include all sites in means over sites, also sites that repeat another site or keep few units."""
    apart: str | None = None
    """A domain to compare with all other domains in a section of its own."""
    accuracy: bool = True
    """Also measure zero-shot accuracy on all images of the chosen classes and domains."""
    least_accuracy: ShareOrZero = 0.5
    """Least share of a class's images in a domain that the model must classify correctly. If it classifies fewer
    correctly, the class is left out of own parts and comparisons in this domain. With 0 no class is left out."""
    n_unseen: NUnseen = 4
    shares: tuple[OwnShare, ...] = (0.005, 0.01, 0.02)
    """Shares of the units that own parts have, as in circuitry own-parts. Without any share, own parts are not looked
    for."""

    def images_of(self, split: str | None) -> "DomainFolder":
        """Return the images in the lists of a split, such as ``train``, or all images of the folder if it is None."""
        # The study drew images by one stream of random numbers. Other classes would shift this stream.
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
    """Find, test and compare circuits, and write the report.

    The result is None in a process that only does its share of the work.
    """
    config = with_known_names(config)
    held_out = config.held_out
    others: list[str] = []
    if held_out:
        classes = config.images().classes
        others = [name for name in classes if name not in held_out]
    # If several processes share the work, only one of them goes on to the comparison.
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
        # If the domain cannot be compared with the other domains, the report is written without this section.
        print(edges.matrix().to_string(float_format="{:.3f}".format))
        if apart not in edges.domains:
            apart = None
    else:
        print(run.introduction)
    # The identity of a model contains only digests, so the names of its files are added for the reader.
    weights = {
        "weights": config.checkpoint or config.pretrained,
        "data": config.data,
        "sae": list(config.sae),
    }
    return run.report(
        results=config.results, provenance=weights, apart=apart, pair=config.pair
    )


def plan(config: Config) -> Plan:
    """Return what the circuits, tests and own parts that are left need."""
    config = with_known_names(config)
    work = config.work()
    run = analysis_of(config, work)
    n_unseen = config.n_unseen
    steps = run.steps(config.shares, tests=n_unseen > 0, accuracy=config.accuracy)
    return Plan(steps, models.tower_speed(run.clip, run.images.records, work))


def with_known_names(config: Config) -> Config:
    """Return the settings with the names of held-out classes as the folder spells them.

    Wrong names, and too few classes or images, are reported here, before the model is loaded.
    """
    images = config.images()
    if config.held_out:
        held_out = chosen_names(
            "class of --held-out", config.held_out, images.all_classes, class_key
        )
        config = replace(config, held_out=held_out)
    check_names(config, images)
    tell(comparison.too_few(len(images.classes), len(images.domains)))
    tell(circuits_without_tests(config, images))
    return config


def tell(sentence: str) -> None:
    """Print a sentence at once, unless it is empty."""
    if sentence:
        print(sentence, flush=True)


def analysis_of(config: Config, work: Work) -> "Analysis":
    """Return the `Analysis` of the model and images that the settings name, as one process runs it."""
    reading = circuits.ReadingSettings(
        edges_per_node=config.edges_per_node,
        any_sign=config.any_sign,
        all_sites=config.all_sites,
        seed=config.seed,
    )
    # With --n-unseen 0 no circuit is tested, but the settings of a test need at least one image.
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
    """Do one process's share of the work: find circuits, test them on unseen images, and find and test own parts."""
    run = analysis_of(config, work)
    run.circuits(work)
    if config.n_unseen:
        run.curves(work)
    if config.shares:
        run.own_parts(config.shares, work)
    return run


def circuits_without_tests(config: Config, images: "DomainFolder") -> str:
    """Return a sentence that says how many circuits cannot be tested, because no unseen images are left for them.

    The text is empty if all circuits can be tested, or if no tests were asked for.
    """
    if not config.n_unseen:
        return ""
    # The split is known from the names of the files, before any circuit is found.
    split = data.Split(images, config.n_images, config.seed, config.leave_unseen)
    keys = [(name, domain) for name in images.classes for domain in images.domains]
    found = [key for key in keys if split.found_on(key)]
    untested = [key for key in found if not split.unseen(key)]
    return questions.without_images(untested, len(found)) if untested else ""


def check_names(config: Config, images: "DomainFolder") -> None:
    """Raise `InputError` if --apart or --pair has an unknown name, or if the circuits of the pair cannot be drawn."""
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

"""Find and compare circuits, and write the report."""

from dataclasses import replace
from functools import partial

from circuitry import DomainFolder
from circuitry.analysis import Analysis
from circuitry.circuits import Measure, ReadingSettings
from circuitry.commands.compare_command import Config
from circuitry.comparison.domain_testing import too_few
from circuitry.data.imagenet_classes import class_key
from circuitry.data.names import chosen_names
from circuitry.interventions import CheckSettings
from circuitry.interventions.check_images import without_images
from circuitry.reports.page import Written
from circuitry.runs import InputError, Work


def main(config: Config) -> Written | None:
    """Extract, compare, write; print where the report is."""
    images = config.images()
    if config.held_out:
        held_out = chosen_names(
            "class of --held-out", config.held_out, images.all_classes, class_key
        )
        config = replace(config, held_out=held_out)  # as the folder spells them
    check_names(config, images)
    told = (
        too_few(len(images.classes), len(images.domains)),
        cells_without_others(config, images),
    )
    for sentence in filter(None, told):
        print(sentence, flush=True)
    if config.dry_run:
        for line in (
            analysis_of(config, config.work()).extraction().estimate(config.work())
        ):
            print(line, flush=True)
        return None
    if not config.share_out(partial(find_and_test, config), config.out / "jobs"):
        return None
    run = find_and_test(config, config.work())
    if config.accuracy:
        run.accuracy(config.held_out, work=config.work(), least=config.least_accuracy)
    seen = (
        [name for name in images.classes if name not in config.held_out]
        if config.held_out
        else []
    )
    kernels = [Measure("wl_kernel", depth) for depth in config.kernel_depths]
    compared = run.compare(
        {"held-out": config.held_out, "others": seen},
        ["node_overlap", "edge_jaccard", *kernels],
    )
    edges = compared.get("edge_jaccard")
    print(
        run.introduction
        if edges is None
        else edges.matrix().to_string(float_format=lambda v: f"{v:.3f}")
    )
    weights = {
        "weights": config.checkpoint or config.pretrained,
        "data": config.data,
        "sae": list(config.sae),
    }
    apart = config.apart if edges is None or config.apart in edges.domains else None
    return run.report(
        results=config.results, provenance=weights, apart=apart, pair=config.pair
    )


def analysis_of(config: Config, work: Work) -> Analysis:
    """Return what is asked, for one process."""
    reading = ReadingSettings(
        edges_per_node=config.edges_per_node,
        any_sign=config.any_sign,
        all_sites=config.all_sites,
        seed=config.seed,
    )
    checks = CheckSettings(n_images=max(1, config.n_unseen), baseline=config.baseline)
    return Analysis(
        config.clip(work.rank, parts=True),
        config.images(),
        config.out,
        config,
        checks,
        reading,
    )


def find_and_test(config: Config, work: Work) -> Analysis:
    """Do one process's share of the circuits, of the tests on images that they were not found on, and of own parts."""
    run = analysis_of(config, work)
    run.circuits(work)
    if config.n_unseen:
        run.curves(work)
    if config.shares:
        run.own_parts(config.shares, work)
    return run


def cells_without_others(config: Config, images: DomainFolder) -> str:
    """Say which circuits will have no images to be tested on; nothing where all have."""
    numbers = {
        (c, d): len(images.select(c, d)) for c in images.classes for d in images.domains
    }
    found = [
        key
        for key, n in numbers.items()
        if 0 < n <= config.n_images and config.n_unseen
    ]
    return without_images(found, sum(map(bool, numbers.values()))) if found else ""


def check_names(config: Config, images: DomainFolder) -> None:
    """Refuse unknown names before the work begins, and a pair that cannot be drawn."""
    chosen_names("domain of --apart", config.apart and (config.apart,), images.domains)
    if config.pair is None:
        return
    class_name, *domains = config.pair
    chosen_names("class of --pair", (class_name,), images.classes)
    chosen_names("domain of --pair", domains, images.domains)
    empty = [domain for domain in domains if not images.select(class_name, domain, 1)]
    if empty or len(set(domains)) < 2:
        wrong = (
            f"there are no images of {class_name} in {empty[0]}"
            if empty
            else f"{domains[0]} was given twice"
        )
        raise InputError(
            f"--pair is a class and two domains in which it has images, but {wrong}."
        )

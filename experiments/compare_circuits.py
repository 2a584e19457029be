"""Are the circuits of my CLIP model shared between the domains of my images?

For any open_clip model and any images laid out as root/<domain>/<class>/<file> (DomainNet's lists are used where
they exist): finds the circuit of every class in every domain and of two halves of the images, compares them
between domains, and writes tables and one HTML report. A second run with the same settings goes on where the
first one stopped.

    python experiments/compare_circuits.py --model RN50 --checkpoint epoch_32.pt --data DomainNet \
        --classes axe lion pizza --n-images 50 --out runs/domainnet
    torchrun --nproc-per-node 8 experiments/compare_circuits.py --device cuda ...      # eight GPUs
    python experiments/compare_circuits.py --cluster slurm --jobs 32 --device cuda ... # an array of SLURM jobs
    python experiments/compare_circuits.py --sae layer3.0=runs/sae.safetensors ...     # features in place of channels
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from circuitry import Clip, DomainFolder, GraphFolder, load_clip
from circuitry.circuits.attribution import DEFAULT_RULE, AttributionSettings
from circuitry.circuits.extraction import Extraction, plan_extraction
from circuitry.circuits.quadrature import parse_rule
from circuitry.circuits.similarity import compare_domains
from circuitry.comparison.comparison import Comparison
from circuitry.models.feature_basis import parse_saes
from circuitry.reports.page import write_results
from circuitry.reports.sections.circuits import add_reading_guide, comparison_report
from circuitry.runs.command_line import run_script
from circuitry.runs.workers import Rank, job_options, run_array, this_rank
from circuitry.training.evaluation import zero_shot_accuracy

TIMED = 2
"""Jobs that a dry run does."""


@dataclass(frozen=True)
class Config:
    """Settings of a comparison."""

    model: str
    """open_clip model name, a name shipped here (rn-tiny), or the path of a model-config JSON."""
    data: Path
    """Folder of the images: <domain>/<class>/<file>."""
    out: Path
    """Folder for graphs, tables and the report."""
    checkpoint: Path | None = None
    """Local checkpoint; this or --pretrained."""
    pretrained: str | None = None
    """open_clip's tag of pretrained weights; this or --checkpoint."""
    sae: tuple[str, ...] = ()
    """Sites whose units are features of a sparse autoencoder, as SITE=PATH, e.g. layer3.0=runs/sae.safetensors."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, where there are lists."""
    classes: tuple[str, ...] | None = None
    """Classes to compare; all unless told."""
    domains: tuple[str, ...] | None = None
    """Domains to compare; all unless told."""
    held_out: tuple[str, ...] = ()
    """Classes to report apart, e.g. those held out in training."""
    pair: tuple[str, str, str] | None = None
    """Class and two domains whose circuits are drawn; the first class in its two least similar domains unless told."""
    n_images: int = 50
    """Images per class and domain, at random by --seed; all where there are fewer."""
    node_fraction: float = 0.1
    """Share of the units of each site that is kept."""
    rule: str = DEFAULT_RULE.name
    """Quadrature rule of node scores; left-10 is the study's, which costs more and is less exact."""
    edge_rule: str | None = None
    """Quadrature rule of edge scores where it differs."""
    accuracy: bool = True
    """Measure zero-shot accuracy on all images of the chosen classes and domains, too."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps; under torchrun cuda is each process's own GPU."""
    autocast: str | None = None
    """Lower precision of node scores: bfloat16 or float16; edges keep full precision."""
    memory_gib: float = 1.0
    """Memory for activations and gradients, in GiB."""
    seed: int = 0
    """Seed of the choice of images."""
    strict: bool = False
    """Stop at an image that cannot be read, instead of leaving it out with a line."""
    dry_run: bool = False
    """Only count the jobs, do the first two, and estimate the time of the others."""
    cluster: str | None = None
    """Extract by an array of jobs: slurm, or local for processes on this machine (needs circuitry[cluster])."""
    jobs: int = 8
    """Size of the array."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters as name=value, e.g. slurm_partition=gpu gpus_per_node=1 timeout_min=600."""


def main(config: Config) -> None:
    """Extract, compare, write; print where the report is."""
    rank = this_rank()
    if config.cluster is not None and not config.dry_run:
        run_array(
            partial(extract_share, config),
            config.jobs,
            config.out / "jobs",
            cluster=config.cluster,
            options=job_options(config.job_options),
        )
    clip, images, plan = planned(config, rank)
    if config.dry_run:
        estimate(plan)
        return
    plan.run(*rank, progress=rank.worker == 0)
    graphs = GraphFolder(plan.out)
    if rank.worker:
        return
    seen = [name for name in images.classes if name not in config.held_out] if config.held_out else []
    comparison = compare_domains(graphs, graphs.halves(), {"held-out": config.held_out, "others": seen})
    accuracy = None
    if config.accuracy:
        weights = clip.text_weights(images.all_classes)
        accuracy = zero_shot_accuracy(clip.encoder, clip.preprocess, weights, images, config.held_out)
    domains = sorted({domain for _, domain in graphs})
    report = comparison_report(
        f"Circuits of {clip.name} in {len(domains)} domains",
        f"For each of {len(images.classes)} classes in {', '.join(domains)}, the circuit that recognises it was found "
        f"by attribution on up to {config.n_images} images, and circuits were compared between domains.",
        comparison,
        graphs,
        images,
        config.pair or least_similar(comparison),
        accuracy=accuracy,
    )
    add_reading_guide(report)
    print(comparison.matrix("edge_jaccard").to_string(float_format=lambda v: f"{v:.3f}"))
    tables = comparison.tables() | ({} if accuracy is None else {"accuracy": accuracy})
    provenance = {
        "model": clip.name,
        "weights": config.checkpoint or config.pretrained,
        "data": config.data,
        "sae": list(config.sae),
        **graphs.manifest["config"],
        **graphs.manifest["versions"],
    }
    print(write_results(report, tables, config.out, None, provenance))


def planned(config: Config, rank: Rank) -> tuple[Clip, DomainFolder, Extraction]:
    """Return model, images and the jobs of the extraction."""
    images = DomainFolder(config.data, split=config.split, domains=config.domains, classes=config.classes)
    clip = load_clip(config.model, config.checkpoint, config.pretrained, rank.device(config.device))
    clip = clip.in_basis(parse_saes(config.sae))
    settings = AttributionSettings(
        node_fraction=config.node_fraction,
        rule=parse_rule(config.rule),
        edge_rule=None if config.edge_rule is None else parse_rule(config.edge_rule),
        memory_gib=config.memory_gib,
        autocast=config.autocast,
    )
    plan = plan_extraction(
        clip,
        images,
        config.out / "circuits",
        n_images=config.n_images,
        seed=config.seed,
        settings=settings,
        strict=config.strict,
    )
    return clip, images, plan


def extract_share(config: Config, worker: int, workers: int) -> None:
    """Do one worker's share of the extraction; what an array of jobs runs."""
    *_, plan = planned(config, Rank(worker, workers))
    plan.run(worker, workers, progress=False)


def estimate(plan: Extraction) -> None:
    """Do the first jobs, which stay done, and say how long the others will take."""
    todo = plan.unfinished()
    sizes = {key: len(records) for key, records in plan.selection.items() if records}
    print(f"{len(sizes)} jobs with {sum(sizes.values())} images, {len(sizes) - len(todo)} jobs finished")
    seconds = plan.run(most=min(TIMED, len(todo)), progress=False)
    if seconds:
        rate = sum(seconds.values()) / sum(sizes[key] for key in seconds)
        left = rate * sum(sizes[key] for key in todo if key not in seconds)
        print(f"{len(seconds)} jobs done now at {rate:.2f} s per image; the others: {left / 3600:.1f} h on this worker")


def least_similar(comparison: Comparison) -> tuple[str, str, str]:
    """Return the first class and the two domains in which its circuits share the fewest edges."""
    table = comparison.similarity["edge_jaccard"]
    class_name = min(table["class"])
    row = table[table["class"] == class_name].sort_values("value", kind="stable").iloc[0]
    return str(class_name), str(row["domain_a"]), str(row["domain_b"])


if __name__ == "__main__":
    run_script(Config, main, __doc__)

"""Does sharing explain generalization? The sharing of domains in many models, against their generalization.

Reads a folder of runs (models trained on mixtures, as of the program generalization). For each model it measures the
accuracy on classes that were held out of its test domain, and the similarity of that domain to the others: circuits
(node overlap, its ratio to the ceiling), transfer of circuits, CKA of class means at the last site, features of an
autoencoder. Two numbers need only the circuits, no accuracy: the circuit shift score (Spearman of edge scores) and
depth bias (arXiv 2604.08192).

The study's main claim, that models generalize if domains share circuitry, predicts a positive correlation over models,
also given accuracy on the other domains. A correlation that is not above zero refutes it, or one that vanishes without
one model or given the accuracy on the other domains. A handful of models can show neither.

    python -m experiments.study shared-circuitry      # the toy's models, from generalization
    python -m experiments.study shared-circuitry --runs runs/study --data DomainNet --test-domains quickdraw sketch
    torchrun --nproc-per-node 8 -m experiments.study shared-circuitry --device cuda ...
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from circuitry.runs import ALONE, InputError, Job, JobFolder, Work, WorkSettings, versions, whole_file
from circuitry import CausalChecks, DomainFolder, GraphFolder, compare_domains, extract, load_clip
from circuitry.circuits import depth_bias
from circuitry.comparison import Comparison
from circuitry.data import Decoding, SeedOption, SmallTables, chosen_names, class_key
from circuitry.interventions import CheckSettings, transfer_matrix
from circuitry.reports import Report, listings_of, write_results
from circuitry.reports.figures import domain_marks
from circuitry.representations import (
    RepresentationSettings,
    compare_features,
    compare_representations,
    extract_representations,
    image_features,
)
from circuitry.training import SaeTraining, checkpoints, train_sae_on_images
from experiments.study.checkpoint_accuracy import EvaluationSet, extract_accuracies, run_names
from experiments.study.relations import LABEL_FREE, SHARED, add_relations, relate_over_models, relation_findings
from experiments.study.run_tables import kinds_of_runs
from experiments.study.study_run import StudyRun, find_runs

import pandas as pd
import tyro

FEWEST_ROWS = 4  # CKA needs so many classes
FORMAT = "circuitry shared circuitry 1"
ACCURACIES = ("held_out", "alone", "own_style", "centred", "harmonic_mean")
"""Kinds of accuracy in the test domain; see `accuracy_kinds`."""


@dataclass(frozen=True)
class Config:
    """Settings; the defaults are the toy's models."""

    runs: tuple[Path, ...] = (Path("runs/toy-study/runs"),)
    """Folders of runs, each with a run.json."""
    data: Path = Path("runs/toy-study/toy")
    """Folder of the images: <domain>/<class>/<file>."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, if there are lists."""
    train_split: str | None = "train"
    """Which of the lists to train autoencoders on."""
    test_domains: tuple[str, ...] | None = None
    """Test domains of models without their own (default: the test domains of the other runs)."""
    group: Literal["held-out", "all"] = "held-out"
    """Classes for circuits, transfer and features; CKA uses all."""
    n_images: int = 20
    """Images per class and domain for circuits, features and CKA."""
    n_tested: int = 4
    """Further images per class and domain for the transfer of circuits."""
    sae_steps: int = 2000
    """Steps of each model's autoencoder; 0 leaves features out."""
    out: Path = Path("runs/shared_circuitry")
    """Folder for the results of each model, tables and the report."""
    results: SmallTables = None
    decoding: Decoding = "upright"
    device: str = "cpu"
    """Where models run; under torchrun cuda is each process's own GPU."""
    seed: SeedOption = 0
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """Sharing of the work: one model at a time."""

    def images(self, split: str | None) -> DomainFolder:
        """Return the images of a list."""
        return DomainFolder(self.data, split=split)


def main(config: Config) -> None:
    """Measure every model, relate, write; print where the report is."""
    if config.work.share_out(partial(measured, config), config.out / "jobs"):
        write(config, measured(config, config.work.work()))


def measured(config: Config, work: Work) -> pd.DataFrame:
    """Return a row for each model and test domain, after this process's share of measuring them."""
    found = [run for folder in config.runs for run in find_runs(folder) if not run.supervised]
    runs = {name.replace("/", "-"): run for name, run in zip(run_names(found), found, strict=True)}
    given = config.test_domains or tuple(sorted({run.test_domain for run in found if run.test_domain}))
    if not given:
        raise InputError("None of the runs was trained for a test domain: give some that were, or --test-domains.")
    images, names = config.images(config.split), ("group", "n_images", "n_tested", "sae_steps", "seed")
    tests = EvaluationSet(images, images.all_classes)
    asked = {name: getattr(config, name) for name in names} | {"test_domains": list(given)}
    jobs: list[Job] = [(name,) for name in runs]
    folder = JobFolder(config.out / "models", FORMAT, asked, jobs, {"images": tests.listing})
    device, alone = work.rank.device(config.device), replace(work, rank=ALONE, progress=False)

    def do(job: Job, _: object) -> list[Path]:
        run, path = runs[job[0]], folder.path / f"{job[0]}.csv"
        domains = given if run.test_domain is None else (run.test_domain,)
        shared = shared_by(config, run, config.out / "found" / job[0], device, alone)
        rows = accuracies(config, run, tests, domains, device, alone).merge(shared, on="test_domain")
        rows.insert(0, "run", job[0])
        with whole_file(path) as temporary:
            rows.to_csv(temporary, index=False)
        return [path]

    folder.run(do, rank=work.rank, progress=work.bar("models"), unit="model")
    return pd.concat([pd.read_csv(folder.files(job)[0]) for job in jobs], ignore_index=True)


def accuracies(
    config: Config, run: StudyRun, tests: EvaluationSet, domains: Sequence[str], device: str, work: Work
) -> pd.DataFrame:
    """Return the accuracies of a run's last checkpoint in each test domain, and on the other domains."""
    last = checkpoints(run.folder)[-1][0]
    evaluated = extract_accuracies([run], tests, epochs=(last,), decoding=config.decoding, device=device, work=work)
    rows = []
    for domain in domains:
        table = kinds_of_runs(evaluated.assign(test_domain=domain)).set_index("domain")
        there = table.loc[domain, ["seen", *ACCURACIES]]
        in_domain = float(table["all"].drop(domain).mean())
        rows.append({"setting": run.setting, "seed": run.seed, "test_domain": domain, **there, "in_domain": in_domain})
    return pd.DataFrame(rows)


def shared_by(config: Config, run: StudyRun, out: Path, device: str, work: Work) -> pd.DataFrame:
    """Return the sharing of each domain in one model: test_domain, and columns of `SHARED` and `LABEL_FREE`."""
    clip = load_clip(run.model, checkpoints(run.folder)[-1][1], device=device).with_decoding(config.decoding)
    images = config.images(config.split)
    held_out = run.held_out if config.group == "held-out" else ()
    classes = chosen_names("held-out class", held_out, images.classes, class_key) if held_out else images.classes
    chosen = DomainFolder(config.data, split=config.split, classes=classes)
    asked: Any = {"method": "site-path", "budget": "same-share", "seed": config.seed, "work": work}
    graphs = extract(clip, chosen, out / "circuits", n_images=config.n_images, **asked)
    columns = circuit_numbers(graphs)
    checks = CausalChecks(clip, chosen, graphs, CheckSettings(n_images=config.n_tested, n_others=0))
    matrix = transfer_matrix(checks.extract_transfer(out / "transfer", exchange=False, work=work)["transfer"])
    columns["transfer"] = pd.Series({domain: matrix[domain].drop(domain).mean() for domain in matrix})
    if len(images.classes) >= FEWEST_ROWS:
        settings = RepresentationSettings(config.n_images, (clip.encoder.sites[-1],), config.seed, n_parts=2)
        found = extract_representations(clip, images, out / "representations", settings, work)
        similarity = compare_representations([one.grams for one in found], ("linear",), permutations=1)
        columns["cka"] = similarity.domains.set_index("domain")["value"]
    if config.sae_steps:
        training = SaeTraining(seed=config.seed, steps=config.sae_steps)
        sae = train_sae_on_images(clip, config.images(config.train_split), training, work=Work(progress=False))
        features = image_features(clip, sae, chosen, n_images=config.n_images, seed=config.seed, work=work)
        columns["features"] = with_the_others(compare_features(features))
    return pd.DataFrame(columns).rename_axis("test_domain").reset_index()


def circuit_numbers(graphs: GraphFolder) -> dict[str, Any]:
    """Return each domain's node overlap with the others, ratio to the ceiling, shift score and depth bias."""
    found = compare_domains(graphs, measures=["node_overlap", "edge_spearman"])
    overlap = found["node_overlap"]
    columns = {"overlap": with_the_others(overlap), "shift": with_the_others(found["edge_spearman"])}
    if overlap.has_ratios:
        columns["ratio"] = overlap.matrix(normalise=True).mean(axis=1)  # the diagonal is empty
    bias = pd.Series({key: depth_bias(graph) for key, graph in graphs.items()}).groupby(level=1).mean()
    columns["depth_bias"] = pd.Series({domain: bias[domain] - bias.drop(domain).mean() for domain in bias.index})
    return columns


def with_the_others(comparison: Comparison) -> "pd.Series[float]":
    """Return each domain's mean with the other domains."""
    summary = comparison.summary()
    return summary[summary["group"] == "all"].set_index("domain")["value"]


def write(config: Config, points: pd.DataFrame) -> None:
    """Relate, and write tables and report."""
    images = config.images(config.split)
    names = {column: name for column, name in (SHARED | LABEL_FREE).items() if column in points}
    told = [kind for kind in ACCURACIES if points[kind].notna().any()]
    relations = relate_over_models(points, list(names), told, "in_domain", seed=config.seed)
    report = Report(
        "Does what domains share explain how models generalize?",
        f"{points['run'].nunique()} models, in {', '.join(sorted(set(points['test_domain'])))}: accuracy on classes "
        "that were held out of the test domain, against what this domain shares with the others.",
    )
    groups = [[name for name in group if name in names] for group in (SHARED, LABEL_FREE)]
    accuracy = "alone" if "alone" in told else told[0] if told else ACCURACIES[0]
    report.summary(relation_findings(relations, names, accuracy, groups))
    add_relations(report, points, relations, names, told, domain_marks(images.domains))
    provenance = {"runs": sorted(set(points["run"])), "group": config.group, "n_images": config.n_images, **versions()}
    tables, looked_at = {"points": points, "relations": relations}, listings_of(images, config.n_images, config.seed)
    print(write_results(report, tables, config.out, config.results, provenance, listings=looked_at))

"""Are the circuits of a small CLIP shared between styles? The whole study in miniature, on drawn images.

1. draw the toy data set: six styles with DomainNet's names, sixteen everyday things;
2. take a tiny CLIP that comes with the package, or train it: on photos, cliparts, infographs, paintings, sketches and
   quickdraws, with a quarter of the classes left out of the quickdraws (compositional generalization, high diversity);
3. measure its zero-shot accuracy per domain, held-out and seen classes apart, and what the former's mixes;
4. find the circuit of every class in every domain, and of parts of the images;
5. test them: keep only the circuit, in its own domain and in others, on images that it was not found on;
6. compare them between domains and write tables, one HTML report and the explorer.

The claim of the study, that quickdraw's circuits are the least similar to those of the other domains, would be
refuted here by a domain whose circuits are significantly less similar than quickdraw's.

    circuitry quickstart
    circuitry quickstart --fast                     # a part of the classes and styles, few images
    circuitry quickstart --train                    # everything from nothing
    circuitry quickstart --model vit-tiny           # circuits of attention heads and MLP neurons
    circuitry quickstart --n-circuit 14 --n-causal-others 6 --robustness 4      # as in experiments/results/quickstart
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch

from circuitry import CausalChecks, Clip, DomainFolder, GraphFolder, load_clip
from circuitry.circuits import Extraction, ExtractionSettings, compare_domains
from circuitry.circuits.across_domains import COMPARED
from circuitry.circuits.order_variants import VARIED_CLASSES, extract_variants, order_stability
from circuitry.circuits.quadrature import parse_rule
from circuitry.comparison.order_stability import OrderStability, Varied
from circuitry.data.names import chosen_names, in_a_sentence
from circuitry.explorer import export_explorer
from circuitry.interventions import (
    AttributionCheck,
    CheckSettings,
    FaithfulnessCurve,
    check_attribution,
    curves_by_domain,
)
from circuitry.models import default_templates
from circuitry.models.options import UnitKind
from circuitry.models.shipped_weights import write_packed
from circuitry.reports import Report, write_results
from circuitry.reports.figures import domain_marks
from circuitry.reports.figures.style import Mark
from circuitry.reports.listings import listings_of
from circuitry.reports.page import Written
from circuitry.reports.sections.circuits import circuit_findings, comparison_report
from circuitry.reports.sections.stability import add_order_stability
from circuitry.runs import InputError, Rank, Work, run_processes, versions
from circuitry.runs.provenance import command
from circuitry.study import accuracy_kinds, record_run
from circuitry.study.mixtures import MixtureSettings, read_captions, write_mixture
from circuitry.study.mixtures.selection import admitted
from circuitry.study.quickstart_model import QUICKSTART, QUICKSTART_MODEL
from circuitry.study.sections.accuracies import add_accuracy
from circuitry.study.sections.causal_curves import add_faithfulness, faithfulness_findings
from circuitry.study.sections.score_checks import add_attribution_check, add_pixels
from circuitry.study.sections.transfers import add_transfer
from circuitry.study.toy import DrawingSettings, write_toy
from circuitry.study.toy.drawing import STYLES, TOY_CLASSES
from circuitry.training import clip_preset, train_clip, zero_shot_accuracy

SMALL_TABLES = (
    "accuracy",
    "chance_node_overlap",
    "node_overlap_over_depth",
    "node_overlap_ceiling_by_site",
    "order_stability",
    *(
        f"{measure}_{what}"
        for measure in COMPARED
        for what in ("matrix", "summary", "paired_tests", "ratios", "levels", "class_by_domain")
    ),
)
"""Tables that are small enough to be committed."""

MOST_PROCESSES = 8
"""As many as have a dozen circuits each."""
EPOCHS = {"rn-tiny": 16, "vit-tiny": 40}
RULES = {"rn-tiny": ("midpoint-5", "gauss-radau-3"), "vit-tiny": ("gauss-radau-3", "midpoint-3")}
"""Rules of nodes and edges for the models that come with the package, as `cheapest_rule` finds them."""
FAST = {"n_test": 6, "n_circuit": 4, "n_causal": 2, "n_causal_others": 4, "robustness": 0, "processes": 1}
"""Settings of ``--fast``."""
FAST_CLASSES, FAST_STYLES = ("car", "clock", "fish", "key"), ("clipart", "quickdraw", "real")
OF_TRAINING = ("test_domain", "held_out", "n_train", "epochs")
"""Settings that only a training can take."""
FEW_IMAGES = 10
"""With fewer images a circuit, the report says what they cannot tell."""
UNITS: dict[str, UnitKind] = {"rn-tiny": "channels", "vit-tiny": "components"}
SHOWN = ("fish", "real")
"""Class and style whose scores are set beside exact patching, and whose pixels are shown."""


class Checked(NamedTuple):
    """What the causal checks found."""

    curves: list[FaithfulnessCurve]
    transfer: pd.DataFrame
    attribution: AttributionCheck
    shown: np.ndarray
    maps: dict[str, np.ndarray]


@dataclass(frozen=True)
class Config:
    """Settings of the quickstart."""

    out: Path | None = None
    """Folder of the results: all that is made; a second run reuses it (default: runs/quickstart, with -vit-tiny, -fast
    and -trained after it where these are asked for)."""
    train: bool = False
    """Train the model, in place of the weights that come with the package: it takes two minutes more, and another
    processor gives other numbers."""
    fast: bool = False
    """Four classes in three styles and few images, whatever else is asked: shows the way, and tells little."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    test_domain: str = "quickdraw"
    """Test domain: classes are held out of it in training."""
    held_out: tuple[str, ...] = TOY_CLASSES[1::4]
    """Held-out classes: of the test domain."""
    n_train: int = 30
    """Drawn training images per class and style; all of the mixture is used, nothing is subsampled."""
    n_test: int = 20
    """Test images per class and style."""
    n_circuit: int = 8
    """Test images per class and style that circuits are found on."""
    n_causal: int = 4
    """Test images per class and style, other ones, that circuits are tested on."""
    n_causal_others: int = 4
    """Images of other classes: a circuit should not take them for its own."""
    model: Literal["rn-tiny", "vit-tiny"] = "rn-tiny"
    """The model: a ResNet or a transformer."""
    units: UnitKind | None = None
    """What circuits are made of (default: channels of the ResNet, attention heads and MLP neurons of the transformer,
    whose channels are the dimensions of its residual stream)."""
    epochs: int | None = None
    """Passes over the images (default: 16, of the transformer 40)."""
    robustness: int = VARIED_CLASSES // 2
    """Classes whose circuits are found again with another baseline, rule, metric and class texts, to see whether the
    order of the domains holds; 0 for none."""
    processes: int | None = None
    """Processes that find and test the circuits, with one thread each (default: one a core, at most 8)."""
    seed: int = 0
    """Seed of all random choices: drawings, training, images."""

    def __post_init__(self) -> None:
        chosen_names("class", self.held_out, TOY_CLASSES)
        chosen_names("domain", (self.test_domain,), STYLES)
        standard = {field.name: field.default for field in fields(self)}
        changed = [f"--{name.replace('_', '-')}" for name in OF_TRAINING if getattr(self, name) != standard[name]]
        if changed and not self.train:
            raise InputError(
                f"The weights of {self.model} that come with this package were trained by the defaults, but "
                f"{' and '.join(changed)} was given: add --train."
            )

    @property
    def folder(self) -> Path:
        """Folder of everything that is made."""
        other = [self.model] * (self.model != QUICKSTART_MODEL) + ["fast"] * self.fast + ["trained"] * self.train
        return self.out or QUICKSTART.with_name("-".join([QUICKSTART.name, *other]))

    @property
    def drawing(self) -> DrawingSettings:
        """What is drawn: the images of the training only where there is one; the test images are the same."""
        first, n_train = (0, self.n_train) if self.train else (self.n_train, 0)
        return DrawingSettings(n_train, self.n_test, seed=self.seed, first=first)


def main(config: Config) -> Written:
    """Run all steps, and print the table, the answer in short, and where the report is."""
    config = replace(config, **FAST) if config.fast else config  # type: ignore[arg-type]
    started = time.perf_counter()
    step("1/6 draw the toy data set")
    root = write_toy(config.folder / "toy", config.drawing)
    step(f"2/6 {'train a tiny CLIP' if config.train else 'a tiny CLIP that comes with the package'}")
    checkpoint = train(config, root) if config.train else None
    clip, images = subject(config, checkpoint, root)
    step("3/6 zero-shot accuracy")
    tested = DomainFolder(root, split="test", domains=images.domains)
    accuracy = accuracy_kinds(zero_shot_accuracy(clip, tested, config.held_out))
    workers = config.processes or min(torch.get_num_threads(), MOST_PROCESSES)
    run_processes(partial(find_and_test, config, checkpoint, root), workers)
    done = Work(progress=False)
    graphs, variants = find_circuits(config, clip, images, done)
    checks = checks_of(config, clip, images, graphs)
    step("6/6 comparison, report and explorer")
    checked = check_all(config, checks, done)
    written = write_report(config, checks, accuracy, checked, order_stability(graphs, variants))
    print(f"{time.perf_counter() - started:.0f} s in all")
    return written


def train(config: Config, root: Path) -> Path:
    """Train on the mixture, and return the weights in the form in which they come with the package."""
    drawn, captions = DomainFolder(root, split="train").records, read_captions(root)
    settings = MixtureSettings("cg-high", config.test_domain, config.held_out)
    table = write_mixture(admitted(drawn, settings), captions, config.folder / "train.tsv", settings=settings)
    training = replace(clip_preset(config.model), epochs=config.epochs or EPOCHS[config.model], seed=config.seed)
    checkpoint = train_clip(table, config.folder / "clip", training)
    record_run(config.folder / "clip", table, training)
    clip = load_clip(config.model, checkpoint)
    prompts = [template.replace("{}", in_a_sentence(name)) for template in default_templates() for name in TOY_CLASSES]
    weights = config.folder / f"{config.model}.safetensors"
    made_by = {"training": asdict(training), "mixture": asdict(settings), "images": asdict(config.drawing)}
    tokens = torch.tensor(sorted(set(clip.tokenizer([*captions.values(), *prompts]).flatten().tolist())))
    write_packed(clip.model.state_dict(), tokens, weights, {"command": command(), **made_by, "versions": versions()})
    return weights


def subject(config: Config, checkpoint: Path | None, root: Path) -> tuple[Clip, DomainFolder]:
    """Return the model, in the units that circuits are made of, and the test images."""
    clip = load_clip(config.model, checkpoint)
    if (config.units or UNITS[config.model]) == "components":
        clip = clip.in_components()
    classes, styles = (FAST_CLASSES, FAST_STYLES) if config.fast else (None, None)
    return clip, DomainFolder(root, split="test", classes=classes, domains=styles)


def find_and_test(config: Config, checkpoint: Path | None, root: Path, worker: int, workers: int) -> None:
    """Find circuits and test them, as one of several processes that do."""
    clip, images = subject(config, checkpoint, root)
    work = Work(Rank(worker, workers))
    if worker == 0:
        step("4/6 circuits of every class in every domain, and of parts of the images")
    graphs, _ = find_circuits(config, clip, images, work)
    if worker == 0:
        step("5/6 causal checks: do the circuits recover the answer?")
    test_circuits(config, checks_of(config, clip, images, graphs), work)


def find_circuits(
    config: Config, clip: Clip, images: DomainFolder, work: Work
) -> tuple[GraphFolder, dict[Varied, GraphFolder]]:
    """Find the circuits, and some of them with other settings, too."""
    rules: dict[str, Any] = {}
    if not config.train:
        rule, edge_rule = map(parse_rule, RULES[config.model])
        rules = {"rule": rule, "edge_rule": edge_rule}
    settings = ExtractionSettings(n_images=config.n_circuit, seed=config.seed, **rules)
    extraction = Extraction(clip, images, config.folder / "circuits", settings)
    extraction.run(work)
    return GraphFolder(extraction.out), extract_variants(extraction, config.robustness, work)


def checks_of(config: Config, clip: Clip, images: DomainFolder, graphs: GraphFolder) -> CausalChecks:
    """Return the circuits, with the images to test them on."""
    settings = CheckSettings(n_images=config.n_causal, n_others=config.n_causal_others)
    return CausalChecks(clip, images, graphs, settings)


def test_circuits(config: Config, checks: CausalChecks, work: Work) -> tuple[list[FaithfulnessCurve], pd.DataFrame]:
    """Test the circuits on images that they were not found on."""
    curves = checks.extract_faithfulness(
        config.folder / "faithfulness", rankings=("absolute",), random_draws=2, work=work
    )
    transfer = checks.extract_transfer(config.folder / "transfer", one_site=True, exchange=False, work=work)
    return curves, transfer["transfer"]


def check_all(config: Config, checks: CausalChecks, work: Work) -> Checked:
    """Return the tests of all circuits, and check the attribution of one."""
    check = check_attribution(checks.task_found_with(SHOWN, work), checks.graphs[SHOWN])
    return Checked(*test_circuits(config, checks, work), check, *checks.pixels(*SHOWN))


def write_report(
    config: Config, checks: CausalChecks, accuracy: pd.DataFrame, checked: Checked, stability: OrderStability
) -> Written:
    """Compare the circuits, write tables, figures and the report, and say where they are."""
    clip, images, graphs = checks.clip, checks.images, checks.graphs
    held_out = [name for name in images.classes if name in config.held_out]
    seen = [name for name in images.classes if name not in held_out]

    def add_answers(report: Report, marks: Mapping[str, Mark]) -> None:
        add_accuracy(report, accuracy, marks, test_domain=config.test_domain)
        add_faithfulness(report, checked.curves, marks)

    comparisons = compare_domains(graphs, {"held-out": held_out, "seen": seen})
    report = comparison_report(
        "Are the circuits of a small CLIP shared between styles?",
        f"A tiny CLIP was trained on drawn images of {len(TOY_CLASSES)} things in {len(STYLES)} styles; "
        f"{', '.join(config.held_out)} were left out of its {config.test_domain} images. For {len(images.classes)} "
        "classes the circuit that recognises it in each style was found by attribution. Circuits were compared between "
        "styles, and tested by taking everything else out of the model, on images that they were not found on. "
        + few(config),
        comparisons,
        graphs,
        images,
        (held_out[0], "real", config.test_domain),
        after_images=add_answers,
    )
    report.summary([*faithfulness_findings(checked.curves, []), *circuit_findings(comparisons, stability.table)])
    add_order_stability(report, stability)
    marks = domain_marks(images.domains)
    sites = comparisons["node_overlap"].sites
    add_transfer(report, checked.transfer, comparisons["edge_jaccard"].matrix(), marks, sites)
    add_attribution_check(report, checked.attribution, sites, " in ".join(SHOWN))
    names = [f"{SHOWN[1]} {i + 1}" for i in range(len(checked.shown))]
    add_pixels(report, checked.shown, checked.maps, names, SHOWN[0])
    tables = {name: table for comparison in comparisons.values() for name, table in comparison.tables().items()} | {
        "accuracy": accuracy,
        "order_stability": stability.table,
        "faithfulness": curves_by_domain(checked.curves),
        "selectivity": curves_by_domain(checked.curves, "selectivity"),
        "transfer": checked.transfer,
        "attribution_against_patching": checked.attribution.points,
    }
    provenance = {"model": clip.name, **graphs.settings, **graphs.manifest["versions"]}
    small = [name for name in SMALL_TABLES if name in tables]  # ceilings take two images of a class and style
    looked_at = listings_of(images, config.n_circuit, config.seed)
    curves = checked.curves
    print(export_explorer(graphs, config.folder / "explorer", comparisons=comparisons, curves=curves))
    in_parts = config.n_circuit > 1
    matrix = comparisons["edge_jaccard"].matrix(normalise=in_parts).to_string(float_format="{:.2f}".format)
    print(f"edges that two styles share{', as a share of the ceiling' if in_parts else ''}:\n{matrix}")
    print(few(config))
    return write_results(report, tables, config.folder, config.results, provenance, small, looked_at, comparisons)


def few(config: Config) -> str:
    """Return what the number of images cannot tell, or nothing where there are enough."""
    if config.n_circuit >= FEW_IMAGES:
        return ""
    return (
        f"Circuits were found on {config.n_circuit} images a class and style: small differences between styles, and "
        "their order, cannot be told from chance. One model was looked at, so nothing here is about models in general. "
        "More images: --n-circuit 14 --robustness 4."
    )


def step(text: str) -> None:
    """Say what happens now."""
    print(f"[{text}]", flush=True)

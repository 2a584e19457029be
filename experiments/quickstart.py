"""Are the circuits of a small CLIP shared between styles? The whole study in miniature, on drawn images.

1. draw the toy data set: six styles with DomainNet's names, sixteen everyday things;
2. train a tiny CLIP on photos, cliparts, infographs, paintings, sketches and quickdraws, with a quarter of the
   classes left out of the quickdraws (compositional generalization, high diversity);
3. measure its zero-shot accuracy per domain, held-out and seen classes apart;
4. find the circuit of every class in every domain, and of two halves of the images;
5. compare them between domains and write tables and one HTML report.

The claim of the study, that quickdraw's circuits are the least similar to those of the other domains, would be
refuted here by a domain whose circuits are significantly less similar than quickdraw's.

    python experiments/quickstart.py
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from circuitry import Clip, DomainFolder, GraphFolder, extract, load_clip, midpoint_rule
from circuitry.attribution import AttributionSettings
from circuitry.command_line import run_script
from circuitry.comparison import COMPARED, compare_domains
from circuitry.comparison_report import comparison_report, write_tables
from circuitry.data.mixtures import MixtureSettings, admitted, read_captions, write_mixture
from circuitry.data.toy import CLASSES, write_toy
from circuitry.files import whole_file
from circuitry.report import write_static
from circuitry.training.clip import train_clip
from circuitry.training.evaluation import zero_shot_accuracy

SETTINGS = AttributionSettings(rule=midpoint_rule(6), edge_rule=midpoint_rule(4))
"""Fewer points than the study's left rule with ten, and a smaller error."""
SMALL_TABLES = (
    "accuracy",
    "chance_node_overlap",
    "node_overlap_over_depth",
    "node_overlap_ceiling_by_site",
    *(f"{measure}_{what}" for measure in COMPARED for what in ("matrix", "summary", "paired_tests")),
)
"""Tables that are small enough to be committed."""


@dataclass(frozen=True)
class Config:
    """Settings of the quickstart."""

    out: Path = Path("runs/quickstart")
    """Folder of everything that is made; a second run reuses it."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    test_domain: str = "quickdraw"
    """Domain from which classes are held out in training."""
    held_out: tuple[str, ...] = CLASSES[1::4]
    """Classes held out of the test domain."""
    n_train: int = 30
    """Drawn training images per class and style; all of the mixture is used, nothing is subsampled."""
    n_test: int = 20
    """Test images per class and style."""
    n_circuit: int = 14
    """Test images per class and style that circuits are found on."""
    epochs: int = 16
    """Passes over the training images."""
    seed: int = 0
    """Seed of drawings, training and choices."""


def main(config: Config) -> None:
    """Run all steps and print where the report is."""
    started = time.perf_counter()
    step("1/5 draw the toy data set")
    root = write_toy(config.out / "toy", config.n_train, config.n_test, seed=config.seed)
    step("2/5 train a tiny CLIP")
    clip = load_clip("rn-tiny", checkpoint=train(config, root))
    images = DomainFolder(root, split="test")
    step("3/5 zero-shot accuracy")
    accuracy = zero_shot_accuracy(
        clip.encoder, clip.preprocess, clip.text_weights(images.all_classes), images, config.held_out
    )
    step("4/5 circuits of every class in every domain, and of halves of the images")
    graphs = extract(
        clip, images, config.out / "circuits", n_images=config.n_circuit, seed=config.seed, settings=SETTINGS
    )
    step("5/5 comparison and report")
    report = write_report(config, clip, images, graphs, accuracy)
    print(f"report: {report}  ({time.perf_counter() - started:.0f} s in all)")


def train(config: Config, root: Path) -> Path:
    """Train on the mixture and return the checkpoint."""
    drawn = DomainFolder(root, split="train").records
    records = admitted(drawn, MixtureSettings("cg-high", config.test_domain, config.held_out))
    table = write_mixture(records, read_captions(root), config.out / "train.tsv")
    return train_clip(
        table,
        config.out / "clip",
        model="rn-tiny",
        epochs=config.epochs,
        batch_size=128,
        lr=3e-3,
        warmup=50,
        seed=config.seed,
        extra=("--aug-cfg", "scale=(0.6,1.0)"),
    )


def write_report(config: Config, clip: Clip, images: DomainFolder, graphs: GraphFolder, accuracy: pd.DataFrame) -> Path:
    """Compare the circuits, write tables, figures and the report; return the report's path."""
    seen = [name for name in images.classes if name not in config.held_out]
    comparison = compare_domains(graphs, graphs.halves(), {"held-out": config.held_out, "seen": seen})
    tables = comparison.tables() | {"accuracy": accuracy}
    provenance = {"model": clip.name, **graphs.manifest["config"], **graphs.manifest["versions"]}
    write_tables(tables, config.out / "tables")
    if config.results is not None:
        write_tables({name: tables[name] for name in SMALL_TABLES}, config.results)
        with whole_file(config.results / "provenance.json") as temporary:
            temporary.write_text(json.dumps(provenance, indent=1) + "\n")
    report = comparison_report(
        "Are the circuits of a small CLIP shared between styles?",
        f"A tiny CLIP was trained on drawn images of {len(images.all_classes)} things in six styles; "
        f"{', '.join(config.held_out)} were left out of its {config.test_domain} images. For every class and style "
        "the circuit that recognises it was found by attribution, and circuits were compared between styles.",
        comparison,
        graphs,
        images,
        (config.held_out[0], "real", config.test_domain),
        accuracy=accuracy,
        test_domain=config.test_domain,
        provenance=provenance,
    )
    static = write_static(report.plotly_figures, config.out / "figures")
    print(f"PNG figures: {config.out / 'figures'}" if static.paths else f"no PNG figures: {static.missing}")
    return report.write(config.out / "report.html")


def step(text: str) -> None:
    """Say what happens now."""
    print(f"[{text}]", flush=True)


if __name__ == "__main__":
    run_script(Config, main, __doc__)

"""The trainings of the study, the steps of its plan, and what they cost, against counts by hand."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from circuitry import DomainFolder
from experiments.drawn import DrawingSettings, write_toy
from experiments.drawn.drawing import TOY_CLASSES
from experiments.study.base_sets import BaseSet
from experiments.study.place import Material, Scale, StudyPlace, count_model
from experiments.study.plan import Step
from experiments.study.selection import MixtureSettings, mixture
from experiments.study.steps import study_steps
from experiments.study.study_set import (
    MixtureSpec,
    StudyTraining,
    study_mixtures,
    study_trainings,
)

MODELS = ("rn50", "vit-s-32", "swin-t")
BASES = ("imagenet-captions", "cc3m", "cc12m")
HELD_OUT = ("axe", "lion")
COUNTS = {
    ("real", "axe"): 5,
    ("real", "lion"): 7,
    ("real", "sea"): 11,
    ("sketch", "axe"): 13,
    ("sketch", "sea"): 17,
}


def planned(**changed: Any) -> dict[str, Step]:
    specs = study_mixtures(BASES, held_out=HELD_OUT)
    bases = {name: BaseSet(name, Path(f"/data/{name}.tsv")) for name in BASES}
    sizes = dict.fromkeys(BASES, 1000)
    material = Material(
        Path("/dn"),
        HELD_OUT,
        COUNTS,
        100,
        bases,
        sizes,
        {"cc3m": "0.1"},
        BASES[0],
        Path("/sk"),
    )
    scale = Scale(MODELS, sae_base="cc12m", epochs=32, supervised_epochs=90, gpus=8)
    trainings = study_trainings(specs, BASES[0], MODELS, (0, 1, 2))
    place = StudyPlace(
        Path("/out"), scale, material, trainings, 1e12, 1e11, 1e9, **changed
    )
    steps = study_steps(place)
    assert len({step.name for step in steps}) == len(steps)
    return {step.name: step for step in steps}


def test_operations_of_a_transformer_are_those_worked_out_by_hand() -> None:
    # vit-tiny: patches of 16 of 64 pixels, 4 layers of width 96; two operations for each multiply-add
    tokens, width, layers, patch = 16 + 1, 96, 4, 16 * 16 * 3
    weights = 3 * width**2 + width**2 + 2 * 4 * width**2
    attention = 2 * tokens * width  # products with keys and with values, for each token
    by_hand = 2 * (
        16 * patch * width + layers * tokens * (weights + attention) + width * 64
    )
    assert count_model("vit-tiny").image == by_hand
    assert count_model("vit-tiny").embedding == 64
    assert (
        2.9 * by_hand < count_model("vit-tiny").training_step < 3.4 * by_hand
    )  # backward is twice forward; the text


def test_the_trainings_of_the_study_are_533() -> None:
    trainings = study_trainings(study_mixtures(BASES), BASES[0], MODELS, (0, 1, 2))
    kinds = Counter(
        "supervised"
        if one.supervised
        else one.mixture.base
        if one.mixture.base != BASES[0]
        else one.model
        for one in trainings
    )
    # 15 settings and photographs alone; also upper bounds, aligned, 60 + 18 interpolations, 10 with ImageNet-Sketch
    assert kinds == {
        "rn50": 3 * (16 + 10 + 1 + 60 + 18 + 10), "vit-s-32": 3 * 16, "swin-t": 3 * 16, "supervised": 3 * (1 + 15 + 10),
        "cc3m": 7, "cc12m": 7,
    }  # fmt: skip
    assert len({one.name for one in trainings}) == len(trainings) == 533
    sevens = {
        one.mixture.settings.name for one in trainings if one.mixture.base == "cc12m"
    }
    assert sevens == {
        "natural-only", *(f"{setting}-{domain}" for setting in ("cg-low", "cg-high", "leave-out")
                          for domain in ("sketch", "clipart")),
    }  # fmt: skip


def test_sizes_of_mixtures_are_those_of_the_mixtures(tmp_path: Path) -> None:
    settings = DrawingSettings(
        3, 1, classes=TOY_CLASSES[:4], styles=("quickdraw", "real", "sketch"), size=16
    )
    images = DomainFolder(
        write_toy(tmp_path, settings, workers=1, progress=False), split="train"
    )
    held_out = TOY_CLASSES[1:2]
    counts = Counter((record.domain, record.class_name) for record in images.records)
    material = Material(tmp_path, held_out, counts, 1, {}, {"photos": 50}, {})
    specs = study_mixtures(
        [None],
        held_out=held_out,
        domains=images.domains,
        test_domains=["sketch"],
        sketches=False,
    )
    for spec in specs:
        made = mixture(images.records, spec.settings, images.all_classes)
        assert material.size(spec) == len(made), spec.name
    with_base = MixtureSpec(MixtureSettings("natural-only", "sketch"), base="photos")
    assert material.size(with_base) == 4 * 3 + 50


def test_steps_cost_what_counting_by_hand_gives() -> None:
    steps, rn50 = planned(), count_model("RN50")
    one = steps["rn50-cc12m-cg-low-sketch-s0"]
    n_images = (
        1000 + 5 + 7 + 11 + 17
    )  # the base set, photographs, and sketches without the two classes
    assert one.cost.operations == (rn50.training_step + rn50.image) * 32 * n_images
    assert one.cost.gpu_hours == pytest.approx(one.cost.operations / 1e12 / 3600)
    assert one.cost.disk_gib == pytest.approx(12 * rn50.parameters * 33 / 2**30)
    assert one.cost.gpus == 8  # 2048 images, 256 for each
    assert steps["rn50-imagenet-captions-cg-low-sketch-s2"].cost.gpus == 4
    supervised = steps["supervised-rn50-imagenet-captions-cg-low-sketch-s1"]
    assert supervised.cost.training_steps == 90 * (n_images // 256)
    assert supervised.cost.operations == 3 * rn50.image * 90 * n_images
    assert supervised.command[:3] == ("torchrun", "--nproc-per-node", "4")
    assert steps["circuits"].cost.operations == 1e9 * len(COUNTS) * 50
    checkpoints = {
        "RN50": (345 + 14) * 33 + 78 * 19,
        "ViT-S-32": 48 * 33,
        "swin-t": 48 * 33,
    }
    once = sum(count_model(name).image * n for name, n in checkpoints.items())
    assert steps["generalization"].cost.operations == pytest.approx(100 * once)
    fewer = planned(keep_checkpoints=8)["rn50-cc12m-cg-low-sketch-s0"]
    assert fewer.cost.disk_gib == pytest.approx(one.cost.disk_gib * 5 / 33)
    assert fewer.command[-2:] == ("--keep-checkpoints", "8")


def test_supervised_steps_are_those_of_the_study() -> None:
    # The study's scripts evaluate every five epochs, after 10,670 steps of photographs alone and 12,925 of quickdraw's
    # settings. DomainNet has 120,906 photographs and 350 training images of each class of quickdraw.
    held_out = tuple(f"class {i}" for i in range(15))
    counts = {("real", "all"): 120_906, ("quickdraw", "seen"): 330 * 350}
    counts |= {("quickdraw", name): 350 for name in held_out}
    material = Material(
        Path("/dn"), held_out, counts, 1, {}, {BASES[0]: 425_500}, {}, BASES[0]
    )
    scale = Scale(MODELS, sae_base="cc12m", epochs=32, supervised_epochs=90)
    specs = study_mixtures(BASES[:1], held_out=held_out, sketches=False)
    trainings = study_trainings(specs, BASES[0], MODELS, (0,))
    place = StudyPlace(Path("/out"), scale, material, trainings, 1e12, 1e11)
    steps = {one.name: place.training_steps(one) for one in trainings}
    start = "supervised-rn50-imagenet-captions"
    assert steps[f"{start}-natural-only-s0"] == 18 * 10_670
    for setting in ("cg-low", "cg-high", "leave-out", "upper-low", "upper-high"):
        assert steps[f"{start}-{setting}-quickdraw-s0"] == 18 * 12_925


def test_steps_need_what_they_read() -> None:
    steps = planned()
    assert sum(step.kind == "mixtures" for step in steps.values()) == 1 + 7 + 7
    assert steps["mixtures-imagenet-captions-all"].command[-3:] == (
        "--all",
        "--imagenet-sketch",
        "/sk",
    )
    assert "--missing-captions skip" in " ".join(
        steps["mixtures-cc3m-natural-only"].command
    )
    assert "cc3m=0.1" in steps["mixtures-cc3m-cg-low-sketch"].command
    assert steps["rn50-imagenet-captions-natural-only-s0"].needs == (
        "mixtures-imagenet-captions-all",
    )
    assert steps["rn50-cc3m-cg-low-sketch-s0"].needs == ("mixtures-cc3m-cg-low-sketch",)
    assert len(steps["generalization"].needs) == 533
    autoencoders = [name for name in steps if name.startswith("sae-")]
    assert (
        len(autoencoders) == 4
    )  # as in the study: CG high and leave-out of sketch and of clipart
    table = steps["sae-rn50-cc12m-cg-high-sketch-s0"].command
    assert (
        table[table.index("--more-tables") + 1]
        == "/out/mixtures/cc12m/cc12m-cg-high-sketch.tsv"
    )
    assert steps["circuits"].needs == ("rn50-imagenet-captions-aligned-quickdraw-s0",)
    assert (
        len(steps["separation"].needs) == 6
    )  # three seeds with standard and with aligned captions
    assert steps["figure-imagenet_sketch"].needs == ("generalization",)
    assert (
        StudyTraining(
            MixtureSpec(MixtureSettings("natural-only", "sketch")), "rn50"
        ).name
        == "rn50-natural-only-s0"
    )

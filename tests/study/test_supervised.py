"""Training a classifier on a tower: learned toys, an undisturbed twin, a plain loop as oracle, bad input."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import ImageNetInfo
from torch import nn

from circuitry import InputError
from circuitry.data import load_image
from circuitry.data.imagenet_classes import imagenet_index
from circuitry.models.open_clip_models import register_model
from circuitry.training import checkpoints
from experiments.study import supervised
from experiments.study.supervised import (
    SeededImages,
    SupervisedTraining,
    TrainingLoop,
    half_precision,
    parameter_groups,
    read_samples,
    seed_of,
    train_supervised,
)
from experiments.study.supervised_model import (
    LabelTable,
    build_classifier,
    found_labels,
    load_supervised,
    merged_labels,
    study_labels,
)
from tests.conftest import shared
from tests.support.clip_training import CONFIG, WORK, written

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture
def settings(tmp_path: Path) -> SupervisedTraining:
    model = written(CONFIG, tmp_path / "rn-smallest.json").model
    return SupervisedTraining(
        model=model, epochs=3, batch_size=6, lr=0.01, milestones=(2,)
    )


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """Four images of each of three colours, half of it one colour and half of it random dots."""
    rng = np.random.default_rng(0)
    files = []
    for name, colour in COLOURS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            pixels[rng.random((32, 32)) < 0.5] = colour
            files.append(tmp_path / "data" / name / f"{i}.png")
            Image.fromarray(pixels).save(files[-1])
    table = tmp_path / "train.tsv"
    table.write_text("filepath\n" + "".join(f"{file}\n" for file in files))
    return table


def killed(
    train: Path, settings: SupervisedTraining, change: Callable[[TrainingLoop], None]
) -> Path:
    """Return the folder of a run that is killed in its second epoch, after something has changed its loop."""
    run_epoch, folder = TrainingLoop.run_epoch, train.parent / "killed"

    def killed_in_the_second(self: TrainingLoop, *arguments: Any) -> None:
        if self.history:
            raise KeyboardInterrupt
        run_epoch(self, *arguments)
        change(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "run_epoch", killed_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train_supervised(train, folder, settings, work=WORK)
    return folder


def test_a_separable_toy_is_learned(
    train: Path, settings: SupervisedTraining, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # From this seed it is learned by far; from others a processor's rounding decides about some of the twelve images.
    settings = replace(
        settings, epochs=20, milestones=(15, 18), lr=0.03, keep_checkpoints=8, seed=2
    )
    checkpoint = train_supervised(train, out, settings, work=WORK)
    metrics = pd.read_csv(out / "metrics.csv")
    assert metrics.columns.tolist() == [
        "epoch",
        "lr",
        "loss",
        "accuracy",
        "images_per_second",
    ]
    assert metrics["epoch"].tolist() == list(range(1, 21))
    np.testing.assert_allclose(metrics["lr"], [0.03] * 15 + [0.003] * 3 + [0.0003] * 2)
    assert metrics["accuracy"].iloc[-1] == 1
    assert metrics["loss"].iloc[-1] < metrics["loss"].iloc[0]
    loaded = load_supervised(checkpoint)
    assert loaded.table.classes == ("blue", "green", "red")
    assert not any(p.requires_grad for p in loaded.encoder.tower.parameters())
    files = pd.read_csv(train, sep="\t")["filepath"]
    images = torch.stack([loaded.preprocess(load_image(file)) for file in files])
    logits = loaded.head_for(["red", "blue", "green"])(loaded.encoder(images))
    assert logits.argmax(dim=1).tolist() == [1] * 4 + [2] * 4 + [0] * 4
    assert checkpoints(out) == [
        (n, out / "checkpoints" / f"epoch_{n}.safetensors") for n in (0, 8, 16, 20)
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoints",
        "checksums",
        "manifest.json",
        "metrics.csv",
    ]
    untrained = load_supervised(out / "checkpoints" / "epoch_0.safetensors")
    torch.manual_seed(seed_of(2))
    built = build_classifier(register_model(settings.model), 3, settings.crop_scale)[0]
    assert torch.equal(
        untrained.head.state_dict()["weight"], built.state_dict()["head.weight"]
    )
    checkpoint.write_bytes(checkpoint.read_bytes()[:-8] + b"damaged.")
    for path in (checkpoint, tmp_path / "none.safetensors"):
        with pytest.raises(InputError, match=str(path)):
            load_supervised(path)


def test_weights_that_are_not_finite_and_a_damaged_state_are_refused(
    train: Path,
    settings: SupervisedTraining,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = killed(train, settings, lambda loop: None)
    (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"state\.pt"):
        train_supervised(train, folder, settings, work=WORK)
    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self: self.param_groups[0]["params"][0].data.fill_(torch.inf),
    )
    one_step = replace(settings, batch_size=12)  # whose loss is finite
    with pytest.raises(InputError, match=rf"epoch 1.* {settings.lr}"):
        train_supervised(train, tmp_path / "run", one_step, work=WORK)


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    train: Path, settings: SupervisedTraining, tmp_path: Path
) -> None:
    undisturbed = train_supervised(train, tmp_path / "a", settings, work=WORK)
    folder = killed(train, settings, lambda loop: None)
    # Other processes read the images now: the crops are the same.
    again = train_supervised(train, folder, settings, work=replace(WORK, workers=1))
    assert again.read_bytes() == undisturbed.read_bytes()
    one, two = (pd.read_csv(run / "metrics.csv") for run in (tmp_path / "a", folder))
    pd.testing.assert_frame_equal(
        one.drop(columns="images_per_second"), two.drop(columns="images_per_second")
    )
    other = train_supervised(
        train, tmp_path / "c", replace(settings, seed=1), work=WORK
    )
    assert other.read_bytes() != undisturbed.read_bytes()


def test_a_killed_run_in_float16_goes_on_with_its_scale(
    train: Path,
    settings: SupervisedTraining,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        supervised, "half_precision", lambda precision, device_type: torch.float16
    )
    undisturbed = train_supervised(train, tmp_path / "a", settings, work=WORK)
    folder = killed(
        train, settings, lambda loop: loop.scaler.update(512.0)
    )  # what overflows would bring it to
    run_epoch, scales = TrainingLoop.run_epoch, []

    def observed(self: TrainingLoop, *arguments: Any) -> Any:
        scales.append(self.scaler.get_scale())
        return run_epoch(self, *arguments)

    monkeypatch.setattr(TrainingLoop, "run_epoch", observed)
    again = train_supervised(train, folder, settings, work=WORK)
    assert scales == [512.0, 512.0]
    one, two = (
        load_supervised(path).encoder(torch.ones(2, 3, 32, 32))
        for path in (undisturbed, again)
    )
    torch.testing.assert_close(
        one, two, atol=1e-2, rtol=1e-2
    )  # the scale is a power of two, gradients are rounded


def test_equal_to_a_plain_loop(
    train: Path, settings: SupervisedTraining, tmp_path: Path
) -> None:
    settings = replace(
        settings, epochs=4, batch_size=12, milestones=(1, 3), weight_decay=0.1, seed=3
    )
    for (
        name,
        colour,
    ) in (
        COLOURS.items()
    ):  # of one colour each, which no crop changes; one batch, so in any order
        for i in range(4):
            shade = tuple(value // (i + 1) for value in colour)
            Image.new("RGB", (32, 32), shade).save(
                tmp_path / "data" / name / f"{i}.png"
            )
    checkpoint = train_supervised(train, tmp_path / "run", settings, work=WORK)

    torch.manual_seed(seed_of(3))
    plain, _, preprocess = build_classifier(
        register_model(settings.model), 3, crop_scale=0.9
    )
    rest = [p for p in plain.parameters() if p.ndim > 1]
    without_decay = [
        p for p in plain.parameters() if p.ndim == 1
    ]  # of a ResNet: norms and biases
    groups: list[dict[str, Any]] = [
        {"params": rest, "weight_decay": 0.1},
        {"params": without_decay},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3])
    files = pd.read_csv(train, sep="\t")["filepath"]
    images = torch.stack([preprocess(load_image(file)) for file in files])
    for _ in range(4):
        optimizer.zero_grad()
        embeddings = plain.get_submodule("tower")(images)
        loss = F.cross_entropy(
            plain.get_submodule("head")(embeddings.clamp(min=0)), torch.arange(12) // 4
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    loaded = load_supervised(checkpoint)
    trained = {
        **loaded.encoder.tower.state_dict(prefix="tower."),
        **loaded.head.state_dict(prefix="head."),
    }
    assert trained.keys() == plain.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(
            trained[name], tensor, rtol=1e-4, atol=1e-6, msg=name
        )


def test_no_decay_of_norms_and_biases_in_any_tower(any_tower: nn.Module) -> None:
    groups = parameter_groups(any_tower, weight_decay=0.5)
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    decaying, others = (
        {id(parameter) for parameter in group["params"]} for group in groups
    )
    assert len(decaying) + len(others) == len(list(any_tower.parameters()))
    for name, parameter in any_tower.named_parameters():
        module, _, own = name.rpartition(".")
        spared = (
            "bias" in own or "Norm" in type(any_tower.get_submodule(module)).__name__
        )
        assert id(parameter) in (others if spared else decaying), name


def test_every_image_of_whole_batches_is_seen_once_and_shares_make_the_batch() -> None:
    files = np.array([b"x"] * 23)
    images = SeededImages(
        files,
        np.zeros(23, dtype=np.int64),
        lambda image: torch.zeros(1),
        seed=0,
        epoch=0,
    )
    one = images.batches(6)
    assert [len(batch) for batch in one] == [6, 6, 6]
    assert len({place for batch in one for place in batch}) == 18
    shares = [images.batches(6, rank, processes=3) for rank in range(3)]
    assert [
        [place for share in shares for place in share[step]] for step in range(3)
    ] == one
    later = SeededImages(files, images.targets, images.transform, seed=0, epoch=1)
    assert later.batches(6) != one
    assert images.batches(6) == one


def test_crops_depend_on_seed_epoch_and_image_alone(
    train: Path, settings: SupervisedTraining
) -> None:
    _, transform, preprocess = build_classifier(
        register_model(settings.model), 3, crop_scale=0.5
    )
    file = pd.read_csv(train, sep="\t")["filepath"][0]
    files, targets = np.array([file.encode()] * 2), np.array([1, 2])

    def crops() -> list[torch.Tensor]:
        items = [
            SeededImages(files, targets, transform, *of)[i]
            for of in product((0, 1), (0, 1))
            for i in (0, 1)
        ]
        assert [item[1] for item in items if isinstance(item, tuple)] == [1, 2] * 4
        return [item[0] for item in items if isinstance(item, tuple)]

    found = [*crops(), preprocess(load_image(file))]
    assert all(not torch.equal(found[a], found[b]) for a in range(9) for b in range(a))
    assert all(map(torch.equal, crops(), found[:8]))


def test_classes_come_from_the_column_or_the_folder() -> None:
    lines = pd.DataFrame(
        {"filepath": ["/x/red/0.png", "/x/blue/0.png", "/x/red/1.png"]}
    )
    files, targets, labels = read_samples(lines, found_labels)
    assert files.tolist() == [file.encode() for file in lines["filepath"]]
    assert (targets.tolist(), labels.classes) == ([1, 0, 1], ("blue", "red"))
    named = lines.assign(**{"class": ["b", "c", "a"]})
    _, targets, labels = read_samples(named, found_labels)
    assert (targets.tolist(), labels.classes) == ([1, 2, 0], ("a", "b", "c"))
    with pytest.raises(InputError, match=r" 2 .*'b', 'c'"):
        read_samples(named, lambda classes: LabelTable(("a",), {"a": 0}))


def test_merged_labels_by_hand() -> None:
    domainnet, imagenet = ("aircraft_carrier", "axe", "lion"), ("n1", "n2", "n3", "n4")
    table = merged_labels(
        imagenet, domainnet, {"aircraft carrier": [2], "axe": [], "lion": [0, 3]}
    )
    assert table.classes == (*imagenet, *domainnet)
    assert table.labels == {
        "n1": 6,
        "n2": 1,
        "n3": 4,
        "n4": 6,
        "aircraft_carrier": 4,
        "axe": 5,
        "lion": 6,
    }


def test_the_studys_labels_where_there_are_images_of_imagenet() -> None:
    partners = json.loads(shared("facts/domainnet_to_imagenet.json").read_text())
    domainnet, wnids = (
        [name.replace(" ", "_") for name in partners],
        ImageNetInfo().label_names(),
    )
    assert wnids[0] == "n01440764"
    assert list(imagenet_index(wnids)) == wnids  # sorted, which is ImageNet's order
    table = study_labels(domainnet, [wnids[0], "axe"])
    assert len(table.classes) == len(table.labels) == 1345
    merged = {label for indices in partners.values() for label in indices or ()}
    assert {i for i, name in enumerate(wnids) if table.labels[name] >= 1000} == merged
    lions = {
        i
        for i, name in enumerate(wnids)
        if table.labels[name] == table.labels["lion"] == 1000 + 174
    }
    assert lions == set(partners["lion"])
    assert study_labels(domainnet, ["lion", "axe"]).classes == ("axe", "lion")
    with pytest.raises(InputError, match="DomainNet"):
        study_labels(["axe", "lion"], wnids)


def test_half_precision() -> None:
    assert half_precision("amp", "cuda") is torch.float16
    assert (
        half_precision("amp", "cpu")
        is half_precision("amp_bf16", "cuda")
        is torch.bfloat16
    )
    assert half_precision("fp32", "cuda") is None


def test_threads_are_those_of_the_settings(
    train: Path, settings: SupervisedTraining, tmp_path: Path
) -> None:
    torch.set_num_threads(2)  # as on a machine of two cores
    train_supervised(train, tmp_path / "run", replace(settings, epochs=1), work=WORK)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("change", "device", "words"),
    [
        ({"batch_size": 13}, "cpu", " 12 .* 13"),
        ({"batch_size": 6}, "cpu", " 6 .* 4 processes"),
        ({"model": "rn-tinny"}, "cpu", "'rn-tinny'"),
        ({"lr": 1e30}, "cpu", r"epoch 1.*1e\+30"),
        ({}, "cuda:99", "'cuda:99'"),
    ],
)
def test_settings_that_do_not_fit(
    change: dict[str, Any], device: str, words: str, train: Path, settings: SupervisedTraining, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if "processes" in words:
        monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=words):
        train_supervised(
            train,
            tmp_path / "run",
            replace(settings, **change),
            work=replace(WORK, device=device),
        )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read(
    train: Path, settings: SupervisedTraining, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "data" / "red" / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"red/1\.png"):
        train_supervised(
            train,
            tmp_path / "run",
            replace(settings, batch_size=12),
            work=replace(WORK, workers=workers),
        )

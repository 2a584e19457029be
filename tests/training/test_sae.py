"""Autoencoders: their samples, their training from a planted dictionary, and what is measured."""

import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from circuitry import Clip, DomainFolder, Encoder, InputError
from circuitry.bases import SparseAutoencoder
from circuitry.models import activations
from circuitry.training import (
    SaeTraining,
    diagnose_sae,
    sample_activations,
    samples,
    train_sae,
    train_sae_on_images,
)
from circuitry.training import sae_loop as training
from circuitry.training.sae_loop import SaeLoop, initial_weights
from circuitry.training.samples import SampleBatches, extract_samples, image_files
from tests.data.test_domains import touch
from tests.support.noise_images import write_noise
from tests.support.scripts import study_config
from tests.support.work import QUIET

QUICK = SaeTraining(lr=3e-3, batch_size=256, steps=60, resample_every=20)
quick_sae = partial(train_sae, progress=False)


def planted(samples: int, d: int = 16, features: int = 32) -> tuple[Tensor, Tensor]:
    """Directions [features, d], and samples that are sparse positive sums of them, about two each."""
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(features, d, generator=generator), dim=-1)
    active = torch.rand(samples, features, generator=generator) < 0.06
    return directions, (
        active * (0.5 + torch.rand(samples, features, generator=generator))
    ) @ directions


def test_a_planted_dictionary_is_found() -> None:
    directions, samples = planted(8192)
    settings = SaeTraining(
        expansion=2, l1=0.03, lr=3e-3, batch_size=512, steps=1500, resample_every=300
    )
    sae = quick_sae(samples, settings)
    cosine = (directions @ sae.w_dec.T).max(dim=1).values
    assert float(cosine.mean()) > 0.97
    assert sae.about["diagnostics"]["dead"] == 0
    assert sae.about["diagnostics"]["l0"] < 4
    assert sae.about["diagnostics"]["explained_variance"] > 0.8


def test_rows_stay_at_length_one_and_settings_are_stored() -> None:
    samples = planted(500)[1]
    sae = quick_sae(samples, replace(QUICK, seed=3), site="layer4")
    torch.testing.assert_close(sae.w_dec.norm(dim=1), torch.ones(64))
    assert (sae.n_features, sae.site, sae.normalised, sae.activation) == (
        64,
        "layer4",
        None,
        "relu",
    )
    assert not sae.w_enc.requires_grad
    assert sae.about["training"] == asdict(replace(QUICK, seed=3)) | {
        "normalise": False,
        "samples": 500,
    }
    assert [row["step"] for row in sae.about["history"]] == [20, 40, 60]
    assert sae.about["history"][-1]["loss"] < sae.about["history"][0]["loss"]
    assert sae.about["diagnostics"] == diagnose_sae(sae, samples)._asdict()


def test_samples_are_scaled_to_length_one() -> None:
    samples = planted(500)[1] + 0.1
    scaled = quick_sae(7 * samples, QUICK, normalise=True)
    plain = quick_sae(F.normalize(samples, dim=-1), QUICK)
    assert scaled.normalised == "length"
    torch.testing.assert_close(scaled.w_dec, plain.w_dec, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        scaled.encode(3 * samples),
        plain.encode(F.normalize(samples, dim=-1)),
        atol=1e-3,
        rtol=0,
    )


def test_a_dead_feature_comes_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    initial = training.initial_weights

    def with_a_dead_feature(*args: Any) -> SparseAutoencoder:
        sae = initial(*args)
        sae.b_enc[5] = -100
        return sae

    monkeypatch.setattr(training, "initial_weights", with_a_dead_feature)
    sae = quick_sae(planted(500)[1], QUICK)
    assert sae.about["history"][0]["dead"] == 1
    assert [row["resampled"] for row in sae.about["history"]] == [1, 0, 0]
    assert sae.about["diagnostics"]["dead"] == 0
    assert float(sae.b_enc[5]) > -1


def test_a_resampled_feature_points_at_what_is_described_badly() -> None:
    generator = torch.Generator().manual_seed(0)
    sae = initial_weights(
        torch.ones(4), 8, "transposed", generator
    )  # so the decoder's bias is (1, 1, 1, 1)
    optimiser = torch.optim.Adam(
        [w.requires_grad_() for w in (sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec)],
        lr=0.0,
    )
    sae.decode(sae.encode(torch.randn(64, 4, generator=generator))).pow(
        2
    ).sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    sae.b_enc.data[
        :
    ] = -50  # nothing is active: the bias itself is described without error, the last sample badly
    x = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 4, 1]])
    dead, others = [2, 7], [0, 1, 3, 4, 5, 6]
    training._resample(sae, optimiser, torch.tensor(dead), x, generator)
    direction = torch.tensor([0.0, 0, 1, 0])
    length = 0.2 * sae.w_enc[:, others].norm(dim=0).mean().item()
    for feature in dead:
        torch.testing.assert_close(sae.w_dec[feature].detach(), direction)
        torch.testing.assert_close(sae.w_enc[:, feature].detach(), length * direction)
    assert sae.b_enc.tolist() == [0 if i in dead else -50 for i in range(8)]
    for moment in ("exp_avg", "exp_avg_sq"):
        of = {
            weights: optimiser.state[weights][moment]
            for weights in (sae.w_enc, sae.b_enc, sae.w_dec)
        }
        for by_feature in (of[sae.w_enc].T, of[sae.b_enc], of[sae.w_dec]):
            assert not by_feature[dead].any()
            assert by_feature[others].any()


def test_refusals(resnet: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(
        "filepath\n" + "".join(f"nowhere/{i}.png\n" for i in range(60))
    )
    (tmp_path / "y.tsv").write_text("path\na\n")
    few, encoder, shown = (
        planted(50)[1],
        Encoder.from_tower(resnet),
        Shown(tmp_path, torch.zeros(1, 3, 8, 8)),
    )
    refused: list[tuple[Callable[[], object], str]] = [
        (
            lambda: quick_sae(few, replace(QUICK, lr=1e30, steps=3, resample_every=9)),
            r"step 3.*lr.* 1e\+30",
        ),
        (
            lambda: quick_sae(few, replace(QUICK, lr=1e30, steps=8, resample_every=2)),
            r"step 2.*lr.* 1e\+30",
        ),
        (lambda: train_sae(torch.ones(1, 2)), " 1 "),
        (lambda: sample_activations(encoder, shown, [], None), "none"),
        (
            lambda: sample_activations(encoder, shown, shown.records, "layer9"),
            "'layer9'",
        ),
        (lambda: train_sae(torch.tensor([[1.0, float("nan")], [1, 2]])), "NaN"),
        (lambda: image_files([], [tmp_path / "x.tsv"]), r"x.tsv.* 60 .*nowhere/0\.png"),
        (lambda: image_files([], [tmp_path / "y.tsv"]), "filepath"),
        (lambda: image_files([], [tmp_path / "none.tsv"]), "none.tsv"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words):
            call()


def test_the_studys_settings() -> None:
    study = study_config("train-sae").training
    assert (study.expansion, study.l1, study.lr, study.batch_size) == (
        4,
        1e-4,
        1e-4,
        2048,
    )
    assert (study.steps, study.epochs, study.resample_every, study.initialisation) == (
        None,
        200,
        0,
        "kaiming",
    )
    # Every piece of a pass is cut into whole batches and a rest: 200 x (148 + 148 + 1) steps.
    pieces = [torch.ones(302_080, 1), torch.ones(302_080, 1), torch.ones(2, 1)]
    assert SaeLoop(pieces, study, normalise=False, device="cpu").steps == 200 * (
        148 + 148 + 1
    )
    assert (
        SaeLoop(
            pieces, replace(study, drop_last=True), normalise=False, device="cpu"
        ).steps
        == 200 * 295
    )
    assert (
        SaeLoop(pieces, replace(study, steps=9), normalise=False, device="cpu").steps
        == 9
    )


def test_the_studys_initialisation() -> None:
    d, features = 24, 4000
    sae = initial_weights(
        torch.ones(d), features, "kaiming", torch.Generator().manual_seed(0)
    )
    # Uniform on +- sqrt(6 / (features d)) and +- 1 / sqrt(features): its extremes, and its variance, a third of them.
    for tensor, bound in (
        (sae.w_enc, (6 / (features * d)) ** 0.5),
        (sae.b_enc, features**-0.5),
    ):
        flat = tensor.flatten().double()
        assert float(flat.abs().max()) == pytest.approx(bound, rel=1e-2)
        assert float(flat.abs().max()) <= bound * (1 + 1e-6)
        assert float(flat.var()) == pytest.approx(
            bound**2 / 3, rel=4 / len(flat) ** 0.5
        )
        assert abs(float(flat.mean())) < 4 * bound / (3 * len(flat)) ** 0.5
    assert not sae.b_dec.any()
    torch.testing.assert_close(sae.w_dec.norm(dim=1), torch.ones(features))
    # Normal directions of length one: coordinates have mean 0 and variance 1 / d. The encoder is not their transpose.
    assert abs(float(sae.w_dec.mean())) < 4 / (features * d * d) ** 0.5
    assert float(sae.w_dec.var()) == pytest.approx(1 / d, rel=1e-3)
    assert (
        abs(
            float(
                torch.corrcoef(
                    torch.stack([sae.w_enc.flatten(), sae.w_dec.T.flatten()])
                )[0, 1]
            )
        )
        < 0.02
    )


def test_steps_equal_to_a_plain_loop() -> None:
    data = planted(64, d=6)[1] + 0.1
    settings = study_config(
        "train-sae",
        *[
            "--batch-size",
            "64",
            "--epochs",
            "5",
            "--lr",
            "0.01",
            "--l1",
            "0.02",
            "--seed",
            "3",
        ],
    ).training
    sae = train_sae(data, settings, normalise=True, progress=False)
    # One batch of all samples, whose order changes nothing but rounding.
    x = (data / data.norm(dim=1, keepdim=True)).double()
    start = initial_weights(
        x.mean(0).float(), 24, "kaiming", torch.Generator().manual_seed(3)
    )
    weights = [
        w.double().requires_grad_()
        for w in (start.w_enc, start.b_enc, start.w_dec, start.b_dec)
    ]
    w_enc, b_enc, w_dec, b_dec = weights
    mean, square = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    for step in range(1, 6):
        features = torch.clamp((x - b_dec) @ w_enc + b_enc, min=0)
        error = (x - (features @ w_dec + b_dec)).square().mean(dim=1)
        gradients = list(
            torch.autograd.grad(
                (error + 0.02 * features.abs().sum(dim=1)).mean(), weights
            )
        )
        gradients[2] = gradients[2] - w_dec * (gradients[2] * w_dec).sum(
            dim=1, keepdim=True
        )
        for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            mean[i] = 0.9 * mean[i] + 0.1 * g
            square[i] = 0.999 * square[i] + 0.001 * g**2
            w.data -= (
                0.01
                * (mean[i] / (1 - 0.9**step))
                / ((square[i] / (1 - 0.999**step)).sqrt() + 1e-8)
            )
        w_dec.data /= w_dec.data.norm(dim=1, keepdim=True)
    for given, expected in zip(
        (sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec), weights, strict=True
    ):
        torch.testing.assert_close(
            given.double(), expected.detach(), atol=2e-5, rtol=1e-3
        )


def assert_equal_weights(a: SparseAutoencoder, b: SparseAutoencoder) -> None:
    for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert [a.about[key] for key in ("history", "diagnostics")] == [
        b.about[key] for key in ("history", "diagnostics")
    ]


@pytest.mark.parametrize("drop_last", [True, False])
def test_every_sample_comes_once_in_a_pass(drop_last: bool) -> None:
    pieces = [
        torch.arange(10.0)[:, None],
        torch.arange(10.0, 13)[:, None],
        torch.zeros(0, 1),
    ]
    batches = SampleBatches(
        pieces, 4, drop_last=drop_last, generator=torch.Generator().manual_seed(0)
    )
    n = sum(batches.batches_of(len(piece)) for piece in pieces)
    assert n == (3 if drop_last else 4)
    orders = []
    for _ in range(3):
        found = [next(batches).flatten().tolist() for _ in range(n)]
        sizes = sorted(map(len, found))
        assert sizes == ([3, 4, 4] if drop_last else [2, 3, 4, 4])
        seen = [value for batch in found for value in batch]
        assert len(set(seen)) == len(seen) == sum(sizes)
        assert all(
            max(batch) < 10 or min(batch) >= 10 for batch in found
        )  # one piece at a time
        orders.append(tuple(seen))
    assert len(set(orders)) == 3


def test_streamed_from_disk_is_as_in_memory(clip: Clip, tmp_path: Path) -> None:
    data = DomainFolder(write_noise(tmp_path / "data", ["real"], ["cat"], 11))
    records = data.records
    table = tmp_path / "table.tsv"
    table.write_text(
        "filepath\ttitle\n" + "".join(f"{record.path}\ta\n" for record in records[7:])
    )
    files = image_files(records[:7], [table])
    assert files.tolist() == [os.fsencode(record.path) for record in records]
    about = {"site": "attnpool", "positions_per_image": None, "seed": 0, "piece": 4}
    pieces = extract_samples(
        clip.encoder, clip.preprocess, files, tmp_path / "pieces", about, work=QUIET
    )
    assert [len(pieces[i]) for i in range(len(pieces))] == [4, 4, 3]
    expected = sample_activations(clip.encoder, clip.preprocess, records, work=QUIET)
    drawn = torch.cat([pieces[i] for i in range(3)])
    matches = torch.cdist(drawn, expected).argmin(dim=1)
    assert (
        sorted(matches.tolist()) == list(range(11)) != matches.tolist()
    )  # each image once, at random
    torch.testing.assert_close(drawn, expected[matches], atol=1e-5, rtol=1e-4)
    settings = replace(QUICK, batch_size=2, piece=4, steps=30)
    in_memory = quick_sae([pieces[i] for i in range(3)], settings, normalise=True)
    streamed = train_sae_on_images(
        clip, data, settings, folder=tmp_path / "run", work=QUIET
    )
    assert_equal_weights(in_memory, streamed)
    # One piece, in order: what is in memory without a folder.
    whole = replace(settings, piece=11)
    kept = train_sae_on_images(clip, data, whole, folder=tmp_path / "whole", work=QUIET)
    assert_equal_weights(train_sae_on_images(clip, data, whole, work=QUIET), kept)
    assert (kept.site, kept.normalised, kept.about["weights"]) == (
        "attnpool",
        "length",
        clip.identity["weights"],
    )
    few = train_sae_on_images(
        clip, data, QUICK, site="layer2.0", positions_per_image=3, work=QUIET
    )
    assert (few.site, few.normalised, few.about["training"]["samples"]) == (
        "layer2.0",
        None,
        33,
    )
    records[0].path.write_bytes(records[1].path.read_bytes() + b" ")
    with pytest.raises(InputError, match="images: "):
        extract_samples(
            clip.encoder, clip.preprocess, files, tmp_path / "pieces", about, work=QUIET
        )


def test_images_of_tables_count_once_and_relative_paths_start_from_the_table(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "real/cat/1.png", "real/cat/2.png", "base/3.png")
    records = DomainFolder(tmp_path, domains=("real",)).records
    table = tmp_path / "mixture.tsv"
    table.write_text(
        f"filepath\ttitle\nbase/3.png\ta\n{tmp_path}/real/cat/2.png\tb\nbase/3.png\tc\n"
    )
    files = image_files(records, [table, table])
    names = [
        Path(os.fsdecode(file)).relative_to(tmp_path).as_posix()
        for file in files.tolist()
    ]
    assert names == ["real/cat/1.png", "real/cat/2.png", "base/3.png"]


@pytest.mark.parametrize(
    "change",
    [{}, {"resample_every": 0, "initialisation": "kaiming", "drop_last": False}],
)
def test_a_killed_training_goes_on(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, state = (
        torch.split(planted(500)[1], [200, 150, 150]),
        tmp_path / "state.safetensors",
    )
    settings = replace(QUICK, batch_size=64, **change)
    monkeypatch.setattr(training, "CHECK_EVERY", 20)
    undisturbed = quick_sae(pieces, settings)
    take_step = SaeLoop.take_step

    def killed_at(step: int, self: SaeLoop) -> bool:
        if self.step == step:
            raise KeyboardInterrupt
        return take_step(self)

    for step in (25, 59):
        monkeypatch.setattr(
            SaeLoop, "take_step", lambda self, step=step: killed_at(step, self)
        )
        with pytest.raises(KeyboardInterrupt):
            quick_sae(pieces, settings, state=state)
    monkeypatch.setattr(SaeLoop, "take_step", take_step)
    assert_equal_weights(quick_sae(pieces, settings, state=state), undisturbed)
    monkeypatch.setattr(SaeLoop, "take_step", None)  # never called: all steps are taken
    assert_equal_weights(quick_sae(pieces, settings, state=state), undisturbed)
    with pytest.raises(InputError, match="seed: 0 -> 1"):
        quick_sae(pieces, replace(settings, seed=1), state=state)


def test_diagnostics_worked_out_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    # Feature 0 sees axis 0, feature 1 axis 1, feature 2 nothing; the third axis is not described.
    w_enc = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    sae = SparseAutoencoder(w_enc, torch.zeros(3), w_enc.T.contiguous(), torch.zeros(3))
    x = torch.tensor([[2.0, 0, 0], [0, 2, 0], [2, 2, 2], [0, 0, -2]])
    # Errors: 0, 0, 4, 4. Means 1, 1, 0; squares 4 + 4 + 12 + 4 = 24, variance 24 - 4 * 2 = 16.
    for batch_size in (1, 3, 4):
        monkeypatch.setattr(training, "_DIAGNOSED", batch_size)
        assert diagnose_sae(sae, x) == (1, 1.0, 0.5)


def test_diagnostics_scale_once_and_count_negative_features() -> None:
    # Standard deviation 1e-5: (1, -1) / sqrt(2) after one scaling is halved by the epsilon, and by a second one again.
    x = torch.tensor([[1.0, -1.0]]) * 1e-5 / 2**0.5
    weights = torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2)
    sae = SparseAutoencoder(
        *weights, activation="signed-topk", k=1, normalised="layer-norm"
    )
    found = diagnose_sae(
        sae, torch.cat([x, -x])
    )  # the positive half is described, the negative one is not
    assert (found.dead, found.l0) == (0, 1.0)
    assert found.explained_variance == pytest.approx(0.5)
    assert diagnose_sae(replace(sae, k=2), torch.cat([x, -x])) == (0, 2.0, 1.0)


def test_threads_of_the_machine_change_no_weight() -> None:
    samples = torch.randn(3000, 48, generator=torch.Generator().manual_seed(0))
    settings = SaeTraining(steps=20, batch_size=1024)
    one = quick_sae(samples, settings)
    torch.set_num_threads(2)  # as on a machine of two cores
    assert_equal_weights(quick_sae(samples, settings), one)


class Shown:
    """Image files of which each stands for one tensor; their preprocessing looks it up."""

    def __init__(self, folder: Path, images: Tensor) -> None:
        self.images = images
        for i in range(len(images)):
            path = folder / "real" / "cat" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (1, 1), (i, 0, 0)).save(path)
        self.records = list(DomainFolder(folder).records)

    def __call__(self, image: Image.Image) -> Tensor:
        return self.images[image.getpixel((0, 0))[0]]  # type: ignore[index]


def test_every_position_is_a_sample(any_tower: nn.Module, tmp_path: Path) -> None:
    encoder = Encoder.from_tower(any_tower.eval())
    images = torch.randn(3, 3, *encoder.image_size)
    site = encoder.sites[len(encoder.sites) // 2]
    with torch.no_grad():
        expected = encoder(images, stop=site)
        embeddings = encoder(images)
    shown = Shown(tmp_path, images)
    sampled = sample_activations(encoder, shown, shown.records, site, work=QUIET)
    units = expected.shape[encoder.unit_dim(site)]
    if encoder.unit_dim(site) == 1 and expected.dim() == 4:
        rows = [
            expected[i, :, y, x]
            for i in range(3)
            for y in range(expected.shape[2])
            for x in range(expected.shape[3])
        ]
    else:
        rows = list(expected.reshape(-1, units))
    torch.testing.assert_close(sampled, torch.stack(rows), atol=1e-5, rtol=1e-4)
    found = sample_activations(encoder, shown, shown.records, work=QUIET)
    torch.testing.assert_close(found, embeddings, atol=1e-5, rtol=1e-4)


def test_a_few_positions_of_every_image(
    resnet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.from_tower(resnet.eval())
    shown = Shown(tmp_path, torch.randn(4, 3, *encoder.image_size))

    def sampled(site: str, positions: int | None = None, seed: int = 1) -> Tensor:
        return sample_activations(
            encoder,
            shown,
            shown.records,
            site,
            positions_per_image=positions,
            seed=seed,
            work=QUIET,
        )

    everything = sampled("layer2.0").reshape(4, -1, 64)
    few = sampled("layer2.0", 5)
    assert few.shape == (20, 64)
    for image, chosen in zip(everything, few.reshape(4, 5, 64), strict=True):
        same = (chosen[:, None] == image[None]).all(-1)
        assert same.any(1).all()  # each is a position of its own image,
        assert int(same.any(0).sum()) == 5  # and no two the same one
    assert not torch.equal(sampled("layer2.0", 5, seed=2), few)
    assert len(sampled("attnpool", 5)) == 4
    for cut in (1, 3):
        monkeypatch.setattr(
            samples, "activations", partial(activations, batch_size=cut)
        )
        torch.testing.assert_close(sampled("layer2.0", 5), few, atol=1e-5, rtol=1e-4)


class OnDisk(Sequence[Tensor]):
    """Pieces that are made anew whenever they are asked for, and counted while they live."""

    def __init__(self, pieces: Sequence[Tensor]) -> None:
        self.pieces, self.alive, self.most = pieces, 0, 0

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, place: int) -> Tensor:  # type: ignore[override]
        self.alive += 1
        self.most = max(self.most, self.alive)
        piece = self.pieces[place].clone()
        weakref.finalize(piece.untyped_storage(), self._freed)
        return piece

    def _freed(self) -> None:
        self.alive -= 1


def test_memory_holds_one_piece_while_training() -> None:
    data = planted(1000)[1]
    pieces = OnDisk(torch.split(data, 100))
    batches = SampleBatches(
        pieces, 32, drop_last=True, generator=torch.Generator().manual_seed(0)
    )
    for _ in range(100):
        next(batches)
    assert pieces.most == 1
    settings = replace(QUICK, batch_size=32)
    trained = quick_sae(pieces, settings)
    assert (
        pieces.most <= 3
    )  # of the last steps, the measured one, and the one that the tests' type checker holds
    assert_equal_weights(trained, quick_sae(torch.split(data, 100), settings))

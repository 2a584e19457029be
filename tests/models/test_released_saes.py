"""Released sparse autoencoders and transcoders of every layout, against the formulas of those who released them."""

import gzip
import json
import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from circuitry import InputError
from circuitry.bases import SparseAutoencoder, Transcoder
from circuitry.models import SaeFile, load_sae, register_sae_reader, sae_readers
from tests.support.assert_same import assert_same
from tests.support.released_saes import (
    FEATURES,
    LAYOUTS,
    PRISMA,
    SHAPES,
    TRAINER,
    D,
    tensors,
    written,
)

X = np.random.default_rng(0).normal(size=(40, D)) + 0.3


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_read_is_their_formula(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = LAYOUTS[name]
    path, weights = written(layout, tmp_path)
    features, reconstruction = layout.formula(weights, X)
    assert 0 < (features != 0).sum() < features.size
    with caplog.at_level(logging.INFO, "circuitry"):
        sae = load_sae(path).to(dtype=torch.double)
    assert layout.reader in caplog.text
    assert (sae.about["reader"], sae.site, sae.tokens) == (
        layout.reader,
        layout.site,
        layout.tokens,
    )
    assert isinstance(sae, Transcoder) == ("transcoder" in name)
    x = torch.from_numpy(X)
    found, beside = sae.encode(x), sae.beside(x)
    assert_same(found.numpy(), features, 2e-5)
    assert_same(
        sae.recompose(sae.in_scale(found, beside), beside).numpy(), reconstruction, 2e-5
    )
    sae.save(tmp_path / "again")
    again = load_sae(tmp_path / "again")
    assert type(again) is type(sae)
    assert again.about == sae.about
    assert torch.equal(again.encode(x), found)
    assert torch.equal(again.beside(x), beside)


def test_inputs_that_were_shifted_are_undone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout, mean, scale = LAYOUTS["saev without a schema"], np.linspace(-1, 1, D), 3.0
    path, weights = written(layout, tmp_path)
    load_sae(path)
    assert "mean=, scale=" in caplog.text
    caplog.clear()
    for name in ("saev without a schema", "saev 5 relu"):
        path, weights = written(LAYOUTS[name], tmp_path)
        sae = load_sae(path, site="here", mean=mean, scale=scale).to(dtype=torch.double)
        assert not caplog.records
        assert sae.site == "here"
        features, reconstruction = LAYOUTS[name].formula(weights, (X - mean) / scale)
        x = torch.from_numpy(X)
        assert_same(sae.encode(x).numpy(), features, 2e-5)
        assert_same(
            sae.decode(sae.encode(x)).numpy(), reconstruction * scale + mean, 2e-5
        )


def test_a_reader_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sae_readers, "_readers", dict(sae_readers._readers))
    save_file({"mine": torch.eye(D)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"mine.*SAELens.*saev.*register_sae_reader"):
        load_sae(tmp_path / "a.safetensors")

    def read(file: SaeFile) -> SparseAutoencoder:
        (w,) = file.take("mine")
        return SparseAutoencoder(w, torch.zeros(D), w, torch.zeros(D))

    register_sae_reader("mine", lambda file: "mine" in file.tensors, read)
    assert load_sae(tmp_path / "a.safetensors").about == {"reader": "mine"}
    register_sae_reader(
        "mine", lambda file: True, lambda file: file.config["no such setting"]
    )
    with pytest.raises(InputError, match=r"a\.safetensors.*no such setting"):
        load_sae(tmp_path / "a.safetensors")


class Runs:
    """A pickle that runs code when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save(
        {"cfg": Runs(ran), "state_dict": {"W_enc": torch.eye(D)}}, tmp_path / "a.pt"
    )
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(Runs(ran)))
    (tmp_path / "c.pkl.gz").write_bytes(gzip.compress(pickle.dumps(Runs(ran))))
    (tmp_path / "d.pt").write_bytes(b'{"schema": 5}\n' + pickle.dumps(Runs(ran)))
    for name, word in (
        ("a.pt", "run code"),
        ("b.pkl", "b.pkl"),
        ("c.pkl.gz", "run code"),
        ("d.pt", "d.pt"),
    ):
        with pytest.raises(InputError, match=word):
            load_sae(tmp_path / name)
    assert not ran.exists()


WEIGHTS = tensors({name: np.ones(shape, np.float32) for name, shape in SHAPES.items()})
BATCH_TOPK = {"trainer": TRAINER | {"dict_class": "MatryoshkaBatchTopKSAE"}}


@pytest.mark.parametrize(
    ("state", "config", "words"),
    [
        (WEIGHTS, PRISMA | {"architecture": "jumprelu"}, "'jumprelu'"),
        (WEIGHTS | {"W_enc": WEIGHTS["W_enc"].to(torch.int8)}, PRISMA, "W_enc as int8"),
        (WEIGHTS, PRISMA | {"activation_fn_str": "tanh-relu"}, "'tanh-relu'"),
        (WEIGHTS, PRISMA | {"normalize_activations": "expected_average"}, "'expected_average'"),
        (WEIGHTS, PRISMA | {"hook_point_head_index": 3}, r"head.* 3,"),
        (WEIGHTS, PRISMA | {"is_transcoder": True, "layer_subtype": "hook_resid_pre"}, "'hook_resid_pre'"),
        ({"W_enc": torch.eye(D)}, PRISMA, "lacks b_enc, W_dec, b_dec"),
        (WEIGHTS, {"architecture": "temporal"}, "architecture 'temporal', which is not supported"),
        (WEIGHTS, {"architecture": "standard", "activation_fn": "tanh-relu"}, "activation 'tanh-relu'"),
        (WEIGHTS, {"architecture": "standard", "normalize_activations": True}, "normalisation of inputs True"),
        (WEIGHTS, {"architecture": "transcoder", "normalize_activations": "layer_norm"}, "'layer_norm'"),
        (WEIGHTS | {"scaling_factor": torch.full((FEATURES,), 2.0)}, {"architecture": "standard"}, "a scaling_factor"),
        ({"W_enc": torch.eye(D)}, {"architecture": "standard"}, "lacks b_enc, W_dec, b_dec"),
        (WEIGHTS | {"threshold": torch.tensor(-1.0)}, BATCH_TOPK, "threshold .*-1"),
        (WEIGHTS, {"trainer": TRAINER | {"dict_class": "CrossCoder"}}, "'CrossCoder'"),
        ({"W_enc": torch.eye(D)}, {"x": 1}, "W_enc.*settings x"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused(
    state: dict[str, Any], config: Any, words: str, tmp_path: Path
) -> None:
    if "architecture" in config and "expansion_factor" not in config:  # SAELens
        save_file(state, tmp_path / "sae_weights.safetensors")
        (tmp_path / "cfg.json").write_text(json.dumps(config))
    else:
        torch.save(state, tmp_path / "ae.pt")
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=words):
        load_sae(tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cfg\.json"):
        load_sae(tmp_path)
    save_file(WEIGHTS, tmp_path / "sae_weights.safetensors")
    with pytest.raises(InputError, match=r"cfg\.json"):
        load_sae(tmp_path)
    (tmp_path / "sae_weights.safetensors").unlink()
    torch.save(WEIGHTS, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"W_enc.*config\.json"):
        load_sae(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"settings of .*weights\.pt"):
        load_sae(tmp_path)
    torch.save(WEIGHTS, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"2 weights files .*other\.pt, weights\.pt"):
        load_sae(tmp_path)
    (tmp_path / "config.json").unlink()
    model = {
        "pre_bias": torch.zeros(D),
        "latent_bias": torch.zeros(FEATURES),
        "encoder": torch.zeros(D, FEATURES),
    }
    for name, words in (
        ("x.pth", "<activation>"),
        (f"{FEATURES}_{D}_ReLU_False_True_30.0_x.pth", "standardises"),
    ):
        torch.save({"model": model, "scaling_factor": 1.0}, tmp_path / name)
        with pytest.raises(InputError, match=words):
            load_sae(tmp_path / name)
    (tmp_path / "sae.pt").write_bytes(
        b'{"schema": 5, "cfg": {"activation": {"cls": "BatchTopK"}}}\n'
    )
    with open(tmp_path / "sae.pt", "ab") as file:
        torch.save(WEIGHTS, file)
    with pytest.raises(InputError, match="BatchTopK without its threshold"):
        load_sae(tmp_path / "sae.pt")


@pytest.mark.parametrize(
    ("layout", "name", "value"),
    [
        ("prisma", "hook_point_layer", []),
        ("prisma topk", "activation_fn_kwargs", {"k": "six"}),
        ("saelens layer norm", "metadata", "none"),
    ],
)
def test_malformed_settings_are_refused_by_the_file(
    layout: str, name: str, value: Any, tmp_path: Path
) -> None:
    path, _ = written(LAYOUTS[layout], tmp_path)
    folder = path if path.is_dir() else path.parent
    config = next(one for one in folder.rglob("*.json"))
    config.write_text(json.dumps(json.loads(config.read_text()) | {name: value}))
    with pytest.raises(InputError, match=str(folder)):
        load_sae(path)


def unreachable(*_: object, **__: object) -> Any:
    """Fail as a library of the network does, whose errors are none of the operating system's."""
    raise Exception("no route")


def test_a_place_on_the_hub_needs_the_network_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("org-xyz/some-sae", "hf-hub:org-xyz/some-sae/layer_3/sae.pt"):
        with pytest.raises(InputError, match=f"{name} .*network"):
            load_sae(name)
    monkeypatch.setattr("circuitry.models.sae_files.list_repo_files", unreachable)
    monkeypatch.setattr("circuitry.models.sae_files.snapshot_download", unreachable)
    with pytest.raises(InputError, match=r"org-xyz/some-sae .*no route.*network"):
        load_sae("org-xyz/some-sae")
    path, _ = written(LAYOUTS["prisma"], tmp_path)
    asked: list[Any] = []

    def download(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(path)

    monkeypatch.setattr("circuitry.models.sae_files.snapshot_download", download)
    files = ["README.md", "weights.pt", "config.json", "sparsity.safetensors"]
    monkeypatch.setattr(
        "circuitry.models.sae_files.list_repo_files", lambda repository: files
    )
    assert load_sae("org-xyz/some-sae").about["reader"] == "ViT-Prisma"
    assert load_sae("hf-hub:org-xyz/some-sae/weights.pt").n_features == FEATURES
    assert (
        asked == [("org-xyz/some-sae", ["weights.pt", "cfg.json", "config.json"])] * 2
    )
    files[1:] = ["layer_3/a/sae.pt", "layer_4/a/sae.pt", "layer_4/a/old/sae.pt"]
    with pytest.raises(InputError, match=r"2 weights files .*layer_4/a/sae\.pt"):
        load_sae("org-xyz/some-sae")
    with pytest.raises(InputError, match="layer_4"):  # it was not in what was fetched
        load_sae("org-xyz/some-sae/layer_4")
    assert asked[-1] == (
        "org-xyz/some-sae",
        ["layer_4/a/sae.pt", "layer_4/a/cfg.json", "layer_4/a/config.json"],
    )


@pytest.mark.parametrize(
    ("layout", "given", "change", "words"),
    [
        ("saev 5 relu", {"mean": [0.0] * (D + 1)}, {}, "9"),
        ("prisma layer norm, class token", {"scale": 2.0}, {}, "layer-norm"),
        (
            "prisma skip transcoder",
            {},
            {"w_skip": torch.zeros(2, 3)},
            r"w_skip.*\[2, 3\]",
        ),
        ("prisma skip transcoder", {}, {"subtract_decoder_bias": True}, "False"),
    ],
)
def test_what_does_not_fit_is_refused(
    layout: str,
    given: dict[str, Any],
    change: dict[str, Any],
    words: str,
    tmp_path: Path,
) -> None:
    path, _ = written(LAYOUTS[layout], tmp_path)
    with pytest.raises(InputError, match=words):
        replace(load_sae(path, **given), **change)

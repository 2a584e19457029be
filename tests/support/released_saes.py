"""Files of sparse autoencoders in the layouts of those who released them, and what they compute, by their formulas."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

D = 8
FEATURES = 32
Weights = dict[str, np.ndarray]
Formula = Callable[[Weights, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Weights in their names, inputs [n, d] -> features, reconstruction in the scale of the inputs."""


class Layout(NamedTuple):
    """A file that can be written, and its formula."""

    shapes: dict[str, tuple[int, ...]]
    write: Callable[[Path, Weights], Path]
    """Folder and weights -> what is given to load_sae."""
    formula: Formula
    reader: str
    site: str | None = None
    tokens: str = "all"


def written(layout: Layout, folder: Path) -> tuple[Path, Weights]:
    """Write random weights; return the path, and the weights in double precision."""
    rng = np.random.default_rng(5)
    weights = {
        n: np.asarray(0.5 * rng.normal(size=shape), np.float32)
        for n, shape in layout.shapes.items()
    }
    return layout.write(folder, weights), {
        name: weight.astype(np.float64) for name, weight in weights.items()
    }


def relu(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(x, 0))


def largest(x: np.ndarray, k: int) -> np.ndarray:
    """Keep the k largest of each row."""
    return np.where(x >= np.sort(x, 1)[:, [-k]], x, 0)


SHAPES: dict[str, tuple[int, ...]] = {
    "W_enc": (D, FEATURES),
    "b_enc": (FEATURES,),
    "W_dec": (FEATURES, D),
    "b_dec": (D,),
}
GATES: dict[str, tuple[int, ...]] = {
    "b_gate": (FEATURES,),
    "r_mag": (FEATURES,),
    "b_mag": (FEATURES,),
}


def tensors(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(weight) for name, weight in weights.items()}


def pickled(
    full_name: str, values: dict[str, Any], make: Callable[[Any], None]
) -> None:
    """Give ``make`` an object of a class that exists only while it runs, as that of a library that is not installed."""
    module, _, name = full_name.rpartition(".")
    parts = module.split(".")
    kind = type(name, (), {"__module__": module})
    made = kind()
    vars(made).update(values)
    with pytest.MonkeyPatch.context() as patch:
        for i in range(len(parts)):
            patch.setitem(
                sys.modules,
                ".".join(parts[: i + 1]),
                types.ModuleType(".".join(parts[: i + 1])),
            )
        setattr(sys.modules[module], name, kind)
        make(made)


PRISMA: dict[str, Any] = {
    "hook_point_layer": 1, "layer_subtype": "hook_resid_post", "architecture": "standard", "activation_fn_str": "relu",
    "activation_fn_kwargs": {}, "normalize_activations": "none", "d_in": D, "expansion_factor": FEATURES // D,
    "cls_token_only": False, "use_patches_only": False, "_device": "cuda", "_dtype": "float32",
}  # fmt: skip


def normed(
    x: np.ndarray, how: str
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return normalised inputs, and what undoes it."""
    if how == "layer_norm":
        mean = x.mean(1, keepdims=True)
        std = x.std(1, keepdims=True, ddof=1)
        return (x - mean) / (std + 1e-5), lambda y: y * std + mean
    if how == "constant_norm_rescale":
        factor = np.sqrt(D) / np.linalg.norm(x, axis=1, keepdims=True)
        return x * factor, lambda y: y / factor
    return x, lambda y: y


def prisma(more: dict[str, Any], *, as_object: bool = False, **layout: Any) -> Layout:
    config = PRISMA | more
    gated = config["architecture"] == "gated"
    transcoder = config.get("is_transcoder", False)
    skip = transcoder and config["transcoder_with_skip_connection"]
    shapes = (
        SHAPES | (GATES if gated else {}) | ({"b_dec_out": (D,)} if transcoder else {})
    )
    shapes = shapes | ({"W_skip": (D, D)} if skip else {})

    def write(folder: Path, weights: Weights) -> Path:
        if as_object:
            name = "vit_prisma.sae.config.VisionModelSAERunnerConfig"
            file = folder / "n_images_2600000.pt"
            pickled(
                name,
                config,
                lambda cfg: torch.save(
                    {"cfg": cfg, "state_dict": tensors(weights)}, file
                ),
            )
            return file
        (folder / "config.json").write_text(json.dumps(config))
        torch.save(tensors(weights), folder / "weights.pt")
        return folder

    def formula(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z, undo = normed(x, config["normalize_activations"])
        z = z - w["b_dec"]
        f = relu(z @ w["W_enc"] + w["b_enc"])
        if config["activation_fn_str"] == "topk":
            f = relu(
                largest(
                    z @ w["W_enc"] + w["b_enc"], config["activation_fn_kwargs"]["k"]
                )
            )
        if gated:
            f = (z @ w["W_enc"] + w["b_gate"] > 0) * relu(
                z @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"]
            )
        out = f @ w["W_dec"] + (w["b_dec_out"] if transcoder else w["b_dec"])
        return f, undo(out + x @ w["W_skip"].T if skip else out)

    return Layout(
        shapes,
        write,
        formula,
        "ViT-Prisma",
        **{"site": "blocks.1.hook_resid_post"} | layout,
    )


TRANSCODER: dict[str, Any] = {
    "layer_subtype": "ln2.hook_normalized", "is_transcoder": True, "transcoder_with_skip_connection": True,
    "out_hook_point_layer": 1, "layer_out_subtype": "hook_mlp_out", "d_out": D,
}  # fmt: skip
OF_MLP: dict[str, Any] = {"site": "blocks.1.hook_mlp_out"}


def saelens(
    more: dict[str, Any],
    shapes: dict[str, tuple[int, ...]] | None = None,
    **layout: Any,
) -> Layout:
    config: dict[str, Any] = {
        "d_in": D,
        "d_sae": FEATURES,
        "normalize_activations": "none",
    } | more
    if "hook_point" not in config:
        config["metadata"] = {
            "hook_name": "blocks.1.hook_resid_post",
            "hook_name_out": "blocks.1.hook_mlp_out",
        }
    kind = config.get("architecture")
    bias = config.get("apply_b_dec_to_input", True)
    k = config.get("k", config.get("activation_fn_kwargs", {}).get("k"))

    def write(folder: Path, weights: Weights) -> Path:
        (folder / "cfg.json").write_text(json.dumps(config))
        save_file(weights, folder / "sae_weights.safetensors")
        return folder

    def formula(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z, undo = normed(x, config["normalize_activations"])
        z = z - bias * w["b_dec"]
        if kind == "gated":
            f = (z @ w["W_enc"] + w["b_gate"] > 0) * relu(
                z @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"]
            )
        else:
            before = z @ w["W_enc"] + w["b_enc"]
            f = relu(before) * (before > w.get("threshold", w.get("topk_threshold", 0)))
        norms = (
            np.linalg.norm(w["W_dec"], axis=1)
            if "rescale_acts_by_decoder_norm" in config
            else 1.0
        )
        f = f * norms
        f = largest(f, k) if kind == "topk" or "activation_fn_kwargs" in config else f
        skip = x @ w["W_skip"].T if "W_skip" in w else 0
        return f, undo(f / norms @ w["W_dec"] + w["b_dec"] + skip)

    weights = SHAPES | (shapes or {})
    weights = {
        name: shape
        for name, shape in weights.items()
        if kind != "gated" or name != "b_enc"
    }
    return Layout(
        weights,
        write,
        formula,
        "SAELens",
        **{"site": "blocks.1.hook_resid_post"} | layout,
    )


def saev(
    line: dict[str, Any],
    act: Callable[[Weights, np.ndarray], np.ndarray],
    *,
    threshold: bool = False,
) -> Layout:
    subtract = "schema" not in line

    def write(folder: Path, weights: Weights) -> Path:
        with open(folder / "sae.pt", "wb") as file:
            file.write(json.dumps(line).encode() + b"\n")
            torch.save(tensors(weights), file)
        return folder / "sae.pt"

    def formula(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        f = act(w, (x - w["b_dec"] if subtract else x) @ w["W_enc"] + w["b_enc"])
        return f, f @ w["W_dec"] + w["b_dec"]

    return Layout(
        SHAPES | ({"activation.threshold": ()} if threshold else {}),
        write,
        formula,
        "saev",
        None,
        "patches",
    )


def saev_schema(number: int, cls: str, params: dict[str, Any]) -> dict[str, Any]:
    key = "key" if number > 3 else "kind"
    activation = {"cls": cls, "params": {key: cls.lower(), "aux": None, **params}}
    return {
        "schema": number,
        "cfg": {"d_model": D, "d_sae": FEATURES, "activation": activation},
        "lib": "0.1",
    }


OLD_SAEV = {
    "d_vit": D,
    "exp_factor": FEATURES // D,
    "sparsity_coeff": 4e-4,
    "ghost_grads": False,
    "seed": 1,
}


def clipscope_formula(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    f = largest((x - w["pre_b"]) @ w["enc"], 5)
    return f, f @ w["dec"] + w["pre_b"]


def write_clipscope(folder: Path, weights: Weights) -> Path:
    file = folder / "1_resid" / "1200013184.pt"
    file.parent.mkdir()
    content = {
        "n_features": FEATURES,
        "d_in": D,
        "k": 5,
        "model_state_dict": tensors(weights),
    }
    torch.save(content, file)
    return file


def patch_sae(
    full_name: str, key: str, *, gated: bool = False, **config: Any
) -> Layout:
    values = {
        "d_in": D,
        "expansion_factor": 4,
        "module_name": "resid",
        "block_layer": -2,
        "gated_sae": gated,
    }
    values |= {
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "class_token": False,
    } | config

    def write(folder: Path, weights: Weights) -> Path:
        file = folder / "patchsae.pt"
        pickled(
            full_name,
            values,
            lambda cfg: torch.save({key: cfg, "state_dict": tensors(weights)}, file),
        )
        return file

    def formula(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = x - w["b_dec"]
        f = relu(z @ w["W_enc"] + w["b_enc"])
        if gated:
            f = (f > 0) * relu(z @ (w["W_enc"] * np.exp(w["r_mag"])) + w["b_mag"])
        return f, f @ w["W_dec"] + w["b_dec"]

    shapes = SHAPES | (
        {name: GATES[name] for name in ("r_mag", "b_mag")} if gated else {}
    )
    tokens = "class" if config.get("class_token") else "all"
    return Layout(
        shapes, write, formula, "PatchSAE", "blocks.-2.hook_resid_post", tokens
    )


LINEAR = {
    "encoder.weight": (FEATURES, D),
    "encoder.bias": (FEATURES,),
    "decoder.weight": (D, FEATURES),
    "b_dec": (D,),
}
TRAINER = {
    "activation_dim": D,
    "dict_size": FEATURES,
    "k": 5,
    "layer": 1,
    "submodule_name": "post_mlp_residual",
}


def dictionary(
    dict_class: str, shapes: dict[str, tuple[int, ...]], act: Any, **settings: Any
) -> Layout:
    def write(folder: Path, weights: Weights) -> Path:
        (folder / "config.json").write_text(
            json.dumps(
                {
                    "trainer": TRAINER | {"dict_class": dict_class} | settings,
                    "buffer": {"d_submodule": D},
                }
            )
        )
        state = tensors(
            {
                name: np.asarray(np.abs(w)) if name == "threshold" else w
                for name, w in weights.items()
            }
        )
        torch.save(
            state | ({"k": torch.tensor(5)} if "TopK" in dict_class else {}),
            folder / "ae.pt",
        )
        return folder

    def formula(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        linear = "encoder.weight" in w
        w_enc, w_dec = (
            (w["encoder.weight"].T, w["decoder.weight"].T)
            if linear
            else (w["W_enc"], w["W_dec"])
        )
        b_enc = w["encoder.bias"] if linear else w["b_enc"]
        b_in = w.get("b_dec", w.get("bias", 0.0))
        f = act(w, (x - b_in) @ w_enc + b_enc)
        return f, f @ w_dec + w.get("decoder.bias", b_in)

    site = (
        "embedding"
        if settings.get("submodule_name") == "post_projection"
        else "blocks.1.hook_resid_post"
    )
    return Layout(shapes, write, formula, "dictionary_learning", site)


MSAE_SHAPES = {
    "pre_bias": (D,),
    "encoder": (D, FEATURES),
    "decoder": (FEATURES, D),
    "latent_bias": (FEATURES,),
}
MEAN = np.linspace(-0.4, 0.8, D).astype(np.float32)


def msae(
    name: str,
    act: Any,
    cap: float,
    *,
    tied: bool = False,
    more: dict[str, tuple[int, ...]] | None = None,
) -> Layout:
    scale = 2.5

    def write(folder: Path, weights: Weights) -> Path:
        file = folder / f"{FEATURES}_{D}_{name}_{tied}_False_{cap}_cc3m_ViT-L_14.pth"
        state = tensors(weights) | {
            "latents_activation_frequency": torch.zeros(FEATURES, dtype=torch.int64)
        }
        centre = {
            "mean_center": torch.from_numpy(MEAN),
            "scaling_factor": scale,
            "target_norm": 2.8,
        }
        torch.save({"model": state, **centre}, file)
        return file

    def formula(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = (x - MEAN) * scale
        f = act(w, (z - w["pre_bias"]) @ w["encoder"] + w["latent_bias"])
        f = cap * np.tanh(f / cap) if cap else f
        return f, (
            f @ (w["encoder"].T if tied else w["decoder"]) + w["pre_bias"]
        ) / scale + MEAN

    shapes = {
        shape: of
        for shape, of in MSAE_SHAPES.items()
        if not (tied and shape == "decoder")
    }
    return Layout(shapes | (more or {}), write, formula, "MSAE", "embedding")


def above(w: Weights, before: np.ndarray, name: str = "threshold") -> np.ndarray:
    return relu(before) * (before > np.abs(w[name]))


BIASED = {name: shape for name, shape in LINEAR.items() if name != "b_dec"}
LAYOUTS: dict[str, Layout] = {
    "prisma": prisma({}),
    "prisma with the config as an object": prisma({"hook_point_layer": [1]}, as_object=True),
    "prisma topk": prisma({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 6}, "d_sae": FEATURES}),
    "prisma gated": prisma({"architecture": "gated"}),
    "prisma layer norm, class token": prisma(
        {"normalize_activations": "layer_norm", "cls_token_only": True}, tokens="class"
    ),
    "prisma constant norm, patches": prisma(
        {"normalize_activations": "constant_norm_rescale", "use_patches_only": True}, tokens="patches"
    ),
    "prisma transcoder": prisma(TRANSCODER | {"transcoder_with_skip_connection": False}, **OF_MLP),
    "prisma skip transcoder": prisma(TRANSCODER, **OF_MLP),
    "prisma layer-normed transcoder": prisma(TRANSCODER | {"normalize_activations": "layer_norm"}, **OF_MLP),
    "saelens standard": saelens({"architecture": "standard"}),
    "saelens 2": saelens(
        {"hook_point": "blocks.1", "apply_b_dec_to_input": False, "normalize_activations": False}, site="blocks.1"
    ),
    "saelens gated": saelens({"architecture": "gated"}, GATES),
    "saelens layer norm": saelens({"architecture": "standard", "normalize_activations": "layer_norm"}),
    "saelens constant norm": saelens({"architecture": "standard", "normalize_activations": "constant_norm_rescale"}),
    "saelens topk": saelens({"architecture": "topk", "k": 4}),
    "saelens topk before 6": saelens({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}),
    "saelens topk, scaled": saelens({"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True}),
    "saelens batch topk": saelens({"architecture": "batchtopk", "k": 5}, {"topk_threshold": ()}),
    "saelens batch topk, as it saves it": saelens({"architecture": "jumprelu"}, {"threshold": (FEATURES,)}),
    "saelens skip transcoder": saelens(
        {"architecture": "jumprelu_skip_transcoder", "d_out": D, "apply_b_dec_to_input": False},
        {"threshold": (FEATURES,), "W_skip": (D, D)}, **OF_MLP,
    ),
    "saev 5 relu": saev(saev_schema(5, "Relu", {}), lambda w, h: relu(h)),
    "saev 4 topk": saev(saev_schema(4, "TopK", {"top_k": 20}), lambda w, h: largest(h, 20)),
    "saev 3 batch topk": saev(
        saev_schema(3, "BatchTopK", {"top_k": 5}),
        lambda w, h: np.where(h > max(float(w["activation.threshold"]), 0), h, 0), threshold=True,
    ),
    "saev 1 topk": saev({"schema": 1, "cls": "TopK", "cfg": {"d_model": D, "top_k": 4}}, lambda w, h: largest(h, 4)),
    "saev 1 nested": saev(
        saev_schema(1, "TopK", {"top_k": 4}) | {"cls": "SparseAutoencoderConfig"}, lambda w, h: largest(h, 4)
    ),
    "saev without a schema": saev(OLD_SAEV, lambda w, h: relu(h)),
    "clipscope": Layout(
        {"pre_b": (D,), "enc": (D, FEATURES), "dec": (FEATURES, D)}, write_clipscope, clipscope_formula, "clipscope",
        "blocks.1.hook_resid_post",
    ),
    "patchsae": patch_sae("src.sae_training.config.ViTSAERunnerConfig", "cfg"),
    "hugo fry gated": patch_sae("sae_training.config.ViTSAERunnerConfig", "config", gated=True, class_token=True),
    "dictionary standard": dictionary("AutoEncoder", BIASED | {"bias": (D,)}, lambda w, h: relu(h)),
    "dictionary new": dictionary("AutoEncoderNew", BIASED | {"decoder.bias": (D,)}, lambda w, h: relu(h)),
    "dictionary topk": dictionary("AutoEncoderTopK", LINEAR, lambda w, h: relu(largest(h, 5))),
    "dictionary batch topk": dictionary("BatchTopKSAE", LINEAR | {"threshold": ()}, above),
    "dictionary matryoshka": dictionary(
        "MatroyshkaBatchTopKSAE", SHAPES | {"threshold": ()}, above, submodule_name="post_projection"
    ),
    "msae topk": msae("TopKReLU_6_UW", lambda w, h: relu(largest(h, 6)), 30.0),
    "msae relu, tied": msae("ReLU", lambda w, h: relu(h), 0.0, tied=True),
    "msae batch topk": msae("BatchTopKReLU_6", lambda w, h: relu(h), 2.0),
    "msae jumprelu": msae(
        "JumpReLU_32", lambda w, h: relu(h) * (h > np.exp(w["activation.log_threshold"])), 0.5,
        more={"activation.log_threshold": (FEATURES,)},
    ),
}  # fmt: skip

"""Read sparse autoencoders and transcoders in the layouts of other libraries. `LAYOUTS` has a reader for each layout.

A reader is a function that makes an autoencoder from a file. The docstrings of the readers give the formula of the
library: x is the activation at a site, f are the features, act is the activation function, and the weights have the
library's names. W_enc is [d, features] and W_dec [features, d]. If a library stores the transpose, the reader
transposes the weight.

A gated autoencoder becomes a JumpReLU autoencoder. Linear scales of inputs and features are multiplied into the
weights.
"""

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from circuitry.bases.sae import (
    SparseAutoencoder,
    Transcoder,
    gate_threshold,
    of_shifted_inputs,
)
from circuitry.models.sae_files import SaeFile

log = logging.getLogger(__name__)

SaeReader = tuple[Callable[[SaeFile], bool], Callable[[SaeFile], SparseAutoencoder]]
"""Two functions of a file: one returns whether the file has a layout, the other reads its autoencoder."""
Sae = TypeVar("Sae", bound=SparseAutoencoder)
SaeArguments = dict[str, Any]
"""Arguments of `SparseAutoencoder` by name."""

_PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")
NORMALISATIONS = {
    "layer_norm": "layer-norm",
    "constant_norm_rescale": "length",
    "none": None,
    "None": None,
    None: None,
}
"""For each value of ``normalize_activations`` in ViT-Prisma and SAELens, the value of `SparseAutoencoder.normalised`.
"""
SAELENS = {
    "standard": ("relu", None),
    "gated": ("jumprelu", None),
    "jumprelu": ("jumprelu", "threshold"),
    "topk": ("topk", None),
    "batchtopk": ("jumprelu", "topk_threshold"),
    "matryoshka_batchtopk": ("jumprelu", "topk_threshold"),
}
"""For each architecture of SAELens, its activation and the name of its threshold (None: without a threshold).

The words ``skip`` and ``transcoder`` are removed from the name of an architecture before it is looked up here.
"""
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
DICTIONARIES = {
    "AutoEncoder": (*_LINEAR, "bias"),
    "AutoEncoderNew": (*_LINEAR, "decoder.bias"),
    "AutoEncoderTopK": (*_LINEAR, "b_dec"),
    "BatchTopKSAE": (*_LINEAR, "b_dec"),
    "MatryoshkaBatchTopKSAE": _PLAIN,
}
"""For each class of dictionary_learning, the names of four weights: encoder, bias of the encoder, decoder, and bias of
the decoder."""
_MSAE_NAME = re.compile(
    r"(?P<features>\d+)_(?P<d>\d+)_(?P<act>[A-Za-z0-9]+)(_(?P<k>\d+))?(_[UR]W)?_(?P<tied>True|False)_"
    r"(?P<norm>True|False)_(?P<cap>\d+(\.\d+)?)"
)


def read_saelens(file: SaeFile) -> SparseAutoencoder:
    """Read an autoencoder or transcoder of SAELens 2 to 6.

    The weights are in sae_weights.safetensors, and the settings are in cfg.json in the same folder.
    """
    if not file.config:
        raise file.refuse(
            "SAELens' weights, but no cfg.json lies beside it, so that their activation is not known"
        )
    config = dict(file.config)
    # Newer versions keep some settings in an inner mapping. If a setting is in both, the outer value is used.
    inner = config.pop("metadata", None) or config.pop("meta", None) or {}
    config = inner | config
    config.setdefault("hook_name", config.get("hook_point"))
    given = config.get("activation_fn_str") or config.get("activation_fn")
    activation = given or "relu"
    if activation == "topk":
        # Before version 6, TopK was an activation of the architecture "standard", and not an architecture.
        config["architecture"] = "topk"
        config.setdefault("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    words = config.setdefault("architecture", "standard").split("_")
    is_transcoder = "transcoder" in words
    plain = [word for word in words if word not in ("skip", "transcoder")]
    kind = "_".join(plain) or "standard"
    normalisation = config.get("normalize_activations") or "none"
    _check(file, "architecture", kind, SAELENS)
    _check(file, "activation", activation, ("relu", "topk"))
    # Normalised transcoders of SAELens are not supported.
    known = ["none"]
    if not is_transcoder:
        known += ["constant_norm_rescale", "layer_norm"]
    _check(file, "normalisation of inputs", normalisation, known)
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        factor = file.tensors.get(name, torch.ones(1))
        if not torch.allclose(factor, torch.ones_like(factor)):
            raise file.refuse(
                f"an autoencoder with a {name} for its features, which is not supported"
            )

    act, threshold = SAELENS[kind]
    arguments = _plain_or_gated(file, kind == "gated")
    if threshold is not None:
        # A BatchTopK autoencoder has one threshold for all features, which was measured in training.
        arguments["threshold"] = file.take(threshold)[0].expand(len(arguments["b_enc"]))
    arguments |= {
        "activation": act,
        "k": config.get("k") if kind == "topk" else None,
        "about": {"config": config},
    }
    arguments["subtract_decoder_bias"] = (
        config.get("apply_b_dec_to_input", True) and not is_transcoder
    )
    site = config.get("hook_name")
    if is_transcoder:
        site = config.get("hook_name_out") or site
        # Some files name the input of the MLP, but our site of a transcoder is the output of the MLP.
        for read in ("ln2.hook_normalized", "hook_mlp_in"):
            site = site and str(site).replace(read, "hook_mlp_out")
        w_skip = file.take("W_skip")[0] if "skip" in words else None
        return Transcoder(**arguments, site=site, w_skip=w_skip)
    if config.get("rescale_acts_by_decoder_norm"):
        # TopK then compares features after multiplying each by the length of its decoder row. Here the encoder is
        # multiplied by these lengths instead, and the decoder's rows are divided by them.
        norms = arguments["w_dec"].norm(dim=1)
        arguments |= {
            "w_enc": arguments["w_enc"] * norms,
            "b_enc": arguments["b_enc"] * norms,
        }
        arguments["w_dec"] = arguments["w_dec"] / norms[:, None]
    return _normalised(SparseAutoencoder(**arguments, site=site), normalisation)


def read_prisma(file: SaeFile) -> SparseAutoencoder:
    """Read a file of ViT-Prisma: a state dict with config.json in the same folder, or a file that holds both.

    The features f and the output are computed from an activation x. N is the normalisation that the setting
    ``normalize_activations`` names, act is the activation function, and [...] is 1 if the condition in it holds, and
    otherwise 0:

        autoencoder   z = N(x) - b_dec;  f = act(z W_enc + b_enc);  out = N^-1(f W_dec + b_dec)
        gated         f = [z W_enc + b_gate > 0] act(z W_enc exp(r_mag) + b_mag)
        transcoder    out = N^-1(f W_dec + b_dec_out + x W_skip^T)

    A gated autoencoder stores b_enc, but does not use it. A transcoder inverts N with the statistics of its input.
    Layer norm divides by the unbiased standard deviation plus 1e-5, but N^-1 multiplies by the standard deviation
    without this addition.
    """
    config = file.config
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn_str", "relu")
    normalisation = config.get("normalize_activations")
    _check(file, "architecture", architecture, ("standard", "gated"))
    is_gated = architecture == "gated"
    activations = ("relu",) if is_gated else ("relu", "topk")
    head = config.get("hook_point_head_index")
    _check(file, "activation", activation, activations)
    _check(file, "normalisation of inputs", normalisation, NORMALISATIONS)
    _check(file, "head (hook_point_head_index)", head, (None,))
    arguments = _plain_or_gated(file, is_gated)
    if activation == "topk":
        options = config.get("activation_fn_kwargs") or {}
        arguments |= {"activation": "topk", "k": int(options.get("k", 0))}
    if config.get("cls_token_only") or config.get("use_patches_only"):
        arguments["tokens"] = "class" if config.get("cls_token_only") else "patches"
    layer = config["hook_point_layer"]
    if isinstance(layer, list):  # a list of one number
        layer = layer[0]
    if not config.get("is_transcoder"):
        site = f"blocks.{layer}.{config.get('layer_subtype', 'hook_resid_post')}"
        return _normalised(SparseAutoencoder(**arguments, site=site), normalisation)
    read = config.get("layer_subtype")
    _check(file, "transcoder's input", read, ("ln2.hook_normalized", "hook_mlp_in"))
    site = f"blocks.{config.get('out_hook_point_layer', layer)}.{config.get('layer_out_subtype', 'hook_mlp_out')}"
    # ViT-Prisma subtracts b_dec from the normalised input and has another bias for the output.
    arguments["b_enc"] = arguments["b_enc"] - arguments["b_dec"] @ arguments["w_enc"]
    arguments |= {
        "b_dec": file.take("b_dec_out")[0],
        "w_skip": file.tensors.get("W_skip"),
    }
    return _normalised(
        Transcoder(**arguments, subtract_decoder_bias=False, site=site), normalisation
    )


def read_saev(file: SaeFile) -> SparseAutoencoder:
    """Read a file of saev, an autoencoder for the patches of a ViT, not for its class token.

    Files state a schema, a number from 1 to 5; older files state none. The features f of an activation x are:

        with a schema      f = act(x W_enc + b_enc)
        without a schema   f = act((z - b_dec) W_enc + b_enc)  with  z = (x - mean) / scale

    Older files do not store mean and scale. A warning asks for these values if the user has not given them to
    `load_sae`.
    """
    config = file.config
    schema = config.get("schema")
    arguments = _of_names(file, *_PLAIN) | {
        "tokens": "patches",
        "subtract_decoder_bias": schema is None,
    }
    if schema is None and not file.is_shifted:
        log.warning(
            "%s is a file of saev before its schemas: it lacks the mean and the scale of its inputs. Give them "
            "(load_sae(..., mean=, scale=)); without them its latents belong to other activations.",
            file.path,
        )
    # Schemas name the activation in different places; ReLU is the default.
    settings = config.get("cfg", config)
    nested = settings.get("activation") or {}
    kind = nested.get("cls") or config.get("cls") or "Relu"
    if kind == "SparseAutoencoderConfig":
        kind = "Relu"
    _check(file, "activation", kind, ("Relu", "TopK", "BatchTopK"))
    if kind == "TopK":
        arguments |= {
            "activation": "signed-topk",
            "k": (nested.get("params") or settings)["top_k"],
        }
    elif kind == "BatchTopK":
        if "activation.threshold" not in file.tensors:
            raise file.refuse(
                "an autoencoder of BatchTopK without its threshold, which a batch alone cannot replace"
            )
        arguments |= _above(file.tensors["activation.threshold"], arguments["b_enc"])
    return SparseAutoencoder(**arguments)


def read_clipscope(file: SaeFile) -> SparseAutoencoder:
    """Read a file of clipscope.

    The features of an activation x are the k largest entries of (x - pre_b) enc, even if they are negative. All other
    features are 0. The index of the block is read from the name of the file's folder.
    """
    w_enc, w_dec, b_dec = file.take("enc", "dec", "pre_b")
    block = re.search(r"(\d+)_resid", str(file.path))
    return SparseAutoencoder(
        w_enc,
        w_enc.new_zeros(w_enc.shape[1]),
        w_dec,
        b_dec,
        activation="signed-topk",
        k=int(file.content["k"]),
        site=f"blocks.{block[1]}.hook_resid_post" if block else None,
    )


def read_patch_sae(file: SaeFile) -> SparseAutoencoder:
    """Read a file of PatchSAE, or a file of Hugo Fry's code, which PatchSAE extends. Both have the same layout.

    The features of an activation x are f = relu((x - b_dec) W_enc + b_enc), unless the autoencoder is gated. In a gated
    autoencoder, b_enc is the bias of the gates. The index of the block may be negative: -1 is the last block.
    """
    config = file.config
    _check(file, "module_name", config.get("module_name", "resid"), ("resid",))
    arguments = _plain_or_gated(file, bool(config.get("gated_sae")), "b_enc")
    tokens: Any = "class" if config.get("class_token") else "all"
    return SparseAutoencoder(
        **arguments,
        site=f"blocks.{config['block_layer']}.hook_resid_post",
        tokens=tokens,
    )


def read_dictionary_learning(file: SaeFile) -> SparseAutoencoder:
    """Read a file ae.pt of dictionary_learning. The settings of the training are in a JSON file in the same folder.

    The class that the autoencoder has in the library must be in `DICTIONARIES`.
    """
    trainer = file.config["trainer"]
    stored = file.tensors
    # Some versions of the library spell the name of the class this way.
    kind = str(trainer.get("dict_class")).replace("Matroyshka", "Matryoshka")
    if kind == "AutoEncoder" and "bias" not in stored:
        kind = "AutoEncoderNew"
    _check(file, "class", kind, DICTIONARIES)
    arguments = _of_names(file, *DICTIONARIES[kind]) | {
        "subtract_decoder_bias": kind != "AutoEncoderNew"
    }
    # Linear layers store the transpose.
    if DICTIONARIES[kind] != _PLAIN:
        arguments |= {
            name: arguments[name].T.contiguous() for name in ("w_enc", "w_dec")
        }
    if trainer.get("layer") is not None:
        arguments["site"] = f"blocks.{trainer['layer']}.hook_resid_post"
    if "projection" in str(trainer.get("submodule_name")):
        arguments["site"] = "embedding"
    if kind == "AutoEncoderTopK":
        k = stored["k"] if "k" in stored else trainer["k"]
        arguments |= {"activation": "topk", "k": int(k)}
    if "BatchTopK" in kind:
        (threshold,) = file.take("threshold")
        if float(threshold) < 0:
            raise file.refuse(
                f"an autoencoder of BatchTopK whose threshold was never set ({float(threshold):g})"
            )
        arguments |= _above(threshold, arguments["b_enc"])
    return SparseAutoencoder(**arguments)


def read_msae(file: SaeFile) -> SparseAutoencoder:
    """Read a file of MSAE (Zaigrajew et al. 2025), an autoencoder of embeddings.

    The features f of an embedding x are:

        f = cap tanh(act(h) / cap)  with  h = (z - pre_bias) encoder + latent_bias  and  z = (x - mean) scale

    If cap is 0, then f = act(h). The name of the file states cap, the activation function act, and further settings.
    """
    name = _MSAE_NAME.match(file.path.name)
    if name is None:
        raise file.refuse(
            "an autoencoder of MSAE, whose settings are its name, but this name is not one of "
            "<features>_<d>_<activation>_<k>_<tied>_<normalize>_<cap>: give it its own name back"
        )
    if name["norm"] == "True":
        raise file.refuse(
            "an autoencoder of MSAE that standardises its inputs, which is not supported"
        )
    scale = file.content.get("scaling_factor")
    mean = file.content.get("mean_center", 0.0)
    if scale is None and not file.is_shifted:
        raise file.refuse(
            "an autoencoder of MSAE without the scale of its inputs: give load_sae(..., mean=, scale=), or a newer file"
        )
    w_enc, b_enc, b_dec = file.take("encoder", "latent_bias", "pre_bias")
    w_dec = w_enc.T.contiguous() if name["tied"] == "True" else file.take("decoder")[0]
    arguments: SaeArguments = {
        "soft_cap": float(name["cap"]) or None,
        "site": "embedding",
    }
    activation = name["act"]
    topk = {"TopK": "signed-topk", "TopKReLU": "topk"}
    known = ("ReLU", *topk, "JumpReLU", "BatchTopKReLU")
    _check(file, "activation", activation, known)
    if activation in topk:
        arguments |= {"activation": topk[activation], "k": int(name["k"])}
    elif activation == "JumpReLU":
        (log_threshold,) = file.take("activation.log_threshold")
        arguments |= {"activation": "jumprelu", "threshold": log_threshold.exp()}
    elif activation == "BatchTopKReLU":
        log.warning(
            "%s has BatchTopK, which depends on the batch: as in MSAE's evaluation ReLU replaces it.",
            file.path,
        )
    # If the file has no scale, the caller gives mean and scale to `load_sae`, which applies them.
    factor = None if scale is None else float(scale)
    about = {"config": {"name": file.path.name, "scaling_factor": factor}}
    sae = SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, about=about, **arguments)
    if factor is None:
        return sae
    return of_shifted_inputs(sae, torch.as_tensor(mean).float(), 1 / factor)


LAYOUTS: dict[str, SaeReader] = {
    "SAELens": (lambda file: file.path.name == "sae_weights.safetensors", read_saelens),
    "ViT-Prisma": (
        lambda f: (
            "W_enc" in f.tensors
            and {"hook_point_layer", "expansion_factor"} <= f.config.keys()
        ),
        read_prisma,
    ),
    "saev": (lambda file: bool(file.first_line), read_saev),
    "clipscope": (
        lambda file: {"pre_b", "enc", "dec"} <= file.tensors.keys(),
        read_clipscope,
    ),
    "PatchSAE": (
        lambda file: (
            {"W_enc", "W_dec"} <= file.tensors.keys() and "block_layer" in file.config
        ),
        read_patch_sae,
    ),
    "dictionary_learning": (
        lambda file: isinstance(file.config.get("trainer"), dict),
        read_dictionary_learning,
    ),
    "MSAE": (
        lambda file: {"pre_bias", "latent_bias", "encoder"} <= file.tensors.keys(),
        read_msae,
    ),
}
"""Readers by the name of the layout. The first reader that recognises a file reads it."""


def _check(
    file: SaeFile, setting: str, value: object, known: Collection[object]
) -> None:
    """Raise `InputError` if the value of a setting is not among the ``known`` values.

    Args:
        file: The file, for the message.
        setting: Name of the setting, for the message.
        value: The value in the file.
        known: The values that can be read.
    """
    # Compared with a list, because a value of JSON may be unhashable.
    if value not in [*known]:
        raise file.refuse(
            f"an autoencoder with the {setting} {value!r}, which is not supported: {', '.join(map(repr, known))} can "
            "be read"
        )


def _of_names(file: SaeFile, *names: str) -> SaeArguments:
    """Return four weights of a file as arguments of `SparseAutoencoder`, with the file's config in ``about``.

    Args:
        file: The file.
        names: Names of the weights in the file: encoder, bias of the encoder, decoder, and bias of the decoder.
    """
    weights = zip(("w_enc", "b_enc", "w_dec", "b_dec"), file.take(*names), strict=True)
    return {**dict(weights), "about": {"config": file.config}}


def _plain_or_gated(
    file: SaeFile, is_gated: bool, gate: str = "b_gate"
) -> SaeArguments:
    """Return the weights of a file as arguments of `SparseAutoencoder`.

    Args:
        file: The file.
        is_gated: Whether the file holds a gated autoencoder, which becomes a JumpReLU autoencoder (`_gated`). If False,
            the weights have the names in `_PLAIN`.
        gate: Name of the bias of the gates in the file of a gated autoencoder.
    """
    if is_gated:
        return _gated(file, gate)
    return _of_names(file, *_PLAIN)


def _gated(file: SaeFile, gate: str) -> SaeArguments:
    """Return the arguments of a JumpReLU autoencoder that is equal to the gated autoencoder in a file.

    Args:
        file: The file.
        gate: Name of the bias of the gates in the file.
    """
    arguments = _of_names(file, "W_enc", "b_mag", "W_dec", "b_dec")
    r_mag, b_gate = file.take("r_mag", gate)
    threshold = gate_threshold(arguments["b_enc"], r_mag, b_gate)
    return arguments | {
        "w_enc": arguments["w_enc"] * r_mag.exp(),
        "activation": "jumprelu",
        "threshold": threshold,
    }


def _above(threshold: Tensor, b_enc: Tensor) -> SaeArguments:
    """Return the arguments that give an autoencoder the activation JumpReLU.

    Args:
        threshold: One threshold for all features, or a threshold for each feature. Negative thresholds become 0.
        b_enc: Bias of the encoder [features]. It is used only for the number of features.
    """
    return {
        "activation": "jumprelu",
        "threshold": threshold.clamp_min(0).expand(len(b_enc)).contiguous(),
    }


def _normalised(sae: Sae, how: object) -> Sae:
    """Return an autoencoder that normalises its inputs as in ViT-Prisma or SAELens.

    Args:
        sae: The autoencoder, which does not normalise its inputs yet.
        how: The value of the setting ``normalize_activations``; a key of `NORMALISATIONS`.
    """
    ours: Any = NORMALISATIONS[how]  # type: ignore[index]
    if ours != "length":
        return replace(sae, normalised=ours)
    # The libraries scale inputs to length sqrt(d), but this package scales them to length one. So the weights of the
    # encoder are multiplied by sqrt(d). All weights that are subtracted from an input or add to a reconstruction are
    # divided by sqrt(d).
    length = sae.d**0.5
    shorter = {"w_dec": sae.w_dec / length, "b_dec": sae.b_dec / length}
    if isinstance(sae, Transcoder) and sae.w_skip is not None:
        shorter["w_skip"] = sae.w_skip / length
    return replace(sae, normalised="length", w_enc=sae.w_enc * length, **shorter)

"""Layouts of sparse autoencoders of vision models: saev, clipscope, PatchSAE, dictionary_learning, MSAE, Overcomplete.

Each is a function that says whether a file has the layout, and one that reads it. Names of weights are theirs; W_enc is
[d, features] and W_dec [features, d] unless a transpose says otherwise.
"""

import logging
import re
from typing import Any

import torch
from torch import Tensor

from circuitry.bases.sae import SparseAutoencoder, gate_threshold, of_shifted_inputs
from circuitry.models.sae_files import SaeFile

log = logging.getLogger(__name__)


def is_saev(file: SaeFile) -> bool:
    """Say whether a file is saev's: a line of JSON, then a state dict."""
    return bool(file.first_line)


def read_saev(file: SaeFile) -> SparseAutoencoder:
    """Read a file of schema 1 to 5, or of none: f = act(x W_enc + b_enc), on the patches of a ViT alone.

    Without a schema b_dec was subtracted, and inputs were (x - mean) / scale, which the file does not say.
    """
    config, schema = file.config, file.config.get("schema")
    w_enc, b_enc, w_dec, b_dec = file.take("W_enc", "b_enc", "W_dec", "b_dec")
    if schema is None and not file.is_shifted:
        log.warning(
            "%s is a file of saev before its schemas: the mean and the scale of its inputs are not in it. Give them "
            "(load_sae(..., mean=, scale=)), or its latents are those of other activations.",
            file.path,
        )
    settings = config.get("cfg", config)
    nested = settings.get("activation") or {}
    kind = (
        nested.get("cls") or (config.get("cls") if config.get("cls") != "SparseAutoencoderConfig" else None) or "Relu"
    )
    more: dict[str, Any]
    if kind == "Relu":
        more = {"activation": "relu"}
    elif kind == "TopK":
        more = {"activation": "signed-topk", "k": (nested.get("params") or settings)["top_k"]}
    elif kind == "BatchTopK":
        if "activation.threshold" not in file.tensors:
            raise file.refuse("an autoencoder of BatchTopK without its threshold, which a batch alone cannot replace")
        more = _above(file.tensors["activation.threshold"], b_enc)
    else:
        raise file.refuse(f"an autoencoder with the activation {kind!r}: Relu, TopK and BatchTopK can be read")
    return SparseAutoencoder(
        w_enc, b_enc, w_dec, b_dec, subtract_decoder_bias=schema is None, tokens="patches",
        about={"config": config}, **more,
    )  # fmt: skip


def is_clipscope(file: SaeFile) -> bool:
    """Say whether a file is clipscope's."""
    return {"pre_b", "enc", "dec"} <= file.tensors.keys()


def read_clipscope(file: SaeFile) -> SparseAutoencoder:
    """Read f = the k largest of (x - pre_b) enc, as they are; the folder's name says the block."""
    w_enc, w_dec, b_dec = file.take("enc", "dec", "pre_b")
    found = re.search(r"(\d+)_resid", str(file.path))
    return SparseAutoencoder(
        w_enc, w_enc.new_zeros(w_enc.shape[1]), w_dec, b_dec, activation="signed-topk", k=int(file.content["k"]),
        site=f"blocks.{found[1]}.hook_resid_post" if found else None,
    )  # fmt: skip


def is_patch_sae(file: SaeFile) -> bool:
    """Say whether a file is PatchSAE's, or of Hugo Fry, whose code it extends."""
    return {"W_enc", "W_dec"} <= file.tensors.keys() and "block_layer" in file.config


def read_patch_sae(file: SaeFile) -> SparseAutoencoder:
    """Read f = relu((x - b_dec) W_enc + b_enc), or a gated one, whose gates have the bias b_enc.

    Numbers of blocks may count from the last one.
    """
    config = file.config
    w_enc, b_enc, w_dec, b_dec = file.take("W_enc", "b_enc", "W_dec", "b_dec")
    if config.get("module_name", "resid") != "resid":
        raise file.refuse(f"an autoencoder of {config['module_name']!r}: those of 'resid' can be read")
    more: dict[str, Any] = {"site": f"blocks.{config['block_layer']}.hook_resid_post", "about": {"config": config}}
    more["tokens"] = "class" if config.get("class_token") else "all"
    if config.get("gated_sae"):
        r_mag, b_mag = file.take("r_mag", "b_mag")
        more |= {"activation": "jumprelu", "threshold": gate_threshold(b_mag, r_mag, b_enc)}
        w_enc, b_enc = w_enc * r_mag.exp(), b_mag
    return SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, **more)


def is_dictionary_learning(file: SaeFile) -> bool:
    """Say whether a file is dictionary_learning's: ae.pt beside a config of its trainer."""
    return isinstance(file.config.get("trainer"), dict)


def read_dictionary_learning(file: SaeFile) -> SparseAutoencoder:
    """Read AutoEncoder, AutoEncoderNew, AutoEncoderTopK, BatchTopKSAE and MatryoshkaBatchTopKSAE."""
    trainer, stored = file.config["trainer"], file.tensors
    kind = str(trainer.get("dict_class")).replace("Matroyshka", "Matryoshka")  # as it was spelt
    layer, name = trainer.get("layer"), str(trainer.get("submodule_name"))
    site = None if layer is None else f"blocks.{layer}.hook_resid_post"
    more: dict[str, Any] = {"site": "embedding" if "projection" in name else site, "about": {"config": file.config}}
    if kind == "AutoEncoder" and "bias" in stored:
        w_enc, b_enc, w_dec, b_dec = file.take("encoder.weight", "encoder.bias", "decoder.weight", "bias")
    elif kind in ("AutoEncoder", "AutoEncoderNew"):
        w_enc, b_enc, w_dec, b_dec = file.take("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
        more["subtract_decoder_bias"] = False
    elif kind in ("AutoEncoderTopK", "BatchTopKSAE"):
        w_enc, b_enc, w_dec, b_dec = file.take("encoder.weight", "encoder.bias", "decoder.weight", "b_dec")
    elif kind == "MatryoshkaBatchTopKSAE":
        w_enc, b_enc, w_dec, b_dec = file.take("W_enc", "b_enc", "W_dec", "b_dec")
        w_enc, w_dec = w_enc.T, w_dec.T  # transposed again below
    else:
        known = "AutoEncoder, AutoEncoderNew, AutoEncoderTopK, BatchTopKSAE and MatryoshkaBatchTopKSAE"
        raise file.refuse(f"an autoencoder of the class {kind!r}: {known} can be read")
    if kind == "AutoEncoderTopK":
        more |= {"activation": "topk", "k": int(stored["k"]) if "k" in stored else int(trainer["k"])}
    if "BatchTopK" in kind:
        (threshold,) = file.take("threshold")
        if float(threshold) < 0:
            raise file.refuse(f"an autoencoder of BatchTopK whose threshold was never set ({float(threshold):g})")
        more |= _above(threshold, b_enc)
    return SparseAutoencoder(w_enc.T.contiguous(), b_enc, w_dec.T.contiguous(), b_dec, **more)


_MSAE_NAME = re.compile(
    r"(?P<features>\d+)_(?P<d>\d+)_(?P<act>[A-Za-z0-9]+)(_(?P<k>\d+))?(_[UR]W)?_(?P<tied>True|False)_"
    r"(?P<norm>True|False)_(?P<cap>\d+(\.\d+)?)"
)


def is_msae(file: SaeFile) -> bool:
    """Say whether a file is of MSAE (Zaigrajew et al. 2025), whose settings are its name."""
    return {"pre_bias", "latent_bias", "encoder"} <= file.tensors.keys()


def read_msae(file: SaeFile) -> SparseAutoencoder:
    """Read h = (z - pre_bias) encoder + latent_bias of z = (x - mean) s, then act, then cap tanh(f / cap)."""
    name = _MSAE_NAME.match(file.path.name)
    if name is None:
        raise file.refuse(
            "an autoencoder of MSAE, whose settings are its name, but this name is not one of "
            "<features>_<d>_<activation>_<k>_<tied>_<normalize>_<cap>: give it its own name back"
        )
    if name["norm"] == "True":
        raise file.refuse("an autoencoder of MSAE that standardises its inputs, which is not supported")
    scale, mean = file.content.get("scaling_factor"), file.content.get("mean_center", 0.0)
    if scale is None and not file.is_shifted:
        raise file.refuse(
            "an autoencoder of MSAE without the scale of its inputs: give load_sae(..., mean=, scale=), or a newer file"
        )
    w_enc, b_enc, b_dec = file.take("encoder", "latent_bias", "pre_bias")
    w_dec = w_enc.T.contiguous() if name["tied"] == "True" else file.take("decoder")[0]
    more: dict[str, Any] = {"soft_cap": float(name["cap"]) or None, "site": "embedding"}
    activation = name["act"]
    if activation in ("TopK", "TopKReLU"):
        more |= {"activation": "topk" if activation == "TopKReLU" else "signed-topk", "k": int(name["k"])}
    elif activation == "JumpReLU":
        more |= {"activation": "jumprelu", "threshold": file.take("activation.log_threshold")[0].exp()}
    elif activation == "BatchTopKReLU":
        log.warning(
            "%s has BatchTopK, which depends on the batch: as in MSAE's evaluation ReLU replaces it.", file.path
        )
    elif activation != "ReLU":
        raise file.refuse(f"an autoencoder of MSAE with the activation {activation!r}")
    about = {"config": {"name": file.path.name, "scaling_factor": None if scale is None else float(scale)}}
    sae = SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, about=about, **more)
    return sae if scale is None else of_shifted_inputs(sae, torch.as_tensor(mean).float(), 1 / float(scale))


def is_overcomplete(file: SaeFile) -> bool:
    """Say whether a file is a state dict of Overcomplete's."""
    return any(name.startswith(("encoder.final_block.", "dictionary.")) for name in file.tensors)


def read_overcomplete(file: SaeFile) -> SparseAutoencoder:
    """Refuse it."""
    raise file.refuse(
        "a state dict of Overcomplete's, which does not say its activation and lacks BatchTopK's running threshold, so "
        "that it cannot be run: save weights, activation and threshold by SparseAutoencoder(...).save"
    )


def _above(threshold: Tensor, b_enc: Tensor) -> dict[str, Any]:
    """Return the settings of features that are kept where they exceed one threshold for all, or one each."""
    return {"activation": "jumprelu", "threshold": threshold.clamp_min(0).expand(len(b_enc)).contiguous()}


LAYOUTS = (
    ("saev", is_saev, read_saev),
    ("clipscope", is_clipscope, read_clipscope),
    ("PatchSAE", is_patch_sae, read_patch_sae),
    ("dictionary_learning", is_dictionary_learning, read_dictionary_learning),
    ("MSAE", is_msae, read_msae),
    ("Overcomplete", is_overcomplete, read_overcomplete),
)
"""Name, what recognises a file, and what reads it."""

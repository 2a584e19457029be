"""ViT-Prisma's layout: config.json beside a state dict, or a file of both, of autoencoders and transcoders.

With N what the config's ``normalize_activations`` names:

    autoencoder   z = N(x) - b_dec;  f = act(z W_enc + b_enc);  out = N^-1(f W_dec + b_dec)
    gated         f = [z W_enc + b_gate > 0] act(z W_enc exp(r_mag) + b_mag); b_enc is stored and not used
    transcoder    out = N^-1(f W_dec + b_dec_out + x W_skip^T), with N's statistics those of the input

Layer norm divides by the unbiased standard deviation plus 1e-5, and its inverse multiplies by the former alone.
"""

from typing import Any

from circuitry.bases.sae import SparseAutoencoder, Transcoder, gate_threshold
from circuitry.models.sae_files import SaeFile
from circuitry.models.saelens_layout import of_constant_length

NORMALISATIONS = {"layer_norm": "layer-norm", "constant_norm_rescale": "length", "none": None, "None": None, None: None}
"""Ours by the names in a config."""
TRANSCODED = ("ln2.hook_normalized", "hook_mlp_in")
"""What transcoders of an MLP read."""


def is_prisma(file: SaeFile) -> bool:
    """Say whether a file has this layout."""
    return "W_enc" in file.tensors and {"hook_point_layer", "expansion_factor"} <= file.config.keys()


def read_prisma(file: SaeFile) -> SparseAutoencoder:
    """Read one; raise `InputError` for one that cannot be run here."""
    config = file.config
    if refused := _unsupported(config):
        raise file.refuse(f"{refused}, which is not supported: standard and gated ones with relu or topk can be read")
    w_enc, w_dec, b_enc, b_dec = file.take("W_enc", "W_dec", "b_enc", "b_dec")
    is_topk = config.get("activation_fn_str") == "topk"
    more: dict[str, Any] = {"activation": "topk" if is_topk else "relu", "about": {"config": config}}
    more["k"] = int((config.get("activation_fn_kwargs") or {}).get("k", 0)) if is_topk else None
    normalisation = NORMALISATIONS[config.get("normalize_activations")]
    more["normalised"] = normalisation
    if config.get("cls_token_only") or config.get("use_patches_only"):
        more["tokens"] = "class" if config.get("cls_token_only") else "patches"
    layer = config["hook_point_layer"]
    layer = layer[0] if isinstance(layer, list) else layer
    if config.get("architecture") == "gated":
        b_mag, r_mag, b_gate = file.take("b_mag", "r_mag", "b_gate")
        w_enc, b_enc = w_enc * r_mag.exp(), b_mag
        more |= {"activation": "jumprelu", "threshold": gate_threshold(b_mag, r_mag, b_gate)}
    sae: SparseAutoencoder
    if not config.get("is_transcoder"):
        site = f"blocks.{layer}.{config.get('layer_subtype', 'hook_resid_post')}"
        sae = SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, site=site, **more)
        return of_constant_length(sae) if normalisation == "length" else sae
    site = f"blocks.{config.get('out_hook_point_layer', layer)}.{config.get('layer_out_subtype', 'hook_mlp_out')}"
    (b_out,), w_skip = file.take("b_dec_out"), file.tensors.get("W_skip")
    b_enc = b_enc - b_dec @ w_enc  # of the input as it is normalised
    sae = Transcoder(w_enc, b_enc, w_dec, b_out, subtract_decoder_bias=False, site=site, w_skip=w_skip, **more)
    return of_constant_length(sae) if normalisation == "length" else sae


def _unsupported(config: dict[str, Any]) -> str:
    """Return in words what makes an autoencoder one that cannot be run here; empty where nothing does."""
    architecture, activation = config.get("architecture", "standard"), config.get("activation_fn_str", "relu")
    if architecture == "jumprelu":
        return "an autoencoder of architecture 'jumprelu', for which ViT-Prisma has a name and no class"
    if architecture not in ("standard", "gated"):
        return f"an autoencoder of architecture {architecture!r}"
    if activation not in ("relu", "topk") or (architecture == "gated" and activation != "relu"):
        return f"a {architecture} autoencoder with the activation {activation!r}"
    if config.get("normalize_activations") not in NORMALISATIONS:
        return f"an autoencoder whose inputs are normalised by {config['normalize_activations']!r}"
    if config.get("hook_point_head_index") is not None:
        return f"an autoencoder of one attention head ({config['hook_point_head_index']})"
    if config.get("is_transcoder") and config.get("layer_subtype") not in TRANSCODED:
        return f"a transcoder that reads {config.get('layer_subtype')!r} and not what an MLP reads"
    return ""

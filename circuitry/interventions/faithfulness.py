"""Faithfulness: does a circuit alone do what the model does? (method.md, section 6.)

For each batch of images, as many circuits at a time as memory allows:

1. every unit outside the circuit is replaced by its source, at all sites in one run, from the first site on: what
   a site gets has already gone through the ablated sites before it;
2. the embeddings of that run are kept; the metric is averaged over images before any division:

    faithfulness(C) = (m(C) - m(nothing kept)) / (m(M) - m(nothing kept))

The image itself (`input`) is scored by attribution but is no node of a circuit, so it is never ablated. The
embedding is a site like the others: pass ``sites`` to leave it alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.circuits.graph import AttributionGraph, keep_units
from circuitry.interventions.curves import RANKINGS, FaithfulnessCurve
from circuitry.interventions.patches import Patch, patched
from circuitry.models.baselines import ZERO, Baseline
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder, clean_activations
from circuitry.models.metrics import Metric, checked_metric
from circuitry.models.sites import INPUT
from circuitry.runs.errors import InputError

MIB_FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The circuit sizes of the MIB benchmark (arXiv 2504.13151)."""

KeptUnits = Mapping[str, Sequence[int] | np.ndarray]
"""The units of a circuit by site; a site that is not there is left alone."""


def kept_embeddings(
    encoder: Encoder,
    images: Images,
    circuits: Sequence[KeptUnits],
    *,
    source: Baseline | Tensor = ZERO,
    memory_gib: float = 1.0,
    progress: bool = False,
) -> Float[Tensor, "circuits images d"]:
    """Return the embeddings of the images with only each circuit's units kept.

    Args:
        encoder: The encoder under study.
        images: A tensor [B, 3, H, W] or an iterable of such batches.
        circuits: Units to keep by site; ``graph.kept_units`` without ``input`` is one.
        source: What stands in for the other units: a `Baseline`, or other images [B, 3, H, W], one for every image,
            whose activations they take.
        memory_gib: Budget for activations, in GiB.
        progress: Show a bar over runs.

    Raises:
        InputError: for no images, unknown sites or units, a circuit with units of `input`, or other images of
            another number or size.

    Example:
        >>> circuit = {site: units for site, units in graph.kept_units.items() if site != "input"}
        >>> logit = metric(kept_embeddings(encoder, photos, [circuit])[0]).mean()
    """
    if any(INPUT in circuit for circuit in circuits):
        raise InputError("The image itself is no node of a circuit and is never ablated: leave out 'input'.")
    for site in (site for circuit in circuits for site in circuit):
        encoder.position(site)
    sites = [site for site in encoder.sites if any(site in circuit for circuit in circuits)]
    start = sites[0] if sites else INPUT
    found: list[Tensor] = []
    done, rows = 0, rows_that_fit(encoder, memory_gib)
    bar = tqdm(desc="circuits", unit="run", disable=not progress)
    with encoder.frozen(), encoder.fast(), torch.no_grad(), bar:
        for batch in ImageBatches(images, encoder, rows) if circuits else ():
            clean = clean_activations(encoder, batch, [start, *sites])
            masks = {site: _masks(circuits, site, clean[site].shape[encoder.unit_dim(site)]) for site in sites}
            different, which = _different(masks, len(circuits))
            values = _values(encoder, source, done, batch, sites)
            done += len(batch)
            parts = []
            for chunk in torch.split(different, max(1, rows // len(batch))):
                patches = [_keep(encoder, site, masks[site][chunk].to(batch.device), values[site]) for site in sites]
                with patched(encoder, patches):
                    stack = repeat(clean[start], "image ... -> (circuit image) ...", circuit=len(chunk))
                    embeddings = encoder(stack, start=start)
                parts.append(rearrange(embeddings, "(circuit image) d -> circuit image d", circuit=len(chunk)))
                bar.update()
            found.append(torch.cat(parts)[which])
    if not done:
        raise InputError("Keeping a circuit needs at least one image and one circuit, but there were none.")
    if isinstance(source, Tensor) and len(source) != done:
        raise InputError(f"Other images go with the images one by one, but there are {len(source)} for {done}.")
    return torch.cat(found, 1)


def _masks(circuits: Sequence[KeptUnits], site: str, size: int) -> Tensor:
    """Which units each circuit leaves alone at a site, [circuits, units]: all of them where it lacks the site."""
    masks = torch.ones(len(circuits), size, dtype=torch.bool)
    for mask, circuit in zip(masks, circuits, strict=True):
        if site in circuit:
            mask[torch.from_numpy(_others(circuit[site], size))] = False
    return masks


def _different(masks: Mapping[str, Tensor], n: int) -> tuple[Tensor, Tensor]:
    """Return an index of every different circuit, and for each of n circuits which of those it is.

    Equal ones, such as the whole and the largest of a curve, are run once, and so are equal to the last bit.
    """
    seen: dict[bytes, int] = {}
    which = [
        seen.setdefault(b"".join(mask[i].numpy().tobytes() for mask in masks.values()), len(seen)) for i in range(n)
    ]
    return torch.tensor([which.index(k) for k in range(len(seen))]), torch.tensor(which)


def all_but(encoder: Encoder, circuit: KeptUnits, source: Baseline = ZERO) -> list[Patch]:
    """Return the patches that put everything outside a circuit at the baseline, at the circuit's sites.

    Example:
        >>> with patched(encoder, all_but(encoder, circuit)):
        ...     alone = encoder(images)
    """

    def patch(site: str) -> Patch:
        def write(activation: Tensor) -> Tensor:
            mask = _masks([circuit], site, activation.shape[encoder.unit_dim(site)])
            return _written(activation, mask.to(activation.device), source.at(site, activation), encoder.unit_dim(site))

        return Patch(site, write)

    return [patch(site) for site in circuit]


def _keep(encoder: Encoder, site: str, mask: Tensor, value: Baseline | Tensor) -> Patch:
    """Patch a stack of circuits by images: unit u of circuit c stays where mask[c, u], else it takes the value."""

    def write(stack: Tensor) -> Tensor:
        if isinstance(value, Baseline):
            other = value.at(site, stack)
        else:
            other = repeat(value, "image ... -> (circuit image) ...", circuit=len(mask))
        return _written(stack, mask, other, encoder.unit_dim(site))

    return Patch(site, write)


def _written(stack: Tensor, mask: Tensor, other: Tensor, unit_dim: int) -> Tensor:
    """Return the stack [circuits * images, ...] with ``other`` wherever mask [circuits, units] is false."""
    rows = repeat(mask, "circuit unit -> (circuit image) unit", image=len(stack) // len(mask))
    units = unit_dim % stack.dim()
    shape = [size if axis in (0, units) else 1 for axis, size in enumerate(stack.shape)]
    return torch.where(rows.view(shape), stack, other)


def _values(
    encoder: Encoder, source: Baseline | Tensor, done: int, batch: Tensor, sites: Sequence[str]
) -> Mapping[str, Baseline | Tensor]:
    """What stands in for the ablated units of one batch, by site."""
    if isinstance(source, Baseline):
        return dict.fromkeys(sites, source)
    other = source[done : done + len(batch)].to(batch)
    if other.shape != batch.shape:
        raise InputError(
            f"Other images go with the images one by one, but {list(source.shape)} were given for images up to "
            f"number {done + len(batch)} of shape {list(batch.shape[1:])}."
        )
    return clean_activations(encoder, other, sites)


def _others(kept: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    inside = {int(unit) for unit in kept}
    if outside := sorted(unit for unit in inside if not 0 <= unit < size):
        raise InputError(f"A circuit's units at this site lie in 0 to {size - 1}, but {outside[0]} is among them.")
    return np.array([unit for unit in range(size) if unit not in inside], dtype=np.int64)


def complement(circuit: KeptUnits, graph: AttributionGraph) -> dict[str, np.ndarray]:
    """Return the units that a circuit leaves out, at the circuit's sites."""
    return {site: _others(units, graph.n_units(site)) for site, units in circuit.items()}


def with_error(encoder: Encoder, circuit: KeptUnits) -> dict[str, np.ndarray]:
    """Return a circuit with the error units of its sites in a feature basis added, so that they are kept.

    Example:
        >>> latents = {"layer3.0": graph.kept_units["layer3.0"]}
        >>> circuits = [latents, with_error(features, latents)]
        >>> without, with_it = kept_embeddings(features, photos, circuits)
    """
    error = encoder.error_units
    return {site: np.array([*units, *error.get(site, ())], dtype=np.int64) for site, units in circuit.items()}


def circuit_of_size(graph: AttributionGraph, fraction: float, ranking: str = "absolute") -> dict[str, np.ndarray]:
    """Return the ceil(fraction * units) first units of every site but `input`.

    Args:
        graph: The attribution that ranks the units.
        fraction: Share to keep, in (0, 1].
        ranking: ``absolute``: by |score|; ``signed``: by benefit, those first whose removal lowers the metric most.

    Raises:
        InputError: for a fraction outside (0, 1], or another ranking.
    """
    if ranking not in RANKINGS:
        raise InputError(f"Units are ranked by 'absolute' or 'signed' score, but {ranking!r} was given.")
    scores = {site: graph.node_scores[site] for site in graph.sites if site != INPUT}
    if ranking == "signed":
        scores = {site: score.max() - score for site, score in scores.items()}  # no longer signed: by benefit
    return {site: keep_units(score, fraction) for site, score in scores.items()}


def faithfulness_curve(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    graph: AttributionGraph,
    *,
    others: Images | None = None,
    ranking: str = "absolute",
    source: Baseline | Tensor = ZERO,
    fractions: Sequence[float] = MIB_FRACTIONS,
    sites: Sequence[str] | None = None,
    keep_error: bool = False,
    random_draws: int = 5,
    seed: int = 0,
    memory_gib: float = 1.0,
    progress: bool = True,
) -> FaithfulnessCurve:
    """Measure the metric with circuits of growing size kept, with all but them, and with random units.

    Args:
        encoder: The encoder under study.
        images: Images to measure on; not those of the attribution, if the circuit is to be tested on unseen ones.
        metric: Embeddings [B, D] -> one number per image.
        graph: The attribution that ranks the units.
        others: Images of other classes: the circuit should not answer its class for them; see `FaithfulnessCurve`.
        ranking: See `circuit_of_size`; MIB takes ``signed`` for CPR and ``absolute`` for CMD.
        source: See `kept_embeddings`.
        fractions: Sizes of the circuits, ascending in (0, 1].
        sites: Sites to ablate at; all of the graph but `input` unless told.
        keep_error: Whether circuits, random ones too, keep the error units of sites in a feature basis; else they are
            ablated. Marks et al. 2024 (arXiv 2403.19647) report both.
        random_draws: Random circuits of every size, nested like the circuit itself.
        seed: Seed of the draws.
        memory_gib: Budget for activations, in GiB.
        progress: Show a bar over runs.

    Raises:
        InputError: for fractions that do not ascend in (0, 1], sites the graph lacks, others together with images
            as source, or what `kept_embeddings` raises.

    Example:
        >>> curve = faithfulness_curve(encoder, photos, metric, graph, ranking="signed")
        >>> curve.table()    # faithfulness and completeness with bands, and the random control
        >>> curve.table("selectivity")    # with others=: does the circuit tell the class from other classes?
        >>> curve.areas()    # CPR and CMD
    """
    if not fractions or list(fractions) != sorted(set(fractions)) or random_draws < 0:
        raise InputError(
            f"A curve needs ascending fractions and zero or more random draws, but {tuple(fractions)} and "
            f"{random_draws} were given."
        )
    if others is not None and not isinstance(source, Baseline):
        raise InputError("Images of other classes are compared under a baseline, but the source was images.")
    chosen = chosen_sites(graph, sites)
    rng = np.random.default_rng(seed)
    orders = [{site: rng.permutation(len(graph.node_scores[site])) for site in chosen} for _ in range(random_draws)]
    everything = {site: np.arange(graph.n_units(site)) for site in chosen}
    sized = [circuit_of_size(graph, fraction, ranking) for fraction in fractions]
    kept = [{site: circuit[site] for site in chosen} for circuit in sized]
    draws = [{site: order[site][: len(units)] for site, units in c.items()} for order in orders for c in kept]
    n_units = tuple(sum(len(units) for units in circuit.values()) for circuit in kept)
    if keep_error:
        kept, draws = ([with_error(encoder, circuit) for circuit in part] for part in (kept, draws))
    circuits = [everything, complement(everything, graph), *kept, *(complement(c, graph) for c in kept), *draws]
    sets = [images] if others is None else [images, others]
    found = [
        kept_embeddings(encoder, one, circuits, source=source, memory_gib=memory_gib, progress=progress) for one in sets
    ]
    values = np.stack([checked_metric(metric, e).double().cpu().numpy() for e in torch.cat(found, 1)])
    n = len(fractions)
    return FaithfulnessCurve(
        tuple(map(float, fractions)),
        ranking,
        n_units,
        values[0],
        values[1],
        values[2 : 2 + n],
        values[2 + n : 2 + 2 * n],
        values[2 + 2 * n :].reshape(random_draws, n, values.shape[1]),
        np.arange(values.shape[1]) < found[0].shape[1],
        np.zeros(values.shape[1], dtype=np.int64),
        graph.class_name,
        graph.domain,
        {
            "source": source.name if isinstance(source, Baseline) else "images",
            "seed": seed,
            "sites": chosen,
            "keep_error": keep_error,
        },
    )


def chosen_sites(graph: AttributionGraph, sites: Sequence[str] | None) -> list[str]:
    """Return the sites of a graph's circuit, all of them or those asked for, checked to be there."""
    inner = [site for site in graph.sites if site != INPUT]
    if sites is None:
        return inner
    if missing := [site for site in sites if site not in inner]:
        raise InputError(f"The graph has no circuit units at {', '.join(missing)}; its sites are {', '.join(inner)}.")
    return list(sites)

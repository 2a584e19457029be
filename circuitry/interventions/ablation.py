"""Ablated runs: the encoder with only a circuit's units active.

For each batch of images, as many circuits at a time as memory allows, every unit outside the circuit is put to the
baseline, at all sites in one run, from the first site on: what a site gets has already gone through the ablated sites
before it. The image itself is never ablated. The embedding is a site like the others.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.interventions.circuit_sets import KeptUnits, mark_kept
from circuitry.interventions.edge_runs import cut_embeddings
from circuitry.interventions.edge_wires import Stream
from circuitry.interventions.patches import Patch, patched
from circuitry.models.baselines import AnyBaseline, Baseline, Counterfactual, as_baseline, check_count
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder, clean_activations
from circuitry.models.residual import ResidualStream, in_stream
from circuitry.models.sites import INPUT
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work


def ablated_embeddings(
    encoder: Encoder,
    images: Images,
    circuits: Sequence[KeptUnits],
    *,
    baseline: AnyBaseline = "zero",
    work: Work = Work(),
) -> Float[Tensor, "circuits images d"]:
    """Return the embeddings of the images with only each circuit's units active.

    Args:
        encoder: The encoder under study.
        images: A tensor [B, 3, H, W] or an iterable of such batches.
        circuits: Units to keep by site; see `take_kept_units`. An encoder in heads and neurons also takes heads and
            whole MLPs, as a `stream_graph` names them.
        baseline: What stands in for the other units; see `circuitry.models.baselines`.
        work: Memory and progress.

    Raises:
        InputError: for no images, unknown sites or units, a circuit with units of `input`, or a baseline that does not
            fit the images.

    Example:
        >>> logit = metric(ablated_embeddings(encoder, photos, [take_kept_units(graph)])[0]).mean()
    """
    if in_stream(encoder) and not {site for circuit in circuits for site in circuit} <= set(encoder.sites):
        stream = Stream(ResidualStream.of(encoder))  # heads and whole MLPs: they write nothing but through their edges
        edges = [stream.between(circuit) for circuit in circuits]
        return cut_embeddings(encoder, images, edges, baseline=baseline, work=work)
    sites = _ablated_sites(encoder, circuits)
    start, dims = sites[0] if sites else INPUT, {site: encoder.unit_dim(site) for site in sites}
    ends = as_baseline(baseline)
    found: list[Tensor] = []
    done, rows = 0, rows_that_fit(encoder, work.memory_gib)
    bar = tqdm(desc="circuits", unit="run", disable=not work.progress)
    with encoder.frozen(), encoder.fast(), torch.no_grad(), bar:
        for batch in ImageBatches(images, encoder, rows) if circuits else ():
            clean = clean_activations(encoder, batch, [start, *sites])
            masks = {site: _masks(encoder, circuits, site, clean[site].shape[dims[site]]) for site in sites}
            different, which = _different(masks, len(circuits))
            values = ends.activations(encoder, {site: clean[site] for site in sites}, done)
            done += len(batch)
            parts = []
            for chunk in torch.split(different, max(1, rows // len(batch))):
                patches = [
                    Patch(site, partial(_written, masks[site][chunk].to(batch.device), values[site], dims[site]))
                    for site in sites
                ]
                with patched(encoder, patches):
                    stack = repeat(clean[start], "image ... -> (circuit image) ...", circuit=len(chunk))
                    embeddings = encoder(stack, start=start)
                parts.append(rearrange(embeddings, "(circuit image) d -> circuit image d", circuit=len(chunk)))
                bar.update()
            found.append(torch.cat(parts)[which])
    if not done:
        raise InputError("Keeping a circuit needs at least one image and one circuit, but there were none.")
    check_count(ends, done)
    return torch.cat(found, 1)


def ablate_all_but(encoder: Encoder, circuit: KeptUnits, baseline: AnyBaseline = "zero") -> list[Patch]:
    """Return the patches that put everything outside a circuit to the baseline, at the circuit's sites.

    Args:
        encoder: The encoder under study.
        circuit: Units to keep by site.
        baseline: One for all images, or one for every image of the runs within the block.

    Example:
        >>> with patched(encoder, ablate_all_but(encoder, circuit)):
        ...     alone = encoder(images)
    """
    ends = as_baseline(baseline)
    values = Baseline(ends.name, ends.run(encoder, circuit)) if isinstance(ends, Counterfactual) else ends

    def patch(site: str) -> Patch:
        def write(activation: Tensor) -> Tensor:
            mask = _masks(encoder, [circuit], site, activation.shape[encoder.unit_dim(site)]).to(activation.device)
            return _written(mask, values.at(site, activation), encoder.unit_dim(site), activation)

        return Patch(site, write)

    return [patch(site) for site in circuit]


def _ablated_sites(encoder: Encoder, circuits: Sequence[KeptUnits]) -> list[str]:
    """Return the sites of the circuits in the encoder's order, checked."""
    if any(INPUT in circuit for circuit in circuits):
        raise InputError("The image itself is no node of a circuit and is never ablated: leave out 'input'.")
    for site in (site for circuit in circuits for site in circuit):
        encoder.position(site)
    return [site for site in encoder.sites if any(site in circuit for circuit in circuits)]


def _masks(encoder: Encoder, circuits: Sequence[KeptUnits], site: str, size: int) -> Tensor:
    """Return what each circuit leaves alone, [circuits, size]: all where it lacks the site, and all that is carried."""
    masks = torch.ones(len(circuits), size, dtype=torch.bool)
    n_units = size - len(encoder.carried.get(site, ()))
    for mask, circuit in zip(masks, circuits, strict=True):
        if site in circuit:
            mask[:n_units] = torch.from_numpy(mark_kept(circuit[site], n_units, site))
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


def _written(mask: Tensor, value: Tensor, unit_dim: int, stack: Tensor) -> Tensor:
    """Return a stack [circuits * images, ...] with ``value`` [images, ...] where mask [circuits, units] is false."""
    by_circuit = rearrange(stack, "(circuit image) ... -> circuit image ...", circuit=len(mask))
    units = unit_dim % stack.dim() + 1
    shape = [size if axis in (0, units) else 1 for axis, size in enumerate(by_circuit.shape)]
    return torch.where(mask.view(shape), by_circuit, value).flatten(0, 1)

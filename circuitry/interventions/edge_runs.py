"""Runs with edges kept, cut or gated: every downstream unit reads its own mixture of activations and baselines.

Which way edges run depends on the encoder:

- in a chain an edge leads to the next site: stage by stage every downstream unit is what the stage makes of an input in
  which its cut upstream units are at the baseline, the others what this run made of them. Heads and neurons behind
  which a norm lies are such a chain, too: the stream that is carried past them is cut by no edge;
- in heads and neurons, or heads and whole MLPs, an edge leads to any later site, through the residual stream: every
  reader has a stream of its own (`circuitry.models.stream_run`).

With no edge cut this is the clean run; with all cut, what the last site makes of the baseline, and of what is carried
past it. A unit none of whose
outgoing edges is kept plays no part, and no unit has a part in what lies before it. (Path patching, Goldowsky-Dill et
al. 2023, arXiv 2304.05969; edges as in ACDC, Conmy et al. 2023, arXiv 2304.14997.)
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from tqdm import tqdm

from circuitry.interventions.edge_sets import EdgeSet, Pair
from circuitry.interventions.edge_wires import wires_of
from circuitry.interventions.gates import PreparedImages
from circuitry.models.baselines import AnyBaseline, as_baseline, check_count
from circuitry.models.batches import ImageBatches, Images
from circuitry.models.encoder import Encoder, clean_activations
from circuitry.models.gated_reading import lifted
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds, check_lists
from circuitry.runs.workers import Work

EDGES = "edges"
"""The one group of gates of `EdgeRuns`."""


def cut_embeddings(
    encoder: Encoder,
    images: Images,
    edge_sets: Sequence[EdgeSet],
    *,
    baseline: AnyBaseline = "zero",
    work: Work = Work(),
) -> Float[Tensor, "sets images d"]:
    """Return the embeddings of the images with only the edges of each set, all others cut.

    Args:
        encoder: The encoder under study; of graphs of heads and MLPs, that in heads and neurons.
        images: A tensor [B, 3, H, W] or an iterable of such batches.
        edge_sets: Kept edges, all between the same sites; see `take_edges`.
        baseline: What a cut edge carries; see `circuitry.models.baselines`.
        work: Memory and progress.

    Raises:
        InputError: for no images or sets, sets of other pairs of sites or other sizes, or a baseline that does not fit.

    Example:
        >>> alone = cut_embeddings(encoder, photos, [take_edges(graph.circuit(3))])[0]
    """
    check_lists(edge_sets=edge_sets)
    for edges in edge_sets:
        check_kinds(encoder=(encoder, Encoder), edges=(edges, Mapping))
    if len(kinds := {frozenset(edges) for edges in edge_sets}) != 1:
        raise InputError(
            f"Cutting edges needs at least one set of edges, all between the same sites, but {len(kinds)} kinds were "
            "given."
        )
    device = encoder.device
    gates = [{pair: torch.from_numpy(mask).to(device) for pair, mask in one.items()} for one in edge_sets]
    wires, ends = wires_of(encoder, edge_sets[0]), as_baseline(baseline)
    rows, found, done = wires.rows(work.memory_gib), list[Tensor](), 0
    with encoder.frozen(), torch.no_grad(), tqdm(desc="edge sets", unit="run", disable=not work.progress) as bar:
        for batch in ImageBatches(images, encoder, rows):
            clean = clean_activations(encoder, batch, wires.sites)
            values = ends.activations(encoder, clean, done)
            done += len(batch)
            parts = []
            for one in gates:
                parts.append(wires.run(clean[wires.sites[0]], values, one, rows))
                bar.update()
            found.append(torch.stack(parts))
    if not done:
        raise InputError("Cutting edges needs at least one image, but there were none.")
    check_count(ends, done)
    return torch.cat(found, 1)


class EdgeRuns(PreparedImages):
    """Some images, ready for runs under many gates on edges; what `learn_masks` takes.

    The gates are those of some edges, as one group, in the order in which `flat` puts them; edges between the same
    sites that have none are cut.

    Args:
        encoder: As for images, baseline and memory, see `PreparedImages`; see `cut_embeddings`.
        edges: Which edges have a gate.

    Example:
        >>> runs = EdgeRuns(encoder, images, edges_among(graph), "zero")
        >>> mask = learn_masks(runs, class_answers(weights, label), own, sizes=[0.05])[0]
        >>> runs.by_pair(mask.path[-1][EDGES])     # a set of edges, which cut_embeddings takes
    """

    sites = (EDGES,)

    def __init__(
        self, encoder: Encoder, images: Images, edges: EdgeSet, baseline: AnyBaseline = "zero", memory_gib: float = 1.0
    ) -> None:
        self._wires, self._edges = wires_of(encoder, edges), edges
        super().__init__(encoder, images, self._wires.sites, baseline, memory_gib)
        self.rows = self._wires.rows(memory_gib)
        self._places = [torch.from_numpy(mask).nonzero(as_tuple=True) for mask in edges.values()]
        self.n_units = {EDGES: sum(len(rows) for rows, _ in self._places)}

    def run(
        self, gates: Mapping[str, Float[Tensor, " edges"]], chosen: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "some d"]:
        """Return the embeddings of the images, or of those chosen, under gates on edges."""
        rows = torch.arange(len(self)) if chosen is None else chosen
        ends = {site: self.end(site, rows) for site in self.inner}
        parts = torch.split(lifted(gates[EDGES].to(self.encoder.device)), [len(rows) for rows, _ in self._places])
        placed = {
            pair: part.new_zeros(mask.shape).index_put(places, part)
            for (pair, mask), places, part in zip(self._edges.items(), self._places, parts, strict=True)
        }
        return self._wires.run(self.start(rows), ends, placed, self.rows)

    def flat(self, values: Mapping[Pair, Shaped[np.ndarray, "_ _"]]) -> Shaped[np.ndarray, " edges"]:
        """Return what each edge with a gate has of values [down, up]."""
        return np.concatenate([values[pair][mask] for pair, mask in self._edges.items()])

    def by_pair(self, values: Shaped[np.ndarray, " edges"], missing: float = 0) -> dict[Pair, np.ndarray]:
        """Return values of the edges with a gate as [down, up] by pair of sites, with ``missing`` for the others."""
        found, parts = {}, np.split(values, np.cumsum([len(rows) for rows, _ in self._places])[:-1])
        for (pair, mask), part in zip(self._edges.items(), parts, strict=True):
            found[pair] = np.full(mask.shape, missing, dtype=values.dtype)
            found[pair][mask] = part
        return found

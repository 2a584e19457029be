"""Explain the answer of a model to one picture: which units gave it, where they look, and what happens without them.

1. The texts that are given are the candidates. The answer is the likeliest text. The metric is the log-odds of the
   answer, against the runner-up, another text, or all other texts.
2. The baseline is an image of the mean colour, or an image that is given, such as the same picture without a word that
   was written into it.
3. Gradients score all units that count. The exact effects of the `CANDIDATES` with the largest scores are measured by
   activation patching, and the units with the largest exact effects are shown, with the edges between them.
4. Tests: the answer after removing these units, with these units alone, and with as many random units of the same
   sites; the same for the larger circuit of the `CIRCUIT_SHARE` with the largest scores.
5. Deletion and insertion curves (Petsiuk et al. 2018, arXiv 1806.07421): cells of the picture are replaced by the
   baseline in the order in which the maps of the units name them, beside captum's integrated gradients, the centre of
   the picture first, and random orders.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from open_clip import IMAGENET_CLASSNAMES
from PIL.Image import Image
from torch import Tensor

from circuitry.circuits.asked_alike import check_made_with
from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.edge_methods import with_edges
from circuitry.circuits.graph import Circuit, Scores
from circuitry.circuits.unit_scores import rank_units
from circuitry.data.domains import ImageRecord
from circuitry.encoder.baselines import Counterfactual
from circuitry.encoder.doubles import in_double
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.metrics import ClassLogOdds
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task
from circuitry.encoder.unit_maps import image_grid
from circuitry.gates.patching import measure_patches
from circuitry.interventions.explanation import (
    BY_CENTRE,
    BY_CHANCE,
    BY_GRADIENTS,
    BY_UNITS,
    DELETION,
    INSERTION,
    ONLY,
    ORDERS,
    RANDOM_UNITS,
    STRONGEST,
    WHOLE,
    WITHOUT,
    Explanation,
)
from circuitry.interventions.kept_circuits import kept_embeddings
from circuitry.interventions.pixels import logit_pixels
from circuitry.models.classifier import Classifier
from circuitry.models.clip import Clip
from circuitry.models.image_pass import read_images
from circuitry.runs.arguments import Count, Names, checked
from circuitry.runs.errors import InputError, unknown_name
from circuitry.runs.identity import OF_TOWER
from circuitry.runs.workers import Work

RUNNER_UP = "runner-up"
ALL = "all"
CANDIDATES = 32
"""Number of units whose exact effects are measured."""
CIRCUIT_SHARE = 0.02
"""Share of the units in the larger circuit of the tests."""
N_DRAWS = 5
"""Number of random draws that each set of units, and each order of cells, is read against."""
MAP_SIDE = 14
"""Largest side of the map of a unit."""
PATTERN = "hook_pattern"
"""End of the name of the hook point that holds the attention of heads."""
CELLS = 8
"""Largest number of rows of cells that curves divide a picture into."""
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)
"""Shares of the cells that curves replace. At 0 and 1 the picture and the baseline are known already."""
PATH_POINTS = 12
"""Number of points of integrated gradients. Cells need no more, because they are means over many pixels."""

Picture = str | PathLike[str] | Image | Tensor
"""A picture: the path of a file, a PIL image, or a preprocessed tensor [3, H, W]."""


@checked
def explain(
    clip: Clip,
    image: Picture,
    texts: Names | None = None,
    *,
    text: str | None = None,
    against: str = ALL,
    n_units: Count = 10,
    baseline: Picture | None = None,
    parts: Mapping[str, Circuit] = {},
) -> Explanation:
    """Return why a model gives its answer to one picture.

    Args:
        clip: The model. Its units are those of ``clip.encoder``: take ``clip.in_components()`` for hidden channels, or
            for heads and neurons.
        image: The picture.
        texts: Two or more texts, as the model reads them: ``["a photo of a cat", "a photo of a dog"]``. For a
            classifier, names of its classes (default: all of them, or the classes of ImageNet if it has 1000 outputs).
        text: The text that is explained (default: the answer, which is the likeliest).
        against: What the text is compared with: ``all`` other texts together, the ``runner-up``, or one of the texts.
        n_units: Number of units that are shown.
        baseline: The picture that replaces this one in removed units and cells (default: the mean colour).
        parts: Own parts of classes by a name, such as "dog in sketch". The table of units says which units are in them.

    Raises:
        InputError: for fewer than two texts, if two texts share the largest probability, if the picture cannot be
            read, if ``text`` or ``against`` is none of the texts, or if a part is of another model.

    Example:
        >>> why = circuitry.explain(clip, images[0], ["a cup", "a clock"], n_units=3)
        >>> len(why.units)
        3
        >>> why.areas.shape
        (4, 2)
    """
    clip, texts = _with_texts(clip, texts)
    encoder = clip.encoder
    pixels = _read(clip, image)
    end = encoder.blank() if baseline is None else _read(clip, baseline)
    name = Path(image).name if isinstance(image, str | PathLike) else "picture"
    weights = clip.text_weights(texts, templates=["{}"], progress=False)
    with encoder.running():
        embeddings = encoder(torch.cat([pixels, end]))
    cosines = in_double(F.normalize(embeddings, dim=-1)) @ in_double(weights.T)
    logits = clip.scale * cosines
    shares = logits[0].softmax(-1)
    order = shares.argsort(descending=True, stable=True).tolist()
    if shares[order[0]] == shares[order[1]]:
        raise InputError(
            f"An answer is above all others, but {texts[order[0]]!r} and {texts[order[1]]!r} have the same probability "
            f"in {name}: give texts that the model tells apart."
        )
    row = order[0] if text is None else _row_of(texts, text, texts)
    rest = [other for other in order if other != row]
    rivals = {RUNNER_UP: rest[:1], ALL: rest}.get(against)
    if rivals is None:
        known = [ALL, RUNNER_UP, *(texts[other] for other in rest)]
        rivals = [_row_of(texts, against, known)]
    metric = ClassLogOdds(weights[[row, *rivals]], 0, scale=clip.scale)
    task = Task(
        encoder,
        pixels,
        metric,
        baseline=Counterfactual(end),
        sites=counted_sites(encoder, progress=False),
        work=Work(progress=False),
    )
    check_made_with(task, [part.source for part in parts.values()], OF_TOWER)
    scores = rank_units(task, "gradient")
    circuit, effects = _strongest(task, scores, n_units)
    maps = _maps(task, circuit)
    answers = Answers(task, weights, texts)
    with encoder.running():
        whole, at_end = answers.metric(embeddings).tolist()
    cells = _cells(task, maps, effects)
    return Explanation(
        name,
        clip.shown(pixels)[0],
        {texts[other]: float(shares[other]) for other in order},
        texts[row],
        ALL if len(rivals) > 1 else texts[rivals[0]],
        whole,
        at_end,
        circuit,
        _units_table(encoder, scores, effects, parts),
        maps,
        cells,
        answers.of_circuits(circuit, scores),
        _curves(task, cells, whole, at_end),
    )


def _with_texts(clip: Clip, texts: Sequence[str] | None) -> tuple[Clip, list[str]]:
    """Return the model and the texts that it answers among."""
    n_imagenet = len(IMAGENET_CLASSNAMES)
    if isinstance(clip, Classifier):
        if not clip.classes and len(clip.rows) == n_imagenet:
            # Two pairs of classes of ImageNet have one name, which would be one class.
            outputs: dict[str, list[int]] = {}
            for output, name in enumerate(IMAGENET_CLASSNAMES):
                known = name in outputs
                outputs[f"{name} ({output})" if known else name] = [output]
            clip = clip.with_classes(outputs)
        if texts is None:
            texts = list(clip.classes)
    given = list(dict.fromkeys(texts or ()))
    written = [text for text in given if text.strip()]
    if len(written) < max(2, len(given)):
        raise InputError(
            f"A model answers a picture among at least two texts that are not empty, but {given} was given: give "
            "texts, such as 'a photo of a cat' 'a photo of a dog'."
        )
    return clip, given


def _read(clip: Clip, image: Picture) -> Tensor:
    """Return a picture as the model takes it [1, 3, H, W]."""
    encoder = clip.encoder
    if isinstance(image, Image):
        return clip.preprocess(image.convert("RGB"))[None].to(encoder.blank())
    if isinstance(image, Tensor):
        size = (3, *encoder.image_size)
        if tuple(image.shape) not in (size, (1, *size)):
            raise InputError(
                f"This model takes a picture {list(size)}, but a tensor {list(image.shape)} was given: give a path, a "
                "PIL image, or one preprocessed picture."
            )
        return image.reshape(1, *size).to(encoder.blank())
    path = Path(image)
    record = ImageRecord(path, path.name, "", "")
    return read_images(clip, [record], strict=True)[1]


def _row_of(texts: Sequence[str], text: str, known: Sequence[str]) -> int:
    """Return the row of a text, which has to be among the known texts."""
    if text not in known:
        raise unknown_name("text", text, known)
    return texts.index(text)


def _strongest(
    task: Task, scores: Scores, n_units: int
) -> tuple[Circuit, dict[tuple[str, int], float]]:
    """Return the circuit of the units with the largest exact effects, and these effects, the largest first.

    Units that only lower the log-odds are not shown.
    """
    n_all = sum(len(of_site) for of_site in scores.node_scores.values())
    share = min(1.0, max(CANDIDATES, n_units) / n_all)
    candidates = scores.strongest(share, "signed", GLOBAL)
    some = {site: units for site, units in candidates.units.items() if len(units)}
    exact = measure_patches(task, units=some)
    table = exact.to_pandas().nlargest(n_units, "value")
    rows = zip(table["site"], table["index"], table["value"], strict=True)
    effects = {(str(site), int(unit)): float(value) for site, unit, value in rows}
    units: dict[str, np.ndarray] = {}
    for site in candidates.units:
        units[site] = np.array([u for s, u in effects if s == site], np.int64)
    # Edges carry the exact effects of their units.
    return with_edges(task, Circuit(scores, units)), effects


def _maps(task: Task, circuit: Circuit) -> dict[tuple[str, int], np.ndarray]:
    """Return where each unit of a circuit raises the log-odds, by (site, unit); see `Explanation.maps`."""
    encoder = task.encoder
    sites = [site for site, units in circuit.units.items() if len(units)]
    maps: dict[tuple[str, int], np.ndarray] = {}
    for site, of_site in _local_effects(task, circuit, sites).items():
        units = torch.from_numpy(circuit.units[site]).to(encoder.device)
        if encoder.kinds[site].is_vector and encoder.chain.grid is not None:
            grid = _attended(task, site)[units]
        else:
            on_grid = image_grid(encoder, site, of_site)
            if on_grid is None:
                continue
            grid = on_grid[0]
        height, width = grid.shape[1:]
        size = (min(MAP_SIDE, height), min(MAP_SIDE, width))
        pooled = F.adaptive_avg_pool2d(in_double(grid), size).clamp_min(0)
        for unit, values in zip(circuit.units[site], pooled, strict=True):
            # A unit of the class token alone has no place in the picture.
            if values.any():
                maps[site, int(unit)] = values.cpu().numpy()
    return maps


def _local_effects(
    task: Task, circuit: Circuit, sites: Sequence[str]
) -> dict[str, Float[Tensor, "1 units positions"]]:
    """Return the effect of each unit at each position to first order: gradient times (activation - baseline)."""
    encoder = task.encoder
    local: dict[str, Tensor] = {}
    with task.running(gradients=True):
        (batch,) = task.batches()
        clean = batch.clean(sites)
        ends = batch.ends(clean)
        for site in sites:
            activation = clean[site].detach().requires_grad_()
            log_odds = task.metric(encoder(activation, start=site)).sum()
            (gradient,) = torch.autograd.grad(log_odds, activation)
            effects = (gradient * (clean[site] - ends[site])).detach()
            units = torch.from_numpy(circuit.units[site]).to(encoder.device)
            chosen = effects.movedim(encoder.unit_dim(site), 1).index_select(1, units)
            if encoder.kinds[site].is_vector:
                chosen = chosen.sum(-1)
            local[site] = chosen.reshape(*chosen.shape[:2], -1)
    return local


def _attended(task: Task, site: str) -> Float[Tensor, "heads height width"]:
    """Return the attention of each head to the patches, from the class token if there is one, else from all tokens."""
    encoder = task.encoder
    grid = encoder.chain.grid
    assert grid is not None
    with encoder.running():
        (batch,) = task.batches()
        _, cache = encoder.run_with_cache(batch.images)
    points = list(cache)
    before = points[: points.index(site)]
    pattern = next(point for point in reversed(before) if point.endswith(PATTERN))
    n_first = len(grid.first)
    queries = cache[pattern][0][:, : 1 if n_first else None]
    to_patches = queries.mean(1)[:, n_first:]
    return to_patches.reshape(-1, grid.height, grid.width)


def _units_table(
    encoder: Encoder,
    scores: Scores,
    effects: Mapping[tuple[str, int], float],
    parts: Mapping[str, Circuit],
) -> pd.DataFrame:
    rows = []
    for (site, unit), effect in effects.items():
        own = [name for name, part in parts.items() if unit in part.units.get(site, ())]
        score = float(scores.node_scores[site][unit])
        rows.append(
            {
                "site": site,
                "unit": unit,
                "kind": encoder.kinds[site].name,
                "effect": effect,
                "score": score,
                "own part of": ", ".join(own),
            }
        )
    return pd.DataFrame(rows)


class Answers:
    """Answers of the model to the picture while some units are at the baseline."""

    def __init__(self, task: Task, weights: Tensor, texts: Sequence[str]) -> None:
        self.task = task
        self.weights = weights
        self.texts = texts

    def metric(self, embeddings: Float[Tensor, "runs d"]) -> Float[Tensor, " runs"]:
        """Return the log-odds of the answer in each run."""
        return self.task.metric(embeddings)

    def of_circuits(self, strongest: Circuit, scores: Scores) -> pd.DataFrame:
        """Return the log-odds and answers with a circuit removed, and with the circuit alone.

        Args:
            strongest: The units that are shown.
            scores: Scores of all units, from which a larger circuit is made.
        """
        larger = scores.strongest(CIRCUIT_SHARE, "signed", GLOBAL)
        chosen = {STRONGEST: strongest, f"{CIRCUIT_SHARE:.0%} of the units": larger}
        everything = strongest.nothing().complement()
        runs: list[tuple[str, str, int, list[Circuit]]] = []
        runs.append((WHOLE, "", 0, [everything]))
        for words, circuit in chosen.items():
            random = [circuit.random(seed) for seed in range(N_DRAWS)]
            like = RANDOM_UNITS if circuit is strongest else f"{RANDOM_UNITS}, {words}"
            for name, circuits in ((words, [circuit]), (like, random)):
                without = [drawn.complement() for drawn in circuits]
                runs.append((WITHOUT, name, circuit.count, without))
                runs.append((ONLY, name, circuit.count, circuits))
        kept = [circuit for *_, circuits in runs for circuit in circuits]
        embeddings = kept_embeddings(self.task, kept)[:, 0]
        log_odds = self.metric(embeddings).tolist()
        given = (F.normalize(embeddings, dim=-1) @ self.weights.T).argmax(-1).tolist()
        rows = []
        start = 0
        for run, name, count, circuits in runs:
            of_run = slice(start, start + len(circuits))
            start = of_run.stop
            same = [answer == given[0] for answer in given[of_run]]
            said = sorted({self.texts[answer] for answer in given[of_run]})
            rows.append(
                {
                    "run": run,
                    "units": name,
                    "n_units": count,
                    "log_odds": float(np.mean(log_odds[of_run])),
                    "keeps_answer": float(np.mean(same)),
                    "answers": ", ".join(said),
                }
            )
        return pd.DataFrame(rows)


def _cells(
    task: Task,
    maps: Mapping[tuple[str, int], np.ndarray],
    effects: Mapping[tuple[str, int], float],
) -> dict[str, np.ndarray]:
    """Return what each cell of the picture matters, by the maps of the units and by integrated gradients."""
    size = _grid_of_cells(task.encoder)

    def on_cells(values: np.ndarray) -> np.ndarray:
        pooled = F.adaptive_avg_pool2d(in_double(torch.from_numpy(values)[None]), size)
        return pooled[0].numpy()

    by_units = np.zeros(size)
    for unit, values in maps.items():
        # Each unit hands out its exact effect over its map.
        by_units += effects[unit] * on_cells(values / values.sum())
    (gradients,) = logit_pixels(task, n_points=PATH_POINTS).cpu().numpy()
    return {BY_UNITS: by_units, BY_GRADIENTS: on_cells(gradients)}


def _grid_of_cells(encoder: Encoder) -> tuple[int, int]:
    """Return the numbers of rows and columns of cells: whole patches of a transformer where these divide evenly."""
    grid = encoder.chain.grid
    if grid is None:
        return CELLS, CELLS
    sides = []
    for n in (grid.height, grid.width):
        most = max(k for k in range(1, CELLS + 1) if n % k == 0)
        # A prime number of patches would leave a single cell.
        sides.append(most if most > CELLS // 2 else min(n, CELLS))
    return sides[0], sides[1]


def _curves(
    task: Task, cells: Mapping[str, np.ndarray], whole: float, at_end: float
) -> pd.DataFrame:
    """Return the log-odds after replacing some cells of the picture, in each of the `ORDERS`.

    Args:
        task: The picture, the metric and the baseline.
        cells: What orders the cells.
        whole: The log-odds of the picture.
        at_end: The log-odds of the baseline.
    """
    encoder = task.encoder
    (batch,) = task.batches()
    picture = batch.images
    assert isinstance(task.baseline, Counterfactual)
    end = task.baseline.images.to(picture)
    height, width = cells[BY_UNITS].shape
    n_cells = height * width
    rows, columns = np.indices((height, width))
    off_centre = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2)
    ranked = {
        BY_UNITS: [cells[BY_UNITS]],
        BY_GRADIENTS: [cells[BY_GRADIENTS]],
        BY_CENTRE: [-off_centre],
        BY_CHANCE: [
            np.random.default_rng(s).random((height, width)) for s in range(N_DRAWS)
        ],
    }
    masks: list[Bool[Tensor, "rows columns"]] = []
    points: list[tuple[str, str, float]] = []
    for order in ORDERS:
        for values in ranked[order]:
            rank = np.argsort(np.argsort(-values, axis=None, kind="stable"))
            for share in SHARES:
                first = torch.from_numpy(rank < round(share * n_cells))
                first = first.reshape(height, width)
                masks += [first, ~first]
                points += [(order, DELETION, share), (order, INSERTION, share)]
    replaced = torch.stack(masks).to(picture)[:, None]
    on_pixels = F.interpolate(replaced, encoder.image_size, mode="nearest-exact")
    changed = torch.where(on_pixels.bool(), end, picture)
    values = Task(encoder, changed, task.metric, work=task.work)
    with values.running():
        log_odds = [task.metric(encoder(b.images)) for b in values.batches()]
    table = pd.DataFrame(points, columns=["order", "change", "share"])
    table["log_odds"] = torch.cat(log_odds).cpu().numpy()
    ends = []
    for order in ORDERS:
        ends += [(order, DELETION, 0.0, whole), (order, DELETION, 1.0, at_end)]
        ends += [(order, INSERTION, 0.0, at_end), (order, INSERTION, 1.0, whole)]
    table = pd.concat([table, pd.DataFrame(ends, columns=table.columns)])
    # Random orders are a mean over their draws.
    keys = ["order", "change", "share"]
    return table.groupby(keys, as_index=False).mean()

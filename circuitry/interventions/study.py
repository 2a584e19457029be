"""The causal checks of a whole folder of circuits, each kept in a file as soon as it is done.

1. `study_faithfulness`: one curve per (class, domain) and ranking; `study_transfer`: one table per class;
2. `pixels_of_a_circuit`: what the pixels of a few images add.

A second run with the same settings reads what is there and goes on; other settings on the same folder are refused.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from circuitry.circuits.graph import AttributionGraph
from circuitry.interventions.curves import RANKINGS, FaithfulnessCurve
from circuitry.interventions.faithfulness import MIB_FRACTIONS, chosen_sites, faithfulness_curve, with_error
from circuitry.interventions.pixels import logit_pixels, unit_pixels
from circuitry.interventions.subject import METRICS, Subject
from circuitry.interventions.transfer import interchange, transfer_circuits
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import claim


def study_faithfulness(
    subject: Subject,
    out: str | Path,
    *,
    rankings: Sequence[str] = RANKINGS,
    fractions: Sequence[float] = MIB_FRACTIONS,
    random_draws: int = 5,
    one_site: bool = False,
    seed: int = 0,
    memory_gib: float = 1.0,
    progress: bool = True,
) -> list[FaithfulnessCurve]:
    """Measure the faithfulness curve of every (class, domain) by every ranking.

    Args:
        subject: What is studied.
        out: Folder where the curves are kept.
        rankings, fractions, random_draws, seed, memory_gib: See `faithfulness_curve`.
        one_site: Ablate at one site at a time, a curve for each, instead of at all sites together.
        progress: Show a bar over curves.

    Raises:
        InputError: for a folder made with other settings, and what `faithfulness_curve` and `Subject.batch` raise.
    """
    folder = Path(out)
    settings = {"fractions": list(fractions), "random_draws": random_draws, "seed": seed, "one_site": one_site}
    claim(folder, "circuitry faithfulness 1", subject.config() | settings)
    curves = []
    for key in tqdm(subject.keys, desc="faithfulness", unit="circuit", disable=not progress):
        graph = subject.graphs[key]
        jobs = {
            folder / key[0] / f"{key[1]}.{ranking}.{_name(sites)}.safetensors": (ranking, sites)
            for ranking in rankings
            for sites in _site_sets(graph, one_site)
        }
        if not all(path.is_file() for path in jobs):
            images, others = subject.batch(*key), subject.others(*key)
        for path, (ranking, sites) in jobs.items():
            if not path.is_file():
                curve = faithfulness_curve(
                    subject.clip.encoder,
                    images,
                    subject.of_class(key[0]),
                    graph,
                    others=others,
                    ranking=ranking,
                    source=subject.baseline,
                    fractions=fractions,
                    sites=sites,
                    keep_error=subject.keep_error,
                    random_draws=random_draws,
                    seed=seed,
                    memory_gib=memory_gib,
                    progress=False,
                )
                curve.save(path)
            curves.append(FaithfulnessCurve.load(path))
    return curves


def study_transfer(
    subject: Subject,
    out: str | Path,
    *,
    one_site: bool = False,
    exchange: bool = True,
    seed: int = 0,
    memory_gib: float = 1.0,
    progress: bool = True,
) -> dict[str, pd.DataFrame]:
    """Keep and interchange circuits between all domains, class by class.

    Args:
        subject: What is studied.
        out: Folder where the tables are kept.
        one_site: Keep circuits at one site at a time, too, with everything else as it is.
        exchange: Whether activations are interchanged, too.
        seed: See `interchange`.
        memory_gib: Budget for activations, in GiB.
        progress: Show a bar over classes.

    Returns:
        ``transfer``: table of `transfer_circuits` with the column ``sites``: ``all`` or the one site; with
        ``exchange`` also ``interchange``: table of `interchange`.

    Raises:
        InputError: for a folder made with other settings, and what those functions raise.
    """
    folder, keys = Path(out), subject.keys
    claim(folder, "circuitry transfer 1", subject.config() | {"seed": seed})
    labels = {name: i for i, name in enumerate(subject.images.all_classes)}
    settings: dict[str, Any] = {"metric": METRICS[subject.metric], "memory_gib": memory_gib, "progress": False}
    made: dict[str, list[pd.DataFrame]] = {kind: [] for kind in ("transfer", "interchange")[: 1 + exchange]}
    classes = list(dict.fromkeys(name for name, _ in keys))
    for class_name in tqdm(classes, desc="transfer", unit="class", disable=not progress):
        mine = [key for key in keys if key[0] == class_name]
        graphs = {key: subject.graphs[key] for key in mine}
        common = (subject.clip.encoder, {key: subject.batch(*key) for key in mine}, graphs, subject.weights, labels)
        others = {key: found for key in mine if (found := subject.others(*key)) is not None}
        for sites in [None, *(_site_sets(graphs[mine[0]], True) if one_site else [])]:
            transfer = partial(
                transfer_circuits,
                *common,
                others=others or None,
                source=subject.baseline,
                keep_error=subject.keep_error,
                sites=sites,
                **settings,
            )
            table = _kept(folder / "transfer" / class_name / f"{_name(sites)}.csv", transfer)
            made["transfer"].append(table.assign(sites=_name(sites)))
        if exchange:
            made["interchange"].append(
                _kept(
                    folder / "interchange" / f"{class_name}.csv", partial(interchange, *common, seed=seed, **settings)
                )
            )
    return {kind: pd.concat(tables, ignore_index=True) for kind, tables in made.items()}


def pixels_of_a_circuit(
    subject: Subject, class_name: str, domain: str, *, n_images: int = 3, memory_gib: float = 1.0
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return a few images and what each pixel adds to the class's metric, through the model and through its circuit.

    Returns:
        The images as bytes [B, H, W, 3], and maps [B, H, W] by title: the whole model; the circuit kept at its last
        site before the embedding, everything before as it is; the circuit alone at all sites; and that site's first
        unit.
    """
    encoder, graph, metric = subject.clip.encoder, subject.graphs[class_name, domain], subject.of_class(class_name)
    images = subject.batch(class_name, domain)[:n_images]
    everywhere = {site: graph.kept_units[site] for site in chosen_sites(graph, None)}
    last = list(everywhere)[-2:][0]
    unit = int(everywhere[last][0])
    if subject.keep_error:
        everywhere = with_error(encoder, everywhere)
    through = {
        "whole model": None,
        f"circuit at {last}": {last: everywhere[last]},
        "circuit at all sites": everywhere,
    }
    maps = {
        title: logit_pixels(encoder, images, metric, circuit, source=subject.baseline, memory_gib=memory_gib)
        for title, circuit in through.items()
    }
    maps[f"unit {last}/{unit}"] = unit_pixels(encoder, images, last, unit, memory_gib=memory_gib)
    return subject.clip.shown(images), {title: found.cpu().numpy() for title, found in maps.items()}


def _kept(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return the table that lies at a path, after making it where there is none."""
    if not path.is_file():
        with whole_file(path) as temporary:
            make().to_csv(temporary, index=False)
    # Only faithfulness can be missing; a class may be called NA.
    return pd.read_csv(path, keep_default_na=False, na_values={"faithfulness": [""]})


def _site_sets(graph: AttributionGraph, one_site: bool) -> list[list[str] | None]:
    return [[site] for site in chosen_sites(graph, None)] if one_site else [None]


def _name(sites: Sequence[str] | None) -> str:
    return "all" if sites is None else ",".join(sites)

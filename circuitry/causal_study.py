"""The causal checks of a whole folder of circuits, each kept in a file as soon as it is done.

1. `Subject`: the model, its circuits, and for every (class, domain) images that the circuit was not found on;
2. `study_faithfulness`: one curve per (class, domain) and ranking; `study_transfer`: one table per class.

A second run with the same settings reads what is there and goes on; other settings on the same folder are refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from circuitry.baselines import ZERO, Baseline
from circuitry.causal_results import RANKINGS, FaithfulnessCurve
from circuitry.circuit import AttributionGraph
from circuitry.clip import Clip
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.images import load_batches
from circuitry.errors import InputError
from circuitry.extraction import GraphFolder
from circuitry.faithfulness import MIB_FRACTIONS, chosen_sites, faithfulness_curve
from circuitry.files import whole_file
from circuitry.manifest import claim
from circuitry.metrics import Metric, MetricOfClass, class_logit, class_margin
from circuitry.provenance import digest, weights_digest
from circuitry.transfer import interchange, transfer_circuits

METRICS: Mapping[str, MetricOfClass] = {"logit": class_logit, "margin": class_margin}
"""What is asked of a circuit: the study's cosine logit, or its lead over the mean logit of the other classes."""

Key = tuple[str, str]
"""(class, domain)."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What causal checks are made on: a model, its circuits, and images that they were not found on.

    Example:
        >>> subject = Subject(clip, DomainFolder("DomainNet"), GraphFolder("runs/x/circuits"), n_images=10)
        >>> curves = study_faithfulness(subject, "runs/x/faithfulness")
    """

    clip: Clip
    images: DomainFolder
    graphs: GraphFolder
    n_images: int = 6
    """Images per class and domain; fewer where there are fewer."""
    n_others: int = 12
    """Images of other classes in the domain, one each of the classes that follow in their order; 0 for none."""
    metric: str = "logit"
    """One of `METRICS`."""
    baseline: Baseline = ZERO
    """What stands for units outside a circuit."""
    seen: bool = False
    """Test on the images that the circuits were found on, where no others are left."""

    def __post_init__(self) -> None:
        made_with = self.graphs.manifest["config"]["model_digest"]
        if made_with != self.clip.digest:
            raise InputError(
                f"The circuits in {self.graphs.path} are of the model with digest {made_with}, but {self.clip.name} "
                f"with digest {self.clip.digest} was given: give the checkpoint that they were found in."
            )
        if self.metric not in METRICS:
            raise InputError(f"Expected one of the metrics {', '.join(METRICS)}, but {self.metric!r} was given.")
        if self.n_images < 1 or self.n_others < 0:
            raise InputError(
                "Causal checks need at least one image and zero or more of other classes, but "
                f"n_images={self.n_images} and n_others={self.n_others} were given."
            )

    @cached_property
    def weights(self) -> Tensor:
        """Text weights of all classes of the data."""
        return self.clip.text_weights(self.images.all_classes)

    @property
    def keys(self) -> list[Key]:
        """Every (class, domain) that has a circuit and is selected."""
        chosen = [(c, d) for c, d in self.graphs if c in self.images.classes and d in self.images.domains]
        if not chosen:
            raise InputError(f"No circuit in {self.graphs.path} is of a class and domain of {self.images!r}.")
        return chosen

    def of_class(self, class_name: str) -> Metric:
        """Return the metric of a class."""
        return METRICS[self.metric](self.weights, self.images.label(class_name))

    def batch(self, class_name: str, domain: str) -> Tensor:
        """Return images of a class and domain on which its circuit was not found [B, 3, H, W]."""
        return self._loaded(self._unseen(class_name, domain)[: self.n_images])

    def others(self, class_name: str, domain: str) -> Tensor | None:
        """Return images of other classes in the domain on which no circuit was found, or None if none are wanted."""
        classes = self.images.classes
        place = classes.index(class_name) + 1
        following = [name for name in (*classes[place:], *classes[: place - 1]) if (name, domain) in self.graphs]
        wanted = following[: self.n_others]
        return self._loaded([self._unseen(name, domain)[0] for name in wanted]) if wanted else None

    def found_on(self, class_name: str, domain: str) -> Tensor:
        """Return the images of a class and domain on which its circuit was found [B, 3, H, W]."""
        return self._loaded(self._ranked(class_name, domain)[: self.graphs.manifest["config"]["n_images"]])

    def _ranked(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        return self.images.select(class_name, domain, None, self.graphs.manifest["config"]["seed"])

    def _unseen(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        ranked = self._ranked(class_name, domain)
        chosen = ranked if self.seen else ranked[self.graphs.manifest["config"]["n_images"] :]
        if not chosen:
            raise InputError(
                f"The circuit of {class_name!r} in {domain!r} was found on all of its {len(ranked)} images, so none "
                "is left to test it on: extract with fewer images, or allow the same ones (seen=True, --seen)."
            )
        return chosen

    def _loaded(self, records: Sequence[ImageRecord]) -> Tensor:
        return torch.cat(list(load_batches([r.path for r in records], self.clip.preprocess, batch_size=64)))

    def config(self) -> dict[str, Any]:
        """Return everything of this that shapes a number."""
        return {
            "circuits": self.graphs.manifest["config_hash"],
            "classes": digest(self.images.all_classes),
            "n_images": self.n_images,
            "n_others": self.n_others,
            "metric": self.metric,
            "baseline": self.baseline.name,
            "baseline_digest": weights_digest(self.baseline.values),
            "seen": self.seen,
        }


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
                transfer_circuits, *common, others=others or None, source=subject.baseline, sites=sites, **settings
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

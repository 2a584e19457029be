"""The causal checks of a whole folder of circuits, on images that they were not found on, and scripts' options.

Faithfulness and transfer leave a `JobFolder`: shared among processes, gone on with where it stopped, and repaired.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.graph_folder import GraphFolder, Key
from circuitry.interventions.circuit_sets import RANKINGS, add_error_units, choose_sites, take_kept_units
from circuitry.interventions.circuits_under_test import CausalSettings, CircuitsUnderTest, ReadImages
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import MIB_FRACTIONS, AblationSettings, faithfulness_curve
from circuitry.interventions.pixels import logit_pixels, unit_pixels
from circuitry.interventions.transfer import interchange, transfer_circuits
from circuitry.models.baselines import BaselineName
from circuitry.models.metrics import MetricName
from circuitry.models.settings import BasisSettings, MetricSettings
from circuitry.models.task import Task
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.workers import ALONE, Rank, Work, WorkSettings

FAITHFULNESS_FORMAT = "circuitry faithfulness 2"
TRANSFER_FORMAT = "circuitry transfer 2"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CausalStudy(CircuitsUnderTest):
    """The causal checks of a model's circuits, on images that they were not found on.

    Example:
        >>> study = CausalStudy(clip, DomainFolder("DomainNet"), GraphFolder("runs/x"), CausalSettings(n_images=10))
        >>> curves = study.extract_faithfulness("runs/x-faithfulness")
        >>> table = study.extract_transfer("runs/x-transfer")["transfer"]
    """

    def extract_faithfulness(
        self,
        out: str | os.PathLike[str],
        *,
        rankings: Sequence[str] = RANKINGS,
        fractions: Sequence[float] = MIB_FRACTIONS,
        random_draws: int = 5,
        one_site: bool = False,
        seed: int = 0,
        work: Work = Work(),
    ) -> list[FaithfulnessCurve]:
        """Measure the faithfulness curve of every (class, domain) by every ranking into a folder.

        Args:
            out: Folder of the curves.
            rankings: Which units come first, a curve for each; see `AblationSettings`, as for fractions, random_draws
                and seed.
            one_site: Ablate at one site at a time, a curve for each, instead of at all sites together.
            work: See `extract`.

        Returns:
            The curves, class by class; a class and domain of which no image can be read is left out with a warning.

        Raises:
            InputError: for a folder made with other settings or images, with the difference; when no image at all can
                be read; and what `faithfulness_curve` raises.
        """
        settings = AblationSettings(
            keep_error=self.settings.keep_error, fractions=fractions, random_draws=random_draws, seed=seed
        )
        asked = {"rankings": list(rankings), "fractions": list(fractions), "random_draws": random_draws, "seed": seed}
        config = self.config | asked | {"one_site": one_site}
        folder = JobFolder(Path(out), FAITHFULNESS_FORMAT, config, self.keys, self.listings())

        def measure(job: Job, images: ReadImages) -> list[Path]:
            class_name, domain = job
            graph, paths = self.graphs[class_name, domain], []
            for ranking in rankings if len(images.own) else ():
                for sites in _site_sets(graph, one_site):
                    task = self._task((class_name, domain), images, sites, work)
                    curve = faithfulness_curve(task, graph, replace(settings, ranking=ranking))
                    paths.append(folder.path / class_name / f"{domain}.{ranking}.{_name(sites)}.safetensors")
                    curve.save(paths[-1])
            return paths

        folder.run(
            measure,
            prepare=lambda job: self.read((job[0], job[1]), work),
            rank=work.rank,
            progress=work.bar("faithfulness"),
            unit="circuit",
        )
        return [FaithfulnessCurve.load(path) for path in self._results(folder)]

    def extract_transfer(
        self,
        out: str | os.PathLike[str],
        *,
        one_site: bool = False,
        exchange: bool = True,
        seed: int = 0,
        work: Work = Work(),
    ) -> dict[str, pd.DataFrame]:
        """Keep and interchange circuits between all domains, class by class, into a folder.

        Args:
            out: Folder of the tables.
            one_site: Keep circuits at one site at a time, too, with everything else as it is.
            exchange: Whether activations are interchanged, too.
            seed: See `interchange`.
            work: See `extract`.

        Returns:
            ``transfer``: table of `transfer_circuits` with the column ``sites``: ``all`` or the one site; with
            ``exchange`` also ``interchange``: table of `interchange`. A class of which no image can be read is left
            out with a warning.

        Raises:
            InputError: for a folder made with other settings or images, with the difference; when no image at all can
                be read; and what those functions raise.
        """
        by_class: dict[str, list[Key]] = {}
        for key in self.keys:
            by_class.setdefault(key[0], []).append(key)
        config = self.config | {"seed": seed, "one_site": one_site, "exchange": exchange}
        jobs = [(class_name,) for class_name in by_class]
        folder = JobFolder(Path(out), TRANSFER_FORMAT, config, jobs, self.listings())

        def measure(job: Job, images: Mapping[Key, ReadImages]) -> list[Path]:
            (class_name,) = job
            if not images:
                return []
            graphs = {key: self.graphs[key] for key in by_class[class_name]}
            tables = {
                f"transfer/{class_name}/{_name(sites)}.csv": self._transfer(images, graphs, sites, work)
                for sites in [None, *(_site_sets(next(iter(graphs.values())), True) if one_site else [])]
            }
            if exchange:
                tasks = {key: self._task(key, found, None, work) for key, found in images.items()}
                mixed = interchange(tasks, graphs, self.scorer, seed=seed)
                tables[f"interchange/{class_name}.csv"] = mixed
            for name, table in tables.items():
                with whole_file(folder.path / name) as temporary:
                    table.to_csv(temporary, index=False)
            return [folder.path / name for name in tables]

        def read(job: Job) -> dict[Key, ReadImages]:
            found = {key: self.read(key, work) for key in by_class[job[0]]}
            return {key: images for key, images in found.items() if len(images.own)}

        folder.run(measure, prepare=read, rank=work.rank, progress=work.bar("transfer"), unit="class")
        made: dict[str, list[pd.DataFrame]] = {"transfer": [], "interchange": []}
        for path in self._results(folder):
            kind, table = path.relative_to(folder.path).parts[0], _read_table(path)
            made[kind].append(table.assign(sites=path.stem) if kind == "transfer" else table)
        return {kind: pd.concat(tables, ignore_index=True) for kind, tables in made.items() if tables}

    def pixels(
        self, class_name: str, domain: str, *, n_images: int = 3, work: Work = Work()
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return a few images and what each pixel adds to the class's metric, through the model and its circuit.

        Returns:
            The images as bytes [B, H, W, 3], and maps [B, H, W] by title: the whole model; the circuit kept at its last
            site before the embedding, everything before as it is; the circuit alone at all sites; and that site's first
            unit.

        Raises:
            InputError: when none of the images can be read.
        """
        key = class_name, domain
        encoder, graph, metric = self.clip.encoder, self.graphs[key], self.metric_of(*key)
        images = self.read_some(self.own_records(key))[:n_images]
        everywhere = take_kept_units(graph)
        last = list(everywhere)[-2:][0]
        unit = int(everywhere[last][0])
        if self.settings.keep_error:
            everywhere = add_error_units(encoder, everywhere)
        through = {
            "whole model": None,
            f"circuit at {last}": {last: everywhere[last]},
            "circuit at all sites": everywhere,
        }
        task = Task(encoder, images, metric, baseline=self.baseline_of(key, len(images)), work=work)
        maps = {title: logit_pixels(task, circuit) for title, circuit in through.items()}
        maps[f"unit {last}/{unit}"] = unit_pixels(task, last, unit)
        return self.clip.shown(images), {title: found.cpu().numpy() for title, found in maps.items()}

    def _transfer(
        self,
        images: Mapping[Key, ReadImages],
        graphs: Mapping[Key, AttributionGraph],
        sites: Sequence[str] | None,
        work: Work,
    ) -> pd.DataFrame:
        """Keep the circuits of a class on its images of every domain, each with its own baseline."""
        tasks = {key: self._task(key, found, sites, work) for key, found in images.items()}
        return transfer_circuits(tasks, graphs, self.scorer, keep_error=self.settings.keep_error)

    def _task(self, key: Key, images: ReadImages, sites: Sequence[str] | None, work: Work) -> Task:
        return Task(
            self.clip.encoder,
            images.own,
            self.metric_of(*key),
            baseline=self.baseline_of(key, len(images)),
            others=images.others,
            sites=sites,
            work=replace(work, progress=False),
        )

    def _results(self, folder: JobFolder) -> list[Path]:
        """Return the files of all jobs in order; jobs that left none, for want of images, are named."""
        files = {job: folder.files(job) for job in folder.jobs}
        if not any(files.values()):
            raise InputError(
                f"None of the images that the circuits in {self.graphs.path} are to be tested on can be read: look at "
                f"the files in {self.images.root}."
            )
        for job in (job for job, paths in files.items() if not paths):
            log.warning("%s is left out: none of the images can be read", " in ".join(job))
        return [path for paths in files.values() for path in paths]


@dataclass(frozen=True)
class StudyOptions(WorkSettings, BasisSettings):
    """Which model, circuits and images, and how they are checked."""

    circuits: Path = Path("runs/quickstart/circuits")
    """Folder of graphs that `extract`, the quickstart or compare_circuits.py wrote."""
    n_images: int = 6
    """Images per class and domain, none of those that the circuits were found on."""
    n_others: int = 12
    """Images of other classes per class and domain."""
    metric: MetricName | None = None
    """logit: the study's cosine logit; margin: its lead over the mean logit of the other classes (default: what the
    circuits were found by)."""
    texts: tuple[str, ...] | None = None
    """Texts of a class: pooled, own-style, or templates such as "a photo of a {}." (default: what the circuits were
    found with)."""
    baseline: BaselineName = "zero"
    """What units outside a circuit are put to: zero; mean-position, mean-unit (means over the images that circuits were
    found on); other-domains (the class's mean in the other domains); counterfactual (images of other classes in the
    domain)."""
    seen: bool = False
    """Test on the images that the circuits were found on, instead of others."""
    keep_error: bool = False
    """Keep what autoencoders miss in every circuit, instead of putting it to the baseline, too."""

    def study(self, rank: Rank = ALONE) -> CausalStudy:
        """Read model, images and circuits, for one of the processes that work on them.

        Raises:
            InputError: for what is missing or does not fit.
        """
        if not self.circuits.is_dir():
            raise InputError(
                f"There are no circuits at {self.circuits}: run experiments/quickstart.py or compare_circuits.py "
                "first, and give their folder with --circuits."
            )
        texts = None if self.texts is None else MetricSettings(texts=self.texts).class_texts
        settings = CausalSettings(
            self.n_images, self.n_others, self.metric, texts, self.baseline, self.seen, self.keep_error
        )
        return CausalStudy(self.clip(rank), self.images(), GraphFolder(self.circuits), settings)


def _read_table(path: Path) -> pd.DataFrame:
    # A class may be called NA; only what is measured can be missing.
    columns = pd.read_csv(path, nrows=0).columns
    measured = {name: [""] for name in columns if name == "faithfulness" or name.startswith("other_")}
    return pd.read_csv(path, keep_default_na=False, na_values=measured)


def _site_sets(graph: AttributionGraph, one_site: bool) -> list[list[str] | None]:
    return [[site] for site in choose_sites(graph)] if one_site else [None]


def _name(sites: Sequence[str] | None) -> str:
    return "all" if sites is None else ",".join(sites)

"""Which units recognise one class in one domain, and do they work? A circuit is found, tested and drawn.

1. A circuit of the class is found on some images of the class (`Split`). For comparison, circuits of two other classes
   of the domain are found in the same way, each on images of its own class.
2. The circuit is tested on unseen images, which were not used to find it. A faithfulness curve compares what the
   circuit recovers with what random units and the circuits of other classes recover. `judge_circuit` returns a table of
   statistical tests.
3. Edges between the strongest units of the circuit are scored, for the drawing.

Each step is done by jobs of a `JobFolder`. If a job is finished, its results are read. If another process is doing a
job, this process waits for the results.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.circuit_settings import MaskSettings
from circuitry.circuits.edge_forwards import edge_forwards
from circuitry.circuits.edge_methods import score_edges
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.circuits.methods import ITERATIVE, METHODS, without_others
from circuitry.circuits.quadrature import midpoint_rule
from circuitry.circuits.tower_defaults import default_size
from circuitry.circuits.unit_methods import Counts
from circuitry.comparison.table import read_named_table, write_named_table
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.splits import Records
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import curve_forwards, measure_circuits
from circuitry.interventions.finding_circuits import find_circuit, search_forwards
from circuitry.interventions.intervention_settings import AblationSettings
from circuitry.interventions.judgement import judge_circuit, judge_forwards
from circuitry.interventions.touched_weights import touched_forwards, weights_touched
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.questions.question_settings import OneClassSettings
from circuitry.reports.figures.pictures import contact_sheet
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.one_circuit import (
    add_circuit,
    circuit_verdicts,
    in_cells,
)
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import Job, JobFolder, jobs_left
from circuitry.runs.manifest import NAME
from circuitry.runs.plan import Forwards, Step
from circuitry.runs.workers import Work

ONE_CLASS_FORMAT = "circuitry found circuit 6"
FOREIGN_CLASSES = 2
"""The number of other classes whose circuits, of the same size, are measured for comparison."""
RANDOM_DRAWS = 5
"""The number of random circuits that are measured for comparison."""
DRAWN = 12
"""At most this many units of a site are drawn, with the edges between them."""
SHOWN = 8
"""At most this many images of the class, and of other classes, are shown in the report."""


@dataclass(frozen=True)
class OneClassAnswer:
    """The circuit of a class, with its tests.

    Example:
        >>> from circuitry.questions import OneClass, OneClassSettings
        >>> settings = OneClassSettings(n_images=2, method="gradient", size=0.4)
        >>> answer = OneClass(clip, folder, "runs/clock", ("clock", "real"), settings).run()
        >>> [finding.claim for finding in answer.findings()]
    """

    circuit: Circuit
    """The circuit. Its source has the scores that were used to choose the units."""
    drawn: AttributionGraph
    """The strongest units of the circuit, with the edges between them."""
    curve: FaithfulnessCurve
    """What the circuit recovers of the answers on unseen images."""
    tests: pd.DataFrame
    """A table of `judge_circuit` on unseen images."""
    method: str
    """The name of the method that chose the units."""

    def to_pandas(self) -> pd.DataFrame:
        """Return the table `tests`; the units are in ``circuit.to_pandas()``."""
        return self.tests

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of a report by name."""
        return dict(self._tables)

    @cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        # Cached, because each measure needs a bootstrap.
        curves = map(self.curve.to_pandas, CURVE_MEASURES)
        joined = pd.concat(curves, ignore_index=True)
        return {
            "recovered": in_cells(joined, ["measure"]),
            "tests": self.tests,
            "curves": joined,
        }

    def findings(self) -> list[Finding]:
        """Return findings on whether the circuit works, and whether it is needed."""
        return circuit_verdicts(self.curve, self.tests)

    def add_to(self, report: Report) -> None:
        """Add the findings, the table of what the circuit recovers, and the drawing to a report."""
        tables = self.tables()
        report.summary(self.findings())
        report.section("What the circuit recovers")
        ranked = ""
        if METHODS[self.method].learns_mask:
            ranked = f"; those of other classes were found by {ITERATIVE}"
        report.table(
            tables["recovered"],
            "On unseen images, with 95 % intervals: right and false are shares of images of the class, and of others, "
            f"that get the class; of the other measures it is the share of the whole model's{ranked}.",
        )
        # The reason is the same for all sizes of a measure.
        unknown = tables["curves"].query("reason != ''").drop_duplicates("measure")
        sentences = []
        for measure, reason in zip(unknown["measure"], unknown["reason"], strict=True):
            sentences.append(f"There is no number for {measure}: {reason}.")
        report.text(" ".join(sentences))
        scored = f"Edges were scored between the {DRAWN} strongest units of each site"
        caption = f"{scored}; at most 3 into a unit are drawn."
        add_circuit(report, self.drawn.circuit(), caption)


class OneClass(FolderWork):
    """The circuit of one class in one domain, found on some images and tested on other images.

    Example:
        >>> from circuitry.questions import OneClass, OneClassSettings
        >>> settings = OneClassSettings(n_images=2, method="gradient", size=0.4)
        >>> run = OneClass(clip, folder, "runs/clock", ("clock", "real"), settings)
        >>> len(run.split.found_on(run.key)), len(run.unseen)
        (2, 2)
        >>> run.run().findings()[0].claim
    """

    settings: OneClassSettings

    @checked
    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        out: str | os.PathLike[str],
        key: tuple[str, str],
        settings: OneClassSettings | None = None,
    ) -> None:
        """Choose the images to find the circuit on, and the images to test it on.

        Args:
            clip: The model.
            images: The images, by domain and class.
            out: Folder of the circuit and its tests.
            key: The class and the domain.
            settings: How the circuit is found and tested.

        Raises:
            InputError: if the class has only one image in the domain, or if a selectivity is asked for and there are no
                images of other classes.
        """
        settings = settings or OneClassSettings()
        super().__init__(clip, images, settings)
        self.out = Path(out)
        self.key = key
        self.metric_of(*key)  # checks the texts before the folder is claimed
        self.split.check_testable(key)
        if settings.selectivity is not None and not self.others():
            raise InputError(
                f"--selectivity compares {key[0]} with images of other classes, but {images.root} has none: give a "
                "folder that has, or --size."
            )

    @property
    def found_on(self) -> Records:
        """The images of the class that are used to find its circuit."""
        return self.split.found_on(self.key)

    @property
    def unseen(self) -> Records:
        """The images of the class that are used to test its circuit."""
        return self.split.unseen(self.key, self.settings.n_images)

    def others(self, *, unseen: bool = False) -> Records:
        """Return images of other classes in the domain.

        Args:
            unseen: True returns the images that are used to test the circuit. False returns the images that are used to
                find it.
        """
        return self.split.others(self.key, self.settings.n_others, unseen=unseen)

    @property
    def foreign(self) -> list[Key]:
        """The other classes whose circuits are measured for comparison, each with the domain.

        There are at most `FOREIGN_CLASSES`: the classes that follow in the order of classes. After the last class comes
        the first one. A class with only one image in the domain is left out.
        """
        # A class with only one image is left out, as it could not be the class of the circuit either.
        testable = list[Key]()
        for name in self.images.following(self.key[0]):
            key = (name, self.key[1])
            if self.split.unseen(key):
                testable.append(key)
        return testable[:FOREIGN_CLASSES]

    @property
    def looked_at(self) -> dict[Key, Records]:
        """For each circuit, all images that are used to find or to test it.

        The keys are the class and domain of the circuit. There is an entry for this class, and an entry for each other
        class whose circuit is measured for comparison.
        """
        tests = self.unseen + self.others(unseen=True)
        looked_at = {self.key: self.found_on + self.others() + tests}
        for key in self.foreign:
            others = self.split.others(key, self.settings.n_others)
            looked_at[key] = self.split.found_on(key) + others
        return looked_at

    @cached_property
    def task_found_on(self) -> Task:
        """The task on the images that are used to find the circuit."""
        return self._task(self.key, self.found_on, self.others())

    @cached_property
    def task_unseen(self) -> Task:
        """The task on the unseen images, which are used to test the circuit."""
        return self._task(self.key, self.unseen, self.others(unseen=True))

    def _task(self, key: Key, own: Records, others: Records) -> Task:
        images = self.read(own)
        if not len(images):
            raise InputError(
                f"No image of {key[0]} in {key[1]} can be read: see the warnings above."
            )
        # Without images of other classes, a task takes None and not an empty tensor.
        of_others = self.read(others)
        contrast = of_others if len(of_others) else None
        task = self.task(key, images, contrast, counted_sites(self.clip.encoder))
        # Tasks of a folder show no bars, since the folder has one. For a single circuit each step shows its own bar.
        return replace(task, work=Work(progress=True))

    @property
    def size(self) -> float | None:
        """The share of the units to keep; None if a selectivity should be reached instead."""
        if self.settings.selectivity is not None:
            return None
        return self.settings.size or default_size(self.clip.encoder)

    @property
    def made_with(self) -> dict[str, Any]:
        """All settings and inputs that influence the results, except the images, in plain values."""
        return self.identity | {
            "class": self.key[0],
            "domain": self.key[1],
            "size": self.size,
            "selectivity": self.settings.selectivity,
            "units": "components" if self.clip.encoder.carried else "channels",
            "n_others": self.settings.n_others,
            "method": self.settings.method,
            "steps": self.settings.steps,
        }

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of the steps. A folder that was made with other settings or images is refused."""
        return self.claim(
            self.out, ONE_CLASS_FORMAT, self._jobs, self.looked_at, **self.made_with
        )

    @property
    def _jobs(self) -> list[Job]:
        return [(name,) for name in self._steps]

    @property
    def _steps(self) -> dict[str, Callable[[], Sequence[Path]]]:
        """The functions that do the steps, in order, by the name of the job."""
        return {
            "circuit": self._find,
            "other classes": self._find_foreign,
            "unseen images": self._measure,
            "tests": self._judge,
            "edges": self._score_edges,
        }

    def steps(self) -> list[Step]:
        """Return what the unfinished steps need, as steps of a `Plan`. A folder that is not there yet is not made."""
        left = jobs_left(self.out, self._jobs, lambda: self.folder)
        if not left:
            return []
        steps = [self.baseline_step([self.key])]
        forwards = self._forwards()
        n_images = sum(map(len, self.looked_at.values()))
        for (name,) in left:
            # All images are read by the first step that needs them.
            steps.append(Step(name, 1, forwards[name], n_images))
            n_images = 0
        return steps

    def _forwards(self) -> dict[str, Forwards]:
        """Return what each step runs, by the name of the job."""
        settings = self.settings
        sites = counted_sites(self.clip.encoder)
        n_units = sum(self.clip.encoder.count_units(sites).values())
        share_drawn = min(1.0, len(sites) * DRAWN / n_units)
        others = len(self.others())
        method = settings.method if others else without_others(settings.method)
        n_tested = len(self.unseen) + len(self.others(unseen=True))
        found = search_forwards(
            Counts(len(self.found_on), others, len(sites), n_units),
            method,
            MaskSettings(steps=settings.steps),
            selectivity=settings.selectivity is not None,
        )
        ranking = ITERATIVE if METHODS[method].learns_mask else method
        foreign = Forwards()
        for key in self.foreign:
            n_own = len(self.split.found_on(key))
            n_others = len(self.split.others(key, settings.n_others))
            counts = Counts(n_own, n_others, len(sites), n_units)
            foreign += search_forwards(counts, ranking)
        # Any size below 1 takes as many runs.
        curve = curve_forwards(n_tested, [0.5], RANDOM_DRAWS, len(self.foreign))
        return {
            "circuit": found,
            "other classes": foreign,
            "unseen images": curve + touched_forwards(1),
            "tests": judge_forwards(n_tested),
            "edges": edge_forwards(
                self.clip.encoder, sites, share_drawn, len(self.found_on)
            ),
        }

    def run(self) -> OneClassAnswer:
        """Find the circuit, test it, and score its edges; return the answer.

        Steps that are finished are not repeated: their results are read.
        """
        for name, step in self._steps.items():
            # Each step needs the step before. If another process does that step, this process waits for it.
            self.folder.run(partial(_do, step), only=[(name,)])
        return self.answer()

    def answer(self) -> OneClassAnswer:
        """Return the answer; the results of all steps are read from their files."""
        return OneClassAnswer(
            Circuit.load(self._circuit),
            GraphFolder(self._circuits)[self.key],
            FaithfulnessCurve.load(self._curve),
            read_named_table(self._tests, na_values=[""]),
            self.settings.method,
        )

    @property
    def _circuit(self) -> Path:
        return self.out / "circuit.safetensors"

    @property
    def _tests(self) -> Path:
        return self.out / "tests.csv"

    @property
    def _circuits(self) -> Path:
        return self.out / "circuits"

    @property
    def _curve(self) -> Path:
        """The path of the curve. The explorer looks for the curve there."""
        class_name, domain = self.key
        name = f"{domain}.absolute.all.safetensors"
        return self.out / "faithfulness" / class_name / name

    def _find(self) -> list[Path]:
        circuit = find_circuit(
            self.task_found_on,
            method=self.settings.method,
            size=self.size,
            selectivity=self.settings.selectivity,
            masks=MaskSettings(steps=self.settings.steps, seed=self.settings.seed),
        )
        # The explorer looks the circuit up by the class and domain in the file.
        _named(circuit, self.key).save(self._circuit)
        return [self._circuit]

    def _find_foreign(self) -> list[Path]:
        """Find circuits of other classes, of the same size as the circuit. Each is found on images of its own class.

        If the method learns masks, units are ranked here instead, because each mask would take minutes.
        """
        # The size is read from the circuit, because with a selectivity it is known only after the search.
        size = Circuit.load(self._circuit).size
        method = self.settings.method
        # Learning a mask takes minutes for every class.
        if METHODS[method].learns_mask:
            method = ITERATIVE
        paths = []
        for place, key in enumerate(self.foreign):
            others = self.split.others(key, self.settings.n_others)
            task = self._task(key, self.split.found_on(key), others)
            paths.append(self.out / f"other.{place}.safetensors")
            circuit = find_circuit(task, method=method, size=size)
            _named(circuit, key).save(paths[-1])
        return paths

    def _measure(self) -> list[Path]:
        settings = AblationSettings(random_draws=RANDOM_DRAWS, seed=self.settings.seed)
        foreign = self.folder.files(("other classes",))
        circuits = [Circuit.load(self._circuit)]
        curve = measure_circuits(
            self.task_unseen,
            circuits,
            settings,
            [[Circuit.load(path)] for path in foreign],
        )
        # `measure_circuits` takes any circuits, so it does not know that these units are one cut over all sites.
        curve = replace(
            curve,
            settings=curve.settings | {"budget": GLOBAL},
            weights=weights_touched(self.task_unseen, circuits),
        )
        curve.save(self._curve)
        return [self._curve]

    def _judge(self) -> list[Path]:
        circuit = Circuit.load(self._circuit)
        settings = AblationSettings(seed=self.settings.seed)
        # Minimality is left out, because it needs a run for each unit.
        table = judge_circuit(self.task_unseen, circuit, settings, minimality=False)
        write_named_table(self._tests, table)
        return [self._tests]

    def _score_edges(self) -> list[Path]:
        """Score the edges between the strongest kept units of every site, for the drawing."""
        circuit = Circuit.load(self._circuit)
        # The number of edges grows with the square of the number of units, so only edges that may be drawn are scored.
        strongest = {site: units[:DRAWN] for site, units in circuit.units.items()}
        edges = score_edges(self.task_found_on, strongest, rule=midpoint_rule(1))
        drawn = circuit.source.keeping(strongest, edges.scores)
        # The folder may be damaged. Without its manifest, all of the folder is written again.
        (self._circuits / NAME).unlink(missing_ok=True)
        graphs = GraphFolder.write(
            self._circuits,
            {self.key: replace(circuit, source=drawn)},
            self.made_with,
            {self.key: self.found_on + self.others()},
        )
        # Names of temporary files begin with a dot.
        files = sorted(graphs.path.rglob("[!.]*"))
        return list(filter(Path.is_file, files))

    def add_images(self, report: Report) -> None:
        """Add some of the images of the class and of other classes to a report."""
        sets = {
            ("class", "found on"): self.found_on,
            ("class", "tested on"): self.unseen,
            ("others", "found on"): self.others(),
            ("others", "tested on"): self.others(unseen=True),
        }
        cells: dict[tuple[str, str], list[Path]] = {}
        for cell, records in sets.items():
            cells[cell] = [record.path for record in records[:SHOWN]]
        rows = ["class", "others"]
        sheet = contact_sheet(cells, rows, ["found on", "tested on"], per_cell=SHOWN)
        report.image(
            sheet,
            "Images of the class, and of others.",
            alt=f"Images of {' in '.join(self.key)} and of other classes",
        )

    @property
    def in_words(self) -> str:
        """Sentences that name two kinds of sites, for the report.

        The units of the first sites count in the size of a circuit. The other sites keep all their units.
        """
        encoder = self.clip.encoder
        counted = counted_sites(encoder)
        # The input has no units that a circuit could leave out.
        left_out = [site for site in encoder.sites if site not in (*counted, INPUT)]
        sentence = f"Counted are the units of {', '.join(counted)}."
        if not left_out:
            return sentence
        return f"{sentence} {', '.join(left_out)} only read out or repeat another site: they stay whole."


def _do(
    step: Callable[[], Sequence[Path]], job: Job, nothing: object
) -> Sequence[Path]:
    return step()


def _named(circuit: Circuit, key: Key) -> Circuit:
    """Return a copy of a circuit, with a class and a domain stored in its source."""
    source = replace(circuit.source, class_name=key[0], domain=key[1])
    return replace(circuit, source=source)

"""Which units recognise one class in one domain, and do they work? A circuit is found, tested and drawn.

1. The images that find (`Split`) give the circuit; so they do for two other classes of the domain.
2. The unseen images say what the circuit recovers, beside random units and the circuits of other classes, and
   `judge_circuit` tests it.
3. Edges are scored between its strongest units, for the drawing.

Each step is a job: a finished one is read, and another process that does one is waited for.
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
from circuitry.circuits.edge_methods import score_edges
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.circuits.methods import ITERATIVE, METHODS
from circuitry.circuits.quadrature import midpoint_rule
from circuitry.circuits.tower_defaults import default_size
from circuitry.comparison.table import read_named_table, write_named_table
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.splits import Records
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import measure_circuits
from circuitry.interventions.finding_circuits import find_circuit
from circuitry.interventions.intervention_settings import AblationSettings
from circuitry.interventions.judgement import judge_circuit
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
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.manifest import NAME
from circuitry.runs.workers import Work

ONE_CLASS_FORMAT = "circuitry found circuit 6"
FOREIGN_CLASSES = 2
"""Other classes whose circuits of the same size are measured beside it."""
RANDOM_DRAWS = 5
"""Random circuits beside it."""
DRAWN = 12
"""Units of a site that are drawn at most, with the edges between them."""
SHOWN = 8
"""Images that the report shows of the class and of others, at most."""


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
    """The circuit, with the scores behind it."""
    drawn: AttributionGraph
    """Its strongest units, with the edges between them."""
    curve: FaithfulnessCurve
    """What it recovers of unseen images."""
    tests: pd.DataFrame
    """Table of `judge_circuit` on unseen images."""
    method: str
    """How its units were chosen."""

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of a report by name."""
        return dict(self._tables)

    @cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        # Each measure takes a bootstrap.
        curves = map(self.curve.to_pandas, CURVE_MEASURES)
        joined = pd.concat(curves, ignore_index=True)
        return {
            "recovered": in_cells(joined, ["measure"]),
            "tests": self.tests,
            "curves": joined,
        }

    def findings(self) -> list[Finding]:
        """Answer whether the circuit works, and whether it is needed."""
        return circuit_verdicts(self.curve, self.tests)

    def add_to(self, report: Report) -> None:
        """Add the findings, the table of what the circuit recovers, and the drawing."""
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
    """The circuit of one class in one domain: found on some images, tested on others.

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
        """Choose the images; refuse a class with a single one.

        Args:
            clip: The model.
            images: Its images, sorted by domain and class.
            out: Folder of the circuit and its tests.
            key: The class and the domain.
            settings: How the circuit is found and tested.
        """
        settings = settings or OneClassSettings()
        super().__init__(clip, images, settings)
        self.out = Path(out)
        self.key = key
        self.metric_of(*key)  # refuses texts before the folder is claimed
        self.split.check_testable(key)
        if settings.selectivity is not None and not self.others():
            raise InputError(
                f"--selectivity compares {key[0]} with images of other classes, but {images.root} has none: give a "
                "folder that has, or --size."
            )

    @property
    def found_on(self) -> Records:
        """The images of the class that find."""
        return self.split.found_on(self.key)

    @property
    def unseen(self) -> Records:
        """The images of the class that test."""
        return self.split.unseen(self.key, self.settings.n_images)

    def others(self, *, unseen: bool = False) -> Records:
        """Return images of other classes: those that find, or those that test."""
        return self.split.others(self.key, self.settings.n_others, unseen=unseen)

    @property
    def foreign(self) -> list[Key]:
        """Other classes of the domain whose circuits are measured beside it: those that follow."""
        # A class with a single image is left out: the class of the circuit has two or more as well.
        testable = list[Key]()
        for name in self.images.following(self.key[0]):
            key = (name, self.key[1])
            if self.split.unseen(key):
                testable.append(key)
        return testable[:FOREIGN_CLASSES]

    @property
    def looked_at(self) -> dict[Key, Records]:
        """All images that are looked at, by the class of the circuit that they find or test."""
        tests = self.unseen + self.others(unseen=True)
        looked_at = {self.key: self.found_on + self.others() + tests}
        for key in self.foreign:
            others = self.split.others(key, self.settings.n_others)
            looked_at[key] = self.split.found_on(key) + others
        return looked_at

    @cached_property
    def task_found_on(self) -> Task:
        """The task on the images that find the circuit."""
        return self._task(self.key, self.found_on, self.others())

    @cached_property
    def task_unseen(self) -> Task:
        """The task on the unseen images."""
        return self._task(self.key, self.unseen, self.others(unseen=True))

    def _task(self, key: Key, own: Records, others: Records) -> Task:
        images = self.read(own)
        if not len(images):
            raise InputError(
                f"No image of {key[0]} in {key[1]} can be read: see the warnings above."
            )
        # A task takes None for no images of other classes, but not an empty tensor.
        of_others = self.read(others)
        contrast = of_others if len(of_others) else None
        task = self.task(key, images, contrast, counted_sites(self.clip.encoder))
        # Tasks of a folder are silent, since the folder has a bar; the steps of a single circuit show their own.
        return replace(task, work=Work(progress=True))

    @property
    def size(self) -> float | None:
        """The share of the units to keep; None where a selectivity is to be reached."""
        if self.settings.selectivity is not None:
            return None
        return self.settings.size or default_size(self.clip.encoder)

    @property
    def made_with(self) -> dict[str, Any]:
        """Everything except for images that shapes a number, in plain values."""
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
        """The folder of the steps, claimed for this configuration."""
        jobs = [(name,) for name in self._steps]
        return self.claim(
            self.out, ONE_CLASS_FORMAT, jobs, self.looked_at, **self.made_with
        )

    @property
    def _steps(self) -> dict[str, Callable[[], Sequence[Path]]]:
        """The steps in their order, by the name of the job."""
        return {
            "circuit": self._find,
            "other classes": self._find_foreign,
            "unseen images": self._measure,
            "tests": self._judge,
            "edges": self._score_edges,
        }

    def run(self) -> OneClassAnswer:
        """Find the circuit, test it, and score its edges; what is finished is read."""
        for name, step in self._steps.items():
            # Each needs the one before: another process may be doing that, and is waited for.
            self.folder.run(partial(_do, step), only=[(name,)])
        return self.answer()

    def answer(self) -> OneClassAnswer:
        """Read the results of all steps from their files."""
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
        """Where the explorer looks for it."""
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
        # The explorer finds the circuit by the class and domain in the file.
        _named(circuit, self.key).save(self._circuit)
        return [self._circuit]

    def _find_foreign(self) -> list[Path]:
        """Find circuits of other classes, as large, on their own images; a ranking in place of masks."""
        # The size is read from the circuit: with a selectivity to reach, it is known only after the search.
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
        curve = measure_circuits(
            self.task_unseen,
            [Circuit.load(self._circuit)],
            settings,
            [[Circuit.load(path)] for path in foreign],
        )
        # Circuits of any choice are measured, so the curve does not know that these units are one cut over all sites.
        curve = replace(curve, settings=curve.settings | {"budget": GLOBAL})
        curve.save(self._curve)
        return [self._curve]

    def _judge(self) -> list[Path]:
        circuit = Circuit.load(self._circuit)
        settings = AblationSettings(seed=self.settings.seed)
        # Minimality would ablate the units one by one.
        table = judge_circuit(self.task_unseen, circuit, settings, minimality=False)
        write_named_table(self._tests, table)
        return [self._tests]

    def _score_edges(self) -> list[Path]:
        """Score the edges between the strongest kept units of every site, for drawings."""
        circuit = Circuit.load(self._circuit)
        # The number of edges grows with the square of that of units: only edges that may be drawn are scored.
        strongest = {site: units[:DRAWN] for site, units in circuit.units.items()}
        edges = score_edges(self.task_found_on, strongest, rule=midpoint_rule(1))
        drawn = circuit.source.keeping(strongest, edges.scores)
        # Perhaps a damaged one: all of the folder is written again.
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
        """Show some of the images of the class, and of others."""
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
        """Sentences on the sites that a circuit's size counts, and on those that stay whole."""
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
    """Return a circuit whose graph says its class and domain."""
    source = replace(circuit.source, class_name=key[0], domain=key[1])
    return replace(circuit, source=source)

"""One analysis of a model in a folder: circuits, tests of them, comparisons, cards, a report and the explorer.

Every step leaves its files in the folder, and a finished one is read. Several processes share a step by the rank of
their `Work`. The report shows what the steps found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from circuitry.analysis.analysis_report import add_findings, tables_of, without_cells
from circuitry.analysis.quickstart_settings import CARDS, OWN_PARTS, drawn_circuits
from circuitry.analysis.run_explorer import explore_run
from circuitry.cards.card_folder import CardFolder
from circuitry.cards.card_jobs import unit_cards
from circuitry.circuits.across_domains import COMPARED, compare_domains
from circuitry.circuits.consensus import circuit_stability
from circuitry.circuits.extraction import Extraction
from circuitry.circuits.extraction_settings import ExtractionSettings
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.circuits.measures import Measure
from circuitry.circuits.similarities_of_classes import ReadingSettings
from circuitry.comparison.comparison import Comparison
from circuitry.data.domains import DomainFolder
from circuitry.data.parts import Key
from circuitry.encoder.metrics import answer_metric
from circuitry.explorer.export import ExplorerPage
from circuitry.interventions.attribution_check import check_attribution
from circuitry.interventions.circuit_checks import CausalChecks
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.intervention_settings import CheckSettings, OwnPartSettings
from circuitry.interventions.parts_of_folder import OwnParts
from circuitry.interventions.transfer_tables import transfer_comparisons
from circuitry.models.clip import Clip
from circuitry.models.options import FolderSettings
from circuitry.reports.page import Report, Written, write_results
from circuitry.reports.result_tables import listings_of, listings_of_records
from circuitry.reports.sections.own_parts import own_part_tables
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work
from circuitry.training.accuracy import accuracy_kinds, class_accuracy, tidy_accuracy
from circuitry.training.evaluation import zero_shot_predictions

T = TypeVar("T")

SMALL = 600
"""Rows of a table that is small enough to be committed."""


class Analysis:
    """An analysis of a model on images, in a folder: circuits first, then any other steps.

    Example:
        >>> run = Analysis(clip, images, "runs/x", ExtractionSettings(n_images=8), CheckSettings(n_images=4))
        >>> graphs, curves = run.circuits(), run.curves()
        >>> run.compare()["edge_jaccard"].ratios()
        >>> print(run.report(), run.explore())
    """

    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        out: str | Path,
        settings: ExtractionSettings | None = None,
        checks: CheckSettings | None = None,
        reading: ReadingSettings | None = None,
        circuits: str | Path | None = None,
    ) -> None:
        """Say what is analysed, and how.

        Args:
            out: Folder of everything that is made.
            settings: How circuits are found.
            checks: How circuits are tested.
            reading: How circuits are cut where they are compared and drawn.
            circuits: A folder of circuits that were found before.
        """
        self.clip, self.images, self.out = clip, images, Path(out)
        self.settings, self.reading = (
            settings or ExtractionSettings(),
            reading or ReadingSettings(),
        )
        self._checked, self._given = checks, circuits
        self.parts: OwnParts | None = None
        self.results: dict[str, Any] = {}
        """What the steps found, by name; what other processes found can be added."""

    def extraction(self, classes: Sequence[str] | None = None) -> Extraction:
        """Return the jobs of `circuits`."""
        return Extraction(
            self.clip, self.images, self.out / "circuits", self.settings, classes
        )

    @cached_property
    def graphs(self) -> GraphFolder:
        """The circuits, once they are found."""
        if self._given is None and not (self.out / "circuits").is_dir():
            raise InputError(
                f"No circuits are found yet in {self.out}, which reports, tests and comparisons are about: call "
                "circuits() first; own parts are told beside them."
            )
        return GraphFolder(self._given or self.out / "circuits")

    @cached_property
    def checks(self) -> CausalChecks:
        """The circuits with images to test them on."""
        return CausalChecks(self.clip, self.images, self.graphs, self._checked)

    def circuits(
        self, work: Work = Work(), classes: Sequence[str] | None = None
    ) -> GraphFolder:
        """Find the circuit of every class, or of some classes, in every domain, and of parts of the images."""
        self.extraction(classes).run(work)
        if not self.graphs:
            raise InputError(
                f"No circuit was found: none of the {len(self.images)} images in {self.images.root} can be read."
            )
        return self.graphs

    def accuracy(
        self,
        held_out: Sequence[str] = (),
        test_domain: str | None = None,
        work: Work = Work(),
        *,
        least: float = 0.0,
    ) -> pd.DataFrame:
        """Measure zero-shot accuracy by domain; classes held out in training apart.

        Comparisons and own parts leave out a class in the domains where a smaller share than ``least`` of its images
        is right.
        """
        self.results["test_domain"] = test_domain
        found = zero_shot_predictions(self.clip, self.images, held_out, work=work)
        if least:
            right = class_accuracy(found)
            self.results["accuracy_by_class"] = right.assign(
                known=right["right"] >= least
            )
        return self._keep("accuracy", accuracy_kinds(tidy_accuracy(found, held_out)))

    def curves(
        self,
        work: Work = Work(),
        rankings: Sequence[str] = ("absolute",),
        random_draws: int = 2,
        sizes: Sequence[float] | None = None,
    ) -> list[FaithfulnessCurve]:
        """Test each circuit on images that it was not found on; no curves where there are none."""
        if not self._has_others():
            return self._keep("curves", [])
        asked: dict[str, Any] = {
            "rankings": tuple(rankings),
            "random_draws": random_draws,
            "sizes": sizes,
        }
        asked["work"] = work
        return self._keep(
            "curves",
            self.checks.extract_faithfulness(self.out / "faithfulness", **asked),
        )

    def curves_by_site(
        self, work: Work = Work(), random_draws: int = 2
    ) -> list[FaithfulnessCurve]:
        """Test each circuit at one site at a time, with all else as it is."""
        cut: dict[str, Any] = {
            "rankings": ("absolute",),
            "sizes": (self.checks.size,),
            "one_site": True,
        }
        cut |= {"random_draws": random_draws, "work": work}
        return self._keep(
            "one_site", self.checks.extract_faithfulness(self.out / "one-site", **cut)
        )

    def own_parts(
        self, shares: Sequence[float], work: Work = Work()
    ) -> dict[str, pd.DataFrame] | str:
        """Find and test the own part of every class in every domain; see `OwnParts`. A sentence says why none can be.

        ``shares`` are those of `OwnPartSettings`; metric, texts, baseline and number of images are the circuits'.
        """
        asked = {
            one.name: getattr(self.settings, one.name) for one in fields(FolderSettings)
        }
        settings = OwnPartSettings(
            **asked, shares=tuple(shares), sites=self.settings.sites
        )
        try:
            parts = self.parts = OwnParts(
                self.clip, self.images, self.out / OWN_PARTS, settings
            )
            answer_metric(parts.metric_of(*parts.keys[0]), "An own part is found by")
        except InputError as error:
            return self._keep("own_parts", str(error))
        parts.folder.unfinished()  # refuses a folder of other settings
        try:
            return self._keep("own_parts", parts.run(work))
        except InputError as error:
            return self._keep("own_parts", str(error))

    def own_part_tables(self) -> dict[str, pd.DataFrame]:
        """Read own parts of classes that the model knows, and write those that are told as circuits.

        Where no own part can be found, there are no tables.
        """
        found = self.results.get("own_parts")
        if isinstance(found, dict) and "own_part_tables" not in self.results:
            lesions = without_cells(
                found["lesions"],
                self._unknown,
                "part_class part_domain",
                "class domain",
            )
            alike = without_cells(
                found["overlaps"], self._unknown, "class_a domain_a", "class_b domain_b"
            )
            try:
                told = self._keep("own_part_tables", own_part_tables(lesions, alike))[
                    "told"
                ]
            except InputError as error:
                self.results["own_parts"] = str(error)
            else:
                if self.parts is not None:
                    self.parts.save_circuits(float(told["share"].iloc[0]), told)
        return dict(self.results.get("own_part_tables", {}))

    def transfer(
        self, work: Work = Work(), *, one_site: bool = True, exchange: bool = False
    ) -> dict[str, pd.DataFrame]:
        """Test each circuit in the other domains of its class; tables as `CausalChecks.extract_transfer` has them."""
        if not self._has_others():
            return {}
        if len(domains := {domain for _, domain in self.checks.chosen.tested}) < 2:
            raise InputError(
                f"Transfer is between domains, but the chosen circuits in {self.graphs.path} are of {min(domains)} "
                "alone: give more with --domains, or extract more."
            )
        found = self.checks.extract_transfer(
            self.out / "transfer", one_site=one_site, exchange=exchange, work=work
        )
        self.results |= found
        return found

    def scores(self, key: Key | None = None, work: Work = Work()) -> pd.DataFrame:
        """Set the scores of one circuit beside exact effects, and find the pixels that raise its metric."""
        key = key or self.checks.chosen.tested[0]
        check = check_attribution(
            self.checks.task_found_with(key, work), self.graphs[key]
        )
        self.results |= {
            "attribution": (key, check),
            "pixels": (key, *self.checks.pixels(*key, work=work)),
        }
        return check.points

    def compare(
        self,
        groups: Mapping[str, Sequence[str]] | None = None,
        measures: Sequence[str | Measure] = COMPARED,
    ) -> dict[str, Comparison]:
        """Compare circuits between domains; no comparisons where no class that the model knows has circuits in two."""
        graphs = self.graphs.without(self._unknown)
        if len({class_name for class_name, _ in graphs}) == len(graphs):
            return self._keep("comparisons", {})
        self.results["stability"] = circuit_stability(graphs, **self._cut)
        return self._keep(
            "comparisons",
            compare_domains(graphs, groups, measures=measures, settings=self.reading),
        )

    def cards(
        self, work: Work = Work(), out: str | Path | None = None, **settings: Any
    ) -> CardFolder:
        """Make the cards of the units that are drawn; ``settings`` are fields of `CardSettings`."""
        graphs = self.drawn
        return unit_cards(
            self.clip,
            self.images,
            graphs,
            out or graphs.path.parent / CARDS[0],
            work=work,
            **settings,
        )

    def explore(self) -> ExplorerPage:
        """Write the explorer of what is in the folder."""
        return explore_run(self.out, self.drawn)

    @property
    def drawn(self) -> GraphFolder:
        """The circuits that cards and explorer show: given ones, else own parts, where there are any."""
        return self.graphs if self._given else GraphFolder(drawn_circuits(self.out))

    def report(
        self,
        title: str | None = None,
        introduction: str | None = None,
        *,
        results: Path | None = None,
        provenance: Mapping[str, object] | None = None,
        apart: str | None = None,
        pair: tuple[str, str, str] | None = None,
    ) -> Written:
        """Write what the steps found: tables, comparisons, figures and a page.

        Own parts come before circuits that are enough where they were found first.

        Args:
            introduction: What was done, in a few sentences.
            results: A second folder, for tables of at most `SMALL` rows.
            provenance: What made the numbers, beside model, settings and versions.
            apart: A domain to set against the others.
            pair: Class and two domains whose circuits are drawn (default: the first class in its two least similar
                domains).
        """
        found, graphs = self.results, self.graphs
        if apart is not None and "comparisons" not in found:
            raise InputError(
                f"A domain is set apart in comparisons, but apart={apart!r} was given before there are any: call "
                "compare() first, or leave out apart=."
            )
        if "transfer" in found:
            found["similarity"] = self._similarity()
        self.own_part_tables()
        page = Report(
            title or f"Circuits of {self.clip.name}", introduction or self.introduction
        )
        facts = {
            **(provenance or {}),
            "model": self.clip.name,
            **graphs.settings,
            **graphs.manifest["versions"],
        }
        tested_on = None
        if found.get("curves") or "transfer" in found:
            facts["tested"], tested_on = (
                self.checks.provenance,
                self.checks.chosen.in_words,
            )
        add_findings(
            page, graphs, self.images, found, self._cut, tested_on, apart, pair
        )
        tables = tables_of(found, apart)
        small = [name for name, table in tables.items() if len(table) <= SMALL]
        saved = found.get("comparisons", {}) | transfer_comparisons(
            found.get("transfer")
        )
        return write_results(
            page, tables, self.out, results, facts, small, self._looked_at(), saved
        )

    @property
    def introduction(self) -> str:
        """What was done, or why nothing was compared."""
        graphs, domains = self.graphs, ", ".join(sorted(self.graphs.domains))
        if self.results.get("comparisons", True):
            return (
                f"For each of {len(graphs.classes)} classes in {domains}, the circuit that recognises it was found by "
                f"attribution on up to {self.settings.n_images} images, and circuits were compared between domains."
            )
        if self._unknown and len(graphs.classes) < len(graphs):
            return (
                "Nothing was compared: that takes a class that the model knows in at least two domains, and it knows "
                f"none of {', '.join(graphs.classes)} in two of {domains}. Give classes or domains that it knows, or "
                f"--least-accuracy 0. The {len(graphs)} circuits are in {graphs.path}: read them with GraphFolder."
            )
        return (
            f"Nothing was compared: that takes a class with circuits in at least two domains, and each of the "
            f"{len(graphs.classes)} classes has one in only one of {domains}. Give more domains, or classes that have "
            f"images in them. The {len(graphs)} circuits are in {graphs.path}: read them with GraphFolder."
        )

    def _keep(self, name: str, found: T) -> T:
        """Remember what a step found, and return it."""
        self.results[name] = found
        return found

    @property
    def _cut(self) -> dict[str, Any]:
        return {
            "edges_per_node": self.reading.edges_per_node,
            "any_sign": self.reading.any_sign,
        }

    def _has_others(self) -> bool:
        """Whether there are images that circuits were not found on; those of given circuits are looked for later."""
        n_found = int(self.graphs.manifest["config"]["n_images"])
        return (
            self._given is not None
            or max(len(self.images.select(*key)) for key in self.graphs) > n_found
        )

    @property
    def _unknown(self) -> list[Key]:
        """The classes that the model does not know, with the domain."""
        right = self.results.get("accuracy_by_class")
        return (
            []
            if right is None
            else list(
                right.loc[~right["known"], ["class", "domain"]].itertuples(index=False)
            )
        )

    def _similarity(self) -> pd.DataFrame:
        """Return the share of edges that two domains have in common."""
        found = self.results.get("comparisons")
        if not found:
            chosen = {key: self.graphs[key] for key in self.checks.chosen.keys}
            found = compare_domains(chosen, measures=["edge_jaccard"])
        return found["edge_jaccard"].matrix()

    def _looked_at(self) -> dict[str, list[str]]:
        """Return the classes and images that circuits were found on; of given circuits those of the tests."""
        if self._given is None:
            return listings_of(self.images, self.settings.n_images, self.settings.seed)
        chosen = self.checks.chosen
        return listings_of_records(
            record for key in chosen.tested for record in chosen.own(key)
        )

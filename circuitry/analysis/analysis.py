"""One analysis of a model in a folder: circuits, own parts, tests, comparisons, cards, a report and the explorer.

Every step leaves its files in the folder, and a finished one is read. Several processes share a step by the rank of
their `Work`. The report shows what the steps found. All steps take the images of one `Split`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from circuitry.analysis.analysis_answers import AccuracyAnswer, AnalysisAnswers
from circuitry.analysis.run_explorer import explore_run
from circuitry.analysis.run_layout import CARDS, CIRCUITS, OWN_PARTS, drawn_circuits
from circuitry.cards.card_folder import CardFolder
from circuitry.cards.card_jobs import unit_cards
from circuitry.circuits.across_domains import COMPARED, compare_domains
from circuitry.circuits.consensus import circuit_stability
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.circuits.measures import Measure
from circuitry.circuits.similarities_of_classes import ReadingSettings
from circuitry.comparison.comparison import Comparison
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.splits import Split
from circuitry.encoder.metrics import answer_metric
from circuitry.explorer.export import ExplorerPage
from circuitry.interventions.attribution_check import check_attribution
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.intervention_settings import CheckSettings, OwnPartSettings
from circuitry.interventions.transfer_tables import transfer_comparisons
from circuitry.models.clip import Clip
from circuitry.models.options import FolderSettings
from circuitry.questions.answers_of_circuits import (
    AnswerContext,
    ComparedAnswer,
    CurvesAnswer,
    ScoresAnswer,
    TransferAnswer,
)
from circuitry.questions.checks import CausalChecks
from circuitry.questions.extraction import Extraction
from circuitry.questions.own_parts_answer import OwnPartsAnswer
from circuitry.questions.own_parts_jobs import OwnParts
from circuitry.questions.question_settings import ExtractionSettings
from circuitry.reports.page import Report, Written, write_results
from circuitry.reports.result_tables import listings_of_records
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import versions
from circuitry.runs.workers import Work
from circuitry.training.accuracy import accuracy_kinds, class_accuracy, tidy_accuracy
from circuitry.training.evaluation import zero_shot_predictions

SMALL = 600
"""Rows of a table that is small enough to be committed."""


class Analysis:
    """An analysis of a model on images, in a folder: any steps, and a report of them.

    Example:
        >>> from circuitry.analysis import Analysis
        >>> from circuitry.interventions import CheckSettings
        >>> from circuitry.questions import ExtractionSettings
        >>> settings, checks = ExtractionSettings(n_images=2), CheckSettings(n_images=1)
        >>> few = circuitry.DomainFolder("DomainNet", classes=("clock",), domains=("real", "sketch"))
        >>> run = Analysis(clip, few, "runs/analysis", settings, checks)
        >>> graphs, curves = run.circuits(), run.curves()
        >>> run.compare()["edge_jaccard"].ratios()
        >>> print(run.report(), run.explore())
    """

    answers: AnalysisAnswers
    """The results of the steps; results of another process can be assigned."""

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
        """Join a model, images, and the settings of all steps.

        Args:
            clip: The model.
            images: Its images, sorted by domain and class.
            out: Folder of everything that is made.
            settings: How circuits are found; their number of images, seed, metric, texts and baseline are own parts',
                too.
            checks: How circuits are tested.
            reading: How circuits are cut where they are compared and drawn.
            circuits: A folder of circuits that were found before.
        """
        self.clip = clip
        self.images = images
        self.out = Path(out)
        self.settings = settings or ExtractionSettings()
        self.reading = reading or ReadingSettings()
        self.answers = AnalysisAnswers()
        self._checked = checks
        self._given = circuits
        self._parts: OwnParts | None = None

    def extraction(self, classes: Sequence[str] | None = None) -> Extraction:
        """Return the jobs of `circuits`."""
        out = self.out / CIRCUITS
        return Extraction(self.clip, self.images, out, self.settings, classes)

    @cached_property
    def graphs(self) -> GraphFolder:
        """The circuits, once they are found."""
        if not self._has_circuits:
            raise InputError(
                f"No circuits are found yet in {self.out}, which tests and comparisons are about: call "
                "circuits() first."
            )
        return GraphFolder(self._given or self.out / CIRCUITS)

    @property
    def _has_circuits(self) -> bool:
        return self._given is not None or (self.out / CIRCUITS).is_dir()

    @cached_property
    def checks(self) -> CausalChecks:
        """The circuits with images to test them on."""
        return CausalChecks(self.clip, self.images, self.graphs, self._checked)

    def circuits(
        self, work: Work = Work(), classes: Sequence[str] | None = None
    ) -> GraphFolder:
        """Find the circuit of every class, or of some classes, in every domain, and of parts of the images."""
        self.extraction(classes).run(work)
        # Unreadable images are warned of one by one; with none left, no later step could work.
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
        predictions = zero_shot_predictions(self.clip, self.images, held_out, work=work)
        by_domain = accuracy_kinds(tidy_accuracy(predictions, held_out))
        # Without a least accuracy every class counts as known.
        by_class = None
        if least:
            by_class = class_accuracy(predictions)
            by_class["known"] = by_class["right"] >= least
        self.answers.accuracy = AccuracyAnswer(by_domain, by_class, test_domain)
        return by_domain

    def curves(
        self,
        work: Work = Work(),
        rankings: Sequence[str] = ("absolute",),
        random_draws: int = 2,
        sizes: Sequence[float] | None = None,
    ) -> list[FaithfulnessCurve]:
        """Test each circuit on images that it was not found on; no curves where there are none."""
        curves: list[FaithfulnessCurve] = []
        if self._can_test():
            curves = self.checks.extract_faithfulness(
                self.out / "faithfulness",
                rankings=tuple(rankings),
                random_draws=random_draws,
                sizes=sizes,
                work=work,
            )
        self.answers.curves = CurvesAnswer(curves)
        return curves

    def curves_by_site(
        self, work: Work = Work(), random_draws: int = 2
    ) -> list[FaithfulnessCurve]:
        """Test each circuit at one site at a time, with all else as it is."""
        curves = self.checks.extract_faithfulness(
            self.out / "one-site",
            rankings=("absolute",),
            sizes=(self.checks.size,),
            one_site=True,
            random_draws=random_draws,
            work=work,
        )
        # Curves at all sites stay in the answer, whichever of the two steps comes first.
        of_all_sites: list[FaithfulnessCurve] = []
        if self.answers.curves is not None:
            of_all_sites = self.answers.curves.curves
        self.answers.curves = CurvesAnswer(of_all_sites, curves)
        return curves

    def own_parts(self, shares: Sequence[float], work: Work = Work()) -> OwnPartsAnswer:
        """Find and test the own part of every class in every domain; see `OwnParts`.

        Args:
            shares: Shares of the units that own parts have, as in `OwnPartSettings`.

        Returns:
            Lesions and overlaps, or a sentence that says why there are none.
        """
        answers = self.answers
        # A report tells of own parts and circuits in the order in which they were first asked for.
        if answers.own_parts is None:
            answers.own_parts_first = answers.curves is None
        answers.own_parts = self._find_own_parts(shares, work)
        answers.own_parts_saved = False
        return answers.own_parts

    def _find_own_parts(self, shares: Sequence[float], work: Work) -> OwnPartsAnswer:
        # Own parts and circuits take the same images, metric, texts and baseline.
        asked: dict[str, Any] = {
            field.name: getattr(self.settings, field.name)
            for field in fields(FolderSettings)
        }
        settings = OwnPartSettings(
            **asked, shares=tuple(shares), sites=self.settings.sites
        )
        out = self.out / OWN_PARTS
        # Images without own parts are an answer, not an error: the report gives the reason, and other steps go on.
        try:
            parts = OwnParts(self.clip, self.images, out, settings, self.split)
            answer_metric(parts.metric_of(*parts.keys[0]), "An own part is found by")
        except InputError as error:
            return OwnPartsAnswer(reason=str(error))
        parts.folder.unfinished()  # raises for a folder of other settings, outside of `try`
        self._parts = parts
        try:
            tables = parts.run(work)
            return OwnPartsAnswer(tables["lesions"], tables["overlaps"])
        except InputError as error:
            return OwnPartsAnswer(reason=str(error))

    def own_part_tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of own parts without classes that the model does not know; none where no part is found.

        The parts of the reported share are written as a folder of circuits, for cards and the explorer.
        """
        answers = self.answers
        asked = answers.own_parts
        if asked is None:
            return {}
        answers.own_parts = asked.of_known(answers.unknown)
        tables = answers.own_parts.named_tables
        # Written once: meanwhile another process may read them, to make cards.
        is_saved = answers.own_parts_saved and answers.own_parts is asked
        if tables and self._parts is not None and not is_saved:
            # Every row of the table has the share that the report is about.
            told = tables["told"]
            self._parts.save_circuits(float(told["share"].iloc[0]), told)
            answers.own_parts_saved = True
        return tables

    def transfer(
        self, work: Work = Work(), *, one_site: bool = True, exchange: bool = False
    ) -> dict[str, pd.DataFrame]:
        """Test each circuit in the other domains of its class; tables as `CausalChecks.extract_transfer` has them."""
        if not self._can_test():
            return {}
        # Said before the images are read, which takes a while.
        domains = {domain for _, domain in self.checks.chosen.tested}
        if len(domains) == 1:
            raise InputError(
                f"Transfer is between domains, but the chosen circuits in {self.graphs.path} are of {min(domains)} "
                "alone: give more with --domains, or extract more."
            )
        tables = self.checks.extract_transfer(
            self.out / "transfer", one_site=one_site, exchange=exchange, work=work
        )
        interchange = tables.get("interchange")
        self.answers.transfer = TransferAnswer(
            tables["transfer"], interchange, self._similarity()
        )
        return tables

    def scores(self, key: Key | None = None, work: Work = Work()) -> pd.DataFrame:
        """Set the scores of one circuit beside exact effects, and find the pixels that raise its metric."""
        # Any circuit serves as an example; the first is the same in every run.
        key = key or self.checks.chosen.tested[0]
        task = self.checks.task_found_with(key, work)
        check = check_attribution(task, self.graphs[key])
        shown, maps = self.checks.pixels(*key, work=work)
        self.answers.scores = ScoresAnswer(key, check, shown, maps)
        return check.points

    def compare(
        self,
        groups: Mapping[str, Sequence[str]] | None = None,
        measures: Sequence[str | Measure] = COMPARED,
    ) -> dict[str, Comparison]:
        """Compare the circuits of each class between domains, without classes that the model does not know.

        Args:
            groups: Classes by the name of a group; each group gets a summary of its own.
            measures: Names of similarity measures, or a `Measure`.

        Returns:
            A comparison for each measure; none where every class has a circuit in a single domain.
        """
        graphs = self.graphs.without(self.answers.unknown)
        # With as many classes as circuits, no class has circuits in two domains.
        if len({class_name for class_name, _ in graphs}) == len(graphs):
            self.answers.compared = ComparedAnswer()
            return {}
        stability = circuit_stability(
            graphs,
            edges_per_node=self.reading.edges_per_node,
            any_sign=self.reading.any_sign,
        )
        comparisons = compare_domains(
            graphs, groups, measures=measures, settings=self.reading
        )
        self.answers.compared = ComparedAnswer(comparisons, stability)
        # Transfer is told beside this comparison, whichever of the two steps comes first.
        if self.answers.transfer is not None:
            similarity = self._similarity()
            self.answers.transfer = replace(
                self.answers.transfer, similarity=similarity
            )
        return comparisons

    def cards(
        self, work: Work = Work(), out: str | Path | None = None, **settings: Any
    ) -> CardFolder:
        """Make the cards of the units that are drawn; ``settings`` are fields of `CardSettings`."""
        graphs = self.drawn
        # Where the explorer looks for them.
        out = out or graphs.path.parent / CARDS[0]
        return unit_cards(self.clip, self.images, graphs, out, work=work, **settings)

    def explore(self) -> ExplorerPage:
        """Write the explorer of what is in the folder."""
        return explore_run(self.out, self.drawn)

    @property
    def drawn(self) -> GraphFolder:
        """The circuits that cards and explorer show: given ones, else own parts, where there are any."""
        if self._given:
            return self.graphs
        return GraphFolder(drawn_circuits(self.out))

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
        answers = self.answers
        if apart is not None and answers.compared is None:
            raise InputError(
                f"A domain is set apart in comparisons, but apart={apart!r} was given before there are any: call "
                "compare() first, or leave out apart=."
            )
        graphs = self.graphs if self._has_circuits else None
        if graphs is None and answers.own_parts is None:
            raise InputError(
                f"No circuits are found yet in {self.out}, which a report is about: call circuits() or own_parts() "
                "first."
            )
        # Unknown classes leave the tables of own parts before any section is written.
        self.own_part_tables()
        of = AnswerContext(self.images, graphs, self.reading, apart, pair)
        tables = answers.tables(of)
        facts = dict(provenance or {}) | self._facts(graphs)
        comparisons: dict[str, Comparison] = {}
        if answers.compared is not None:
            comparisons |= answers.compared.comparisons
        tested_on = None
        if answers.transfer is not None:
            comparisons |= transfer_comparisons(answers.transfer.transfer)
        # Settings of tests are told only where tests were made, so a folder of circuits is not read for nothing.
        if answers.transfer is not None or (answers.curves and answers.curves.curves):
            facts["tested"] = self.checks.provenance
            tested_on = self.checks.chosen.in_words
        subject = "Own parts" if graphs is None else "Circuits"
        title = title or f"{subject} of {self.clip.name}"
        page = Report(title, introduction or self.introduction)
        answers.add_to(page, of, tested_on)
        return write_results(
            page,
            tables,
            self.out,
            results,
            facts,
            [name for name, table in tables.items() if len(table) <= SMALL],
            self._looked_at(),
            comparisons,
        )

    @property
    def introduction(self) -> str:
        """The first sentences of the report: the work that was done, or the reason why nothing was compared."""
        if not self._has_circuits:
            return (
                f"For each of {len(self.images.classes)} classes in {', '.join(sorted(self.images.domains))}, the "
                f"class's own part was looked for on up to {self.settings.n_images} images."
            )
        graphs = self.graphs
        domains = ", ".join(sorted(graphs.domains))
        compared = self.answers.compared
        if compared is None or compared.comparisons:
            # Given circuits were found with settings of their own.
            n_images = graphs.manifest["config"]["n_images"]
            work = (
                f"For each of {len(graphs.classes)} classes in {domains}, the circuit that recognises it was found by "
                f"attribution on up to {n_images} images"
            )
            if compared is None:
                return f"{work}."
            return f"{work}, and circuits were compared between domains."
        read_them = f"The {len(graphs)} circuits are in {graphs.path}: read them with GraphFolder."
        if self.answers.unknown and len(graphs.classes) < len(graphs):
            return (
                "Nothing was compared: that takes a class that the model knows in at least two domains, and it knows "
                f"none of {', '.join(graphs.classes)} in two of {domains}. Give classes or domains that it knows, or "
                f"--least-accuracy 0. {read_them}"
            )
        return (
            f"Nothing was compared: that takes a class with circuits in at least two domains, and each of the "
            f"{len(graphs.classes)} classes has one in only one of {domains}. Give more domains, or classes that have "
            f"images in them. {read_them}"
        )

    @cached_property
    def split(self) -> Split:
        """The images that find, and those that test, in every step."""
        # Given circuits took their images by settings of their own, and own parts go by these.
        if self._given is not None:
            return self.checks.chosen.split
        return Split(
            self.images,
            self.settings.n_images,
            self.settings.seed,
            self.settings.leave_unseen,
        )

    def _facts(self, graphs: GraphFolder | None) -> dict[str, object]:
        """Return model, settings and versions behind the numbers: those of circuits, or else of own parts."""
        model: dict[str, object] = {"model": self.clip.name}
        # Stored circuits say which versions found them; those of this process may be others.
        if graphs is not None:
            model |= graphs.settings
            model |= graphs.manifest["versions"]
            return model
        if self._parts is not None:
            return model | self._parts.provenance | versions()
        return model | versions()

    def _can_test(self) -> bool:
        """Return whether images are left to test on."""
        # The images of given circuits are chosen by `checks`, which says itself where none is left.
        if self._given is not None:
            return True
        return any(self.split.unseen(key) for key in self.graphs)

    def _similarity(self) -> pd.DataFrame:
        """Return the share of edges that two domains have in common."""
        compared = self.answers.compared
        if compared is not None and "edge_jaccard" in compared.comparisons:
            return compared.comparisons["edge_jaccard"].matrix()
        # Not compared yet: only the circuits that were tested are.
        chosen = {key: self.graphs[key] for key in self.checks.chosen.keys}
        compared_now = compare_domains(chosen, measures=["edge_jaccard"])
        return compared_now["edge_jaccard"].matrix()

    def _looked_at(self) -> dict[str, list[str]]:
        """Return the names of the classes and images of the report: the images that found circuits.

        Given circuits were found elsewhere, so for them it is the images of the tests.
        """
        if self._given is not None:
            chosen = self.checks.chosen
            keys, side = chosen.tested, chosen.own
        else:
            keys = list(product(self.images.classes, self.images.domains))
            side = self.split.found_on
        return listings_of_records(record for key in keys for record in side(key))

"""The whole analysis of a model: circuits, own parts, tests, comparisons, cards, a report and the explorer.

Each step writes its results into the folder of the analysis. If a step is finished, its results are read from there.
Several processes can share a step, each with its own rank in `Work`. The report shows what the steps have found. All
steps use the same `Split` of the images into images used to find circuits and images used to test them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
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
from circuitry.circuits.tower_defaults import default_size
from circuitry.comparison.comparison import Comparison
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.splits import Split
from circuitry.encoder.metrics import answer_metric
from circuitry.explorer.export import ExplorerPage
from circuitry.interventions.attribution_check import check_attribution
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import curve_forwards
from circuitry.interventions.intervention_settings import (
    MIB_SIZES,
    CheckSettings,
    OwnPartSettings,
)
from circuitry.models.clip import Clip
from circuitry.models.options import FolderSettings
from circuitry.questions.answers_of_circuits import (
    AnswerContext,
    ComparedAnswer,
    CurvesAnswer,
    ScoresAnswer,
)
from circuitry.questions.checks import (
    CURVE_DRAWS,
    FAITHFULNESS_FORMAT,
    FOREIGN,
    CausalChecks,
)
from circuitry.questions.extraction import Extraction
from circuitry.questions.own_parts_answer import OwnPartsAnswer
from circuitry.questions.own_parts_jobs import OwnParts
from circuitry.questions.question_settings import ExtractionSettings
from circuitry.reports.page import Report, Written, write_results
from circuitry.reports.result_tables import listings_of_records
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import JobFolder, jobs_left
from circuitry.runs.manifest import read_manifest
from circuitry.runs.plan import Forwards, Step
from circuitry.runs.provenance import versions
from circuitry.runs.workers import Work
from circuitry.training.accuracy import accuracy_kinds, class_accuracy, tidy_accuracy
from circuitry.training.evaluation import zero_shot_predictions

SMALL = 600
"""Largest number of rows of a table that is small enough to be committed."""


class Analysis:
    """An analysis of a model on images, in a folder. Each method is a step; `report` and `explore` show the results.

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
    """The results of the steps. To go on with the results of another process, assign them to this attribute."""

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
        """Prepare an analysis, without taking any step.

        Args:
            clip: The model.
            images: The images, sorted by domain and class.
            out: Folder of all results.
            settings: How circuits are found. The number of images, seed, metric, texts and baseline also hold for own
                parts.
            checks: How circuits are tested.
            reading: Which edges circuits have when they are compared and drawn, and how chance levels are measured.
            circuits: A folder of circuits that were found before. If it is given, these circuits are tested, compared
                and shown (default: the circuits that the step `circuits` finds).
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
        """Return the `Extraction` that finds the circuits of some classes (default: all classes); see `circuits`."""
        out = self.out / CIRCUITS
        return Extraction(self.clip, self.images, out, self.settings, classes)

    @cached_property
    def graphs(self) -> GraphFolder:
        """The circuits. InputError is raised if no circuits have been found yet."""
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
        """The `CausalChecks` of the circuits: the model, the circuits, and images to test them on."""
        return CausalChecks(self.clip, self.images, self.graphs, self._checked)

    def circuits(
        self, work: Work = Work(), classes: Sequence[str] | None = None
    ) -> GraphFolder:
        """Find the circuit of each class in each domain.

        If the settings say so, a circuit is also found on each fold of the images.

        Args:
            classes: Classes whose circuits are found (default: all classes).

        Returns:
            The folder of the circuits.

        Raises:
            InputError: if no image can be read.
        """
        self.extraction(classes).run(work)
        # Each image that cannot be read has caused a warning. Without any readable image, no later step could work.
        if not self.graphs:
            raise InputError(
                f"No circuit was found: none of the {len(self.images)} images in {self.images.root} can be read."
            )
        return self.graphs

    def steps(
        self, shares: Sequence[float] = (), *, tests: bool = True, accuracy: bool = True
    ) -> list[Step]:
        """Return what is left of circuits, curves, own parts and accuracy, as steps of a `Plan`.

        Args:
            shares: Sizes of own parts; without any, own parts are left out.
            tests: Whether circuits are tested by curves.
            accuracy: Whether the accuracy is measured.
        """
        steps = self.extraction().steps()
        if tests:
            steps += self._curve_steps()
        if shares:
            # If these images have no own parts, the report says why, and there is nothing to plan.
            try:
                parts = self._question_of_own_parts(shares)
            except InputError:
                pass
            else:
                steps += parts.steps()
        if accuracy:
            n_images = len(self.images)
            runs = Forwards(alone=n_images)
            steps.append(Step("accuracy", 1, runs, n_images))
        return steps

    def _curve_steps(self) -> list[Step]:
        """Return what `curves` needs for the circuits of this analysis, which may not be found yet."""
        checks = self._checked or CheckSettings()
        n_foreign = min(FOREIGN, len(self.images.classes) - 1)
        size = self.settings.size or default_size(self.clip.encoder)
        sizes = {*MIB_SIZES, size}
        n_images = dict[Key, int]()
        for key in product(self.images.classes, self.images.domains):
            own = self.split.unseen(key, checks.n_images)
            if own and self.split.found_on(key):
                others = self.split.others(key, checks.n_others, unseen=True)
                n_images[key] = len(own) + len(others)
        path = self.out / "faithfulness"
        left = jobs_left(
            path,
            list(n_images),
            lambda: JobFolder.made(path, read_manifest(path, FAITHFULNESS_FORMAT)),
        )
        total = sum(n_images[class_name, domain] for class_name, domain in left)
        if not total:
            return []
        forwards = curve_forwards(total, [*sizes], CURVE_DRAWS, n_foreign)
        return [
            self.extraction().baseline_step(list(n_images)),
            # Three numbers for each circuit and image.
            Step("curves", len(left), forwards, total, 24 * forwards.alone),
        ]

    def accuracy(
        self,
        held_out: Sequence[str] = (),
        test_domain: str | None = None,
        work: Work = Work(),
        *,
        least: float = 0.0,
    ) -> pd.DataFrame:
        """Measure zero-shot accuracy in each domain, and decide which classes the model knows.

        Comparisons and own parts leave out a class in each domain where the model does not know the class.

        Args:
            held_out: Held-out classes: classes that were left out of ``test_domain`` in training. Their accuracy is
                also measured separately.
            test_domain: The domain in which these classes were left out.
            least: The model knows a class in a domain if it classifies at least this share of the images correctly.
                With 0 every class counts as known.

        Returns:
            The table of `accuracy_kinds`: a row for each domain.
        """
        predictions = zero_shot_predictions(self.clip, self.images, held_out, work=work)
        by_domain = accuracy_kinds(tidy_accuracy(predictions, held_out))
        # If `least` is 0, every class counts as known.
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
        random_draws: int = CURVE_DRAWS,
        sizes: Sequence[float] | None = None,
    ) -> list[FaithfulnessCurve]:
        """Compute the faithfulness curve of each circuit on images that were not used to find the circuit.

        Args:
            rankings: How units are ranked. Each circuit gets a curve for each ranking.
            random_draws: How many random circuits of each size are tested for comparison.
            sizes: Sizes of the circuits (default: the sizes of `CausalChecks.extract_faithfulness`).

        Returns:
            The curves. The list is empty if no images are left to test circuits on.
        """
        curves: list[FaithfulnessCurve] = []
        # For circuits that were given, `checks` chooses the images, and raises an error if no images are left.
        if self._given or any(self.split.unseen(key) for key in self.graphs):
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
        self, work: Work = Work(), random_draws: int = CURVE_DRAWS
    ) -> list[FaithfulnessCurve]:
        """Test each circuit at one site at a time.

        Only the units of the circuit are kept at this site, while all other sites stay unchanged.

        Args:
            random_draws: How many random circuits are tested for comparison.

        Returns:
            A curve for each circuit and site.
        """
        curves = self.checks.extract_faithfulness(
            self.out / "one-site",
            rankings=("absolute",),
            sizes=(self.checks.size,),
            one_site=True,
            random_draws=random_draws,
            work=work,
        )
        # The answer keeps the curves of `curves`, whichever of the two steps comes first.
        of_all_sites: list[FaithfulnessCurve] = []
        if self.answers.curves is not None:
            of_all_sites = self.answers.curves.curves
        self.answers.curves = CurvesAnswer(of_all_sites, curves)
        return curves

    def own_parts(self, shares: Sequence[float], work: Work = Work()) -> OwnPartsAnswer:
        """Find and test the own part of every class in every domain; see `OwnParts`.

        The own part of a class consists of units that the class needs and other classes do not.

        Args:
            shares: Sizes of own parts, as shares of the units. An own part of each size is found.

        Returns:
            The tables of lesions and overlaps, or a sentence that says why no own parts were found.
        """
        answers = self.answers
        # A report shows own parts and circuits in the order in which these two steps were first taken.
        if answers.own_parts is None:
            answers.own_parts_first = answers.curves is None
        answers.own_parts = self._find_own_parts(shares, work)
        answers.own_parts_saved = False
        return answers.own_parts

    def _question_of_own_parts(self, shares: Sequence[float]) -> OwnParts:
        # Own parts and circuits use the same images, metric, texts and baseline.
        asked: dict[str, Any] = {
            field.name: getattr(self.settings, field.name)
            for field in fields(FolderSettings)
        }
        settings = OwnPartSettings(
            **asked, shares=tuple(shares), sites=self.settings.sites
        )
        out = self.out / OWN_PARTS
        return OwnParts(self.clip, self.images, out, settings, self.split)

    def _find_own_parts(self, shares: Sequence[float], work: Work) -> OwnPartsAnswer:
        # If these images have no own parts, it is an answer, not an error: the report gives the reason.
        try:
            parts = self._question_of_own_parts(shares)
            answer_metric(parts.metric_of(*parts.keys[0]), "An own part is found by")
        except InputError as error:
            return OwnPartsAnswer(reason=str(error))
        parts.folder.unfinished()  # outside of `try`, since a folder of other settings is an error
        self._parts = parts
        try:
            tables = parts.run(work)
            return OwnPartsAnswer(tables["lesions"], tables["overlaps"])
        except InputError as error:
            return OwnPartsAnswer(reason=str(error))

    def own_part_tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of own parts by name, without the classes that the model does not know.

        Own parts have several sizes, and the report is about one of them. The own parts of this size are also written
        as a folder of circuits, from which cards and the explorer are made. The result is empty if no own part was
        found.
        """
        answers = self.answers
        asked = answers.own_parts
        if asked is None:
            return {}
        answers.own_parts = asked.of_known(answers.unknown)
        tables = answers.own_parts.named_tables
        # The folder is written only once, because another process may already read it to make cards.
        is_saved = answers.own_parts_saved and answers.own_parts is asked
        if tables and self._parts is not None and not is_saved:
            # Every row of the table has the share that the report is about.
            told = tables["told"]
            self._parts.save_circuits(float(told["share"].iloc[0]), told)
            answers.own_parts_saved = True
        return tables

    def scores(self, key: Key | None = None, work: Work = Work()) -> pd.DataFrame:
        """Compare the scores of one circuit's units with exact effects, which the report shows.

        Args:
            key: Class and domain of the circuit (default: the first circuit that is tested).

        Returns:
            A table with the score and the exact effect of each unit that was compared.
        """
        # Any circuit serves as an example; the first is the same in every run.
        key = key or self.checks.chosen.tested[0]
        task = self.checks.task_found_with(key, work)
        check = check_attribution(task, self.graphs[key])
        self.answers.scores = ScoresAnswer(key, check)
        return check.points

    def compare(
        self,
        groups: Mapping[str, Sequence[str]] | None = None,
        measures: Sequence[str | Measure] = COMPARED,
    ) -> dict[str, Comparison]:
        """Compare the circuits of each class between domains.

        A class is left out of the domains where the model does not know it; see `accuracy`.

        Args:
            groups: The classes of each group, by the name of the group. Each group gets a summary of its own.
            measures: Names of similarity measures, or `Measure` objects.

        Returns:
            A comparison for each measure, by the name of the measure. The dictionary is empty if every class has
            circuits in only one domain.
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
        return comparisons

    def cards(
        self, work: Work = Work(), out: str | Path | None = None, **settings: Any
    ) -> CardFolder:
        """Make a card for each unit in the circuits that the explorer shows (`drawn`).

        A card shows the images that activate the unit, its effects, and its name.

        Args:
            out: Folder of the cards (default: ``cards`` beside the circuits).
            settings: Fields of `CardSettings`.
        """
        graphs = self.drawn
        # The explorer looks for cards in this folder.
        out = out or graphs.path.parent / CARDS[0]
        return unit_cards(self.clip, self.images, graphs, out, work=work, **settings)

    def explore(self) -> ExplorerPage:
        """Write the explorer: a page that shows the circuits, and the results that are stored in the folder."""
        return explore_run(self.out, self.drawn)

    @property
    def drawn(self) -> GraphFolder:
        """The circuits that cards and the explorer show.

        If circuits were given to this analysis, these are shown. Otherwise the own parts are shown. If no own parts
        were found, the circuits that this analysis found are shown.
        """
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
        """Write what the steps found: tables, comparisons, figures and an HTML page.

        The page shows own parts before circuits if own parts were found before the circuits were tested.

        Args:
            title: Title of the page.
            introduction: What was done, in a few sentences.
            results: A second folder, for tables of at most `SMALL` rows.
            provenance: What the results depend on, in addition to the model, settings and versions.
            apart: A domain that is compared with all other domains in a section of its own.
            pair: Class and two domains whose circuits are drawn (default: the first class in its two least similar
                domains).

        Returns:
            Short answers, and the paths of the files that were written.
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
        # Classes that the model does not know are removed from own parts before any section is written.
        self.own_part_tables()
        of = AnswerContext(self.images, graphs, self.reading, apart, pair)
        tables = answers.tables(of)
        facts = dict(provenance or {}) | self._facts(graphs)
        comparisons: dict[str, Comparison] = {}
        if answers.compared is not None:
            comparisons = dict(answers.compared.comparisons)
        tested_on = None
        # The settings of tests are given only if tests were made. So a folder of circuits is not read needlessly.
        if answers.curves and answers.curves.curves:
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
        """The first sentences of the report. They say what was done, or why no circuits were compared."""
        if not self._has_circuits:
            return (
                f"For each of {len(self.images.classes)} classes in {', '.join(sorted(self.images.domains))}, the "
                f"class's own part was looked for on up to {self.settings.n_images} images."
            )
        graphs = self.graphs
        domains = ", ".join(sorted(graphs.domains))
        compared = self.answers.compared
        if compared is None or compared.comparisons:
            # Circuits that were given may have been found with other settings than those of this analysis.
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
        """How the images are divided, for all steps, into images used to find circuits and images used to test them."""
        # If circuits were given, their images were chosen by other settings, and own parts use these images, too.
        if self._given is not None:
            return self.checks.chosen.split
        return Split(
            self.images,
            self.settings.n_images,
            self.settings.seed,
            self.settings.leave_unseen,
        )

    def _facts(self, graphs: GraphFolder | None) -> dict[str, object]:
        """Return what made the circuits, by name: the model, the settings, and the versions of packages.

        If there are no circuits, return what made the own parts.
        """
        model: dict[str, object] = {"model": self.clip.name}
        # Stored circuits say which versions of the packages found them. This process may use other versions.
        if graphs is not None:
            model |= graphs.settings
            model |= graphs.manifest["versions"]
            return model
        if self._parts is not None:
            return model | self._parts.provenance | versions()
        return model | versions()

    def _looked_at(self) -> dict[str, list[str]]:
        """Return the classes and images that are listed in files of the report.

        These are the images used to find circuits. If circuits were given to this analysis, the images used to test the
        circuits are listed instead.
        """
        if self._given is not None:
            chosen = self.checks.chosen
            keys, side = chosen.tested, chosen.own
        else:
            keys = list(product(self.images.classes, self.images.domains))
            side = self.split.found_on
        return listings_of_records(record for key in keys for record in side(key))

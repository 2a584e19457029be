"""Which way to remove a class takes what? Own parts beside their rivals on PACS, read at three depths.

Written before any run, on 1 December.

*Images.* PACS, 7 classes; the pictures of a class are put in order by the SHA-256 of ``domain/class/file``. The first
60 photographs of each class fit the head and take no further part. Of the following pictures of a style, the first 12
that the whole model recognises find (own images: those of the class; others: those of the six other classes, 72), the
next 20 test (of each other class 5, together 30) and the next 12 of each class fit the constant and the new head. No
picture that tests or fits is left out because of an answer.

*Model.* EfficientNet-Lite0 with ImageNet weights at 160 px, and a logistic regression of normalised embeddings without
a bias, whose penalty is chosen by cross-validation on the same 60 photographs.

*Rivals.* All get the same images and ablate the same number of units (2 % of the units of the sites that count, by the
mean per position). Edits of the bias, the embedding, the weights and of channels' strength are in their own form. The
learned mask has its weight of sparsity chosen among 1, 3 and 10 on the finding images of the first class.

*Read.* For each class: fall of the class's log-odds and of other images' own log-odds; area under the ROC curve of the
class's log-odds; right answers and mean rank of the class. At 2 %, for edits and for rivals that may take something
(`REFITTED`), also right answers with one constant added to the class's logit, and right answers and area under the
curve of a new head. The constant and the new head are fitted to 12 pictures of each class.

*Estimator.* Mean over the 7 classes of the difference between contrast and a rival, with the exact p of Wilcoxon's
signed ranks over classes. The least p that 7 classes can give is 2 / 128 = .016. No correction over rivals: p values
describe. *Rule that stops.* 7 classes, one split, seed 0, one run of each style.

*Equal damage.* For each class the own fall at the share of units at which other images have lost a tenth of the mean
own log-odds that they have in the whole model, linear between the shares 0, .5, 1, 2 and 5 % (for `CURVES`). A rival
that does not reach this damage has its fall at 5 %, and is counted.

*Amended after a look at the paintings*, on 1 December: there the whole model leaves other images log-odds below zero,
so a tenth of them is no damage. The table ``equal_to_contrast`` takes the damage that contrast does with 2 % instead,
class by class, in both styles. ``equal_damage`` stays as it was written, and tells nothing of paintings.

*Alternatives.* Zero in place of the mean; 1 and 5 % in place of 2 %; paintings in place of photographs; right answers
in place of log-odds. A lead is called a lead only if it holds in log-odds at equal damage in photographs and paintings.

*Predicted*, for photographs at 2 %:

1. Contrast leaves at most .20 of the class's answers and at least .97 of others', and the class's log-odds fall at
   least five times as far as those of others.
2. The direct readout cannot be told from contrast by right answers (p above .05), and leaves a lower area under the
   curve. At equal damage no lead of either is predicted for photographs; in paintings contrast leads.
3. Contrast without re-scoring takes less of the class's log-odds than contrast in all 7 classes.
4. The ratios of selective synaptic dampening and of selective pruning, TF-IDF, selectivity and probe weights leave at
   least .80 of the class's answers.
5. A new head gives at least .90 of the class's answers after every lesion of units at 2 %. So no lesion takes the
   information.
6. A lowered bias and the class's row projected out leave no answer of the class and at least .97 of others'. The
   lowered bias keeps the area under the curve and the constant gives all answers back.
7. LEACE, which sees 84 images of 1,280 numbers, leaves a new head at least .80 of the class's answers.

    python -m experiments.rivals_of_own_parts --data PACS --results experiments/results/rivals
    python -m experiments.rivals_of_own_parts --data PACS --style art_painting --results experiments/results/rivals_art
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from circuitry.runs import Work, run_script
from circuitry.circuits import own_part, score_units, strongest_units
from circuitry.encoder import Encoder, Task, counted_sites
from circuitry.encoder.baselines import ZERO
from circuitry.encoder.metrics import ClassLogit, given_classes, log_odds
from circuitry.interventions.kept_circuits import ablated_embeddings
from circuitry.models.heads_fitted_again import read_again
from experiments.edits_that_forget import (
    Answering,
    attenuated_embeddings,
    dampened,
    fit_leace,
    importances,
    lowered_bias,
    without_direction,
)
from experiments.kept_tables import KeepSettings
from experiments.pacs import (
    HEAD_OF_PHOTOGRAPHS,
    ByClass,
    choose_pictures,
    embedded,
    load_with_head,
    read_pictures,
)
from experiments.rivals_of_contrast import (
    RATIOS,
    Measured,
    dissociation_gates,
    fisher_difference,
    measure,
)

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

N_FIND = 12
"""Images of each class that find."""
N_TEST = 20
"""Images of the class that test."""
N_TEST_OTHERS = 5
"""Images of each other class that test."""
N_READ = 60
"""Images of each class that are read, among which those that find, test and fit are chosen."""
N_FIT = 12
"""Images of each class that fit the constant and the new head."""
TOLD = 0.02
"""Share of the units that tables tell."""
SHARES = (0.005, 0.01, 0.02, 0.05)
"""Shares of the units of the curves."""
DAMAGE = 0.1
"""Equal damage: the share of others' own log-odds that is lost."""
SPARSITIES = (1.0, 3.0, 10.0)
"""Candidates for the weight of sparsity of learned masks."""
ALPHAS = (2.0, 10.0)
"""Alphas of selective synaptic dampening of weights; the paper's is 10. That dampens nothing here: the mean over seven
classes with as many images contains the class, so no importance for it is above seven times the mean."""
CONTRAST = "contrast"
OF_TASKS = ("readout", "gradient")
"""Methods of the package that score units, besides contrast."""
REFITTED = (
    CONTRAST,
    "contrast-once",
    "readout",
    "gradient",
    "dissociation",
    "random",
)
"""Methods after whose lesions a constant and a new head are fitted: those that may take something, and random units."""
CURVES = (*REFITTED, "dampening-ratio", "fisher-difference", "random-of-top-decile")
"""Methods whose parts have all sizes. The others look at activations alone, and have the told size."""
AT_ZERO = (CONTRAST, "contrast-once", "readout", "random")
"""Methods whose units are also set to zero."""
HIGHER = ("own_fall", "others_right", "own_rank", "constant_others", "refit_others")
"""Columns in which more is better for a way to remove a class."""


class Outputs(NamedTuple):
    """What a model, whole or edited, gives for the images that judge it."""

    metrics: Mapping[str, ClassLogit]
    """The head: the metric of each class."""
    tested: ByClass
    """Embeddings of the images that test."""
    fitted: ByClass | None = None
    """Embeddings of the images that fit a constant and a new head; None if neither is wanted."""


def judge(class_name: str, whole: Outputs, edited: Outputs) -> dict[str, float]:
    """Return what an edited model has lost of a class, at three depths.

    Args:
        class_name: The class that is to be lost.
        whole: What the whole model gives.
        edited: What the edited model gives for the same images.

    Returns:
        A dictionary of three depths:

        - the evidence: own_fall and others_fall, the mean falls of the images' own log-odds, for images of the class
          and of other classes; others_log_odds, what the latter have left; auc, see `read_again`.
        - the answer: own_right and others_right, the shares of right answers; own_rank, the mean rank of the class on
          its own images.
        - the information, if there are images to fit: right answers after one constant and by a new head, for images of
          the class and of others, and the area under the curve of the new head.
    """
    before = _answers(whole)
    after = _answers(edited)
    falls = before["log_odds"] - after["log_odds"]
    is_own = after["class"] == class_name
    again = read_again(class_name, edited.metrics, edited.tested, edited.fitted)
    own = again.loc[class_name]
    others = again.drop(class_name).mean()
    judged = {
        "own_fall": falls[is_own].mean(),
        "others_fall": falls[~is_own].mean(),
        "others_log_odds": after.loc[~is_own, "log_odds"].mean(),
        "auc": own["auc"],
        "own_right": after.loc[is_own, "right"].mean(),
        "others_right": after.loc[~is_own, "right"].mean(),
        "own_rank": after.loc[is_own, "rank"].mean(),
    }
    for name in ("constant", "refit"):
        if name in again:
            judged |= {f"{name}_own": own[name], f"{name}_others": others[name]}
            judged["refit_auc"] = own["refit_auc"]
    return {name: float(np.asarray(value)) for name, value in judged.items()}


def _answers(outputs: Outputs) -> pd.DataFrame:
    """Return a row for each test image: its class, its own log-odds, whether it is right, and its class's rank."""
    tables = list[pd.DataFrame]()
    for name, embeddings in outputs.tested.items():
        metric = outputs.metrics[name]
        answers = metric.log_answers(embeddings)
        rows = torch.full((len(answers),), metric.label)
        columns = {
            "class": name,
            "log_odds": log_odds(answers, rows).numpy(),
            "right": (given_classes(answers) == rows).numpy(),
            "rank": (answers > answers[:, [metric.label]]).sum(1).numpy() + 1,
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def own_fall_at(
    damage: float, others_falls: Sequence[float], own_falls: Sequence[float]
) -> tuple[float, bool]:
    """Return how far the class has fallen where other images have fallen by ``damage``, and whether they do.

    Args:
        damage: The fall of other images' own log-odds.
        others_falls, own_falls: Falls at growing shares of the units. Both are 0 without units.
    """
    # At no damage no unit may be ablated.
    if damage <= 0:
        return 0.0, True
    last_x = 0.0
    last_y = 0.0
    for x, y in zip(others_falls, own_falls, strict=True):
        # Falls need not grow with the share, so the first place where the damage is reached counts.
        if x >= damage:
            part = (damage - last_x) / (x - last_x)
            return last_y + part * (y - last_y), True
        last_x = x
        last_y = y
    return last_y, False


def paired(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the mean over classes of each column by way, and how far contrast leads.

    Args:
        table: A row for each class and way, with the columns.
        columns: Names of the columns.

    Returns:
        Columns way, what, value, lead, p, wins, losses, n_classes. ``lead`` is the mean difference in the direction
        that is better, and ``p`` is that of Wilcoxon's signed ranks by all exchanges of signs.
    """
    rows = list[dict[str, Any]]()
    of_contrast = table[table["way"] == CONTRAST].set_index("class")
    for way, of_way in table.groupby("way", sort=False):
        by_class = of_way.set_index("class")
        for column in columns:
            values = by_class[column].dropna()
            sign = 1 if column in HIGHER else -1
            leads = sign * (of_contrast.loc[values.index, column] - values)
            rows.append(
                {
                    "way": way,
                    "what": column,
                    "value": values.mean(),
                    "lead": leads.mean(),
                    "p": wilcoxon_p(leads.to_numpy(float)),
                    "wins": int((leads > 0).sum()),
                    "losses": int((leads < 0).sum()),
                    "n_classes": len(values),
                }
            )
    return pd.DataFrame(rows)


def wilcoxon_p(differences: np.ndarray) -> float:
    """Return the exact two-sided p of Wilcoxon's signed ranks; differences of 0 are left out. 1 if all are 0."""
    if not differences.any():
        return 1.0
    by_all_signs = stats.PermutationMethod(n_resamples=np.inf)
    return float(stats.wilcoxon(differences, method=by_all_signs).pvalue)


def first_units(scores: Mapping[str, np.ndarray], share: float) -> dict[str, Any]:
    """Return the units with the largest scores, by site; sites without any are left out."""
    least = min(of_site.min() for of_site in scores.values())
    # Shifted, since absolute scores rank: then the largest scores have the largest absolute values.
    shifted = {site: of_site - least for site, of_site in scores.items()}
    units = strongest_units(shifted, share, "global")
    return {site: of_site for site, of_site in units.items() if len(of_site)}


@dataclass(frozen=True, kw_only=True)
class Config(KeepSettings):
    """Settings of the comparison."""

    data: Path = Path("PACS")
    """Folder of PACS."""
    style: str = "photo"
    """Domain of the images that find, test and fit."""
    size: int = 160
    """Height and width of images, in pixels."""
    out: Path = Path("runs/rivals_of_own_parts")
    """Folder of the tables of single classes; finished ones are read."""


class World(NamedTuple):
    """The model and the images of a style."""

    encoder: Encoder
    """The encoder, whose units are hidden channels."""
    sites: tuple[str, ...]
    """The sites that count."""
    metrics: Mapping[str, ClassLogit]
    """The head: the metric of each class."""
    found_on: ByClass
    """Images that find."""
    tested: ByClass
    """Images that test."""
    fitted: ByClass
    """Images that fit a constant and a new head."""


def make_world(config: Config) -> World:
    """Load the model, fit its head, and choose the images."""
    head, pictures = choose_pictures(config.data, HEAD_OF_PHOTOGRAPHS)
    clip, fitted = load_with_head("efficientnet-lite0", config.size, head)
    metrics = dict[str, ClassLogit]()
    sets: tuple[dict[str, Tensor], ...] = ({}, {}, {})
    for label, name in enumerate(pictures.classes):
        metrics[name] = ClassLogit(fitted.rows, label, scale=fitted.scale)
        # The pictures of a domain are in the order of the rule.
        of_class = [
            record
            for record in pictures.records
            if (record.domain, record.class_name) == (config.style, name)
        ]
        images = read_pictures(of_class[:N_READ], clip.preprocess)
        answers = metrics[name].log_answers(
            embedded(clip.encoder, {name: images})[name]
        )
        recognised = metrics[name].is_given(answers).nonzero()[:N_FIND, 0]
        finds = torch.zeros(len(images), dtype=torch.bool)
        finds[recognised] = True
        rest = images[~finds]
        chosen = (images[finds], rest[:N_TEST], rest[N_TEST : N_TEST + N_FIT])
        for of_set, of_name in zip(sets, chosen, strict=True):
            of_set[name] = of_name
    sites = counted_sites(clip.encoder, progress=False)
    return World(clip.encoder, sites, metrics, *sets)


class OneClass:
    """The ways to remove one class, and what the model gives after each.

    Args:
        world: The model and the images.
        name: The class.
        sparsity: Weight of sparsity of the learned mask.
    """

    def __init__(self, world: World, name: str, sparsity: float) -> None:
        self.world = world
        self.name = name
        self.sparsity = sparsity
        others = [images for c, images in world.found_on.items() if c != name]
        self.task = Task(
            world.encoder,
            world.found_on[name],
            world.metrics[name],
            baseline="mean-position",
            others=torch.cat(others),
            sites=world.sites,
            work=Work(progress=False),
        )
        self.tested = dict[str, Tensor]()
        for c, images in world.tested.items():
            self.tested[c] = images if c == name else images[:N_TEST_OTHERS]
        with world.encoder.running():
            self.whole = Outputs(
                world.metrics,
                embedded(world.encoder, self.tested),
                embedded(world.encoder, world.fitted),
            )

    def scores(self, measured: Measured) -> dict[str, Mapping[str, np.ndarray]]:
        """Return the scores of all units by method."""
        part = own_part(self.task, share=max(SHARES))
        assert part.source.importance is not None
        scores: dict[str, Mapping[str, np.ndarray]] = {CONTRAST: part.source.importance}
        for method in OF_TASKS:
            scores[method] = score_units(self.task, method)
        scores["fisher-difference"] = fisher_difference(self.task)
        scores["dissociation"] = dissociation_gates(self.task, sparse=self.sparsity)
        of_class = measured._replace(label=self.task.metric.label)  # type: ignore[attr-defined]
        for method, ratio in RATIOS.items():
            scores[method] = ratio(of_class)
        return scores

    def lesioned(
        self, parts: Sequence[Mapping[str, Any]], *, fit: bool, zero: bool = False
    ) -> list[Outputs]:
        """Return what the model gives without each of several sets of units.

        Args:
            parts: Units by site.
            fit: Whether the images that fit a constant and a new head are run, too.
            zero: Whether units are set to zero instead of to the mean per position.
        """
        task = replace(self.task, images=self._images(fit), others=None)
        if zero:
            task = replace(task, baseline=ZERO)
        embeddings = ablated_embeddings(task, parts)
        return [self._outputs(of_part, fit) for of_part in embeddings]

    def _images(self, fit: bool) -> Tensor:
        fitted = list(self.world.fitted.values()) if fit else []
        return torch.cat([*self.tested.values(), *fitted])

    def _outputs(self, embeddings: Tensor, fit: bool) -> Outputs:
        """Return the embeddings of `_images` by class."""
        sizes = list(map(len, self.tested.values()))
        fitted = None
        if fit:
            sizes += map(len, self.world.fitted.values())
        pieces = torch.split(embeddings, sizes)
        n = len(self.tested)
        tested = dict(zip(self.tested, pieces[:n], strict=True))
        if fit:
            fitted = dict(zip(self.world.fitted, pieces[n:], strict=True))
        return Outputs(self.world.metrics, tested, fitted)

    def edits(self, weights: "Weights") -> dict[str, Outputs]:
        """Return what the model gives after each edit that ablates no units, by the name of the edit."""
        metric = self.world.metrics[self.name]
        with self.world.encoder.running():
            found = embedded(self.world.encoder, self.world.found_on)
        lowered = lowered_bias(metric, found[self.name])
        metrics = dict[str, ClassLogit]()
        for name, of_class in self.world.metrics.items():
            metrics[name] = replace(lowered, label=of_class.label)
        is_own = np.repeat(
            [name == self.name for name in found], list(map(len, found.values()))
        )
        erase = fit_leace(torch.cat(list(found.values())), is_own)
        edited = {
            "bias lowered": self.whole._replace(metrics=metrics),
            "row projected out": self._changed(
                lambda e: without_direction(e, metric.weights[metric.label])
            ),
            "LEACE": self._changed(erase),
        }
        for alpha in ALPHAS:
            edited[f"weights dampened, alpha {alpha:g}"] = weights.without(self, alpha)
        return edited

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Outputs:
        """Return what the whole model gives if a function changes all embeddings."""
        assert self.whole.fitted is not None
        return self.whole._replace(
            tested={name: change(e) for name, e in self.whole.tested.items()},
            fitted={name: change(e) for name, e in self.whole.fitted.items()},
        )

    def attenuated(self, units: Mapping[str, Any], factor: float) -> Outputs:
        """Return what the model gives if some units are multiplied by a factor."""
        task = replace(self.task, images=self._images(True), others=None)
        return self._outputs(attenuated_embeddings(task, units, factor), True)


class Weights:
    """The importances of all weights, which selective synaptic dampening compares; measured once for all classes."""

    def __init__(self, world: World) -> None:
        first = next(iter(world.metrics.values()))
        self.model = Answering(world.encoder.tower, first).requires_grad_(True)
        self.of_classes = dict[str, list[Tensor]]()
        for name, images in world.found_on.items():
            labels = torch.full((len(images),), world.metrics[name].label)
            self.of_classes[name] = importances(self.model, images, labels)
        self.model.requires_grad_(False)
        of_weights = zip(*self.of_classes.values(), strict=True)
        self.of_all = [torch.stack(values).mean(0) for values in of_weights]

    def without(self, of_class: OneClass, alpha: float) -> Outputs:
        """Return what the model gives after its weights are dampened for a class."""
        model = dampened(self.model, self.of_classes[of_class.name], self.of_all, alpha)
        metrics = dict[str, ClassLogit]()
        for name, metric in of_class.world.metrics.items():
            metrics[name] = replace(metric, weights=model.rows.detach())
        tower = model.tower
        return Outputs(
            metrics,
            embedded(tower, of_class.tested),
            embedded(tower, of_class.world.fitted),
        )


def tuned_sparsity(world: World) -> float:
    """Return the weight of sparsity whose mask does best on the finding images of the first class.

    The best mask leaves the most right answers of other classes, less those of the class, when 2 % of the units go.
    """
    name = next(iter(world.metrics))
    finding = world._replace(tested=world.found_on)
    first = OneClass(finding, name, SPARSITIES[0])
    differences = dict[float, float]()
    for sparsity in SPARSITIES:
        scores = dissociation_gates(first.task, sparse=sparsity)
        (without,) = first.lesioned([first_units(scores, TOLD)], fit=False)
        judged = judge(name, first.whole, without)
        differences[sparsity] = judged["others_right"] - judged["own_right"]
    print(f"weights of sparsity: {differences}")
    return max(differences, key=lambda sparsity: differences[sparsity])


def rows_of_class(
    of_class: OneClass, measured: Measured, weights: Weights
) -> pd.DataFrame:
    """Return a row for each way to remove a class."""
    rows = list[dict[str, Any]]()

    def add(way: str, share: float, replacement: str, edited: Outputs) -> None:
        judged = judge(of_class.name, of_class.whole, edited)
        told = {"class": of_class.name, "way": way, "share": share}
        rows.append(told | {"replacement": replacement} | judged)

    add("whole", 0.0, "", of_class.whole)
    scores = of_class.scores(measured)
    lesions = list[tuple[str, float]]()
    for method in scores:
        shares = SHARES if method in CURVES else (TOLD,)
        lesions += [(method, share) for share in shares]
    # The images that fit are most of the images, so they are run for a few lesions alone.
    with_fit = [(method, TOLD) for method in REFITTED]
    for fit in (True, False):
        asked = [lesion for lesion in lesions if (lesion in with_fit) == fit]
        parts = [first_units(scores[method], share) for method, share in asked]
        for key, edited in zip(asked, of_class.lesioned(parts, fit=fit), strict=True):
            add(*key, "mean", edited)
    told = {method: first_units(scores[method], TOLD) for method in AT_ZERO}
    at_zero = of_class.lesioned(list(told.values()), fit=False, zero=True)
    for method, edited in zip(told, at_zero, strict=True):
        add(method, TOLD, "zero", edited)
    attenuated = of_class.attenuated(told[CONTRAST], 0.5)
    add("contrast, attenuated by half", TOLD, "", attenuated)
    for name, edited in of_class.edits(weights).items():
        add(name, np.nan, "", edited)
    return pd.DataFrame(rows)


def tables_of(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables: means over classes, leads of contrast, equal damage, and the alternatives."""
    at_mean = rows[rows["replacement"] == "mean"]
    is_edit = rows["replacement"] == ""
    told = pd.concat([at_mean[at_mean["share"] == TOLD], rows[is_edit]])
    columns = list(rows.columns[rows.columns.get_loc("own_fall") :])
    with_curve = at_mean[at_mean["way"].isin(CURVES)]
    whole = rows[rows["way"] == "whole"].set_index("class")
    of_contrast = told[told["way"] == CONTRAST].set_index("class")
    return {
        "depths": told.groupby("way", sort=False)[columns].mean().reset_index(),
        "leads": paired(told, columns),
        "equal_damage": at_damage(with_curve, DAMAGE * whole["others_log_odds"]),
        "equal_to_contrast": at_damage(with_curve, of_contrast["others_fall"]),
        "shares": at_mean.groupby(["way", "share"], sort=False)[columns]
        .mean()
        .reset_index(),
        "at_zero": rows[rows["replacement"] == "zero"]
        .groupby("way", sort=False)[columns]
        .mean()
        .dropna(axis=1)
        .reset_index(),
    }


def at_damage(curves: pd.DataFrame, damages: "pd.Series[float]") -> pd.DataFrame:
    """Return how far the class falls with each method at a damage to other classes, and how far contrast leads.

    Args:
        curves: A row for each class, method and share of the units.
        damages: The damage by class.
    """
    rows = list[dict[str, Any]]()
    for (name, way), of_way in curves.groupby(["class", "way"], sort=False):
        curve = of_way.sort_values("share")
        fall, is_reached = own_fall_at(
            damages[str(name)], list(curve["others_fall"]), list(curve["own_fall"])
        )
        row = {"class": name, "way": way, "own_fall": fall, "reached": is_reached}
        rows.append(row)
    table = pd.DataFrame(rows)
    reached = table.groupby("way")["reached"].sum().rename("n_reached")
    return paired(table, ["own_fall"]).merge(reached, on="way")


def main(config: Config) -> None:
    """Remove each class in all ways, judge what is left, and print the tables."""
    world = make_world(config)
    folder = config.out / config.style
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.csv" for name in world.metrics}
    left = [name for name, path in paths.items() if not path.is_file()]
    if left:
        sparsity = tuned_sparsity(world)
        weights = Weights(world)
        # The images that find are the same for all classes, so units are measured once.
        measured = measure(OneClass(world, left[0], sparsity).task)
        for name in left:
            of_class = OneClass(world, name, sparsity)
            rows = rows_of_class(of_class, measured, weights)
            rows.to_csv(paths[name], index=False)
            print(f"{name} is done", flush=True)
    tables = [pd.read_csv(path) for path in paths.values()]
    rows = pd.concat(tables, ignore_index=True)
    rows["replacement"] = rows["replacement"].fillna("")
    config.keep(
        tables_of(rows) | {"rows": rows},
        ["depths", "equal_damage", "equal_to_contrast", "at_zero"],
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)

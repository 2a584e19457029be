"""Accuracies of classified images, and predictions on disk, which suffice to compute them again. No torch.

Accuracy on held-out classes among all classes depends on the features and on the model's bias towards held-out classes.
So `tidy_accuracy` also has accuracy among the held-out classes alone, the share of predictions that are a held-out
class, accuracy after centring, and the harmonic mean of seen and held-out classes (Xian et al. 2017, arXiv 1703.04394).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from circuitry.comparison.table import with_columns
from circuitry.runs.arguments import Names, checked
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError, naming_damage, unknown_name
from circuitry.runs.manifest import read_listing

_FORMAT = "circuitry predictions 1"
TOP = (1, 5)
"""The k of top-k accuracy."""
N_KEPT = 5
"""Number of classes with the highest scores that are stored for each image."""
RANKS = ("rank", "rank_alone", "rank_centred")

MEASURE = "balanced top-1"
"""The default: the mean over classes of the share of right images."""
AMONG_GROUP = "balanced top-1 alone"
"""Only the classes of the image's group (seen or held-out) compete."""
CENTRED = "balanced top-1 centred"
"""After each class's scores were centred within the domain."""
FALLS_ON_HELD_OUT = "predicted held-out"
"""Share of images whose prediction is a held-out class."""
FALSE_ALARMS = "false alarms"
"""Share of the images of all other classes whose prediction is this held-out class."""
F1, HARMONIC_MEAN = "macro F1", "harmonic mean"

CLASSIFIER, OWN_STYLE, SUPERVISED = "all templates", "own style", "supervised"
CLASS_GROUPS = ("all", "seen", "held-out")

_BY = ["classifier", "domain", "group"]
PredictionTable = Annotated[
    pd.DataFrame, with_columns("class", "domain", "classifier", "top_1", *RANKS)
]
"""A row for each image and classifier; see `evaluation.predictions`."""
AccuracyTable = Annotated[
    pd.DataFrame,
    with_columns("classifier", "domain", "group", "measure", "value", "chance"),
]
"""Accuracies of one model or of runs."""


def tidy_accuracy(predictions: PredictionTable, held_out: Names = ()) -> pd.DataFrame:
    """Return all accuracies of all classifiers, one a row.

    Args:
        held_out: The held-out classes of `predictions`; together, and each alone, they are groups.

    Returns:
        ``classifier``, ``domain``, ``group`` ("all", "seen", "held-out", or the name of a held-out class), ``measure``,
        ``value``, ``chance`` (of guessing, NaN if unknown), ``n_images``, ``n_classes``.
        Measures are "top-1", "balanced top-1", ..., `AMONG_GROUP`, `CENTRED`, `FALLS_ON_HELD_OUT`; for single held-out
        classes also `FALSE_ALARMS`; for whole groups `F1` (only images of the group, mean over its classes, as in the
        study) and `HARMONIC_MEAN` of the balanced top-1 accuracies of seen and held-out classes.

    Example:
        >>> from circuitry.training.evaluation import zero_shot_predictions
        >>> predictions = zero_shot_predictions(clip, folder, work=circuitry.Work(progress=False))
        >>> table = circuitry.training.tidy_accuracy(predictions)
        >>> sorted(set(table["measure"]))
        ['balanced top-1', 'balanced top-1 centred', 'balanced top-5', 'macro F1', 'top-1', 'top-5']
    """
    group = _group(predictions, held_out)
    # Categories carry the order and the number of all classes; a domain may show a few only.
    for column in ("class", "top_1"):
        if not isinstance(predictions[column].dtype, pd.CategoricalDtype):
            raise InputError(
                f"The classes of predictions are categories, but {column} holds {predictions[column].dtype}: take what "
                "predictions(...) returned."
            )
    # An image counts in several groups: all, seen or held-out, and its own held-out class.
    named = predictions[group == "held-out"]
    groups = [predictions.assign(group="all")]
    if held_out:
        groups.append(predictions.assign(group=group))
        groups.append(named.assign(group=named["class"].astype(str)))
    images = pd.concat(groups, ignore_index=True)
    tables = [_averages(images, held_out), _f1(images)]
    if held_out:
        tables += [_false_alarms(predictions, held_out), _harmonic_means(tables[0])]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(
        chance=_chance(table, predictions["class"].cat.categories, held_out)
    )[[*_BY, "measure", "value", "chance", "n_images", "n_classes"]]


def _group(predictions: pd.DataFrame, held_out: Sequence[str]) -> "pd.Series[str]":
    classes = sorted(set(predictions["class"]))
    if unknown := sorted(set(held_out) - set(classes)):
        raise unknown_name(
            "classified image of the held-out class", unknown[0], classes
        )
    return (
        predictions["class"].isin(list(held_out)).map({True: "held-out", False: "seen"})
    )


def _averages(images: pd.DataFrame, held_out: Sequence[str]) -> pd.DataFrame:
    """Return the means over images, and the means over classes of such means."""
    right = {f"top-{k}": images["rank"] <= k for k in TOP}
    right["centred"] = images["rank_centred"] == 1
    if held_out:
        right["alone"] = images["rank_alone"] == 1
        right[FALLS_ON_HELD_OUT] = images["top_1"].isin(list(held_out))
    marked = images[[*_BY, "class"]].assign(**right)
    names = list(right)
    # `observed`: classes without images in a group are no zeros in its mean.
    classes = marked.groupby([*_BY, "class"], sort=False, observed=True)[names].mean()
    by_image = marked.groupby(_BY, sort=False)[names].mean()
    by_class = classes.groupby(_BY, sort=False).mean()
    top = [f"top-{k}" for k in TOP]
    measures = {name: by_image[name] for name in top}
    if held_out:
        measures[FALLS_ON_HELD_OUT] = by_image[FALLS_ON_HELD_OUT]
    for name in top:
        measures[f"balanced {name}"] = by_class[name]
    measures[CENTRED] = by_class["centred"]
    if held_out:
        measures[AMONG_GROUP] = by_class["alone"]
    sizes = {
        "n_images": marked.groupby(_BY, sort=False).size(),
        "n_classes": classes.groupby(_BY, sort=False).size(),
    }
    tables = [
        pd.DataFrame({"measure": name, "value": value, **sizes}).reset_index()
        for name, value in measures.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    # In the group of all classes every class competes, so there is no accuracy among the group alone.
    return table[(table["group"] != "all") | (table["measure"] != AMONG_GROUP)]


def _false_alarms(predictions: pd.DataFrame, held_out: Sequence[str]) -> pd.DataFrame:
    rows = []
    for (classifier, domain), own in predictions.groupby(_BY[:2], sort=False):
        for name in sorted(set(held_out) & set(own["class"])):
            others = own[own["class"] != name]
            value = float((others["top_1"] == name).mean())
            n_classes = others["class"].nunique()
            key = (classifier, domain, name)
            rows.append((*key, FALSE_ALARMS, value, len(others), n_classes))
    return pd.DataFrame(
        rows, columns=[*_BY, "measure", "value", "n_images", "n_classes"]
    )


def _f1(images: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for key, own in images[images["group"].isin(["all", "seen", "held-out"])].groupby(
        _BY, sort=False
    ):
        truth = own["class"].cat.codes.to_numpy()
        # Only classes with images: another class that is predicted counts as a miss, and has no F1 of its own.
        labels = np.unique(truth)
        value = f1_score(
            truth,
            own["top_1"].cat.codes,
            labels=labels,
            average="macro",
            zero_division=0,
        )
        rows.append((*key, F1, float(value), len(own), len(labels)))
    return pd.DataFrame(
        rows, columns=[*_BY, "measure", "value", "n_images", "n_classes"]
    )


def _harmonic_means(averages: pd.DataFrame) -> pd.DataFrame:
    rows = averages[averages["measure"] == MEASURE]
    seen = rows[rows["group"] == "seen"].set_index(_BY[:2])
    held = rows[rows["group"] == "held-out"].set_index(_BY[:2])
    both = rows[rows["group"] == "all"].set_index(_BY[:2])
    # A domain may lack seen or held-out classes: it has no harmonic mean.
    value = harmonic_mean(seen["value"], held["value"]).reindex(both.index)
    table = both.assign(measure=HARMONIC_MEAN, value=value)
    return table.dropna(subset="value").reset_index()


def harmonic_mean(a: "pd.Series[float]", b: "pd.Series[float]") -> "pd.Series[float]":
    """Return the harmonic mean, 0 where one of the two is 0."""
    return (2 * a * b / (a + b)).mask(a + b == 0, 0.0)


def _chance(
    table: pd.DataFrame, classes: "pd.Index[str]", held_out: Sequence[str]
) -> "pd.Series[float]":
    """Return the value of guessing among the competing classes."""
    all_classes = len(classes)
    held = len(set(held_out))
    known = {
        CENTRED: 1 / all_classes,
        HARMONIC_MEAN: 1 / all_classes,
        FALLS_ON_HELD_OUT: held / all_classes,
    }
    alone = (
        table["group"]
        .eq("seen")
        .map({True: 1 / max(all_classes - held, 1), False: 1 / max(held, 1)})
    )
    k = pd.to_numeric(table["measure"].str.extract(r"top-(\d+)$", expand=False)).clip(
        upper=all_classes
    )
    chance = table["measure"].map(known).fillna(k / all_classes)
    return chance.where(table["measure"] != AMONG_GROUP, alone)


def accuracy_kinds(
    accuracy: AccuracyTable, classifier: str = CLASSIFIER, by: Sequence[str] = ()
) -> pd.DataFrame:
    """Return accuracy on held-out classes beside its possible causes: a row per domain, and group of models.

    Every held-out class has equal weight. Values are means over the seeds of a group.

    Args:
        accuracy: Table of `tidy_accuracy`, for groups with their columns and ``seed``.
        by: Columns of the groups (default: there is one model).

    Returns:
        The columns of the groups and ``domain``; balanced top-1 accuracy of ``all``, ``seen`` and ``held_out`` classes
        and the ``harmonic_mean`` of the last two; for held-out classes ``alone`` (only they compete), ``own_style``
        (class texts in the images' own style), ``centred`` (scores of each class centred within the domain) and
        ``predicted_held_out`` (share of their images predicted as any held-out class); ``chance``, ``chance_alone``;
        ``sd`` of ``held_out`` over ``seeds``; the ``held_out_classes`` that count (joined by ", ") and their number
        ``n_classes``. NaN marks own style of supervised models, and everything about held-out classes if there are
        none.

    Example:
        >>> accuracy = circuitry.training.zero_shot_accuracy(clip, folder, work=circuitry.Work(progress=False))
        >>> circuitry.training.accuracy_kinds(accuracy)["domain"].tolist()
        ['quickdraw', 'real', 'sketch']
    """
    rows = accuracy if by else accuracy.assign(seed=0)
    by = [*by, "domain"]
    # A supervised model has a single classifier of its own name, without texts.
    main = rows[rows["classifier"].isin([classifier, SUPERVISED])]
    held = main[~main["group"].isin(CLASS_GROUPS)]
    own = rows[(rows["classifier"] == OWN_STYLE) & ~rows["group"].isin(CLASS_GROUPS)]

    def mean(
        of: pd.DataFrame, measure: str, column: str = "value"
    ) -> "pd.Series[float]":
        return (
            of[of["measure"] == measure]
            .groupby([*by, "seed"], sort=False)[column]
            .mean()
        )

    table = pd.DataFrame(
        {
            "all": mean(main[main["group"] == "all"], MEASURE),
            "seen": mean(main[main["group"] == "seen"], MEASURE),
            "held_out": mean(held, MEASURE),
            "alone": mean(held, AMONG_GROUP),
            "own_style": mean(own, MEASURE),
            "centred": mean(held, CENTRED),
            "predicted_held_out": mean(held, FALLS_ON_HELD_OUT),
            "chance": mean(main, MEASURE, "chance"),
            "chance_alone": mean(held, AMONG_GROUP, "chance"),
        }
    ).assign(harmonic_mean=lambda t: harmonic_mean(t["seen"], t["held_out"]))
    groups = table.groupby(by, sort=False)
    found = groups.mean().assign(sd=groups["held_out"].std(), seeds=groups.size())
    classes = held.groupby(by)["group"]
    names = classes.agg(lambda groups: ", ".join(sorted(set(groups))))
    found = found.assign(n_classes=classes.nunique(), held_out_classes=names)
    found = (
        found.fillna({"n_classes": 0, "held_out_classes": ""})
        .astype({"n_classes": int})
        .reset_index()
    )
    if len(by) > 1:
        return found
    return found.sort_values("domain", kind="stable", ignore_index=True)


def class_accuracy(predictions: PredictionTable) -> pd.DataFrame:
    """Return the share of right images of each class in each domain: columns class, domain, right, n_images.

    Example:
        >>> answers = zero_shot_predictions(clip, folder, work=circuitry.Work(progress=False))
        >>> class_accuracy(answers)["n_images"].unique().tolist()
        [4]
    """
    rows = predictions[predictions["classifier"] == CLASSIFIER]
    right = (
        (rows["rank"] == 1)
        .groupby([rows["class"].astype(str), rows["domain"]])
        .agg(["mean", "size"])
    )
    return right.set_axis(["right", "n_images"], axis=1).reset_index()


def class_column(labels: np.ndarray, classes: Sequence[str]) -> "pd.Categorical[str]":
    """Return labels as names of classes, in the order of the classes."""
    return pd.Categorical.from_codes(labels.astype(int), pd.Index(list(classes)))


def write_predictions(
    path: Path, predictions: pd.DataFrame, listing: Sequence[str]
) -> None:
    """Write predictions of one domain: for each image its label, the highest classes of each classifier, and the ranks.

    Args:
        predictions: Rows of one domain of the table of `predictions`.
        listing: Paths of all images below the root; the file stores indices into this list.

    Example:
        >>> from circuitry.training.evaluation import zero_shot_predictions
        >>> predictions = zero_shot_predictions(clip, folder, work=circuitry.Work(progress=False))
        >>> of_real = predictions[predictions["domain"] == "real"]
        >>> listing = [record.relative for record in folder.records]
        >>> circuitry.training.write_predictions(Path("real.safetensors"), of_real, listing)
    """
    classes = list(predictions["class"].cat.categories)
    classifiers = list(dict.fromkeys(predictions["classifier"]))
    small = np.min_scalar_type(len(classes))
    place = {relative: i for i, relative in enumerate(listing)}
    first = predictions[predictions["classifier"] == classifiers[0]]
    # The smallest whole numbers that hold a class or a rank: there is a row for each image and classifier.
    arrays = {
        "image": np.array(
            [place[relative] for relative in first["relative"]], dtype=np.uint32
        ),
        "label": first["class"].cat.codes.to_numpy(small),
    }
    for i, name in enumerate(classifiers):
        own = predictions[predictions["classifier"] == name]
        codes = [
            own[column].cat.codes.to_numpy(int)
            for column in own
            if str(column).startswith("top_")
        ]
        top = np.stack(codes, axis=1)
        top[top < 0] = len(classes)  # no answer
        arrays[f"{i}/top"] = top.astype(small)
        for rank in RANKS:
            arrays[f"{i}/{rank}"] = own[rank].to_numpy(small)
    header = {
        "domain": first["domain"].iloc[0],
        "classes": classes,
        "classifiers": classifiers,
    }
    write_arrays(path, _FORMAT, header, arrays)


@checked
def read_predictions(path: Path) -> pd.DataFrame:
    """Read a file of predictions in a folder of `extract_accuracies`.

    Example:
        >>> wrong = read_predictions(Path(".../epoch_32-sketch.safetensors")).query("rank > 1")
        >>> wrong.groupby(["class", "top_1"], observed=True).size()  # confusions
    """
    header, arrays = read_arrays(path, _FORMAT, "file of predictions")
    listing = list(read_listing(Path(path).with_name("images.json")))
    with naming_damage(path):
        classes = header["classes"]
        about = pd.DataFrame(
            {
                "relative": [listing[i] for i in arrays["image"]],
                "domain": header["domain"],
            }
        )
        about["class"] = class_column(arrays["label"], classes)
        tables = []
        for i, name in enumerate(header["classifiers"]):
            top = arrays[f"{i}/top"].astype(int)
            top[top == len(classes)] = -1  # no answer: the code of a missing category
            highest = {
                f"top_{k + 1}": class_column(top[:, k], classes)
                for k in range(top.shape[1])
            }
            ranks = {rank: arrays[f"{i}/{rank}"].astype(int) for rank in RANKS}
            tables.append(about.assign(classifier=name, **highest, **ranks))
        return pd.concat(tables, ignore_index=True)

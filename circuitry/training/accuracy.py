"""Accuracies of classified images, and files of predictions. Does not import torch.

All accuracies can be computed again from a file of predictions.

Held-out classes are classes that were left out of training; seen classes are all other classes. If the model chooses
among all classes, the accuracy on held-out classes depends on the features, but also on a bias of the model towards or
against held-out classes. To separate the two, `tidy_accuracy` has further measures: the accuracy if the model chooses
only among held-out classes, the share of predictions that are a held-out class, the accuracy after centring (after the
mean over images was subtracted from the scores of each class), and the harmonic mean of the accuracies on seen and on
held-out classes (Xian et al. 2017, arXiv 1703.04394).
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from circuitry.comparison.table import with_columns
from circuitry.runs.arguments import Names, checked
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError, name_some, naming_damage, unknown_name
from circuitry.runs.manifest import read_listing

_FORMAT = "circuitry predictions 1"
TOP = (1, 5)
"""The k of top-k accuracy."""
N_KEPT = 5
"""Number of classes with the highest scores that are stored for each image."""
RANKS = ("rank", "rank_alone", "rank_centred")

MEASURE = "balanced top-1"
"""The default measure: the share of images of a class that are classified correctly, averaged over classes."""
AMONG_GROUP = "balanced top-1 alone"
"""Like `MEASURE`, but the model chooses only among classes of the same kind as the true class (seen or held-out)."""
CENTRED = "balanced top-1 centred"
"""Like `MEASURE`, after the mean over the images of the domain was subtracted from the scores of each class."""
FALLS_ON_HELD_OUT = "predicted held-out"
"""Share of images whose prediction is any held-out class."""
FALSE_ALARMS = "false alarms"
"""For a held-out class, the share of images of all other classes whose prediction is this class."""
F1, HARMONIC_MEAN = "macro F1", "harmonic mean"

CLASSIFIER, OWN_STYLE, SUPERVISED = "all templates", "own style", "supervised"
CLASS_GROUPS = ("all", "seen", "held-out")

_BY = ["classifier", "domain", "group"]
PredictionTable = Annotated[
    pd.DataFrame, with_columns("class", "domain", "classifier", "top_1", *RANKS)
]
"""Table with a row for each image and classifier; see `evaluation.predictions`."""
AccuracyTable = Annotated[
    pd.DataFrame,
    with_columns("classifier", "domain", "group", "measure", "value", "chance"),
]
"""Table of accuracies of one model, or of several runs; see `tidy_accuracy`."""


def tidy_accuracy(predictions: PredictionTable, held_out: Names = ()) -> pd.DataFrame:
    """Return a table of accuracies, with a row for each classifier, domain, group of classes, and measure.

    Args:
        predictions: Predictions, as `predictions` returns them.
        held_out: The held-out classes of the predictions. All of them together are a group of classes, and each of them
            is also a group by itself.

    Returns:
        A table with these columns:

        - ``classifier`` and ``domain``;
        - ``group``: "all", "seen", "held-out", or the name of a held-out class. Only images of these classes count;
        - ``measure``: "top-1", "top-5", "balanced top-1", "balanced top-5", `AMONG_GROUP`, `CENTRED` or
          `FALLS_ON_HELD_OUT`; for the name of a held-out class also `FALSE_ALARMS`; for "all", "seen" and "held-out"
          also `F1`, the mean over classes as in the study; and for "all" also `HARMONIC_MEAN`, of the balanced top-1
          accuracies on seen and on held-out classes;
        - ``value``;
        - ``chance``: the value at chance level, NaN if it is unknown;
        - ``n_images`` and ``n_classes``.

        Measures about held-out classes are missing if there are no held-out classes.

    Example:
        >>> from circuitry.training.evaluation import zero_shot_predictions
        >>> predictions = zero_shot_predictions(clip, folder, work=circuitry.Work(progress=False))
        >>> table = circuitry.training.tidy_accuracy(predictions)
        >>> sorted(set(table["measure"]))
        ['balanced top-1', 'balanced top-1 centred', 'balanced top-5', 'macro F1', 'top-1', 'top-5']
    """
    group = _group(predictions, held_out)
    # Categories hold the order and the number of all classes. A domain may have images of only some classes.
    for column in ("class", "top_1"):
        if not isinstance(predictions[column].dtype, pd.CategoricalDtype):
            raise InputError(
                f"The classes of predictions are categories, but {column} holds {predictions[column].dtype}: take what "
                "predictions(...) returned."
            )
    # An image counts in several groups: in "all", in "seen" or "held-out", and in its class if that is held out.
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
    """Return a table of accuracies, where a mean is taken either over images, or over classes.

    A mean over classes is the mean of the accuracies of the single classes, so that every class has the same weight.
    """
    right = {f"top-{k}": images["rank"] <= k for k in TOP}
    right["centred"] = images["rank_centred"] == 1
    if held_out:
        right["alone"] = images["rank_alone"] == 1
        right[FALLS_ON_HELD_OUT] = images["top_1"].isin(list(held_out))
    marked = images[[*_BY, "class"]].assign(**right)
    names = list(right)
    # With `observed`, classes without images in a group are left out of its mean instead of counting as zero.
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
    # In the group "all" every class competes anyway, so `AMONG_GROUP` is left out there.
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
        # Only classes with images have an F1. If another class is predicted, this counts as an error of the true class.
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
    # A domain without seen classes, or without held-out classes, has no harmonic mean.
    value = harmonic_mean(seen["value"], held["value"]).reindex(both.index)
    table = both.assign(measure=HARMONIC_MEAN, value=value)
    return table.dropna(subset="value").reset_index()


def harmonic_mean(a: "pd.Series[float]", b: "pd.Series[float]") -> "pd.Series[float]":
    """Return the harmonic mean of two columns. It is 0 if one of the values is 0."""
    return (2 * a * b / (a + b)).mask(a + b == 0, 0.0)


def _chance(
    table: pd.DataFrame, classes: "pd.Index[str]", held_out: Sequence[str]
) -> "pd.Series[float]":
    """Return, for each row of a table of accuracies, the value at chance level, or NaN if it is unknown."""
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
    """Return the accuracy on held-out classes, with other accuracies that show why it is low or high.

    The table has a row for each domain. If the accuracies of several models are given, it has a row for each group of
    models (the columns ``by``) and each domain, and values are means over the seeds of the group. Every held-out class
    has the same weight.

    Args:
        accuracy: Table of `tidy_accuracy`. For several models, it also has the columns ``by`` and the column ``seed``.
        classifier: Name of the zero-shot classifier to take. Supervised models have a single classifier with another
            name; their rows are included, too.
        by: Columns whose values define a group of models (default: all rows are of a single model).

    Returns:
        A table with these columns:

        - the columns ``by``, and ``domain``;
        - ``all``, ``seen``, ``held_out``: balanced top-1 accuracy on all, seen and held-out classes;
        - ``alone``: the accuracy on held-out classes if the model chooses only among these;
        - ``own_style``: the accuracy on held-out classes with class texts in the style of the images' domain;
        - ``centred``: the accuracy on held-out classes after the mean over the images of the domain was subtracted
          from the scores of each class;
        - ``predicted_held_out``: the share of images of held-out classes whose prediction is any held-out class;
        - ``chance``, ``chance_alone``: the chance level of the accuracy among all classes, and of ``alone``;
        - ``harmonic_mean``: the harmonic mean of ``seen`` and ``held_out``;
        - ``sd``: the standard deviation of ``held_out`` over seeds, and ``seeds``: the number of seeds;
        - ``held_out_classes``: the names of the held-out classes, joined by ", ", and ``n_classes``: their number.

        ``own_style`` is NaN for supervised models. If there are no held-out classes, all accuracies on them are NaN.

    Example:
        >>> accuracy = circuitry.training.zero_shot_accuracy(clip, folder, work=circuitry.Work(progress=False))
        >>> circuitry.training.accuracy_kinds(accuracy)["domain"].tolist()
        ['quickdraw', 'real', 'sketch']
    """
    rows = accuracy if by else accuracy.assign(seed=0)
    by = [*by, "domain"]
    # A supervised model has no class texts. It has a single classifier, whose name is `SUPERVISED`.
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
    """Return the share of images of each class in each domain that the classifier `CLASSIFIER` classifies correctly.

    The table has the columns class, domain, right (the share) and n_images.

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


def group_accuracy(
    predictions: PredictionTable,
    groups: Mapping[str, object] | None = None,
    before: PredictionTable | None = None,
) -> pd.DataFrame:
    """Return the share of images of each group that the classifier `CLASSIFIER` classifies correctly, the worst first.

    Args:
        predictions: The table of `predictions`.
        groups: The group of each image by its path, such as a column of a listing (`item_column`). Default: the class
            and the domain of the image.
        before: Predictions for the same images by the model before an edit, or by any other model.

    Returns:
        Columns group, n_images and right; with ``before``, columns before and after in place of right.

    Raises:
        InputError: for a group that has no image among the predictions, and for an image that has no group.

    Example:
        >>> answers = zero_shot_predictions(clip, folder, work=circuitry.Work(progress=False))
        >>> table = circuitry.training.group_accuracy(answers)
        >>> table["group"][0], float(table["right"].min()), float(table["right"].mean())  # worst and mean
    """
    rows = predictions[predictions["classifier"] == CLASSIFIER]
    if groups is None:
        named = rows["class"].astype(str) + " in " + rows["domain"]
        cells = product(rows["class"].astype(str).unique(), rows["domain"].unique())
        expected = list(map(" in ".join, cells))
    else:
        named = rows["relative"].map(groups)
        expected = list(map(str, groups.values()))
        if named.isna().any():
            first = rows["relative"][named.isna()].iloc[0]
            raise InputError(
                f"Every image is of one group, but {first} has none: add it to the listing of groups, or leave it out."
            )
    named = named.astype(str)
    if empty := sorted(set(expected) - set(named)):
        raise InputError(
            f"A group is judged on its images, but {name_some(empty)} has none that was classified: give images of it, "
            "or leave the group out."
        )
    right = (rows["rank"] == 1).groupby(named).agg(["size", "mean"])
    table = right.set_axis(["n_images", "right"], axis=1)
    table = table.rename_axis("group").reset_index()
    if before is not None:
        earlier = group_accuracy(before, groups).rename(columns={"right": "before"})
        table = earlier.merge(table.rename(columns={"right": "after"}))
    return table.sort_values(str(table.columns[-1]), kind="stable", ignore_index=True)


def class_column(labels: np.ndarray, classes: Sequence[str]) -> "pd.Categorical[str]":
    """Return labels (indices of classes) as a categorical column of class names. A label of -1 is missing."""
    return pd.Categorical.from_codes(labels.astype(int), pd.Index(list(classes)))


def write_predictions(
    path: Path, predictions: pd.DataFrame, listing: Sequence[str]
) -> None:
    """Write a file with the predictions for the images of one domain.

    For each image, the file has the true class. For each image and classifier, it has the classes with the highest
    scores, and the ranks of the true class (`RANKS`).

    Args:
        path: The file.
        predictions: The rows of one domain from the table that `predictions` returns.
        listing: Paths of all images relative to the root. The file stores indices into this list.

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
    # There is a row for each image and classifier. So classes and ranks get the smallest type that holds them.
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
        top[top < 0] = len(classes)  # the code of no answer
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
    """Read a file that `write_predictions` wrote, and return its table of predictions.

    The folder of the file must also contain ``images.json``, the list of the paths of all images. The function
    `extract_accuracies` of the study's experiments writes this list.

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

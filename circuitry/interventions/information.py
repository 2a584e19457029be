"""What a lesion leaves of the information on a class.

A lesion may take right answers although the network still computes what tells the class from other classes: then only
the way to the answer is broken. Three tests tell these cases apart. All of them read embeddings.

1. *Order*: do the log-odds of the class still tell its images from images of other classes? Adding a constant to the
   logit of the class, such as a bias, changes right answers, but not this order.
2. *One constant*: how many answers are right again after one constant is added to the logit of the class?
3. *Refitted head*: how many answers are right by a new linear head that is fitted to the network with the lesion?

The constant and the head are fitted to images that neither found nor test the part.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.encoder.metrics import ClassLogit, log_odds
from circuitry.interventions.ablated_units import Ablated, mean_of_draws
from circuitry.models.ridge import ridge_probe

FEWEST_FITTED = 4
"""Fewest images of each class that a constant or a head is fitted to."""

Embeddings = Mapping[str, Float[Tensor, "_ d"]]
"""Embeddings of the images of several classes of one domain, by class."""
EmbeddingsOfRuns = Mapping[str, Float[Tensor, "runs _ d"]]
"""The same in a run of the whole model, followed by a run of each lesion."""


def information_left(
    domain: str,
    metrics: Mapping[str, ClassLogit],
    lesions: Sequence[Ablated],
    tested: EmbeddingsOfRuns,
    fitted: EmbeddingsOfRuns | None = None,
) -> pd.DataFrame:
    """Return how well each lesion leaves classes of a domain apart, as columns for the table of `lesion`.

    Args:
        domain: The domain of the images.
        metrics: The metric of each class, with the scale of the model.
        lesions: The lesions. Those of parts whose class is not in ``metrics`` are left out.
        tested: Embeddings of the images that test the parts, from `lesioned_embeddings`.
        fitted: Embeddings of images that neither found nor test the parts. Without them there are only the columns on
            order.

    Returns:
        For each lesion a row of each class, with the columns of `Ablated.row` and those of `read_again`. For the whole
        model they have the prefix ``whole_``. The random draws of a part are averaged into one row.
    """
    rows = list[dict[str, Any]]()
    whole = dict[str, pd.DataFrame]()
    read = [lesion for lesion in lesions if lesion.found_on[0] in metrics]
    for number, lesion in enumerate(lesions, start=1):
        part_class = lesion.found_on[0]
        if part_class not in metrics:
            continue
        if part_class not in whole:
            whole[part_class] = read_again(
                part_class, metrics, *_runs(0, tested, fitted)
            )
        after = read_again(part_class, metrics, *_runs(number, tested, fitted))
        both = after.join(whole[part_class].add_prefix("whole_"))
        for class_name, columns in both.to_dict("index").items():
            rows.append(lesion.row((str(class_name), domain)) | columns)
    if not rows:
        return pd.DataFrame()
    return mean_of_draws(pd.DataFrame(rows), read)


def join_information(
    table: pd.DataFrame, information: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Return a table of lesions with the columns of several tables of `information_left`.

    Rows of the table that have no such columns get NaN.
    """
    known = [rows for rows in information if len(rows)]
    if not known:
        return table.assign(whole_auc=np.nan, auc=np.nan)
    joined = pd.concat(known, ignore_index=True)
    names = [column for column in joined if column in table]
    return table.merge(joined, on=names, how="left")


def _runs(
    number: int, tested: EmbeddingsOfRuns, fitted: EmbeddingsOfRuns | None
) -> tuple[Embeddings, Embeddings | None]:
    """Return the embeddings of one run."""
    of_tested = {name: runs[number] for name, runs in tested.items()}
    if fitted is None:
        return of_tested, None
    return of_tested, {name: runs[number] for name, runs in fitted.items()}


def read_again(
    part_class: str,
    metrics: Mapping[str, ClassLogit],
    tested: Embeddings,
    fitted: Embeddings | None = None,
) -> pd.DataFrame:
    """Return how well embeddings tell a class from other classes: by the old head, by one constant, by a new head.

    Args:
        part_class: The class.
        metrics: The metric of each class, with the scale of the model.
        tested: Embeddings of test images.
        fitted: Embeddings of other images, to which a constant and a head are fitted.

    Returns:
        A row for each class of ``tested``. Columns:

        - auc: only for ``part_class``, the area under the ROC curve of its log-odds on its images against images of
          the other classes: 1 if the order is kept, 0.5 by chance.
        - constant: the share of images that are classified as their own class after the constant is added to the logit
          of ``part_class``. The constant is the one that makes the most of ``fitted`` right, images of the class and of
          other classes weighted alike.
        - refit: the share of images that a ridge classifier of these classes, fitted to ``fitted``, gives their own
          class.
        - refit_auc: only for ``part_class``, the area under the ROC curve of the new head.

        All values are NaN if an embedding is not finite. The columns after auc are missing without ``fitted``.

    Example:
        >>> from circuitry.interventions.information import read_again
        >>> metrics = {name: circuitry.class_logit(torch.eye(2), row) for row, name in enumerate(("clock", "cup"))}
        >>> tested = {"clock": torch.tensor([[1.0, 0.2]]), "cup": torch.tensor([[0.1, 1.0]])}
        >>> read_again("clock", metrics, tested)["auc"].tolist()
        [1.0, nan]
    """
    # Imported here, because scikit-learn takes as long to import as torch.
    from sklearn.metrics import roc_auc_score

    names = list(tested)
    images = torch.cat(list(tested.values())).cpu()
    classes = np.repeat(names, [len(of_class) for of_class in tested.values()])
    is_own = classes == part_class
    table = pd.DataFrame({"auc": np.nan}, index=names)
    everything = [*tested.values(), *(fitted or {}).values()]
    if not all(bool(of_class.isfinite().all()) for of_class in everything):
        return table
    has_order = is_own.any() and not is_own.all()
    metric = metrics[part_class]
    answers = metric.log_answers(images)
    if has_order:
        own_label = torch.full((len(images),), metric.label)
        odds = log_odds(answers, own_label).numpy()
        table.loc[part_class, "auc"] = roc_auc_score(is_own, odds)
    if fitted is None:
        return table
    labels = {name: metric.label for name, metric in metrics.items()}
    fitted_images = torch.cat(list(fitted.values())).cpu()
    fitted_classes = np.repeat(names, [len(fitted[name]) for name in names])
    constant = best_constant(
        metric.log_answers(fitted_images).numpy(),
        np.array([labels[name] for name in fitted_classes]),
        metric.label,
    )
    shifted = answers.numpy().copy()
    shifted[:, metric.label] += constant
    given = shifted.argmax(1)
    right = given == np.array([labels[name] for name in classes])
    table["constant"] = pd.Series(right).groupby(classes).mean()
    head = ridge_probe().fit(fitted_images.double().numpy(), fitted_classes)
    read = images.double().numpy()
    right = head.predict(read) == classes
    table["refit"] = pd.Series(right).groupby(classes).mean()
    if has_order:
        decisions = head.decision_function(read)
        # With two classes there is one number: how much more it is the second in alphabetical order.
        if decisions.ndim == 1:
            decisions = np.stack([-decisions, decisions], 1)
        of_class = decisions[:, list(head.classes_).index(part_class)]
        table["refit_auc"] = np.nan
        table.loc[part_class, "refit_auc"] = roc_auc_score(is_own, of_class)
    return table


def best_constant(
    answers: Float[np.ndarray, "images classes"],
    labels: Int[np.ndarray, " images"],
    label: int,
) -> float:
    """Return the constant that makes the most answers right when it is added to the answers of one class.

    Images of the class and images of other classes have the same weight. Of equally good constants the one nearest to
    zero is returned.

    Args:
        answers: A number for each image and class.
        labels: For each image, the label of its own class.
        label: The label of the class to whose answers the constant is added.
    """
    is_own = labels == label
    others = answers.copy()
    others[:, label] = -np.inf
    # An image is classified as the class if the constant exceeds its gap.
    gaps = others.max(1) - answers[:, label]
    would_be_right = others.argmax(1) == labels
    # The result changes only where the constant passes a gap, so one constant between every two gaps is tried.
    edges = np.unique(gaps)
    between = (edges[1:] + edges[:-1]) / 2
    tried = np.concatenate([[0.0, edges[0] - 1, edges[-1] + 1], between])
    is_class = tried[:, None] > gaps
    own_right = is_class[:, is_own].mean(1) if is_own.any() else np.zeros(len(tried))
    others_right = (~is_class & would_be_right)[:, ~is_own].mean(1)
    order = np.lexsort([np.abs(tried), -(own_right + others_right)])
    return float(tried[order[0]])

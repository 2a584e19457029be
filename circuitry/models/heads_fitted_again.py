"""What embeddings tell of a class: by the head that the model has, by that head with one constant, and by a new head.

After some units of a model are ablated, right answers may be lost although the embeddings still hold what tells the
class from other classes. Three tests tell these cases apart.

1. *Order*: do the log-odds of the class still tell its images from images of other classes? Adding a constant to the
   logit of the class, such as a bias, changes right answers, but not this order.
2. *One constant*: how many answers are right again after one constant is added to the logit of the class?
3. *Refitted head*: how many answers are right by a new linear head that is fitted to these embeddings?
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import ClassLogit, log_odds
from circuitry.models.ridge import ridge_probe

Embeddings = Mapping[str, Float[Tensor, "_ d"]]
"""Embeddings of the images of several classes, by class."""


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
        >>> from circuitry.models.heads_fitted_again import read_again
        >>> metrics = {name: circuitry.class_logit(torch.eye(2), row) for row, name in enumerate(("clock", "cup"))}
        >>> tested = {"clock": torch.tensor([[1.0, 0.2]]), "cup": torch.tensor([[0.1, 1.0]])}
        >>> read_again("clock", metrics, tested)["auc"].tolist()
        [1.0, nan]
    """
    table = pd.DataFrame({"auc": np.nan}, list(tested))
    images, classes = _joined(tested)
    metric = metrics[part_class]
    labels = {name: of_class.label for name, of_class in metrics.items()}
    if not images.isfinite().all():
        return table
    is_own = classes == part_class
    answers = metric.log_answers(images)
    odds = log_odds(answers, torch.full((len(images),), metric.label))
    table.loc[part_class, "auc"] = _auc(odds.numpy(), is_own)
    if not fitted:
        return table
    to_fit, classes_to_fit = _joined(fitted)
    if not to_fit.isfinite().all():
        return table.assign(auc=np.nan)
    constant = best_constant(
        metric.log_answers(to_fit).numpy(),
        np.array([labels[name] for name in classes_to_fit]),
        metric.label,
    )
    answers[:, metric.label] += constant
    given = answers.numpy().argmax(1)
    head = ridge_probe().fit(in_double(to_fit).numpy(), classes_to_fit)
    features = in_double(images).numpy()
    right = {
        "constant": given == np.array([labels[name] for name in classes]),
        "refit": head.predict(features) == classes,
    }
    table = table.join(pd.DataFrame(right).groupby(classes).mean())
    decisions = head.decision_function(features)
    # With two classes there is one number: how much more it is the second in alphabetical order.
    if decisions.ndim == 1:
        decisions = np.stack([-decisions, decisions], 1)
    of_class = decisions[:, list(head.classes_).index(part_class)]
    table.loc[part_class, "refit_auc"] = _auc(of_class, is_own)
    return table


def _joined(embeddings: Embeddings) -> tuple[Tensor, np.ndarray]:
    """Return the embeddings of all classes, and the class of each."""
    n_images = [len(of_class) for of_class in embeddings.values()]
    classes = np.repeat(list(embeddings), n_images)
    return torch.cat(list(embeddings.values())).cpu(), classes


def _auc(values: Float[np.ndarray, " n"], is_own: Bool[np.ndarray, " n"]) -> float:
    """Return the area under the ROC curve, or NaN if all images are of one kind."""
    # Imported here, because scikit-learn takes as long to import as torch.
    from sklearn.metrics import roc_auc_score

    if is_own.all() or not is_own.any():
        return np.nan
    return float(roc_auc_score(is_own, values))


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
    # Imported here, because scikit-learn takes as long to import as torch.
    from sklearn.utils.class_weight import compute_sample_weight

    others = answers.copy()
    others[:, label] = -np.inf
    # An image is classified as the class if the constant exceeds its gap.
    gaps = others.max(1) - answers[:, label]
    # The result changes only where the constant passes a gap, so one constant between every two gaps is tried.
    edges = np.unique([gaps.min() - 2, *gaps, gaps.max() + 2])
    tried = np.append((edges[1:] + edges[:-1]) / 2, 0.0)
    is_own = labels == label
    right = np.where(tried[:, None] > gaps, is_own, others.argmax(1) == labels)
    shares = right @ compute_sample_weight("balanced", is_own)
    best = tried[np.isclose(shares, shares.max())]
    return float(min(best, key=abs))

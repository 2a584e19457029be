"""Lesions: ablate some units of a model, and measure for which classes and domains its answers change.

An own part is a set of units that a class needs and that other classes do not need. A lesion ablates the units of one
own part. For comparison, another lesion ablates as many random units.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.circuits.asked_alike import (
    ANY_CLASS,
    ANY_TEXTS,
    asked_of,
    check_asked_alike,
    check_made_with,
)
from circuitry.circuits.found_on import tell_seen
from circuitry.circuits.graph import Circuit
from circuitry.data.folds import Key
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import (
    NO_ANSWER,
    ClassLogit,
    answer_metric,
    given_classes,
    log_odds,
)
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task, at_model_scale
from circuitry.encoder.tensor_batches import Images, one_tensor
from circuitry.interventions.ablated_units import (
    Ablated,
    ablations,
    lesioned_embeddings,
    mean_of_draws,
)
from circuitry.interventions.faithfulness import draw_random
from circuitry.interventions.information import (
    FEWEST_FITTED,
    information_left,
    join_information,
)
from circuitry.runs.arguments import SOME, Natural, Seed, checked
from circuitry.runs.errors import InputError, name_some
from circuitry.runs.identity import Across, same_entry
from circuitry.runs.progress import Bar

log = logging.getLogger(__name__)


@own_modes()
@checked
def lesion(
    tasks: Annotated[Mapping[Key, Task], SOME],
    parts: Annotated[Mapping[Key, Circuit], SOME],
    *,
    refit: Mapping[Key, Images] | None = None,
    random_draws: Natural = 1,
    seed: Seed = 0,
    across: Across | None = None,
) -> pd.DataFrame:
    """Ablate each part, and measure what the model loses of each class: evidence, right answers, and information.

    Args:
        tasks: A task for each (class, domain) to test on. It has the images, the metric of the class, and the baseline
            of ablated units. All tasks must have the same candidate classes, scale and kind of baseline, and each class
            must have its own label. The ``others`` and ``sites`` of the tasks are ignored.
        parts: For each (class, domain), the circuit of units that was found on its images. All circuits must be of one
            encoder and must have been found with one kind of baseline. This may differ from the baseline of the tasks.
        refit: For each (class, domain) of the tasks, images that neither found nor test a part. A new head is fitted to
            them after the lesion (`information_left`), to tell whether the model has lost the class, or only the way
            from the class to the answer. Give at least 4 of each; 12 or more are better.
        random_draws: The number of random parts to compare each part with. A random part has as many units at every
            site.
        seed: Seed of the random parts.
        across: With ``models`` each part may be of another model of the tasks' architecture, such as the model before
            fine-tuning. Then the second name of its key may name this model. All tasks must be of one model.

    Returns:
        A table. For each part and each (class, domain) of the tasks, there is a row for the lesion of the part and a
        row for lesions of random units. The second row has means over all draws of random units. Columns:

        - part_class, part_domain: the class and domain that the part was found on.
        - class, domain: the class and domain of the images.
        - cut: which units were ablated: ``part`` or ``random``.
        - n_units, n_images: how many units are ablated, and how many images are tested.
        - whole_right, right: the share of images that are classified as their own class before and after the lesion.
        - whole_log_odds, log_odds: the mean log-odds of the images' own class before and after the lesion, log p -
          log(1 - p). Their difference is the evidence that is lost. It compares styles that begin at other margins.
        - whole_rank, rank: the mean rank of the images' own class among the candidates, 1 if it is the answer.
        - whole_auc, auc: only for images of the part's class, how well the log-odds of this class tell them from images
          of the other classes in their domain: the area under the ROC curve, 0.5 by chance.
        - constant, whole_constant, refit, whole_refit, refit_auc, whole_refit_auc: with ``refit``, the share of images
          that are right after one constant is added to the logit of the part's class, the share that is right by a
          new head, and the area under the ROC curve of the new head; see `read_again`.
        - taken_for: the share of images that are classified as the part's class after the lesion. It is NaN if the
          part's class is not among the candidates.
        - nearness: how near the class of the images is to the part's class, by the weights of the classes: 0 for the
          class itself, 1 for the nearest other candidate.
        - candidates, scale, baseline: the number of candidate classes, the scale and the baseline of all tasks, the
          same in all rows.
        - part_baseline: the baseline that was used to find the parts, or None if the parts do not say.
        - part_weights, weights: with ``across``, the digests of the weights of the model that the part was found in,
          and of the model that is tested.

        An image is classified as no class if two classes share the largest answer, or if the embedding is not finite
        (`given_classes`).

    Raises:
        InputError: for parts of another encoder or of edges, metrics without candidate classes, tasks or parts whose
            settings differ, and too few images to fit a new head.

    Example:
        >>> part = circuitry.own_part(task, share=0.02)
        >>> table = lesion({("clock", "real"): task}, {("clock", "real"): part})
        >>> table["cut"].tolist()
        ['part', 'random']
    """
    for key, part in parts.items():
        if part.edges is not None:
            raise InputError(
                f"A lesion ablates units, but the part of {' in '.join(key)} is of edges: give it without edges."
            )
    # A test on images that were used to find a part would overrate the part.
    sources = [part.source for part in parts.values()]
    tested = dict[str, Any]()
    for key, task in tasks.items():
        tested[" in ".join(key)] = task.images
    tell_seen(tested, sources, "A lesion")
    _check_refit(tasks, refit)
    # Probabilities depend on the scale of the logits. A task without a scale takes the scale of the model.
    tasks = {key: at_model_scale(task) for key, task in tasks.items()}
    asked = dict[str, dict[str, Any]]()
    labels = dict[str, int]()
    for key, task in tasks.items():
        title = " in ".join(key)
        asked[title] = asked_of(task, "A lesion takes")
        # A class is one row of the candidates.
        labels[key[0]] = _metric(task).label
        asked[title][f"label of {key[0]}"] = labels[key[0]]
        if across:
            asked[title]["weights"] = task.identity["weights"]
    check_asked_alike(
        asked,
        "The cells of one table of lesions",
        "give all the same, or make a table of each",
    )
    of_all = next(iter(asked.values()))
    part_baseline = _baseline_of_parts(parts, of_all["baseline"], across)
    for (class_name, _), part in parts.items():
        made = part.source.settings
        # A label is the index of a candidate, so among other texts it would mean another class.
        if same_entry(made.get("text_weights"), of_all["text_weights"]):
            labels.setdefault(class_name, int(made["label"]))
    # Random units are drawn once, so that all classes are tested without the same units.
    rng = np.random.default_rng(seed)
    lesions = list[Ablated]()
    for key, part in parts.items():
        lesions += ablations(key, part, draw_random([part], random_draws, rng))
    progress = any(task.work.progress for task in tasks.values())
    jobs = Bar(tasks.items(), desc="lesion", unit="job", disable=not progress)
    tables = list[pd.DataFrame]()
    embeddings_of_tests = defaultdict[str, dict[str, Tensor]](dict)
    embeddings_of_refit = defaultdict[str, dict[str, Tensor]](dict)
    for key, task in jobs:
        # Any part may be tested on any class. A part and a task of one class and domain must have the same label.
        check_made_with(task, sources, ANY_TEXTS, across)
        if key in parts:
            check_made_with(task, [parts[key].source], (*ANY_CLASS, "label"), across)
        class_name, domain = key
        embeddings = lesioned_embeddings(task, lesions)
        tables.append(lesion_cell(key, task, embeddings, lesions, labels))
        embeddings_of_tests[domain][class_name] = embeddings
        if refit is not None:
            embeddings = lesioned_embeddings(replace(task, images=refit[key]), lesions)
            embeddings_of_refit[domain][class_name] = embeddings
    information = list[pd.DataFrame]()
    for domain, of_domain in embeddings_of_tests.items():
        metrics = {name: _metric(tasks[name, domain]) for name in of_domain}
        of_refit = embeddings_of_refit[domain]
        information.append(
            information_left(domain, metrics, lesions, of_domain, of_refit)
        )
    table = join_information(pd.concat(tables), information)
    table = table.assign(part_baseline=part_baseline)
    if not across:
        return table
    part_weights = list[str | None]()
    for key in zip(table["part_class"], table["part_domain"], strict=True):
        part_weights.append(parts[key].source.settings.get("weights"))
    table["part_weights"] = part_weights
    table["weights"] = of_all["weights"]
    return table


def _check_refit(tasks: Iterable[Key], refit: Mapping[Key, Images] | None) -> None:
    """Raise `InputError` if there are too few images of a class to fit a new head."""
    if refit is None:
        return
    for key in tasks:
        n = len(one_tensor(refit[key])) if key in refit else 0
        if n < FEWEST_FITTED:
            raise InputError(
                f"A new head is fitted to at least {FEWEST_FITTED} images of each class that neither find nor test a "
                f"part, but refit= has {n} of {' in '.join(key)}: give more, or leave refit out."
            )


def _metric(task: Task) -> ClassLogit:
    return answer_metric(task.metric, "A lesion takes")


def _baseline_of_parts(
    parts: Mapping[Key, Circuit], tested: str, across: Across | None
) -> str | None:
    """Return the name of the baseline that was used to find the parts; None if no part has stored it.

    A warning is logged if ``tested``, the baseline of the test, has another name.

    Raises:
        InputError: if the parts were found with different baselines, or with different scales in one model.
    """
    compared = ["baseline"] if across else ["baseline", "scale"]
    asked = dict[str, dict[str, Any]]()
    part_baseline: str | None = None
    for key, part in parts.items():
        made = part.source.settings
        # Circuits that are made by hand name neither baseline nor scale.
        known: dict[str, Any] = {name: made[name] for name in compared if name in made}
        asked[f"the part of {' in '.join(key)}"] = known
        part_baseline = part_baseline or known.get("baseline")
    check_asked_alike(
        asked, "The parts of one table of lesions", "make a table of each"
    )
    if part_baseline not in (None, tested):
        log.warning(
            "The parts were found with the baseline %r, and are tested with %r: another question than that which found "
            "them. The columns part_baseline and baseline say so.",
            part_baseline,
            tested,
        )
    return part_baseline


def lesion_cell(
    key: Key,
    task: Task,
    embeddings: Float[Tensor, "runs images d"],
    lesions: Sequence[Ablated],
    labels: Mapping[str, int],
) -> pd.DataFrame:
    """Return the table of lesions that are measured on the images of one class in one domain.

    Args:
        key: The class and domain of the images.
        task: The task with these images. Its metric has the scale of the model (`at_model_scale`).
        embeddings: The embeddings of these images, from `lesioned_embeddings`.
        lesions: The units that each lesion ablates.
        labels: The labels of the classes among the candidates. A class may be missing.

    Returns:
        The columns of `lesion`, except for ``part_baseline`` and the columns on information, and the columns that the
        lesions tell. The random draws of a part are averaged into one row.
    """
    metric = _metric(task)
    part_labels = [labels.get(one.found_on[0], NO_ANSWER) for one in lesions]
    rows = list[dict[str, float]]()
    for of_run, part_label in zip(embeddings, [NO_ANSWER, *part_labels], strict=True):
        answers = metric.log_answers(of_run).cpu()
        given = given_classes(answers)
        odds = log_odds(answers, torch.full_like(given, metric.label))
        n_above = in_double(answers > answers[:, [metric.label]]).sum(-1)
        numbers = {
            "right": given == metric.label,
            "log_odds": odds,
            # An embedding that is not finite has no answers.
            "rank": (1 + n_above).masked_fill(odds.isnan(), torch.nan),
            "taken_for": given == part_label,
            "unknown": odds.isnan(),
        }
        rows.append({name: float(in_double(x).mean()) for name, x in numbers.items()})
    whole, *after = rows
    table = pd.DataFrame([one.row(key) for one in lesions]).assign(
        n_units=[one.n_units for one in lesions],
        n_images=embeddings.shape[1],
        whole_right=whole["right"],
        whole_log_odds=whole["log_odds"],
        whole_rank=whole["rank"],
    )
    nearness = _nearness(metric, torch.tensor(part_labels))
    table = table.join(pd.DataFrame(after).assign(nearness=nearness))
    _tell_unknown(key, table)
    # Both are known only if the class of the part is a candidate.
    table.loc[np.equal(part_labels, NO_ANSWER), ["taken_for", "nearness"]] = np.nan
    asked = asked_of(task, "A lesion takes")
    return mean_of_draws(table.drop(columns="unknown"), lesions).assign(
        candidates=asked["candidates"],
        scale=asked["scale"],
        baseline=asked["baseline"],
    )


def _nearness(
    metric: ClassLogit, part_labels: Int[Tensor, " lesions"]
) -> Float[np.ndarray, " lesions"]:
    """Return how near the class of the images is to the class of each part, by the cosine of their weights.

    The result is 0 if it is the same class, 1 if it is the nearest other candidate, and so on. It means nothing if the
    class of a part is no candidate (`NO_ANSWER`).
    """
    rows = F.normalize(in_double(metric.weights.cpu()), dim=-1)
    cosines = rows[part_labels.clamp(min=0)] @ rows.T
    # The class of the part is nearer to itself than any other class.
    n_nearer = in_double(cosines > cosines[:, [metric.label]]).sum(-1)
    return n_nearer.masked_fill(part_labels == metric.label, 0).numpy()


def _tell_unknown(key: Key, table: pd.DataFrame) -> None:
    """Log a warning if images have no answer after a lesion.

    Args:
        key: The class and domain of the images.
        table: A row for each lesion, in which ``unknown`` is the share of images without an answer.
    """
    broken = list[str]()
    for row in table[table["unknown"] > 0].to_dict("records"):
        n = round(row["unknown"] * row["n_images"])
        broken.append(
            f"{n} without the {row['cut']} units of {row['part_class']} in {row['part_domain']}"
        )
    if broken:
        log.warning(
            "Of %d images of %s the embeddings of some are not finite after a lesion, so they have no answer, and "
            "their probability is NaN: %s.",
            table["n_images"].iloc[0],
            " in ".join(key),
            name_some(broken),
        )

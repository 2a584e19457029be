"""Own parts of several models of one architecture: which units they share, and what each takes in the other models."""

from collections.abc import Mapping
from itertools import combinations, product

import numpy as np
import pandas as pd

from circuitry.circuits.graph import Circuit
from circuitry.comparison.own_part_verdicts import style_verdicts
from circuitry.data.folds import Key
from circuitry.encoder.task import Task
from circuitry.interventions.lesions import lesion
from circuitry.interventions.overlaps_of_parts import part_overlaps
from circuitry.questions.own_parts_jobs import OwnParts
from circuitry.runs.identity import Across
from circuitry.runs.workers import Work


def parts_of_models(
    runs: Mapping[str, OwnParts],
    *,
    across: Across | None = None,
    work: Work = Work(),
) -> dict[str, pd.DataFrame]:
    """Compare the own parts that several models have of the same classes, domain by domain.

    Args:
        runs: By the name of each model, its own parts, which are found already (`OwnParts.run`). The largest share of
            the settings is compared. Parts are tested on the unseen images of each of these.
        across: ``models``, because the models have other weights.
        work: How the work is carried out.

    Returns:
        Three tables, with a row or rows for each domain of the images, which the first column ``images`` names. Where
        these tables elsewhere name domains, they name models:

        - overlaps: the table of `part_overlaps`. Two parts of one model are of two halves of the images.
        - lesions: the table of `lesion`: each part in its own model and in each other model.
        - verdicts: the table of `style_verdicts`: whether two models have the same part of a class.

    Raises:
        InputError: if the models differ in more than their weights, or ``across`` is not given.

    Example:
        >>> from circuitry.interventions import OwnPartSettings
        >>> from circuitry.questions import OwnParts, parts_of_models
        >>> settings = OwnPartSettings(n_images=2, shares=(0.02,))
        >>> photos = circuitry.DomainFolder("DomainNet", classes=("clock", "cup"), domains=("real",))
        >>> mine = OwnParts(clip, photos, "runs/own", settings)
        >>> _ = mine.run()
        >>> list(parts_of_models({"mine": mine, "again": mine}, across="models"))
        ['overlaps', 'lesions', 'verdicts']
    """
    keys = dict[Key, None]()
    for run in runs.values():
        keys |= dict.fromkeys(run.keys)
    tables: dict[str, list[pd.DataFrame]] = {}
    for domain in dict.fromkeys(domain for _, domain in keys):
        for name, table in _of_domain(runs, domain, across, work).items():
            table.insert(0, "images", domain)
            tables.setdefault(name, []).append(table)
    joined = dict[str, pd.DataFrame]()
    for name, of_domains in tables.items():
        joined[name] = pd.concat(of_domains, ignore_index=True)
    return joined


def _of_domain(
    runs: Mapping[str, OwnParts], domain: str, across: Across | None, work: Work
) -> dict[str, pd.DataFrame]:
    """Return the tables of `parts_of_models` for the images of one domain."""
    first = _named_by_model(runs, domain, 1)
    second = _named_by_model(runs, domain, 2)
    pairs = list[tuple[Key, Key]]()
    classes = dict.fromkeys(class_name for class_name, _ in first)
    for class_name, (a, b) in product(classes, combinations(runs, 2)):
        pairs.append(((class_name, a), (class_name, b)))
    overlaps = part_overlaps(first, pairs, second, across=across)
    lesions = list[pd.DataFrame]()
    for name, run in runs.items():
        tasks = dict[Key, Task]()
        for key in run.keys:
            if key[1] == domain and run.unseen[key]:
                images = run.read(run.unseen[key], strict=work.strict)
                tasks[key[0], name] = run.task(key, images, work=work)
        with run.clip.encoder.running():
            settings = run.settings
            table = lesion(
                tasks,
                first,
                random_draws=settings.random_draws,
                seed=settings.seed,
                across=across,
            )
        lesions.append(table)
    joined = pd.concat(lesions, ignore_index=True)
    return {
        "overlaps": overlaps,
        "lesions": joined,
        "verdicts": style_verdicts(joined, overlaps),
    }


def _named_by_model(
    runs: Mapping[str, OwnParts], domain: str, half: int
) -> dict[Key, Circuit]:
    """Return the parts of one half of the images of a domain, by (class, name of the model)."""
    parts = dict[Key, Circuit]()
    for name, run in runs.items():
        for key, part in run.circuits(half=half).items():
            if key[1] == domain:
                parts[key[0], name] = part
    return parts


def sentences_of_models(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return a sentence for each class and domain: does the part of one model take the class in the next model?

    Args:
        tables: The tables of `parts_of_models`.

    Returns:
        Sentences with the verdict by transfer, the right answers after each lesion, and the overlap of units. The last
        sentence names the classes that have no verdict, because one of the models does not know them.

    Example:
        >>> lesions = {"class": "cup", "part_class": "cup", "images": "real", "domain": "tuned", "n_images": 8}
        >>> lesions |= {"part_domain": ["base", "base", "tuned"], "cut": ["part", "random", "part"]}
        >>> lesions |= {"whole_right": 1.0, "right": [0.25, 1.0, 0.0]}
        >>> verdict = {"class": "cup", "images": "real", "domain_a": "base", "domain_b": "tuned"}
        >>> verdict |= {"by_transfer": ["the same part"], "overlap": 0.4, "chance": 0.01, "ceiling": 0.5}
        >>> tables = {"lesions": pd.DataFrame(lesions), "verdicts": pd.DataFrame(verdict)}
        >>> print(*sentences_of_models(tables))
        cup in real: the same part. After removing the part of base, tuned answers 2 of 8 images right (before 8;
        after removing as many random units 8, its own part 0). Overlap of the parts: 0.40 (chance 0.01, ceiling 0.50).
    """
    lesions = tables["lesions"]
    own = lesions[lesions["class"] == lesions["part_class"]]
    keys = ["class", "images", "part_domain", "domain", "cut"]
    by_key = own.set_index(keys).to_dict("index")
    sentences = list[str]()
    told = set[Key]()
    for row in tables["verdicts"].to_dict("records"):
        key = (row["class"], row["images"])
        base = row["domain_a"]
        tested = row["domain_b"]
        told.add(key)
        of_base = by_key[(*key, base, tested, "part")]
        n_images = round(of_base["n_images"])
        shares = {
            "after": of_base["right"],
            "before": of_base["whole_right"],
            "random": by_key[(*key, base, tested, "random")]["right"],
            "own": by_key[(*key, tested, tested, "part")]["right"],
        }
        right = {name: f"{share * n_images:.3g}" for name, share in shares.items()}
        units = {
            name: "unknown" if np.isnan(row[name]) else f"{row[name]:.2f}"
            for name in ("overlap", "chance", "ceiling")
        }
        sentences.append(
            f"{' in '.join(key)}: {row['by_transfer']}. After removing the part of {base}, {tested} answers "
            f"{right['after']} of {n_images} images right (before {right['before']}; after removing as many random "
            f"units {right['random']}, its own part {right['own']}). Overlap of the parts: {units['overlap']} (chance "
            f"{units['chance']}, ceiling {units['ceiling']})."
        )
    untold = list[str]()
    for key in dict.fromkeys(zip(own["part_class"], own["images"], strict=True)):
        if key not in told:
            untold.append(" in ".join(key))
    if untold:
        sentences.append(
            f"Not compared, because one of the models does not know it: {', '.join(untold)}."
        )
    return sentences

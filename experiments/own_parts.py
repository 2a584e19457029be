"""Is a class's own part what it claims to be? Planted networks, rivals, steering, other seeds, and colours of pixels.

1. planted: networks in which the own units of each class are known, also with a copy of each unit. The recall of the
   part is set beside the recall of the strongest units by other methods.
2. rivals: on real images, parts of equal size by other ways to rank units. Units rank by the plain effect, by how much
   more they move all answers on images of the class than on images of other classes, by class selectivity, by a linear
   probe of every site, and by gates that are learned for the dissociation itself.
3. steering: activations of the part of a class, from its images, are put into runs on images of other classes.
4. seeds (`--tables seeds`): the small CLIP of the quickstart is trained again on the same images from other seeds.
5. colours (`--tables colours`): the overlap of two parts is set beside the colours that their images have in common.

The claim would be refuted by a rival that takes the class and spares other classes at a smaller size, or by a seed
without own parts. That a part is the same in two styles would be refuted by overlaps that sharing the class does not
explain, given colours.

    python -m experiments.own_parts --results experiments/results/own_parts/rivals
    python -m experiments.own_parts --tables seeds --model rn-tiny --data runs/drawn --domains real clipart quickdraw
    python -m experiments.own_parts --tables colours --domains photo clipart noto fluent3d --shares 0.02
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, Literal

from circuitry.runs import Work, run_script, versions
from circuitry.comparison import (
    lesion_summary,
    mantel,
    mean_interval,
    overlap_summary,
    style_verdicts,
)
from circuitry.comparison.lesion_reading import TAKEN
from circuitry.comparison.overlap_reading import across_styles
from circuitry.comparison.own_part_verdicts import SAME_PART
from circuitry.data import SmallTables
from circuitry.encoder import Counterfactual, Encoder, Stage, Task, class_logit
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.interventions import (
    OwnPartSettings,
    find_circuit,
    kept_embeddings,
)
from circuitry.models import ModelOptions
from circuitry.questions import OwnParts
from circuitry.reports import Report, write_results
from circuitry.reports.page import Written
from experiments.drawn import write_toy
from experiments.drawn.tiny_clips import SHIPPED, TinyClip, train
from experiments.real_networks import LEVELS, colours_in_common, square
from experiments.rivals_of_contrast import register_rivals

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

CLASSES = 6
"""Classes of planted networks."""
OWN_UNITS = 3
"""Own units of each class."""
COMMON = 4
"""Units that every class needs."""
LOUD = 20
"""Loud units, which no later unit reads."""


@dataclass(frozen=True, eq=False)
class PlantedClasses:
    """A network in which the own units of every class are known, at its site ``units``."""

    encoder: Encoder
    """The network."""
    weights: Tensor
    """Weights of the classes [classes, width]."""
    own: Mapping[int, tuple[int, ...]]
    """Indices of the own units by label."""

    @staticmethod
    def images(label: int, n: int, seed: int) -> Tensor:
        """Return images [n, 3, 8, 8] of a class: of six blocks of numbers, the block of the class is brighter."""
        noise = torch.rand(
            n, CLASSES, 32, generator=torch.Generator().manual_seed(97 * seed + label)
        )
        noise[:, label] += 1.5
        return noise.reshape(n, 3, 8, 8)

    def task(self, label: int, n: int = 6, seed: int = 0) -> Task:
        """Return the task of a class, with ``n`` images of it and as many of each other class."""
        others = torch.cat(
            [self.images(other, n, seed) for other in range(CLASSES) if other != label]
        )
        metric = class_logit(self.weights, label, 20.0)
        return Task(
            self.encoder,
            self.images(label, n, seed),
            metric,
            baseline="mean-position",
            others=others,
            sites=["units"],
        )


def planted_classes(copies: int = 1) -> PlantedClasses:
    """Build a network in which the answer for a class is the sum of its own units times the units that all need.

    Units of pairs of neighbouring classes are added with a small weight. Loud units have no effect.

    Args:
        copies: Number of copies of each own unit. The largest copy counts, so that one replaces another that is cut.
    """
    generator = torch.Generator().manual_seed(0)
    loud = torch.randn(LOUD, 3 * 64, generator=generator)
    gains = torch.linspace(0.8, 1.2, OWN_UNITS)
    n_own = CLASSES * OWN_UNITS * copies

    def units(x: Tensor) -> Tensor:
        """Return the units [images, units]: own, common, of pairs, loud."""
        blocks = x.flatten(1).reshape(len(x), CLASSES, 32).mean(-1)
        # [images, classes, own units, copies]: a unit answers where its class's block is bright.
        bright = (blocks[:, :, None, None] * gains[:, None] - 0.6).relu()
        own = bright.expand(-1, -1, -1, copies).flatten(1)
        # The first copy is a little larger, so it is the one that counts until it is cut.
        own = own * torch.linspace(1, 0.9, copies).repeat(CLASSES * OWN_UNITS)
        common = x.flatten(1).mean(1, keepdim=True) * torch.linspace(0.5, 1, COMMON)
        pairs = (blocks + blocks.roll(-1, 1)).relu()
        return torch.cat([own, common, pairs, (x.flatten(1) @ loud.T).relu()], 1)

    def code(u: Tensor) -> Tensor:
        """Return the answers [images, classes] from the units."""
        copied = u[:, :n_own].reshape(len(u), CLASSES, OWN_UNITS, copies)
        own: Tensor = copied.amax(-1).sum(-1)
        common = u[:, n_own : n_own + COMMON].sum(1, keepdim=True)
        pairs = u[:, n_own + COMMON :][:, :CLASSES]
        return own * common + 0.2 * (pairs + pairs.roll(1, 1))

    own = {}
    for label in range(CLASSES):
        first = label * OWN_UNITS * copies
        own[label] = tuple(range(first, first + OWN_UNITS * copies))
    stages = (Stage("units", units, 1), Stage("code", code, 1))
    # The linear layer is unused: an encoder needs a module.
    encoder = Encoder(nn.Linear(1, 1), stages, (8, 8))
    return PlantedClasses(encoder, torch.eye(CLASSES), own)


RIVALS = {
    "contrast": "contrast",
    "gradient": "gradient",
    "fisher": "fisher",
    "fisher difference": "fisher-difference",
    "class selectivity": "class-selectivity",
    "linear probe": "probe-weights",
    "learned gates": "dissociation",
}
"""Methods of units, by the name to show."""


def steered(tasks: Mapping[str, Task], parts: Mapping[str, Any]) -> pd.DataFrame:
    """Put the activations of the part of a class, from its images, into runs on images of other classes.

    Args:
        tasks: Tasks of unseen images by class.
        parts: Parts by class.

    Returns:
        Columns class, of, units (``own part``, ``random``, ``another class's part``), before, after (mean probability
        of the class), n_images.
    """
    rng = np.random.default_rng(0)
    rows = []
    names = list(parts)
    for place, name in enumerate(names):
        donors = one_tensor(tasks[name].images)
        # The last class takes the first.
        another = parts[names[(place + 1) % len(names)]]
        metric: Any = tasks[name].metric
        cuts = {
            "own part": parts[name],
            "random": parts[name].random(rng),
            "another class's part": another,
        }
        # A run keeps the complement of a part and replaces the part; the first run replaces nothing.
        runs = [parts[name].nothing().complement()]
        runs += [cut.complement() for cut in cuts.values()]
        for other in names[:place] + names[place + 1 :]:
            images = one_tensor(tasks[other].images)
            # Each image gets one donor; donors are taken in turn if they are fewer.
            donated = Counterfactual(donors[torch.arange(len(images)) % len(donors)])
            task = replace(tasks[name], images=images, others=None, baseline=donated)
            probabilities = []
            for embeddings in kept_embeddings(task, runs):
                answers = metric.log_answers(embeddings)[:, metric.label]
                probabilities.append(answers.exp().mean().item())
            before, *afters = probabilities
            for units, after in zip(cuts, afters, strict=True):
                rows.append((name, other, units, before, after, len(images)))
    columns = ["class", "of", "units", "before", "after", "n_images"]
    return pd.DataFrame(rows, columns=columns)


def score_planted() -> pd.DataFrame:
    """Return the recall of planted own units by method and number of copies.

    A method names as many units as were planted, so its precision is the same number.
    """
    rows = []
    for copies in (1, 2):
        net = planted_classes(copies)
        for method in ("contrast", "gradient", "fisher", "patching"):
            recalls = []
            for label in range(CLASSES):
                task = net.task(label)
                size = len(net.own[label])
                n_units = net.encoder(net.images(label, 1, 0), stop="units").shape[1]
                part = find_circuit(task, method=method, size=size / n_units)
                right = np.isin(part.units["units"], net.own[label]).sum()
                recalls.append(right / size)
            rows.append((copies, method, np.mean(recalls), CLASSES))
    return pd.DataFrame(rows, columns=["copies", "method", "recall", "n_classes"])


@dataclass(frozen=True, kw_only=True)
class Config(ModelOptions):
    """Settings of the comparison."""

    model: str = "efficientnet-lite0"
    data: Path = Path("RealStyles")
    """Folder of the images. The images for models of other seeds are drawn there."""
    domains: tuple[str, ...] | None = ("photo",)
    tables: Literal["rivals", "seeds", "colours"] = "rivals"
    """Tables to make: rivals with planted networks and steering; models of other seeds; or overlaps beside colours."""
    shares: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05)
    """Shares of the units that parts have."""
    out: Path = Path("runs/own-parts-evidence")
    """Folder of the parts, and of trained models."""
    results: SmallTables = None

    def own_parts(self, name: str, method: str = "contrast") -> OwnParts:
        """Return the own parts of the model by a method, kept in a folder with this name."""
        settings = OwnPartSettings(shares=self.shares, method=method)
        return OwnParts(
            self.clip(components=True),
            self.images(),
            self.out / self.tables / name,
            settings,
        )


def compare_rivals(config: Config) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Find parts by each method, score planted networks, and steer by the parts of contrast.

    Returns:
        The tables by name, and facts for their provenance.
    """
    tables = []
    register_rivals()
    for name, method in RIVALS.items():
        run = config.own_parts(method, method)
        lesions = run.run(Work(progress=True))["lesions"]
        tables.append(lesion_summary(lesions, ("share", "styles")).assign(method=name))
        if name == "contrast":
            # Steering is within one domain, so that only the class differs.
            unseen = dict[str, Task]()
            parts = dict[str, Any]()
            for key, part in run.circuits(0.02).items():
                class_name, domain = key
                if domain == run.images.domains[0]:
                    unseen[class_name] = run.task(key, run.read(run.unseen[key]))
                    parts[class_name] = part
            steering = steered(unseen, parts)
    compared = {
        "rivals": pd.concat(tables, ignore_index=True),
        "planted": score_planted(),
        "steering": steering,
    }
    return compared, run.provenance | {"method": list(RIVALS)}


def compare_seeds(config: Config) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Train four more models on the same images from seeds 1 to 4, and read the parts of each model.

    The model of seed 0 comes with the package.

    Returns:
        The tables by name, and facts for their provenance.
    """
    values = {}
    digests = {}
    write_toy(config.data, SHIPPED)
    for seed in range(5):
        of_seed = config
        if seed:
            asked = TinyClip(config.out / "models" / str(seed), seed=seed)
            of_seed = replace(config, checkpoint=train(asked, config.data))
        run = of_seed.own_parts(f"seed-{seed}")
        values[seed] = read_parts(**run.run(Work(progress=True)))
        digests[seed] = run.clip.digest
    table = pd.DataFrame(values)
    spread = pd.DataFrame(
        map(mean_interval, table.to_numpy()), table.index, ["value", "low", "high"]
    )
    # All values are shares, and Student's interval knows no bounds.
    over_seeds = spread.clip(0, 1).join(table.add_prefix("seed_")).reset_index()
    facts = {"model_digest": digests, "n_models": len(values)}
    return {"seeds": over_seeds}, run.provenance | facts


def read_parts(lesions: pd.DataFrame, overlaps: pd.DataFrame) -> "pd.Series[float]":
    """Return the numbers that describe the parts of a model, by the share of units and the name of the number."""
    # Each class in a domain has a row for each lesion; the whole model is the same in all of them.
    cells = lesions.drop_duplicates(["class", "domain"])
    values = {(0.0, "right answers of the whole model"): cells["whole_right"].mean()}
    for share in lesions["share"].unique():
        of_share = lesions[lesions["share"] == share]
        in_common = overlaps[overlaps["share"] == share]
        left = lesion_summary(of_share, ("styles",))
        names = left["answers"] + ", " + left["cut"] + ", " + left["styles"]
        for name, value in zip(names, left["value"], strict=True):
            values[share, name] = value
        kinds = overlap_summary(in_common).query("compared == 'units'")
        for name, value in zip(kinds["parts"], kinds["value"], strict=True):
            values[share, name] = value
        values[share, "chance"] = kinds["chance"].mean()
        pairs = style_verdicts(of_share, in_common)
        # Of the two lesions the one that takes less decides.
        takes_both = pairs[["a_on_b", "b_on_a"]].max(axis=1) <= TAKEN
        values[share, "each takes the class in the other style"] = takes_both.mean()
        values[share, SAME_PART] = (pairs["by_transfer"] == SAME_PART).mean()
    return pd.Series(values).rename_axis(["share", "what"])


def compare_colours(config: Config) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Set overlaps of parts of the largest share beside colours of the images that were used to find them.

    Returns:
        The tables by name, and facts for their provenance.
    """
    run = config.own_parts("contrast")
    tables = []
    rows = list[tuple[Any, ...]]()
    overlaps = run.run(Work(progress=True))["overlaps"]
    overlaps = overlaps[overlaps["share"] == max(config.shares)]
    of_one_class = across_styles(overlaps)
    by_styles = of_one_class.groupby(["domain_a", "domain_b"])["overlap"].mean()
    of_styles = square(by_styles.reset_index())
    # A class in a style takes the place of a style, so that the matrix is of classes in styles.
    names_of_cells = overlaps.assign(
        domain_a=overlaps["class_a"] + "/" + overlaps["domain_a"],
        domain_b=overlaps["class_b"] + "/" + overlaps["domain_b"],
    )
    pairs_of_cells = names_of_cells.groupby(["domain_a", "domain_b"], sort=False)
    mean_overlaps = pairs_of_cells["overlap"].mean().reset_index()
    of_cells = square(mean_overlaps.query("domain_a != domain_b"))
    cells = {}
    by_style = defaultdict[str, list[Path]](list)
    class_names = []
    for cell in of_cells.index:
        name, style = cell.split("/")
        cells[cell] = [record.path for record in run.found_on[name, style]]
        by_style[style] += cells[cell]
        class_names.append(name)
    styles = {style: by_style[style] for style in of_styles.index}
    names = np.array(class_names)
    one_class = pd.DataFrame((names[:, None] == names).astype(float))
    for levels in LEVELS:
        colours = colours_in_common(styles, levels)
        rows.extend(
            (levels, *pair, of_styles.loc[pair], colours.loc[pair])
            for pair in combinations(styles, 2)
        )
        rho, p = mantel(of_styles.to_numpy(), colours.to_numpy())
        row = {
            "pairs": "of styles",
            "levels": levels,
            "with": "colours",
            "rho": rho,
            "p": p,
        }
        causes = {"one class": one_class, "colours": colours_in_common(cells, levels)}
        given = correlations(levels, of_cells, causes)
        tables.append(pd.DataFrame([row]))
        tables.append(given.assign(pairs="of classes in styles"))
    columns = ["levels", "domain_a", "domain_b", "overlap", "colours"]
    compared = {
        "correlations": pd.concat(tables),
        "styles": pd.DataFrame(rows, columns=columns),
    }
    return compared, run.provenance | {"n_parts": len(cells)}


def correlations(
    levels: int, x: pd.DataFrame, causes: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return rank correlations of a matrix with its causes, alone and given each other cause.

    Args:
        levels: Levels of each colour in the histograms, which the table tells.
        x: The matrix of overlaps.
        causes: Matrices of possible causes by name.
    """
    rows = []
    overlaps = x.to_numpy()
    for (what, y), (given, z) in permutations(causes.items(), 2):
        alone = mantel(overlaps, y.to_numpy())
        partial = mantel(overlaps, y.to_numpy(), z.to_numpy())
        rows.append((levels, what, *alone, given, *partial))
    columns = ["levels", "with", "rho", "p", "given", "partial", "partial_p"]
    return pd.DataFrame(rows, columns=columns)


def main(config: Config) -> Written:
    """Compare, and write the tables."""
    compare = {
        "rivals": compare_rivals,
        "seeds": compare_seeds,
        "colours": compare_colours,
    }[config.tables]
    report = Report("Is a class's own part what it claims to be?", "See the tables.")
    tables, facts = compare(config)
    return write_results(report, tables, config.out, config.results, facts | versions())


if __name__ == "__main__":
    run_script(Config, main, __doc__)

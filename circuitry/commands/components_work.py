"""Measure heads and MLPs, and write the page."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from circuitry import Clip, DomainFolder, class_logit
from circuitry.bases import ResidualStream
from circuitry.circuits import (
    attribute_components,
    direct_effects,
    direct_vectors,
    edge_names,
    moves_between_positions,
    text_span,
)
from circuitry.commands.components_command import Config
from circuitry.comparison.significance import LEVEL
from circuitry.data import ImageRecord, readable
from circuitry.encoder import Task, mean_baseline
from circuitry.interventions import mean_ablation_accuracy
from circuitry.models import image_batches, style_templates
from circuitry.models.prompts import style_word
from circuitry.reports import Finding, Report, write_results
from circuitry.reports.figures import component_heatmap, position_heatmap, position_moves
from circuitry.reports.page import Written
from circuitry.reports.sections.findings import ANOTHER_MODEL, NO, PARTLY, UNKNOWN, YES
from circuitry.runs import Work, versions

QUIET = Work(progress=False)
MovingEdge = tuple[str, np.ndarray, np.ndarray]
EFFECT, ACCURACY = "effect on the lead of the class", "accuracy"


def main(config: Config) -> Written:
    """Measure, write, and say where the report is."""
    clip, images = config.clip(), config.images()
    stream = ResidualStream.of(clip.encoder)
    weights = clip.text_weights(images.all_classes)
    pixels, labels = look(config, clip, images)
    effects = effects_table(stream, pixels, labels, weights)
    accuracy = mean_ablation_accuracy(stream, pixels, labels, weights, work=QUIET)
    texts = texts_table(clip, stream, pixels, images)
    moving = place_edge(config, clip, stream, images, weights)
    tables = {"direct_effects": effects, "mean_ablation": accuracy, "texts": texts}
    report = write_report(clip, tables, moving)
    provenance = {"model": clip.name, "model_digest": clip.digest, "seed": config.seed, **versions()}
    return write_results(report, tables, config.out, config.results, provenance)


def look(config: Config, clip: Clip, images: DomainFolder) -> tuple[Tensor, np.ndarray]:
    """Read some images of every class in every domain: their pixels, and the numbers of their classes."""
    chosen = [
        record
        for name in images.classes
        for domain in images.domains
        for record in images.select(name, domain, config.n_images, config.seed)
    ]
    read = list(image_batches(clip.encoder, clip.preprocess, chosen))
    labels = [images.label(record.class_name) for part, _ in read for record in part]
    return torch.cat([batch for _, batch in read]), np.array(labels)


def effects_table(stream: ResidualStream, pixels: Tensor, labels: np.ndarray, weights: Tensor) -> pd.DataFrame:
    """Return the mean direct effect of each head and MLP on the lead of an image's own class over all classes."""
    total, n_classes = np.zeros(len(stream.writers)), 0
    for label in np.unique(labels):
        own = pixels[torch.from_numpy(labels == label)]
        total += direct_effects(stream, own, weights[label] - weights.mean(0)).effects.mean(0)
        n_classes += 1
    writers = [(layer.index, one.unit) for layer in stream.layers[:-1] for one in layer.components]
    rows = [
        (block, "mlp" if head is None else str(head), effect)
        for (block, head), effect in zip(writers, total / n_classes, strict=True)
        if block >= 0
    ]
    return pd.DataFrame(rows, columns=["block", "component", EFFECT])


def texts_table(clip: Clip, stream: ResidualStream, pixels: Tensor, images: DomainFolder) -> pd.DataFrame:
    """Return the three texts that span what each head writes, of classes, domains and classes in domains."""
    things = [readable(name) for name in images.all_classes]
    styled = [style_templates(domain)[0].replace("{}", thing) for thing in things for domain in images.domains]
    texts = list(dict.fromkeys([*things, *map(style_word, images.domains), *styled]))
    embedded = clip.text_weights(texts, ["{}"]).cpu().numpy()
    vectors = direct_vectors(stream, pixels)
    parts = []
    for layer in stream.layers:
        for head, place in enumerate(range(layer.writers.start, layer.writers.stop) if layer.of_heads else ()):
            table = text_span(vectors[:, place], embedded, texts, 3)
            parts.append(table.assign(block=layer.index, component=str(head)))
    return pd.concat(parts, ignore_index=True)[["block", "component", *parts[0].columns[:-2]]]


def place_edge(config: Config, clip: Clip, stream: ResidualStream, images: DomainFolder, weights: Tensor) -> MovingEdge:
    """Find from where to where the strongest edge into a head's keys or values carries what it carries.

    Returns:
        The edge in words; what the logit loses without it, by the positions [to, from] that the head moves it between;
        and the image that this is looked at in.
    """
    name, domain = images.classes[0], images.domains[0]
    own = read(clip, images.select(name, domain, config.n_images, config.seed))
    rest = [images.select(c, domain, 1, config.seed)[0] for c in images.classes if c != name]
    metric = class_logit(weights, images.label(name))
    baseline = mean_baseline(stream.components, torch.cat([own, read(clip, rest)]))
    task = Task(stream.components, own, metric, baseline=baseline, work=QUIET)
    edges = attribute_components(task, ports=True).edges
    table, names = edges.to_pandas(), edge_names(edges)
    moving = table["downstream_site"].str.endswith((".k", ".v")) & (table["upstream_site"] != "embed")
    edge = names[int(table["score"].where(moving, 0).abs().to_numpy().argmax())]
    moves = moves_between_positions(task.of_some(own, slice(1)), [edge])[0, 0]
    return (f"{edge[0]} to {edge[1]}, {name} in {domain}", moves, clip.shown(own[:1])[0])


def read(clip: Clip, records: Sequence[ImageRecord]) -> Tensor:
    """Return the pixels of images."""
    return torch.cat([batch for _, batch in image_batches(clip.encoder, clip.preprocess, records)])


def write_report(clip: Clip, tables: dict[str, pd.DataFrame], moving: MovingEdge) -> Report:
    """Put tables and figures on a page."""
    report = Report(f"Heads and MLPs of {clip.name}", "What each adds to the answer, and what the answer needs.")
    effects, accuracy = tables["direct_effects"], tables["mean_ablation"]
    report.summary([which_matters(effects, accuracy), what_heads_write(tables["texts"])])
    report.section("Direct effects")
    figure = component_heatmap(effects, title="What does each component add to the answer directly?", measure=EFFECT)
    report.figure(
        figure,
        "Mean over classes of the exact direct effect on the cosine of an image with its own class, "
        "less the mean of all classes.",
    )
    report.section("Without a component")
    whole = float(accuracy[ACCURACY].iloc[0])
    figure = component_heatmap(
        accuracy[accuracy["block"] >= 0], title="Accuracy with a component at its mean", measure=ACCURACY, middle=whole
    )
    report.figure(figure, f"Zero-shot accuracy; whole model {whole:.3f}. {agreement(effects, accuracy)}")
    report.section("Texts that span what heads write")
    above, n_heads = named_heads(tables["texts"])
    report.table(
        tables["texts"],
        "Greedy basis of texts, with the share of the variance over images; chance is what as many directions without "
        f"meaning explain in 95 of 100 draws, most what any can. Of {n_heads} heads {above} have a first text above "
        "chance: the names of the others are not to be trusted.",
    )
    report.section("Where an edge carries")
    edge, moves, picture = moving
    grid, lost, measure = clip.encoder.token_grid, moves.sum(0), "what the logit loses"
    elsewhere = "".join(f"; {value:.4f} more at the {name}" for name, value in zip(grid.first, lost, strict=False))
    figure = position_heatmap(grid.patches(lost), picture, title=f"Where {edge} reads", measure=measure)
    report.figure(figure, f"What the logit loses without one edge, by the patch that is read{elsewhere}.")
    figure = position_moves(moves, picture, grid, title=f"From where to where {edge} carries", measure=measure)
    report.figure(figure, "The same by the pair of positions that the head moves it between, the strongest ones.")
    return report


def which_matters(effects: pd.DataFrame, accuracy: pd.DataFrame) -> Finding:
    """Answer whether direct effects say which heads and MLPs the model needs."""
    both = effects.merge(accuracy, on=["block", "component"])
    known = both[ACCURACY].nunique() > 1
    p = float(stats.spearmanr(both[EFFECT], -both[ACCURACY]).pvalue) if known else float("nan")
    return Finding(
        f"Do direct effects say which components the model needs? {PARTLY if p < LEVEL else UNKNOWN}. "
        f"{agreement(effects, accuracy)}",
        f"Over {len(both)} components, p {p:.2g}; without one component the others may take its place.",
        f"Other images; {ANOTHER_MODEL}.",
    )


def what_heads_write(texts: pd.DataFrame) -> Finding:
    """Answer whether texts name what heads write."""
    above, n_heads = named_heads(texts)
    told = NO if not above else YES if above == n_heads else PARTLY
    return Finding(
        f"Do texts name what heads write? {told}: the first text of {above} of {n_heads} heads explains more than "
        "chance.",
        "Chance: what as many directions without meaning explain in 95 of 100 draws.",
        "Other texts; more images.",
    )


def named_heads(texts: pd.DataFrame) -> tuple[int, int]:
    """Return how many heads have a first text above chance, and how many there are."""
    first = texts.query("rank == 1")
    return int((first["together"] > first["chance"]).sum()), len(first)


def agreement(effects: pd.DataFrame, accuracy: pd.DataFrame) -> str:
    """Say how far direct effects rank components as the loss of accuracy does."""
    both = effects.merge(accuracy, on=["block", "component"])
    if both[ACCURACY].nunique() < 2:
        return "It is the same without any component."
    rank = stats.spearmanr(both[EFFECT], -both[ACCURACY]).statistic
    worst = both.sort_values(ACCURACY, kind="stable").iloc[0]
    place = int((both[EFFECT] > worst[EFFECT]).sum()) + 1
    return (
        f"Rank correlation of direct effect and loss {rank:+.2f}; accuracy falls most without block {worst['block']} "
        f"{worst['component']}, whose direct effect is number {place} of {len(both)}."
    )

"""How does a style keep a CLIP from answering held-out classes? The evidence it moves, its path, and further training.

Asked of the models of cg-high in the far domain, of the first eight seeds, after `style_command` had shown that the
part of the style holds the pair back, and that moving the style's mean embedding brings more.

**Predictions, written on 3 December 2026, before the first of these tables.**

1. *evidence*: after removing the part, the logit of a picture's own class rises against the mean of all seen classes
   in pictures of the held-out pair, and does so less in pictures of seen classes. It would be refuted by a rise that is
   as large in seen classes.
2. *path*: if units of the pair's own parts keep, in each picture, the values that they had before the style's part was
   removed, at least half of the gain in the margin is lost; as many random units of the same sites take less. It would
   be refuted by a loss of less than half, or no more than with random units: then the style acts on the readout, and
   not through what recognises the classes.
3. *again*: the part found on other pictures of the same model shares more units with the part than parts of other
   models of the same style do, and these share more than parts of other styles do.
4. *training*: one further pass over the same pictures with captions that name no style brings the pair less than moving
   the mean does. One further pass with the same captions as before stands beside.

To try the program it was run once on a model in cartoons (pair dog and house), and these tables were looked at; no
prediction was changed. The tables of cartoons are not among those that are counted.

The unit is the pair; intervals are Student's over eight pairs. The part has `UNITS_SHARE` of the units in each model,
an own part of a class one percent. Test pictures alone are counted.

    python -m experiments.study style-path --data PACS --out runs/real
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from circuitry.runs import Job, JobFolder, Work, versions, whole_file
from circuitry import Baseline, Patch, load_clip, own_part, patched
from circuitry.circuits import Circuit
from circuitry.comparison import mean_interval
from circuitry.data import DomainFolder, ImageList, ListedImage
from circuitry.encoder import Counterfactual
from circuitry.reports import Report, Written, write_results
from circuitry.training import clip_preset, generated_captions, train_clip
from experiments.pacs import BATCH, read_pictures
from experiments.study import claims
from experiments.study.mixture_files import write_mixture
from experiments.study.real_command import KEPT_EPOCHS
from experiments.study.real_command import Config as RealConfig
from experiments.study.real_models import RealStudy
from experiments.study.selection import MixtureSettings, mixture
from experiments.study.style_command import MAIN
from experiments.study.style_edits import (
    MOVED,
    N_FIT,
    PART,
    RANDOM,
    WHOLE,
    Pictures,
    StyleQuestion,
    embedding_edits,
)
from experiments.study.style_effects import UNITS_SHARE, units_by_site

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

FORMAT = "circuitry style path 1"
TABLES = ("evidence", "path", "units", "trained")
OWN_SHARE = 0.01
"""Share of the units in the own part of a class."""
N_OWN = 8
"""Pictures of a class in each other style that find its own part."""
FULL = 1.0
"""The strength at which the mean of a style is moved to that of all other styles."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config(RealConfig):
    """Settings of the questions; models are found, or trained, as the study on real pictures has them."""


def main(config: Config) -> Written | None:
    """Ask all models, and print where the report is."""
    if not config.work.share_out(partial(asked, config), config.out / "path-jobs"):
        return None
    tables = asked(config, config.work.work())
    report = Report(
        "How does a style keep a CLIP from answering held-out classes?",
        f"{tables['path'][claims.PAIR].nunique()} pairs in {config.far}.",
    )
    for name, columns in (
        ("evidence", ["edit", "pictures"]),
        ("path", ["edit", "kept"]),
        ("trained", ["captions", "class"]),
    ):
        report.table(means(tables[name], columns), f"Means over pairs: {name}.")
    out = config.out / "path-results"
    return write_results(report, tables, out, config.results, versions())


def means(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the mean of each number over pairs, with its interval."""
    rows = list[Row]()
    for key, of_key in table.groupby(list(columns), sort=False):
        for what in of_key.select_dtypes("number").columns.difference(["seed"]):
            value, low, high = mean_interval(of_key[what].to_numpy(dtype=float))
            about = dict(zip(columns, key, strict=True))
            rows.append(
                {**about, "what": what, "value": value, "low": low} | {"high": high}
            )
    return pd.DataFrame(rows)


def asked(config: Config, work: Work) -> dict[str, pd.DataFrame]:
    """Return the tables of all models, after this process has asked its share of them."""
    seeds = range(config.n_shared) if config.seeds is None else config.seeds
    mixtures = dict[str, tuple[int, MixtureSettings]]()
    for seed in seeds:
        (settings,) = config.study.mixtures(seed, (config.far,), (MAIN,))
        mixtures[f"seed{seed}"] = (seed, settings)
    folders = dict[str, Path]()
    for name in work.rank.order(list(mixtures)):
        print(f"[{name}]", flush=True)
        folders[name] = _ask(config, *mixtures[name])
    tables = dict[str, pd.DataFrame]()
    for table in TABLES:
        rows = [pd.read_csv(folders[name] / f"{table}.csv") for name in mixtures]
        tables[table] = pd.concat(rows, ignore_index=True)
    return tables


def _ask(config: Config, seed: int, settings: MixtureSettings) -> Path:
    """Ask a model, unless that is done, and return the folder of its tables."""
    study = config.study
    (model,) = config.models
    training = replace(clip_preset(model), seed=seed, keep_checkpoints=KEPT_EPOCHS)
    folder = config.out / "path" / f"{Path(training.model).stem}-seed{seed}"
    run = study.run(training, settings)
    train, tests = study.images("train"), study.images("test")
    kept = run.checkpoints()
    start = kept[max(kept)]

    def do(job: Job, _: object) -> list[Path]:
        question = StyleQuestion(
            load_clip(run.model, start), train, config.far, run.held_out
        )
        test = question.run(tests.records)
        part = question.part.find(share=UNITS_SHARE)
        drawn = part.random(np.random.default_rng(seed))
        other = replace(question, train=later(question))
        again = other.part.find(share=UNITS_SHARE)
        in_style = test.where(test.styles == question.place)
        of_edits = edited_embeddings(question, in_style, part, drawn)
        trained = list[Row]()
        for aligned in (False, True):
            clip = _trained_further(
                study, run.model, seed, settings, start, folder, aligned
            )
            changed = replace(question, clip=clip)
            captions = "no style" if aligned else "as before"
            trained += [
                {"captions": captions, **row}
                for row in _right(changed, changed.run(tests.records))
            ]
        tables = {
            "evidence": pd.DataFrame(evidence(question, in_style, of_edits)),
            "path": pd.DataFrame(path(question, test, part, drawn)),
            "units": pd.concat(
                [
                    units_by_site(circuit).assign(pictures=pictures)
                    for pictures, circuit in (("first", part), ("other", again))
                ]
            ),
            "trained": pd.DataFrame(trained),
        }
        paths = list[Path]()
        about: Row = {"seed": seed, claims.PAIR: ", ".join(run.held_out)}
        for name, table in tables.items():
            file = folder / f"{name}.csv"
            with whole_file(file) as temporary:
                table.assign(**about).to_csv(temporary, index=False)
            paths.append(file)
        return paths

    JobFolder(folder, FORMAT, {"seed": seed}, [("path",)]).run(do)
    return folder


def later(question: StyleQuestion) -> DomainFolder:
    """Return the training pictures that find no part and fit no edit."""
    folder = question.train
    first = question.part.n_used + N_FIT
    chosen = dict[str, list[ListedImage]]()
    for domain in folder.domains:
        chosen[domain] = [
            ListedImage(record.relative, name)
            for name in folder.classes
            for record in folder.select(name, domain)[first:]
        ]
    return DomainFolder(ImageList(folder.root, chosen, folder.all_classes))


def _trained_further(
    study: RealStudy,
    model: str,
    seed: int,
    settings: MixtureSettings,
    start: Path,
    folder: Path,
    aligned: bool,
) -> Any:
    """Return the CLIP after one further pass over its pictures."""
    images = study.images("train")
    records = mixture(images.records, settings, images.classes)
    captions = "no-style" if aligned else "as-before"
    table = folder / f"{captions}.tsv"
    write_mixture(
        records, generated_captions(aligned=aligned), table, settings=settings
    )
    preset = clip_preset(Path(model).stem)
    once = replace(preset, seed=seed, start=start, epochs=1)
    return load_clip(model, train_clip(table, folder / captions, once))


def _right(question: StyleQuestion, test: Pictures) -> Iterator[Row]:
    """Yield the share of right answers on the pair and on seen classes in the style, and on all classes elsewhere."""
    answers = question.answered(test.embeddings).logits
    right = (answers.argmax(1) == test.labels).float()
    of_pair = _of_pair(question, test.labels)
    in_style = test.styles == question.place
    for name, mask in (
        ("pair", in_style & of_pair),
        (claims.SEEN, in_style & ~of_pair),
        ("elsewhere", ~in_style),
    ):
        yield {"class": name, "right": float(right[mask].mean())}


def _of_pair(question: StyleQuestion, labels: Tensor) -> Tensor:
    pair = [question.classes.index(name) for name in question.held_out]
    return torch.isin(labels, torch.tensor(pair))


def edited_embeddings(
    question: StyleQuestion, pictures: Pictures, part: Circuit, drawn: Circuit
) -> dict[str, Tensor]:
    """Return the embeddings of pictures by the whole model and after edits."""
    removed, random = question.embeddings(pictures.images, [part, drawn])
    (moved,) = embedding_edits(question)[MOVED].answers(pictures, [FULL])
    return {
        WHOLE: pictures.embeddings,
        PART: removed,
        RANDOM: random,
        MOVED: moved.embeddings,
    }


def evidence(
    question: StyleQuestion, pictures: Pictures, of_edits: Mapping[str, Tensor]
) -> Iterator[Row]:
    """Yield mean logits of pictures of the pair and of seen classes, before and after edits.

    Logits are at the model's scale: ``own`` of a picture's class, ``other`` of the other held-out classes, and ``seen``
    of all other seen classes.

    Args:
        pictures: Pictures in the style.
        of_edits: Their embeddings by the name of the edit.
    """
    own = F.one_hot(pictures.labels, len(question.classes)).bool()
    held_out = _of_pair(question, torch.arange(len(question.classes)))
    of_pair = _of_pair(question, pictures.labels)
    for edit, z in of_edits.items():
        logits = question.scale * z @ question.class_weights.T
        for name, mask in (("pair", of_pair), (claims.SEEN, ~of_pair)):
            yield {
                "edit": edit,
                "pictures": name,
                "own": _mean(logits, mask[:, None] & own),
                "other": _mean(logits, mask[:, None] & ~own & held_out),
                "seen": _mean(logits, mask[:, None] & ~own & ~held_out),
            }


def _mean(logits: Tensor, mask: Tensor) -> float:
    return float(logits[mask].mean())


def path(
    question: StyleQuestion, test: Pictures, part: Circuit, drawn: Circuit
) -> Iterator[Row]:
    """Yield what removing the part brings the pair if some units keep the values that they had before.

    Columns: edit, kept (which units keep their values), n_kept, margin (own logit minus the largest logit of a seen
    class, at the model's scale) and right.
    """
    in_style = test.styles == question.place
    pictures = test.where(in_style & _of_pair(question, test.labels))
    seen = [name for name in question.classes if name not in question.held_out]
    kept = {
        "own parts of the pair": _own_parts(question, question.held_out),
        "own parts of two seen classes": _own_parts(question, seen[:2]),
    }
    rng = np.random.default_rng(0)
    pair = kept["own parts of the pair"]
    kept["random units, same sites as the pair's"] = {
        site: rng.random(len(mask)).argsort() < mask.sum()
        for site, mask in pair.items()
    }
    for site in part.source.node_scores:
        everything = {name: np.zeros_like(mask) for name, mask in pair.items()}
        everything[site] = ~everything[site]
        kept[f"all units of {site}"] = everything
    nothing = {site: np.zeros_like(mask) for site, mask in pair.items()}
    yield answered(question, pictures, {}, nothing, WHOLE, "nothing")
    for edit, circuit in ((RANDOM, drawn), (PART, part)):
        removed = units_of(circuit)
        yield answered(question, pictures, removed, nothing, edit, "nothing")
    for name, masks in kept.items():
        yield answered(question, pictures, removed, masks, PART, name)


def units_of(circuit: Circuit) -> dict[str, np.ndarray]:
    """Return a mask over the units of each site."""
    masks = dict[str, np.ndarray]()
    for site, scores in circuit.source.node_scores.items():
        masks[site] = np.isin(np.arange(len(scores)), circuit.units.get(site, []))
    return masks


def _own_parts(question: StyleQuestion, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return a mask of the units in the own parts of classes, found in all styles but the style of the question."""
    styles = [style for style in question.styles if style != question.style]
    records = question.part.records(0, N_OWN, styles)
    together = dict[str, np.ndarray]()
    for name in names:
        of_class = [record for record in records if record.class_name == name]
        rest = [record for record in records if record.class_name != name]
        row = question.classes.index(name)
        images = read_pictures(of_class, question.clip.preprocess)
        others = read_pictures(rest, question.clip.preprocess)
        asked = question.part.asked(question.class_weights, row, images)
        task = replace(asked, others=others)
        for site, mask in units_of(own_part(task, share=OWN_SHARE)).items():
            together[site] = together.get(site, False) | mask
    return together


def answered(
    question: StyleQuestion,
    pictures: Pictures,
    removed: dict[str, np.ndarray],
    kept: dict[str, np.ndarray],
    edit: str,
    name: str,
) -> Row:
    """Return margin and right answers after units are removed, and others keep the values of the whole model."""
    task = question.part.task
    assert isinstance(task.baseline, Baseline)
    held_out = _of_pair(question, torch.arange(len(question.classes)))
    found = list[Tensor]()
    for batch in torch.split(pictures.images, BATCH):
        patches = list[Patch]()
        before = Counterfactual(batch)
        for site, mask in removed.items():
            if mask.any():
                patches.append(Patch(site, task.baseline, units=mask))
            # A unit of the style's part stays removed.
            if (kept[site] & ~mask).any():
                patches.append(Patch(site, before, units=kept[site] & ~mask))
        with torch.no_grad(), patched(task.encoder, patches):
            found.append(task.encoder(batch))
    z = F.normalize(torch.cat(found).float(), dim=1)
    logits = question.scale * z @ question.class_weights.T
    own = logits.gather(1, pictures.labels[:, None])[:, 0]
    margin = own - logits[:, ~held_out].amax(1)
    return {
        "edit": edit,
        "kept": name,
        "n_kept": int(sum(mask.sum() for mask in kept.values())),
        "margin": float(margin.mean()),
        "right": float((logits.argmax(1) == pictures.labels).float().mean()),
    }

"""Cards of a folder of circuits against hooks on the model's own modules; the folder resumes, and refuses."""

import base64
import io
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from circuitry import CausalChecks, Clip, DomainFolder, GraphFolder, InputError
from circuitry.cards import CardFolder, CardSettings
from circuitry.cards.card_arrays import clarity
from circuitry.cards.card_jobs import CardJobs
from circuitry.models.prompts import style_word
from circuitry.runs import Rank, Work
from circuitry.runs.arrays import read_arrays
from tests.cards.conftest import CLASSES, DOMAINS, FEW, N, made
from tests.support.assert_same import assert_same
from tests.support.extraction import TEMPLATES, contents


def pixels(clip: Clip, folder: Path, class_name: str, domain: str, n: int = N) -> Tensor:
    records = DomainFolder(folder / "images").select(class_name, domain, n, 0)
    return torch.stack([clip.preprocess(Image.open(record.path)) for record in records])


def run(clip: Clip, images: Tensor, site: str, put: Tensor | None = None, unit: int = 0) -> tuple[Tensor, Tensor]:
    found: list[Tensor] = []

    def hook(module: object, inputs: object, output: Tensor) -> Tensor:
        if put is not None:
            output = output.clone()
            output[:, unit] = put[unit]
        found.append(output)
        return output

    tower: Any = clip.encoder.tower
    handle = tower.get_submodule(site).register_forward_hook(hook)
    with torch.no_grad():
        embeddings = tower(images)
    handle.remove()
    return found[0], embeddings


def test_exact_effects_are_those_of_hooks(clip: Clip, folder: Path) -> None:
    cards, graphs, measured = CardFolder(folder / "cards"), GraphFolder(folder / "graphs"), 0
    weights = clip.text_weights(CLASSES, TEMPLATES)
    of = {(c, d): pixels(clip, folder, c, d, 3) for c in CLASSES for d in DOMAINS}
    for site in ("layer3.0", "layer4.0"):
        activation = {key: run(clip, images, site)[0] for key, images in of.items()}
        mean = torch.cat(list(activation.values())).mean(0)
        for class_name, domain in graphs:
            other = DOMAINS[1 - DOMAINS.index(domain)]
            puts = {"zero": 0 * mean, "mean": mean, "other-domains": activation[class_name, other].mean(0)}
            images, row = of[class_name, domain][:2], (cards.classes.index(class_name), cards.domains.index(domain))
            weight, graph = weights[CLASSES.index(class_name)], graphs[class_name, domain]
            clean = F.normalize(run(clip, images, site)[1]) @ weight
            for unit in graph.kept_units[site][:2].tolist():
                card = cards.card(site, unit)
                assert card.kept[row]
                assert card.effects[row] == graph.node_scores[site][unit]
                for kind, put in puts.items():
                    exact = (clean - F.normalize(run(clip, images, site, put, unit)[1]) @ weight).mean().item()
                    assert card.exact[kind][row] == pytest.approx(exact, rel=1e-3, abs=1e-6)
                    assert card.sign_differs[kind][row] == (exact * card.effects[row] < 0)
                    measured += abs(exact) > 1e-4
            for unit in graph.kept_units[site][2:].tolist():
                assert np.isnan(cards.card(site, unit).exact["zero"][row])
    assert measured > 10


def test_a_card_holds_what_hooks_see_in_all_images(clip: Clip, folder: Path) -> None:
    cards, site = CardFolder(folder / "cards"), "layer4.0"
    graphs = GraphFolder(folder / "graphs")
    unit = int(graphs["cat", "sketch"].kept_units[site][0])
    card = cards.card(site, unit)
    seen = {d: torch.cat([pixels(clip, folder, c, d) for c in CLASSES]) for d in DOMAINS}
    strength = {d: run(clip, images, site)[0][:, unit].amax((1, 2)).numpy() for d, images in seen.items()}
    assert (card.title, card.kind, card.attributed_like) == (f"{site}/{unit}", "channel", "zero")
    assert card.heat_scale == pytest.approx(max(values.max() for values in strength.values()), rel=1e-4)
    assert [card.bin_edges[0], card.bin_edges[-1]] == pytest.approx([0, card.heat_scale])
    relatives = [f"{d}/{c}/" for d in DOMAINS for c in CLASSES]
    for row, domain in enumerate(DOMAINS):
        order = np.argsort(-strength[domain])[:3]
        top = card.top["activation"][domain]
        records = [r for c in CLASSES for r in DomainFolder(folder / "images").select(c, domain, N, 0)]
        assert [cards.images[name].relative for name in top.ids] == [records[i].relative for i in order]
        assert_same(top.values, strength[domain][order], at_least=1e-3, rtol=1e-4)
        assert card.counts[row].sum() == len(strength[domain])
        ids, table = cards.activations(domain)
        assert [cards.images[name].relative for name in ids] == [record.relative for record in records]
        kept = table[:, cards.units().index((site, unit))]
        assert_same(kept, strength[domain], at_least=1e-3, rtol=1e-4)
        # Of the kept values: the largest is the last edge, which a hook's may exceed by rounding.
        assert_same(card.counts[row], np.histogram(kept, card.bin_edges)[0], at_least=2)
        embeddings = run(clip, seen[domain][order.tolist()], site)[1].numpy()
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(embeddings, 2)]
        assert card.clarity[row] == pytest.approx(np.mean(cosines), rel=1e-3)
    assert all(any(image.relative.startswith(start) for image in cards.images.values()) for start in relatives)
    assert all(image.item == Path(image.relative).stem for image in cards.images.values())
    found_on = {image.relative for image in cards.images.values() if image.found_on}
    assert found_on == {name for key in graphs for name in graphs.image_names(*key)}


def test_thumbnails_are_what_the_model_sees(clip: Clip, folder: Path) -> None:
    cards = CardFolder(folder / "cards")
    image = next(image for image in cards.images.values() if image.class_name == "cat")
    with Image.open(io.BytesIO(cards.thumbnail(image.id))) as small:
        assert (small.size, small.format) == ((96, 96), "WEBP")
        shown = np.asarray(small.convert("RGB")).astype(float)
    with Image.open(folder / "images" / image.relative) as original:
        large = np.asarray(original.resize((96, 96), Image.Resampling.BOX)).astype(float)
    assert abs(shown.mean() - large.mean()) < 3
    with pytest.raises(KeyError, match="nothing"):
        cards.thumbnail("nothing")
    with pytest.raises(KeyError, match="100000"):
        cards.card("layer4.0", 100000)


def test_notebooks_show_a_card_as_its_name_and_images(folder: Path) -> None:
    cards = CardFolder(folder / "cards")
    card = cards.card(*cards.units()[0])
    page = replace(card, kind="<b>")._repr_html_()
    assert f"&lt;b&gt; {card.title}" in page
    shown = [base64.b64decode(one) for one in re.findall('data:image/webp;base64,([^"]*)"', page)]
    assert shown == [cards.thumbnail(one) for top in card.top["activation"].values() for one in top.ids]
    assert "<img" not in replace(card, thumbnail=None)._repr_html_()


def test_names_and_the_words_of_a_random_model(folder: Path) -> None:
    cards = CardFolder(folder / "cards")
    assert cards.words.n_images == len(CLASSES) * len(DOMAINS) * N
    assert cards.words.chance == pytest.approx(1 / 3)
    assert not cards.words.works
    assert all(word in cards.words.sentence for word in ("do not work", "48", "33%"))
    names = [card.name for card in (cards.card(*unit) for unit in cards.units()) if card.name is not None]
    assert len(names) > 10
    vocabulary = {*CLASSES, *map(style_word, DOMAINS), *FEW["vocabulary"]}
    assert all(set(name.words) <= vocabulary for name in names)
    assert all(set(name.by_domain) == set(DOMAINS) for name in names)


def test_a_stopped_run_goes_on_without_what_it_has_and_workers_share(
    clip: Clip, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, read = Path(shutil.copytree(folder / "cards", tmp_path / "stopped")), Counter[str]()
    shutil.rmtree(stopped / "sites")
    (stopped / "exact" / "cat" / "real.safetensors").write_bytes(b"torn")
    (stopped / "images" / "sketch.npy").unlink()
    with pytest.raises(InputError, match="3 of 10 jobs"):
        CardFolder(stopped)

    def counted(path: Path, *about: str) -> Any:
        read[path.parent.name] += 1
        return read_arrays(path, *about)

    monkeypatch.setattr("circuitry.cards.card_jobs.read_arrays", counted)
    made(clip, folder, stopped, work=Work(Rank(1, 2), progress=False))
    assert read == {"axe": len(DOMAINS), "cat": len(DOMAINS)}  # once for all sites
    assert contents(stopped) == contents(folder / "cards")


def test_an_unreadable_image_is_left_out(clip: Clip, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("cards")))
    (copy / "images" / "sketch" / "fish" / "0.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="0.png"):
        cards = made(clip, copy, copy / "cards")
    shutil.rmtree(copy / "images")  # cards need no images
    assert len(cards.images) == len(CLASSES) * len(DOMAINS) * N - 1
    assert len(cards.activations("sketch")[1]) == len(CLASSES) * N - 1
    assert cards.thumbnail(next(iter(cards.images)))


def jobs_of(clip: Clip, root: Path, out: Path, **changes: Any) -> CardJobs:
    images, graphs = DomainFolder(root / "images"), GraphFolder(root / "graphs")
    return CardJobs(clip, images, graphs, out, CardSettings(**FEW | changes))


def test_images_of_causal_checks_are_among_those_of_cards(clip: Clip, folder: Path, tmp_path: Path) -> None:
    graphs = GraphFolder(folder / "graphs")
    chosen = CausalChecks(clip, DomainFolder(folder / "images"), graphs).chosen
    selection = jobs_of(clip, folder, tmp_path, n_images=3).selection
    assert all(chosen.own(key) and set(chosen.own(key)) <= set(selection[key]) for key in graphs)
    assert set(selection) == {(c, d) for c in CLASSES for d in DOMAINS}


def test_images_that_circuits_were_found_on_come_first_whatever_draw(clip: Clip, folder: Path, tmp_path: Path) -> None:
    graphs, making = GraphFolder(folder / "graphs"), jobs_of(clip, folder, tmp_path)
    making.checks.chosen.seed_found = 7
    drawn = making.checks.images.select("cat", "real", 3, 7)
    found_on = set(graphs.image_names("cat", "real"))
    assert {record.relative for record in drawn} != found_on
    assert {record.relative for record in making.selection["cat", "real"][:3]} == found_on


def test_clarity_is_one_of_equal_images_and_unknown_of_one() -> None:
    assert clarity(np.array([[1.0, 2.0], [2.0, 4.0]])) == pytest.approx(1)
    assert clarity(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])) == pytest.approx(1 / 3)
    assert np.isnan(clarity(np.ones((1, 2))))

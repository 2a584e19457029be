"""Top images, heat maps and cards against forward hooks on the tower's own modules."""

import base64
import io
import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from circuitry import (
    Clip,
    DomainFolder,
    Encoder,
    GraphFolder,
    InputError,
    Task,
    class_logit,
    in_components,
    in_feature_basis,
)
from circuitry.cards import CardFolder, CardSettings
from circuitry.cards.card_jobs import EXACT_IMAGES, CardJobs
from circuitry.models.prompts import style_word
from circuitry.runs import Rank, Work
from circuitry.runs.arrays import read_arrays
from tests.cards.conftest import CLASSES, DOMAINS, FEW, N, made
from tests.support.assert_same import assert_same
from tests.support.differences import assert_same_differences
from tests.support.extraction import TEMPLATES, contents
from tests.support.feature_bases import encode_by_hand, make_sae
from tests.support.oracles import brute_force_nodes, setting
from tests.support.top_images import top_images
from tests.support.towers import make_tower
from tests.support.work import QUIET

UNITS = {"layer1.0": np.array([0, 3, 5]), "layer3.0": np.array([1, 2])}
NAMES = [f"image {i}" for i in range(11)]


def tasks(
    encoder: Encoder, images: Tensor, weights: Tensor, cuts: tuple[int, ...] = (4,)
) -> list[tuple[list[str], Task]]:
    """The first class has the first images, which come in batches of sizes ``cuts``."""
    parts = [NAMES[:6], NAMES[6:]]
    batches = [torch.split(images[:6], cuts[0]), images[6:]]
    metrics = [class_logit(weights, 1)] * 2
    given = [
        Task(encoder, some, metric, work=QUIET)
        for some, metric in zip(batches, metrics, strict=True)
    ]
    return list(zip(parts, given, strict=True))


def run(
    tower: Any, images: Tensor, site: str, put: Tensor | None = None, unit: int = 0
) -> tuple[Tensor, Tensor]:
    """Return what a site holds and the embeddings, where a unit has other values."""
    found: list[Tensor] = []

    def hook(module: object, inputs: object, output: Tensor) -> Tensor:
        if put is not None:
            output = output.clone()
            output[:, unit] = put[unit]
        found.append(output)
        return output

    with tower.get_submodule(site).register_forward_hook(hook), torch.no_grad():
        embeddings = tower.eval()(images)
    return found[0], embeddings


def shrunk(one: np.ndarray, side: int = 8) -> np.ndarray:
    factor = math.ceil(len(one) / side)
    n = math.ceil(len(one) / factor)
    cells = [slice(i * factor, (i + 1) * factor) for i in range(n)]
    return np.array([[one[row, column].max() for column in cells] for row in cells])


def test_images_and_heat_are_those_of_hooks(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet, 11)
    units = {"layer1.0": np.arange(16), "layer3.0": np.arange(16)}
    found = top_images(tasks(encoder, images, weights), units, k=3)["activation"]
    shown = 0
    for site in units:
        maps = run(resnet, images, site)[0].numpy()
        for unit in units[site]:
            strength = maps[:, unit].max((1, 2))
            best = [i for i in np.argsort(-strength)[:3] if strength[i] > 0]
            top = found[site, int(unit)]
            assert top.ids == tuple(NAMES[i] for i in best)
            if best:
                assert_same(top.values, strength[best], at_least=1e-3)
                assert top.heat is not None
                heat = np.stack(
                    [
                        np.round(shrunk(maps[i, unit]).clip(0) / strength.max() * 255)
                        for i in best
                    ]
                )
                assert (
                    np.abs(top.heat - heat).max() <= 1
                )  # a rounding at a half may fall on the other side
                assert top.heat[0].max() == 255
                shown += 1
    assert shown > 10


def test_images_by_effect_are_those_of_single_scores(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet, 11)
    found = top_images(
        tasks(encoder, images, weights), {"layer3.0": np.arange(32)}, k=3
    )["effect"]
    one_by_one = [
        brute_force_nodes(encoder, images[i : i + 1], weights, "layer3.0", 1)
        for i in range(11)
    ]
    effects = np.stack(one_by_one)
    shown = 0
    for (_, unit), top in found.items():
        best = [i for i in np.argsort(-effects[:, unit])[:3] if effects[i, unit] > 0]
        assert top.ids == tuple(NAMES[i] for i in best)
        if best:
            assert_same(top.values, effects[best, unit], at_least=1e-6, rtol=1e-3)
            shown += 1
    assert shown > 10


def test_the_cut_into_batches_changes_nothing(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet, 11)
    first, *others = (
        top_images(tasks(encoder, images, weights, cuts), UNITS, k=4)
        for cuts in ((6,), (1,), (4,))
    )
    for other in others:
        for by, tops in first.items():
            for unit, top in tops.items():
                assert other[by][unit].ids == top.ids
                np.testing.assert_allclose(
                    other[by][unit].values, top.values, rtol=1e-4
                )


def test_equal_images_keep_their_order_and_silent_units_have_none() -> None:
    encoder, images, weights = setting(make_tower("resnet"), 1)
    task = Task(
        encoder,
        images.expand(11, -1, -1, -1).clone(),
        class_logit(weights, 0),
        work=QUIET,
    )
    everything = {
        "layer1.0": np.arange(len(run(encoder.tower, images, "layer1.0")[0][0]))
    }
    with encoder.hooks(
        fwd_hooks=[
            (
                "layer1.0",
                lambda x, hook: x.clone().index_fill_(1, torch.tensor([0]), -1.0),
            )
        ]
    ):
        found = top_images([(NAMES, task)], everything, k=3)["activation"]
    assert found["layer1.0", 0].ids == ()
    assert any(top.ids == tuple(NAMES[:3]) for top in found.values())


def test_heads_have_the_length_of_z_and_maps_without_the_class_token() -> None:
    encoder, images, weights = setting(make_tower("vit"), 5)
    heads = in_components(encoder)
    site = "transformer.resblocks.1.attn"
    task = Task(heads, images, class_logit(weights, 0), work=QUIET)
    found = top_images(
        [(NAMES[:5], task)],
        {site: np.array([1]), "transformer.resblocks.0.mlp": np.array([7])},
        k=5,
    )
    _, cache = heads.run_with_cache(images)
    z = cache["blocks.1.attn.hook_z"][:, :, 1].norm(dim=-1).numpy()
    top = found["activation"][site, 1]
    assert top.ids == tuple(NAMES[i] for i in np.argsort(-z.max(1)))
    assert_same(top.values, np.sort(z.max(1))[::-1], at_least=1e-3)
    assert top.heat is not None
    assert top.heat.shape == (5, 4, 4)
    first = z[NAMES.index(top.ids[0]), 1:] / z.max() * 255
    assert np.abs(top.heat[0].ravel() - np.round(first)).max() <= 1
    kinds = [heads.kinds[name].name for name in (site, "transformer.resblocks.0.mlp")]
    assert kinds == ["head", "neuron"]


def test_latents_are_units(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet, 5)
    channels = run(resnet, images, "layer3.0")[0]
    sae = make_sae(channels.shape[1], dtype=torch.float)
    latents = in_feature_basis(encoder, {"layer3.0": sae})
    task = Task(latents, images, class_logit(weights, 0), work=QUIET)
    units = np.arange(sae.n_features)
    found = top_images([(NAMES[:5], task)], {"layer3.0": units}, k=1)["activation"]
    strength = (
        encode_by_hand(sae, channels.movedim(1, -1)).flatten(1, 2).amax(1).numpy()
    )
    assert_same(
        [found["layer3.0", int(unit)].values.sum() for unit in units],
        strength.max(0),
        at_least=1e-3,
    )
    assert latents.kinds["layer3.0"].name == "latent"


@pytest.mark.parametrize("tower", ["swin", "convnext", "timm-vit", "clip-efficientnet"])
def test_every_tower_has_maps_where_units_have_places(tower: str) -> None:
    encoder, images, weights = setting(make_tower(tower), 2)
    units = {site: np.array([0]) for site in encoder.sites[1:]}
    task = Task(encoder, images, class_logit(weights, 0), work=QUIET)
    found = top_images([(NAMES[:2], task)], units, k=1)
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images)
    tops = {site: found["activation"][site, 0] for site in units}
    for site, top in tops.items():
        placed = cache[site][:1].numel() > cache[site].shape[encoder.unit_dim(site)]
        assert top.heat is None or (placed and max(top.heat.shape) <= 8)
    assert any(top.heat is not None for top in tops.values())
    assert found["activation"][encoder.sites[-1], 0].heat is None


def pixels(
    clip: Clip, folder: Path, class_name: str, domain: str, n: int = N
) -> Tensor:
    records = DomainFolder(folder / "images").select(class_name, domain, n, 0)
    return torch.stack([clip.preprocess(Image.open(record.path)) for record in records])


def test_exact_effects_are_those_of_hooks(clip: Clip, folder: Path) -> None:
    cards = CardFolder(folder / "cards")
    graphs = GraphFolder(folder / "graphs")
    measured = 0
    tower = clip.encoder.tower
    weights = clip.text_weights(CLASSES, TEMPLATES)
    of = {(c, d): pixels(clip, folder, c, d, 3) for c in CLASSES for d in DOMAINS}
    for site in ("layer3.0", "layer4.0"):
        activation = {key: run(tower, images, site)[0] for key, images in of.items()}
        mean = torch.cat(list(activation.values())).mean(0)
        for class_name, domain in graphs:
            other = DOMAINS[1 - DOMAINS.index(domain)]
            puts = {
                "zero": 0 * mean,
                "mean": mean,
                "other-domains": activation[class_name, other].mean(0),
            }
            row = cards.classes.index(class_name), cards.domains.index(domain)
            images = pixels(clip, folder, class_name, domain, EXACT_IMAGES)
            weight = weights[CLASSES.index(class_name)]
            graph = graphs[class_name, domain]
            clean = F.normalize(run(tower, images, site)[1]) @ weight
            for unit in graph.kept_units[site][:2].tolist():
                card = cards.card(site, unit)
                assert card.kept[row]
                assert card.effects[row] == graph.node_scores[site][unit]
                found = list[float]()
                exact = list[float]()
                for kind, put in puts.items():
                    cut = F.normalize(run(tower, images, site, put, unit)[1]) @ weight
                    found.append(card.exact[kind][row])
                    exact.append((clean - cut).mean().item())
                assert_same_differences(found, exact, of=[clean])
                measured += int((np.abs(exact) > 1e-4).sum())
            for unit in graph.kept_units[site][2:].tolist():
                assert np.isnan(cards.card(site, unit).exact["zero"][row])
    assert measured > 10


def test_a_card_holds_what_hooks_see_in_all_images(clip: Clip, folder: Path) -> None:
    cards = CardFolder(folder / "cards")
    site = "layer4.0"
    graphs = GraphFolder(folder / "graphs")
    unit = int(graphs["cat", "sketch"].kept_units[site][0])
    card = cards.card(site, unit)
    seen = {
        d: torch.cat([pixels(clip, folder, c, d) for c in CLASSES]) for d in DOMAINS
    }
    strength = {
        d: run(clip.encoder.tower, images, site)[0][:, unit].amax((1, 2)).numpy()
        for d, images in seen.items()
    }
    assert (card.title, card.kind, card.attributed_like) == (
        f"{site}/{unit}",
        "channel",
        "mean-position",
    )
    assert card.heat_scale == pytest.approx(
        max(values.max() for values in strength.values()), rel=1e-4
    )
    assert [card.bin_edges[0], card.bin_edges[-1]] == pytest.approx(
        [0, card.heat_scale]
    )
    for row, domain in enumerate(DOMAINS):
        order = np.argsort(-strength[domain])[:3]
        top = card.top["activation"][domain]
        records = [
            r
            for c in CLASSES
            for r in DomainFolder(folder / "images").select(c, domain, N, 0)
        ]
        assert [cards.images[name].relative for name in top.ids] == [
            records[i].relative for i in order
        ]
        assert_same(top.values, strength[domain][order], at_least=1e-3, rtol=1e-4)
        assert card.counts[row].sum() == len(strength[domain])
        ids, table = cards.activations(domain)
        assert [cards.images[name].relative for name in ids] == [
            record.relative for record in records
        ]
        kept = table[:, cards.units().index((site, unit))]
        assert_same(kept, strength[domain], at_least=1e-3, rtol=1e-4)
        # Of the kept values: the largest is the last edge, which a hook's may exceed by rounding.
        assert_same(card.counts[row], np.histogram(kept, card.bin_edges)[0], at_least=2)
    assert all(
        image.item == Path(image.relative).stem for image in cards.images.values()
    )
    found_on = {image.relative for image in cards.images.values() if image.found_on}
    assert found_on == {
        name for key in graphs for name in graphs[key].provenance["images"]
    }


def test_thumbnails_are_what_the_model_sees(clip: Clip, folder: Path) -> None:
    cards = CardFolder(folder / "cards")
    image = next(image for image in cards.images.values() if image.class_name == "cat")
    with Image.open(io.BytesIO(cards.thumbnail(image.id))) as small:
        assert (small.size, small.format) == ((160, 160), "WEBP")
        shown = np.asarray(small.convert("RGB")).astype(float)
    with Image.open(folder / "images" / image.relative) as original:
        large = np.asarray(original.resize((160, 160), Image.Resampling.BOX)).astype(
            float
        )
    assert abs(shown.mean() - large.mean()) < 3
    site, unit = cards.units()[0]
    assert repr(cards.card(site, unit)).startswith(f"UnitCard of channel {site}/{unit}")
    with pytest.raises(KeyError, match="nothing"):
        cards.thumbnail("nothing")
    with pytest.raises(KeyError, match="100000"):
        cards.card("layer4.0", 100000)


def test_notebooks_show_a_card_as_its_name_and_images(folder: Path) -> None:
    cards = CardFolder(folder / "cards")
    card = cards.card(*cards.units()[0])
    page = replace(card, kind="<b>")._repr_html_()
    assert f"&lt;b&gt; {card.title}" in page
    shown = [
        base64.b64decode(one)
        for one in re.findall('data:image/webp;base64,([^"]*)"', page)
    ]
    assert shown == [
        cards.thumbnail(one)
        for top in card.top["activation"].values()
        for one in top.ids
    ]
    assert "<img" not in replace(card, thumbnail=None)._repr_html_()


def test_names_and_the_words_of_a_random_model(folder: Path) -> None:
    cards = CardFolder(folder / "cards")
    assert cards.words.n_images == len(CLASSES) * len(DOMAINS) * N
    assert cards.words.chance == pytest.approx(1 / 3)
    assert not cards.words.works
    assert all(word in cards.words.sentence for word in ("do not work", "48", "33%"))
    names = [
        card.name
        for card in (cards.card(*unit) for unit in cards.units())
        if card.name is not None
    ]
    assert len(names) > 10
    vocabulary = {*CLASSES, *map(style_word, DOMAINS), *FEW["vocabulary"]}
    assert all(set(name.words) <= vocabulary for name in names)
    assert all(set(name.by_domain) == set(DOMAINS) for name in names)


def test_a_stopped_run_goes_on(
    clip: Clip, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Path(shutil.copytree(folder / "cards", tmp_path / "stopped"))
    read = Counter[str]()
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


def test_an_unreadable_image_is_left_out(
    clip: Clip, folder: Path, tmp_path: Path
) -> None:
    copy = Path(
        shutil.copytree(
            folder, tmp_path / "copy", ignore=shutil.ignore_patterns("cards")
        )
    )
    (copy / "images" / "sketch" / "fish" / "0.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="0.png"):
        cards = made(clip, copy, copy / "cards")
    shutil.rmtree(copy / "images")  # cards need no images
    assert len(cards.images) == len(CLASSES) * len(DOMAINS) * N - 1
    assert len(cards.activations("sketch")[1]) == len(CLASSES) * N - 1
    assert cards.thumbnail(next(iter(cards.images)))


def test_images_that_circuits_were_found_on_come_first_whatever_draw(
    clip: Clip, folder: Path, tmp_path: Path
) -> None:
    images = DomainFolder(folder / "images")
    graphs = GraphFolder(folder / "graphs")
    making = CardJobs(clip, images, graphs, tmp_path, CardSettings(**FEW))
    chosen = making.checks.chosen
    chosen.split = replace(chosen.split, seed=7)
    drawn = making.checks.images.select("cat", "real", 3, 7)
    found_on = set(graphs["cat", "real"].provenance["images"])
    assert {record.relative for record in drawn} != found_on
    assert {
        record.relative for record in making.selection["cat", "real"][:3]
    } == found_on

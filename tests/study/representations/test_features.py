"""Feature sharing on paper and by brute force; features of images one by one, and their names."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import hypergeom
from torch import Tensor

from circuitry import Clip, DomainFolder, InputError
from circuitry.bases import SparseAutoencoder
from circuitry.cards import default_vocabulary
from circuitry.comparison import FOLDS
from circuitry.comparison.fold_array import WHOLE
from circuitry.data import load_image
from experiments.representations.cells import cut_images
from experiments.representations.features import (
    TOPS,
    ImageFeatures,
    chance_share,
    compare_features,
    feature_share,
)
from experiments.representations.strongest_features import (
    extract_features,
    image_features,
    name_features,
)
from tests.support.work import QUIET

Named = tuple[str, str, Sequence[int], Sequence[float]]


def features_of(
    images: Sequence[Named], n_features: int = 30, width: int = 20
) -> ImageFeatures:
    """Images as (class, domain, features, activations)."""
    strongest = np.full((len(images), width), -1)
    activation = np.zeros((len(images), width), dtype=np.float32)
    for i, (_, _, numbers, values) in enumerate(images):
        strongest[i, : len(numbers)] = numbers
        activation[i, : len(values)] = values
    table = pd.DataFrame(
        {
            "relative": [
                f"{domain}/{name}/{i}.png"
                for i, (name, domain, _, _) in enumerate(images)
            ],
            "domain": [domain for _, domain, _, _ in images],
            "class": [name for name, _, _, _ in images],
        }
    )
    return ImageFeatures(table, strongest, activation, n_features)


def random_features(
    seed: int = 0, classes: int = 3, domains: int = 3, images: int = 5
) -> ImageFeatures:
    """Every class in every domain, but the last class in the last domain; images name 8 of 15 features."""
    rng = np.random.default_rng(seed)
    named: list[Named] = []
    for c in range(classes):
        for d in range(domains):
            if (c, d) != (classes - 1, domains - 1):
                for _ in range(images):
                    numbers = rng.choice(15, 8, replace=False).tolist()
                    named.append(
                        (
                            f"c{c}",
                            f"d{d}",
                            numbers,
                            sorted(rng.random(8).tolist(), reverse=True),
                        )
                    )
    return features_of([named[i] for i in rng.permutation(len(named))], n_features=15)


def share(a: np.ndarray, b: np.ndarray) -> float:
    """The share of two rankings by sets, after `feature_share` of the same tops."""
    tops = [
        np.stack(
            [
                np.pad(ranked[:k], (0, 20 - len(ranked[:k])), constant_values=-1)
                for k in TOPS
            ]
        )
        for ranked in (a, b)
    ]
    by_sets = float(
        np.mean([len({*a[:k].tolist()} & {*b[:k].tolist()}) / k for k in TOPS])
    )
    assert feature_share(tops[0][None], tops[1][None]).tolist() == pytest.approx(
        [by_sets]
    )
    return by_sets


def test_features_are_ranked_by_images_then_activation_then_number() -> None:
    features = features_of(
        [
            ("cat", "real", [7, 4, 2], [0.9, 0.5, 0.1]),
            ("cat", "real", [4, 9, 2], [0.8, 0.3, 0.2]),
            ("cat", "real", [3, 1], [0.3, 0.3]),
            ("cat", "sketch", [25], [5.0]),
        ]
    )
    # 4 (2 images, 1.3), 2 (2 images, 0.3), then one image each: 7 (0.9), and 1, 3, 9 with 0.3 each.
    assert features.ranked(np.array([0, 1, 2])).tolist() == [4, 2, 7, 1, 3, 9]
    assert features.ranked(np.array([3])).tolist() == [25]
    assert features.occurring == 7


def test_no_more_than_twenty_are_ranked() -> None:
    features = features_of(
        [
            ("c", "d", list(range(20)), [1.0] * 20),
            ("c", "d", list(range(20, 30)), [2.0] * 10),
        ]
    )
    assert features.ranked(np.array([0, 1])).tolist() == [*range(20, 30), *range(10)]


def test_a_share_worked_out_on_paper() -> None:
    a, b = np.arange(20), np.arange(10, 30)
    # The first 5 and 10 have nothing in common, the first 15 have 10..14, the first 20 have 10..19.
    assert share(a, b) == pytest.approx((0 + 0 + 5 / 15 + 10 / 20) / 4)
    # 5 of the first 5, 5 of 10, 5 of 15, 5 of 20: no more than five features are named.
    assert share(np.arange(5), np.arange(5)) == pytest.approx(
        (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    )
    assert share(np.arange(0), a) == 0


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(25)), st.permutations(range(25)))
def test_laws_of_the_share(p: list[int], q: list[int]) -> None:
    a, b = np.array(p[:20]), np.array(q[:20])
    assert share(a, a) == 1
    assert share(a, b) == share(b, a)
    assert 0 <= share(a, b) <= 1
    for k in (5, 10, 15, 20):  # the order within a step of five says nothing
        a = np.concatenate([a[: k - 5], a[k - 5 : k][::-1], a[k:]])
    assert share(a, b) == share(np.array(p[:20]), b)


@pytest.mark.parametrize("n", [7, 20, 64, 4096])
def test_the_chance_level_is_the_mean_of_the_hypergeometric(n: int) -> None:
    i = np.arange(21)
    expected = [i @ hypergeom.pmf(i, n, min(k, n), min(k, n)) / k for k in TOPS]
    assert chance_share(n) == pytest.approx(np.mean(expected))


def test_classes_are_compared_between_all_domains() -> None:
    features = features_of(
        [
            ("cat", "sketch", [0, 1, 2, 3, 4], [1] * 5),
            ("cat", "real", [0, 1, 2, 8, 9], [1] * 5),
            ("dog", "real", [5], [1]),
            ("cat", "clipart", [5], [1]),
        ]
    )
    table = compare_features(features).values
    assert table[["class", "domain_a", "domain_b"]].to_numpy().tolist() == [
        ["cat", "clipart", "real"],
        ["cat", "clipart", "sketch"],
        ["cat", "real", "sketch"],
    ]
    assert table["value"].tolist() == pytest.approx(
        [0, 0, (3 / 5 + 3 / 10 + 3 / 15 + 3 / 20) / 4]
    )
    assert table["site"].isna().all()
    found = compare_features(random_features(), {"one": ["c1"]})
    assert found.groups == {"all": ("c0", "c1", "c2"), "one": ("c1",)}
    assert found.chance["value"].tolist() == [chance_share(random_features().occurring)]


def test_folds_are_compared_with_other_folds_of_every_domain() -> None:
    features = random_features(images=8)
    cells = cut_images(features.images, 2)
    found = compare_features(features, n_folds=2)
    table, values = found.folds, found.values
    assert tuple(table) == FOLDS
    same = table["class_a"] == table["class_b"]
    # Of the last class a domain is missing; folds of a class in a domain count once, all others in both orders.
    whole = table["fold_b"] == WHOLE
    assert (same & ~whole).sum() == 8 + 2 * (3 + 3 + 1)
    assert whole.sum() == 8 * 2  # each fold with all of its images
    assert (table["fold_a"] != table["fold_b"]).all()
    for row in table.to_dict("records"):
        a = features.ranked(cells[row["class_a"], row["domain_a"], row["fold_a"]])
        b = features.ranked(cells[row["class_b"], row["domain_b"], row["fold_b"]])
        assert row["value"] == pytest.approx(share(a, b))
    for row in values.to_dict("records"):
        a, b = (
            features.ranked(cells[row["class"], row[f"domain_{side}"], WHOLE])
            for side in "ab"
        )
        assert row["value"] == pytest.approx(share(a, b))
    assert set(table[~same].groupby("class_a")["class_b"].nunique()) == {
        2
    }  # three where there are more classes
    ceilings = found.ceilings.set_index(["class", "domain"])["value"]
    own = table[same & ~whole & (table["domain_a"] == table["domain_b"])].set_index(
        ["class_a", "domain_a"]
    )["value"]
    assert ceilings.to_dict() == pytest.approx(own.to_dict())
    assert compare_features(
        features_of([("cat", "real", [1], [1]), ("cat", "ink", [1], [1])])
    ).ceilings.empty


def study_share(a: list[int], b: list[int]) -> float:
    """The study's score of two histograms, as its code has it."""
    tops = [
        (torch.tensor(a).topk(k).indices, torch.tensor(b).topk(k).indices) for k in TOPS
    ]
    return float(
        np.mean([len(set(x.tolist()) & set(y.tolist())) / len(x) for x, y in tops])
    )


def test_the_study_s_ranking_fills_tops_with_features_that_no_image_names() -> None:
    features = random_features(images=6)
    features = ImageFeatures(
        features.images, features.strongest, features.activation, 40
    )
    cells = features.cells()
    found = compare_features(features, ranking="study").values
    for row in found.to_dict("records"):
        counts = [
            features.counts(cells[row["class"], row[f"domain_{side}"]]).tolist()
            for side in "ab"
        ]
        assert row["value"] == pytest.approx(study_share(*counts))
    ours = compare_features(features).values["value"]
    assert (
        found["value"] - ours
    ).abs().max() > 0.01  # so it changes numbers, where images are few


APART = features_of([("cat", "real", [1], [1]), ("dog", "sketch", [1], [1])])


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (
            lambda: compare_features(APART),
            "feature_sharing needs a class in at least two domains",
        ),
        (lambda: chance_share(0), "at least one feature"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    use: Callable[[], object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        use()


CELLS = [
    (name, domain)
    for name in ("cat", "dog")
    for domain in ("clipart", "real", "sketch")
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, domain in CELLS:
        for i in range(3):
            path = folder / domain / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize(
                (64, 64)
            ).save(path)
    return folder


def sae_at(clip: Clip, site: str, features: int = 64) -> SparseAutoencoder:
    with torch.no_grad():
        at_site = clip.encoder(torch.zeros(1, 3, *clip.encoder.image_size), stop=site)
    d = at_site.shape[clip.encoder.unit_dim(site)]
    generator = torch.Generator().manual_seed(0)
    w_enc = torch.randn(d, features, generator=generator)
    return SparseAutoencoder(
        w_enc, torch.zeros(features), w_enc.T.contiguous(), torch.zeros(d), site=site
    )


def one_by_one(clip: Clip, sae: SparseAutoencoder, path: Path) -> Tensor:
    with torch.no_grad():
        at_site = clip.encoder(clip.preprocess(load_image(path))[None], stop=sae.site)[
            0
        ]
        positions = at_site.reshape(at_site.shape[0], -1).T
        return (
            torch.stack([sae.encode(position) for position in positions])
            .max(dim=0)
            .values
        )


@pytest.mark.parametrize(
    ("site", "features"), [("attnpool", 64), ("layer3.0", 64), ("attnpool", 24)]
)
def test_the_strongest_features_of_every_image(
    site: str, features: int, clip: Clip, root: Path
) -> None:
    sae = sae_at(clip, site, features)
    found = image_features(clip, sae, DomainFolder(root), work=QUIET)
    assert sorted(found.images["relative"]) == sorted(
        f"{d}/{c}/{i}.png" for c, d in CELLS for i in range(3)
    )
    assert found.n_features == features
    for row, relative in enumerate(found.images["relative"]):
        expected = one_by_one(clip, sae, root / relative)
        order = torch.argsort(expected, descending=True)[:20]
        positive = int((expected[order] > 0).sum())
        assert found.strongest[row].tolist() == order[:positive].tolist() + [-1] * (
            20 - positive
        )
        np.testing.assert_allclose(
            found.activation[row], expected[order].clamp_min(0), rtol=1e-4, atol=1e-5
        )


def test_images_are_chosen_as_elsewhere_and_unreadable_ones_left_out(
    clip: Clip, root: Path, tmp_path: Path
) -> None:
    images = DomainFolder(root, domains=("real", "sketch"))
    found = image_features(
        clip, sae_at(clip, "attnpool"), images, n_images=2, seed=3, work=QUIET
    )
    expected = [
        r.relative
        for c in images.classes
        for d in images.domains
        for r in images.select(c, d, 2, 3)
    ]
    assert found.images["relative"].tolist() == expected
    broken = tmp_path / "real" / "cat" / "0.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no image")
    Image.new("RGB", (64, 64)).save(broken.with_name("1.png"))
    with pytest.warns(UserWarning, match="Skipped an image"):
        found = image_features(
            clip, sae_at(clip, "attnpool"), DomainFolder(tmp_path), work=QUIET
        )
    assert found.images["relative"].tolist() == ["real/cat/1.png"]
    broken.with_name("1.png").unlink()
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(InputError, match="None of the 1 images"),
    ):
        image_features(
            clip, sae_at(clip, "attnpool"), DomainFolder(tmp_path), work=QUIET
        )


def test_a_folder_of_features_holds_those_of_all_images_by_domain(
    clip: Clip, root: Path, tmp_path: Path
) -> None:
    """How a folder is shared, resumed and repaired is tested with `JobFolder`."""
    images, sae = DomainFolder(root), sae_at(clip, "layer3.0")
    found = extract_features(clip, sae, images, tmp_path, work=QUIET)
    expected = image_features(clip, sae, images, work=QUIET)
    assert found.images["domain"].drop_duplicates().tolist() == list(images.domains)
    order = (
        expected.images.reset_index()
        .merge(found.images, how="right", on=list(found.images))["index"]
        .to_numpy()
    )
    np.testing.assert_array_equal(found.strongest, expected.strongest[order])
    np.testing.assert_allclose(found.activation, expected.activation[order], rtol=1e-4)
    with pytest.raises(InputError, match="n_images: None -> 1"):
        extract_features(clip, sae, images, tmp_path, n_images=1, work=QUIET)


@pytest.mark.parametrize(
    ("site", "changes", "words"),
    [
        ("attnpool", {"site": None}, "site.* 'attnpool'"),
        ("attnpool", {"site": "blocks.3"}, "'blocks.3'"),
        ("attnpool", {"about": {"weights": "123"}}, "weights.*'123'"),
        ("layer2.0", {"site": "attnpool"}, "width 64"),
    ],
)
def test_other_autoencoders_are_refused(
    clip: Clip, root: Path, site: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        image_features(
            clip, replace(sae_at(clip, site), **changes), DomainFolder(root), work=QUIET
        )


def test_features_are_called_by_the_nearest_word(clip: Clip) -> None:
    words = ["cat", "alarm_clock", "blue", "cat"]
    texts = clip.text_weights(["cat", "alarm clock", "blue"], ["{}"])
    w_dec = torch.stack([3 * texts[2], 0.5 * texts[1], texts[0] + 0.01 * texts[1]])
    sae = SparseAutoencoder(
        w_dec.T.contiguous(),
        torch.zeros(3),
        w_dec,
        torch.zeros(w_dec.shape[1]),
        site="attnpool",
    )
    names = name_features(sae, clip, words)
    assert names["name"].tolist() == ["blue", "alarm clock", "cat"]
    assert names["feature"].tolist() == [0, 1, 2]
    assert names["cosine"].tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    cosines = torch.nn.functional.normalize(w_dec, dim=1) @ texts.T
    second = cosines.sort(dim=1, descending=True)
    assert names["runner_up"].tolist() == [
        ["cat", "alarm clock", "blue"][i] for i in second.indices[:, 1].tolist()
    ]
    lead = second.values[:, 0] - second.values[:, 1]
    assert names["lead"].tolist() == pytest.approx(lead.tolist(), abs=1e-5)
    assert names["weak"].tolist() == (lead < 0.02).tolist()
    between = replace(
        sae, w_dec=torch.stack([texts[0] + texts[1], texts[0], -texts.sum(0)])
    )
    assert name_features(between, clip, words)["weak"].tolist()[::2] == [
        True,
        True,
    ]  # no lead; no cosine
    single = name_features(sae, clip, ["cat"])
    assert single["runner_up"].isna().all()
    assert single["weak"].tolist() == (single["cosine"] < 0.2).tolist()
    opposite = name_features(replace(sae, w_dec=-w_dec), clip, words)
    cosine = torch.nn.functional.normalize(-w_dec, dim=1) @ texts.T
    assert opposite["cosine"].tolist() == pytest.approx(
        cosine.max(dim=1).values.tolist(), abs=1e-5
    )


def test_the_default_vocabulary() -> None:
    words = default_vocabulary(["ice_cream", "tench"])
    assert words[:2] == ("ice cream", "tench")
    assert {"sketch", "doodle", "quickdraw", "goldfish"} <= set(words)
    assert len(words) == len(set(words)) > 1000
    assert "T shirt" not in default_vocabulary(
        ["t-shirt"]
    )  # ImageNet's T-shirt is the same to a model


def test_features_of_another_site_have_no_names(clip: Clip) -> None:
    with pytest.raises(InputError, match=r"'attnpool'.*'layer3.0'"):
        name_features(sae_at(clip, "layer3.0"), clip, ["cat"])
    with pytest.raises(InputError, match=r"16 .* 64"):
        name_features(replace(sae_at(clip, "layer2.0"), site="attnpool"), clip, ["cat"])

"""Training distributions: which images take part, the subsampling to exactly N, ImageNet-Sketch and its names."""

import json
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import open_clip
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from circuitry.data import ImageRecord, imagenet_partners
from circuitry.models import default_templates
from circuitry.runs import InputError
from experiments.study.selection import (
    CLASS_SHARES,
    LEFT_OUT,
    SETTINGS,
    WHOLE_SETTINGS,
    MixtureSettings,
    admitted,
    count_combinations,
    first_of_each,
    imagenet_names,
    imagenet_sketch,
    mixture,
    quotas,
    sketch_mixtures,
    style_word_templates,
)
from tests.conftest import shared
from tests.study.test_files import ROUND, naive_shrink

laws = hypothesis_settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)


def records(counts: dict[tuple[str, str], int]) -> list[ImageRecord]:
    return [
        ImageRecord(
            Path(f"/data/{domain}/{name}/{i}.png"),
            f"{domain}/{name}/{i}.png",
            domain,
            name,
        )
        for (domain, name), count in counts.items()
        for i in range(count)
    ]


def subsample(
    samples: Sequence[ImageRecord], n: int, classes: Sequence[str] = ()
) -> list[ImageRecord]:
    return first_of_each(samples, quotas(count_combinations(samples), n, classes))


@st.composite
def data_sets(draw: st.DrawFn, domains: Sequence[str] = ROUND) -> list[ImageRecord]:
    groups = list(product(domains, ("axe", "bed", "cat")))
    counts = draw(
        st.lists(st.integers(0, 9), min_size=len(groups), max_size=len(groups))
    )
    samples = records(dict(zip(groups, counts, strict=True)))
    order = draw(st.none() | st.integers(0, 2**32))
    if order is not None:
        random.Random(order).shuffle(samples)
    return samples


@laws
@given(
    data=st.data(),
    order=st.sampled_from([ROUND, ("ink", "photo", "zine")]),
    share=st.floats(0, 1),
)
def test_subsampling_follows_the_rule(
    data: st.DataObject, order: Sequence[str], share: float
) -> None:
    """Going round DomainNet's domains in the study's order, other domains in sorted order."""
    samples = data.draw(data_sets(order))
    n = round(share * len(samples))
    kept = subsample(samples, n)
    classes = list(dict.fromkeys(sample.class_name for sample in samples))
    expected = naive_shrink([sample.relative for sample in samples], n, order, classes)
    assert kept == [sample for sample in samples if sample.relative in expected]
    assert len(kept) == n
    before, after = count_combinations(samples), count_combinations(kept)
    assert all(
        abs(after[group] - n * before[group] / len(samples)) < 1 + 1e-9
        for group in before
    )


def test_subsampling_by_hand() -> None:
    # 3 + 3 + 2 + 2 = 10 images to 6: s = 0.6, ceil gives 2 + 2 + 2 + 2 = 8, two too many.  Round: real/axe and real/bed
    # (in the order of first appearance) lose their last image; sketch comes later in the round.
    samples = records(
        {
            ("sketch", "axe"): 2,
            ("sketch", "bed"): 2,
            ("real", "axe"): 3,
            ("real", "bed"): 3,
        }
    )
    expected = [
        "sketch/axe/0",
        "sketch/axe/1",
        "sketch/bed/0",
        "sketch/bed/1",
        "real/axe/0",
        "real/bed/0",
    ]
    assert [
        sample.relative.removesuffix(".png") for sample in subsample(samples, 6)
    ] == expected


def test_whole_quotas_are_not_rounded_up() -> None:
    # s = 21 / 75 = 0.28, and 0.28 * 25 is 7 but 7.000000000000001 in floating point.  Quotas 7, 7, 3, 5: one too many,
    # which class a loses.  Rounding 7.000000000000001 up to 8 would leave 7, 7, 2, 5.
    counts = {
        ("real", "a"): 25,
        ("real", "b"): 25,
        ("real", "c"): 10,
        ("real", "d"): 15,
    }
    kept = subsample(records(counts), 21)
    assert [sum(r.class_name == name for r in kept) for name in "abcd"] == [6, 7, 3, 5]


def test_held_out_classes_keep_their_place_in_the_round() -> None:
    # 10 admitted images to 8, two of each combination, so the first two in the round lose one.  Of ink only bed is
    # admitted, so among the admitted images bed comes before axe; still oil loses an axe.
    samples = records(
        {
            (domain, name): 2
            for domain in ("ink", "oil", "real")
            for name in ("axe", "bed")
        }
    )
    kept = mixture(samples, MixtureSettings("cg-high", "ink", ("axe",), size=8))
    dropped = sorted({r.relative for r in samples} - {r.relative for r in kept})
    assert dropped == [
        "ink/axe/0.png",
        "ink/axe/1.png",
        "ink/bed/1.png",
        "oil/axe/1.png",
    ]


FULL = records(dict.fromkeys(product(ROUND, ("axe", "bed", "cat")), 4))


def of(
    setting: str, test_domain: str, held_out: tuple[str, ...], fraction: float = 0.5
) -> MixtureSettings:
    """A setting with what it needs."""
    share = fraction if setting == "class-interpolation" else None
    others = ("clipart",) if setting == "domain-interpolation" else None
    return MixtureSettings(
        setting, test_domain, held_out, fraction=share, other_domains=others
    )


@laws
@given(
    samples=data_sets(),
    setting=st.sampled_from(SETTINGS),
    test_domain=st.sampled_from(["infograph", "painting", "quickdraw", "sketch"]),
    held_out=st.sets(st.sampled_from(["axe", "bed", "cat"]), min_size=1),
    fraction=st.sampled_from([0.0, 0.1, 0.25, 0.7, 1.0]),
)
def test_laws_of_every_setting(
    samples: list[ImageRecord],
    setting: str,
    test_domain: str,
    held_out: set[str],
    fraction: float,
) -> None:
    samples = samples + records(dict.fromkeys(product(ROUND, ("axe", "bed", "cat")), 1))
    settings = of(
        setting, test_domain, tuple(name.upper() for name in sorted(held_out)), fraction
    )
    size = len(mixture(samples, of("cg-low", test_domain, tuple(sorted(held_out)))))
    try:
        kept = mixture(samples, settings)
    except InputError:  # too few others, or more of the held-out classes than N
        assert len(admitted(samples, settings)) < size or (
            setting == "class-interpolation" and fraction
        )
        assert setting not in WHOLE_SETTINGS
        return
    leaked = [r for r in kept if r.domain == test_domain and r.class_name in held_out]
    if not (
        setting.startswith("upper") or (setting == "class-interpolation" and fraction)
    ):
        assert not leaked
    places = {id(sample): place for place, sample in enumerate(samples)}
    order = [places[id(sample)] for sample in kept]
    assert order == sorted(set(order))
    if setting != "natural-only":
        assert len(kept) == size


def test_a_tenth_is_a_tenth_and_sizes_must_fit() -> None:
    # 0.1 is a little more than a tenth in binary: ceil(0.1 * 10) would be 2 of 10 images, were it not read as written.
    samples = records({("real", "axe"): 10, ("ink", "axe"): 10, ("ink", "bed"): 10})
    with pytest.raises(InputError, match=r" 29 .* 20"):
        mixture(
            samples,
            MixtureSettings(
                "class-interpolation", "ink", ("axe",), size=30, fraction=0.1
            ),
        )
    with pytest.raises(InputError, match=r" -1 .* 60"):
        mixture(
            FULL,
            MixtureSettings(
                "class-interpolation",
                "sketch",
                ("axe", "bed", "cat"),
                size=2,
                fraction=0.5,
            ),
        )


def test_natural_domain_can_be_named_and_spellings_of_a_class_are_one() -> None:
    samples = records(
        {("photo", "axe"): 3, ("ink", "axe"): 2, ("ink", "Axe"): 1, ("ink", "bed"): 2}
    )
    settings = MixtureSettings("cg-low", "ink", ("AXE",), natural_domain="photo")
    assert set(count_combinations(mixture(samples, settings))) == {
        ("photo", "axe"),
        ("ink", "bed"),
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"setting": "cg-low", "test_domain": "real"}, "'real'"),
        ({"setting": "class-interpolation"}, "'class-interpolation' needs"),
        ({"setting": "domain-interpolation"}, "'domain-interpolation' needs"),
        ({"setting": "cg-low", "test_domain": "ink"}, "'ink'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        mixture(
            FULL,
            MixtureSettings(
                **{"test_domain": "sketch", "held_out_classes": ("axe",), **settings}
            ),
        )


TRAIN = records(
    {(domain, f"class {i:02d}"): 3 for domain in ("real", "sketch") for i in range(40)}
)
OTHERS = records({("sketch", f"n{i:02d}"): 2 for i in range(60)})


def test_only_classes_without_a_partner_come_in(tmp_path: Path) -> None:
    for i in range(1000):
        (tmp_path / f"n{i:08d}").mkdir()
    for i, file in product(
        (0, 25, 105, 403, 404), ("sketch_2.JPEG", "sketch_1.JPEG", "notes.txt")
    ):
        (tmp_path / f"n{i:08d}" / file).touch()
    sketches = imagenet_sketch(tmp_path)
    assert [record.relative for record in sketches.images] == [
        f"n{i:08d}/sketch_{k}.JPEG" for i, k in product((0, 25, 105, 403, 404), (1, 2))
    ]
    partnered = {i for own in imagenet_partners().values() for i in own}
    assert 403 in partnered  # aircraft carrier
    kept = [
        record
        for record in sketches.images
        if int(record.class_name[1:]) not in partnered
    ]
    assert sketches.records == kept
    name = "n00000025"
    assert kept[0] == ImageRecord(
        tmp_path / name / "sketch_1.JPEG", f"{name}/sketch_1.JPEG", "sketch", name
    )
    assert (len(sketches.kept), len(sketches.names)) == (514, 1000)
    assert "n00000150" not in sketches.kept  # sea lion
    assert (sketches.names[name], sketches.names["n00000744"]) == (
        "fire salamander",
        "projectile",
    )


def test_classes_and_names_are_the_lent_ones() -> None:
    lent = json.loads(shared("facts/study_texts.json").read_text())
    assert {str(i) for i in LEFT_OUT} == lent[
        "imagenet_sketch_left_out_beyond_partners"
    ].keys()
    ours, study = imagenet_names(), imagenet_names("study")
    assert list(ours) == list(open_clip.IMAGENET_CLASSNAMES)
    differing = {
        str(i): list(names)
        for i, names in enumerate(zip(study, ours, strict=True))
        if len(set(names)) > 1
    }
    assert differing == lent["imagenet_names_that_differ_from_open_clip_3"]


def test_style_templates_are_the_ten_of_the_study() -> None:
    assert len(default_templates()) == 86
    words = (
        ("clipart", "a"),
        ("infograph", "an"),
        ("painting", "a"),
        ("quickdraw", "a"),
        ("sketch", "a"),
    )
    expected = {
        f"{article} {word} of {of} {{}}."
        for word, article in words
        for of in ("a", "the")
    }
    assert set(style_word_templates()) == expected


def test_as_many_of_all_images_go() -> None:
    mixed = sketch_mixtures(TRAIN, OTHERS)["imagenet-sketch"]
    gone = {
        TRAIN[i].relative
        for i in random.Random(42).sample(range(len(TRAIN)), len(OTHERS))
    }
    assert mixed == [
        *(record for record in TRAIN if record.relative not in gone),
        *OTHERS,
    ]
    assert {record.domain for record in TRAIN if record.relative in gone} == {
        "real",
        "sketch",
    }
    without = records({("real", "axe"): 240})
    assert list(sketch_mixtures(without, OTHERS)) == ["imagenet-sketch"]
    with pytest.raises(InputError, match=r"241 .* 240"):
        sketch_mixtures(without, records({("sketch", "n01"): 241}))


def test_nested_classes_and_one_stream_by_hand() -> None:
    """The draws written out: half, quarter of it, the rest of 30 % from the half, then ever fewer of the quarter."""
    rng = random.Random(42)
    names = [f"class {i:02d}" for i in range(40)]
    half = rng.sample(names, 20)
    quarter = rng.sample(half, 10)
    third = quarter + rng.sample(
        [name for name in names if name in half and name not in quarter], 2
    )
    tenth = rng.sample(quarter, 4)
    twentieth = rng.sample(tenth, 2)
    hundredth = rng.sample(twentieth, 1)
    one = rng.sample(hundredth, 1)
    real = [record for record in TRAIN if record.domain == "real"]
    made = sketch_mixtures(TRAIN, OTHERS)
    del made["imagenet-sketch"]
    kept = (half, quarter, third, tenth, twentieth, hundredth, one)
    assert list(made) == list(CLASS_SHARES)
    for classes, (variant, found) in zip(kept, made.items(), strict=True):
        sketches = [
            r
            for name in classes
            for r in TRAIN
            if r.domain == "sketch" and r.class_name == name
        ]
        gone = set(rng.sample(range(len(real)), len(OTHERS) + len(sketches) - 120))
        assert found == [
            *(r for i, r in enumerate(real) if i not in gone),
            *sketches,
            *OTHERS,
        ], variant
        assert len(found) == len(TRAIN)

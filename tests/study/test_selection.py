"""Training distributions: which images take part, and the subsampling to exactly N."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from circuitry.data import ImageRecord
from circuitry.runs import InputError
from experiments.study.selection import (
    WHOLE_SETTINGS,
    MixtureSettings,
    Setting,
    admitted,
    count_combinations,
    first_of_each,
    mixture,
    quotas,
    reference_size,
)

DOMAINNET = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]
laws = hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
ROUND = ["real", "quickdraw", "painting", "sketch", "infograph", "clipart"]


def records(counts: dict[tuple[str, str], int]) -> list[ImageRecord]:
    return [
        ImageRecord(Path(f"/data/{domain}/{name}/{i}.png"), f"{domain}/{name}/{i}.png", domain, name)
        for (domain, name), count in counts.items()
        for i in range(count)
    ]


def names(samples: Sequence[ImageRecord]) -> list[str]:
    return [sample.relative.removesuffix(".png") for sample in samples]


def naive_subsample(samples: Sequence[ImageRecord], n: int, domain_order: Sequence[str]) -> list[ImageRecord]:
    """The rule of method.md word by word: cut each list of images to ceil(s count), then drop last ones in turn."""
    s = Fraction(n, len(samples)) if samples else Fraction(0)
    groups: dict[str, dict[str, list[ImageRecord]]] = {domain: defaultdict(list) for domain in domain_order}
    for sample in samples:
        groups[sample.domain][sample.class_name].append(sample)
    for by_class in groups.values():
        for name, images in by_class.items():
            by_class[name] = images[: math.ceil(s * len(images))]
    class_order = list(dict.fromkeys(sample.class_name for sample in samples))

    def remaining() -> int:
        return sum(len(images) for by_class in groups.values() for images in by_class.values())

    while remaining() > n:
        for domain in domain_order:
            for name in class_order:
                if remaining() > n and groups[domain].get(name):
                    groups[domain][name].pop()
    left = {id(image) for by_class in groups.values() for images in by_class.values() for image in images}
    return [sample for sample in samples if id(sample) in left]


def subsample(samples: Sequence[ImageRecord], n: int, classes: Sequence[str] = ()) -> list[ImageRecord]:
    return first_of_each(samples, quotas(count_combinations(samples), n, classes))


@st.composite
def data_sets(draw: st.DrawFn, domains: Sequence[str] = tuple(DOMAINNET)) -> list[ImageRecord]:
    groups = [(domain, name) for domain in domains for name in ("axe", "bed", "cat")]
    counts = draw(st.lists(st.integers(0, 9), min_size=len(groups), max_size=len(groups)))
    samples = records(dict(zip(groups, counts, strict=True)))
    order = draw(st.none() | st.integers(0, 2**32))
    if order is not None:
        random.Random(order).shuffle(samples)
    return samples


@laws
@given(samples=data_sets(), share=st.floats(0, 1))
def test_subsampling_follows_the_rule_for_domainnet(samples: list[ImageRecord], share: float) -> None:
    n = round(share * len(samples))
    kept = subsample(samples, n)
    assert len(kept) == n
    assert kept == naive_subsample(samples, n, ROUND)


@laws
@given(samples=data_sets(domains=("zine", "photo", "ink")), share=st.floats(0, 1))
def test_other_domains_are_gone_round_in_sorted_order(samples: list[ImageRecord], share: float) -> None:
    n = round(share * len(samples))
    assert subsample(samples, n) == naive_subsample(samples, n, ["ink", "photo", "zine"])


@laws
@given(samples=data_sets(), share=st.floats(0.1, 1))
def test_subsampling_keeps_the_shape_within_one_image(samples: list[ImageRecord], share: float) -> None:
    n = round(share * len(samples))
    kept = subsample(samples, n)
    for domain in DOMAINNET:
        for name in ("axe", "bed", "cat"):
            before = sum((r.domain, r.class_name) == (domain, name) for r in samples)
            after = sum((r.domain, r.class_name) == (domain, name) for r in kept)
            assert abs(after - n * before / max(len(samples), 1)) < 1 + 1e-9


def test_subsampling_by_hand() -> None:
    # 3 + 3 + 2 + 2 = 10 images to 6: s = 0.6, ceil gives 2 + 2 + 2 + 2 = 8, two too many.  Round: real/axe and real/bed
    # (in the order of first appearance) lose their last image; sketch comes later in the round.
    samples = records({("sketch", "axe"): 2, ("sketch", "bed"): 2, ("real", "axe"): 3, ("real", "bed"): 3})
    expected = ["sketch/axe/0", "sketch/axe/1", "sketch/bed/0", "sketch/bed/1", "real/axe/0", "real/bed/0"]
    assert names(subsample(samples, 6)) == expected


def test_whole_quotas_are_not_rounded_up() -> None:
    # s = 21 / 75 = 0.28, and 0.28 * 25 is 7 but 7.000000000000001 in floating point.  Quotas 7, 7, 3, 5: one too many,
    # which class a loses.  Rounding 7.000000000000001 up to 8 would leave 7, 7, 2, 5.
    counts = {("real", "a"): 25, ("real", "b"): 25, ("real", "c"): 10, ("real", "d"): 15}
    kept = subsample(records(counts), 21)
    assert [sum(r.class_name == name for r in kept) for name in "abcd"] == [6, 7, 3, 5]


def test_the_order_of_classes_can_be_given() -> None:
    samples = records({("real", "bed"): 3, ("real", "axe"): 3})
    assert [sum(r.class_name == name for r in subsample(samples, 5)) for name in ("axe", "bed")] == [3, 2]
    assert [sum(r.class_name == name for r in subsample(samples, 5, ["axe"])) for name in ("axe", "bed")] == [2, 3]


def test_held_out_classes_keep_their_place_in_the_round() -> None:
    # 10 admitted images to 8, two of each combination, so the first two in the round lose one.  Of ink only bed is
    # admitted, so among the admitted images bed comes before axe; still oil loses an axe.
    samples = records({(domain, name): 2 for domain in ("ink", "oil", "real") for name in ("axe", "bed")})
    kept = mixture(samples, MixtureSettings("cg-high", "ink", ("axe",), size=8))
    dropped = sorted({r.relative for r in samples} - {r.relative for r in kept})
    assert dropped == ["ink/axe/0.png", "ink/axe/1.png", "ink/bed/1.png", "oil/axe/1.png"]


# --- settings --------------------------------------------------------------------------------------------------------

FULL = records({(domain, name): 4 for domain in DOMAINNET for name in ("axe", "bed", "cat")})


def of(setting: Setting, test_domain: str, held_out: tuple[str, ...], fraction: float = 0.5) -> MixtureSettings:
    """A setting with what it needs."""
    return MixtureSettings(
        setting,
        test_domain,
        held_out,
        fraction=fraction if setting == "class-interpolation" else None,
        other_domains=("clipart",) if setting == "domain-interpolation" else None,
    )


def combinations(samples: Sequence[ImageRecord]) -> set[tuple[str, str]]:
    return {(sample.domain, sample.class_name) for sample in samples}


def test_settings_by_hand() -> None:
    def chosen(setting: Setting) -> list[ImageRecord]:
        return mixture(FULL, of(setting, "sketch", ("axe",)))

    everything = combinations(FULL)
    assert combinations(chosen("natural-only")) == {c for c in everything if c[0] == "real"}
    assert len(chosen("natural-only")) == 12
    low = {c for c in everything if c[0] == "real"} | {("sketch", "bed"), ("sketch", "cat")}
    assert combinations(chosen("cg-low")) == low
    assert combinations(chosen("cg-high")) == everything - {("sketch", "axe")}
    assert combinations(chosen("leave-out")) == {c for c in everything if c[0] != "sketch"}
    assert combinations(chosen("upper-low")) == {c for c in everything if c[0] in ("real", "sketch")}
    assert combinations(chosen("upper-high")) == combinations(chosen("class-interpolation")) == everything
    assert combinations(chosen("domain-interpolation")) == low | {c for c in everything if c[0] == "clipart"}
    assert chosen("aligned") == chosen("cg-high")
    assert {len(chosen(setting)) for setting in get_args(Setting) if setting != "natural-only"} == {20}


@laws
@given(
    samples=data_sets(),
    setting=st.sampled_from(get_args(Setting)),
    test_domain=st.sampled_from(["infograph", "painting", "quickdraw", "sketch"]),
    held_out=st.sets(st.sampled_from(["axe", "bed", "cat"]), min_size=1),
    fraction=st.sampled_from([0.0, 0.1, 0.25, 0.7, 1.0]),
)
def test_laws_of_every_setting(
    samples: list[ImageRecord], setting: Setting, test_domain: str, held_out: set[str], fraction: float
) -> None:
    samples = samples + records({(d, c): 1 for d in DOMAINNET for c in ("axe", "bed", "cat")})
    settings = of(setting, test_domain, tuple(name.upper() for name in sorted(held_out)), fraction)
    size = len(mixture(samples, of("cg-low", test_domain, tuple(sorted(held_out)))))
    assert reference_size(samples, settings) == size
    if setting not in WHOLE_SETTINGS and len(admitted(samples, settings)) < size:
        with pytest.raises(InputError, match="Subsampling to"):
            mixture(samples, settings)
        return
    try:
        kept = mixture(samples, settings)
    except InputError:  # too few others, or more of the held-out classes than N; only small sets can have that
        assert fraction
        assert setting == "class-interpolation"
        return
    leaked = [r for r in kept if r.domain == test_domain and r.class_name in held_out]
    if not (setting.startswith("upper") or (setting == "class-interpolation" and fraction)):
        assert not leaked
    places = {id(sample): place for place, sample in enumerate(samples)}
    order = [places[id(sample)] for sample in kept]
    assert order == sorted(set(order))
    if setting != "natural-only":
        assert len(kept) == size


# --- interpolations --------------------------------------------------------------------------------------------------


def test_class_interpolation_by_hand() -> None:
    # N = 12 + 8 = 20 of 6 * 12 = 72 images; sketch/axe has 4 of them. p = 1: s n = 20/72 * 4 = 1.11, so 2 images stay;
    # p = 0.5: ceil(0.56) = 1. The other 68 shrink to 18 and 19.
    for fraction, expected in ((1.0, ["sketch/axe/0", "sketch/axe/1"]), (0.5, ["sketch/axe/0"])):
        settings = of("class-interpolation", "sketch", ("axe",), fraction)
        kept = mixture(FULL, settings)
        assert [name for name in names(kept) if name.startswith("sketch/axe")] == expected
        rest = [r for r in FULL if (r.domain, r.class_name) != ("sketch", "axe")]
        others = naive_subsample(rest, 20 - len(expected), ROUND)
        assert [r for r in kept if r in set(others)] == others
        assert len(kept) == 20


def test_the_ends_of_interpolations() -> None:
    def chosen(**settings: object) -> list[ImageRecord]:
        return mixture(FULL, MixtureSettings(test_domain="sketch", held_out_classes=("axe",), **settings))  # type: ignore[arg-type]

    low, high = chosen(setting="cg-low"), chosen(setting="cg-high")
    others = ("clipart", "infograph", "painting", "quickdraw")
    assert chosen(setting="domain-interpolation", other_domains=()) == low
    assert chosen(setting="domain-interpolation", other_domains=others) == high
    assert chosen(setting="class-interpolation", fraction=0.0) == high
    assert chosen(setting="class-interpolation", fraction=0.0, other_domains=()) == low


def test_a_tenth_is_a_tenth() -> None:
    # 0.1 is a little more than a tenth in binary: ceil(0.1 * 10) would be 2 of 10 images, were it not read as written.
    samples = records({("real", "axe"): 10, ("ink", "axe"): 10, ("ink", "bed"): 10})
    settings = MixtureSettings("class-interpolation", "ink", ("axe",), size=30, fraction=0.1)
    with pytest.raises(InputError, match=r" 29 .* 20"):
        mixture(samples, settings)


def test_fixed_images_beyond_n_are_refused() -> None:
    settings = MixtureSettings("class-interpolation", "sketch", ("axe", "bed", "cat"), size=2, fraction=0.5)
    with pytest.raises(InputError, match=r" 3, .* 2 "):
        mixture(FULL, settings)


def test_names_of_mixtures() -> None:
    assert of("natural-only", "sketch", ("axe",)).name == "natural-only"  # the test domain changes nothing
    assert of("aligned", "sketch", ("axe",)).name == "aligned-sketch"
    assert of("class-interpolation", "sketch", ("axe",), 0.25).name == "class-interpolation-0.25-sketch"
    assert of("domain-interpolation", "sketch", ("axe",)).name == "domain-interpolation-clipart-sketch"
    none = MixtureSettings("domain-interpolation", "sketch", ("axe",), other_domains=())
    assert none.name == "domain-interpolation-none-sketch"


# --- what is refused -------------------------------------------------------------------------------------------------


def test_validation_lists_are_filtered_but_not_subsampled() -> None:
    settings = MixtureSettings("cg-high", "sketch", ("axe",), size=5)
    assert len(admitted(FULL, settings)) == 68
    assert len(mixture(FULL, settings)) == 5


def test_natural_domain_can_be_named() -> None:
    samples = records({("photo", "axe"): 3, ("ink", "axe"): 2, ("ink", "bed"): 2})
    settings = MixtureSettings("cg-low", "ink", ("axe",), natural_domain="photo")
    assert combinations(mixture(samples, settings)) == {("photo", "axe"), ("ink", "bed")}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"setting": "cg-low", "test_domain": "real"}, "'real'"),
        ({"setting": "cg-high", "held_out_classes": ()}, "'cg-high'.*held_out_classes"),
        ({"setting": "class-interpolation"}, "fraction.*None.*'class-interpolation'"),
        ({"setting": "cg-high", "fraction": 0.5}, r"fraction.*0\.5.*'cg-high'"),
        ({"setting": "domain-interpolation"}, "other_domains"),
        ({"setting": "cg-high", "other_domains": ("clipart",)}, "other_domains"),
        ({"setting": "domain-interpolation", "other_domains": ("real",)}, "'real'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        MixtureSettings(**{"test_domain": "sketch", "held_out_classes": ("axe",), **settings})


def test_classes_that_differ_only_in_spelling() -> None:
    with pytest.raises(InputError, match=r"'Axe'.*'axe'"):
        mixture([*FULL, *records({("real", "Axe"): 1})], MixtureSettings("cg-low", "sketch", ("axe",)))

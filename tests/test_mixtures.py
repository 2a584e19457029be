"""Training distributions: which images take part, and the subsampling to exactly N."""

import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from circuitry.data.domains import ImageRecord
from circuitry.data.mixtures import (
    MixtureSettings,
    Setting,
    admitted,
    mixture,
    read_captions,
    subsample,
    write_mixture,
)
from circuitry.errors import InputError

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


def test_too_few_images() -> None:
    with pytest.raises(InputError, match="cannot subsample to 3 images, there are only 2; give a smaller size="):
        subsample(records({("real", "axe"): 2}), 3)


# --- settings --------------------------------------------------------------------------------------------------------

FULL = records({(domain, name): 4 for domain in DOMAINNET for name in ("axe", "bed", "cat")})


def combinations(samples: Sequence[ImageRecord]) -> set[tuple[str, str]]:
    return {(sample.domain, sample.class_name) for sample in samples}


def test_settings_by_hand() -> None:
    def chosen(setting: Setting) -> list[ImageRecord]:
        return mixture(FULL, MixtureSettings(setting, "sketch", ("axe",)))

    everything = combinations(FULL)
    assert combinations(chosen("natural-only")) == {c for c in everything if c[0] == "real"}
    assert len(chosen("natural-only")) == 12
    low = {c for c in everything if c[0] == "real"} | {("sketch", "bed"), ("sketch", "cat")}
    assert combinations(chosen("cg-low")) == low
    assert combinations(chosen("cg-high")) == everything - {("sketch", "axe")}
    assert combinations(chosen("leave-out")) == {c for c in everything if c[0] != "sketch"}
    assert len(chosen("cg-low")) == len(chosen("cg-high")) == len(chosen("leave-out")) == 20


@laws
@given(
    samples=data_sets(),
    setting=st.sampled_from(get_args(Setting)),
    test_domain=st.sampled_from(sorted(set(DOMAINNET) - {"real"})),
    held_out=st.sets(st.sampled_from(["axe", "bed", "cat"]), min_size=1),
)
def test_laws_of_every_setting(
    samples: list[ImageRecord], setting: Setting, test_domain: str, held_out: set[str]
) -> None:
    samples = samples + records({(d, c): 1 for d in DOMAINNET for c in ("axe", "bed", "cat")})
    settings = MixtureSettings(setting, test_domain, tuple(sorted(held_out)))
    low = MixtureSettings("cg-low", test_domain, tuple(sorted(held_out)))
    size = len(mixture(samples, low))
    if setting != "natural-only" and len(admitted(samples, settings)) < size:
        with pytest.raises(InputError, match="cannot subsample"):
            mixture(samples, settings)
        return
    kept = mixture(samples, settings)
    assert not any(r.domain == test_domain and r.class_name in held_out for r in kept)
    places = {id(sample): place for place, sample in enumerate(samples)}
    order = [places[id(sample)] for sample in kept]
    assert order == sorted(set(order))
    if setting != "natural-only":
        assert len(kept) == size


def test_validation_lists_are_filtered_but_not_subsampled() -> None:
    settings = MixtureSettings("cg-high", "sketch", ("axe",), size=5)
    assert len(admitted(FULL, settings)) == 68
    assert len(mixture(FULL, settings)) == 5


def test_natural_domain_can_be_named() -> None:
    samples = records({("photo", "axe"): 3, ("ink", "axe"): 2, ("ink", "bed"): 2})
    settings = MixtureSettings("cg-low", "ink", ("axe",), natural_domain="photo")
    assert combinations(mixture(samples, settings)) == {("photo", "axe"), ("ink", "bed")}


def test_bad_settings() -> None:
    with pytest.raises(
        InputError, match="unknown setting 'cg'; expected one of natural-only, cg-low, cg-high, leave-out"
    ):
        # Not the constructor: under test it checks types first.
        MixtureSettings.__post_init__(SimpleNamespace(setting="cg"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the test domain must differ from the natural domain; both are 'real'"):
        MixtureSettings("cg-low", "real", ("axe",))
    with pytest.raises(InputError, match="'cg-high' holds classes out of the test domain; held_out_classes is empty"):
        MixtureSettings("cg-high", "sketch")
    with pytest.raises(InputError, match="size must be at least 1 image, or None for the reference size; given 0"):
        MixtureSettings("leave-out", "sketch", size=0)


def test_settings_that_do_not_fit_the_data() -> None:
    with pytest.raises(InputError, match="no images of domain 'ink'; there are images of clipart, infograph, "):
        mixture(FULL, MixtureSettings("leave-out", "ink", size=3))
    with pytest.raises(InputError, match="no images of domain 'photo'"):
        mixture(FULL, MixtureSettings("natural-only", "sketch", natural_domain="photo"))
    with pytest.raises(InputError, match="no images of held-out class 'dog'; there are images of axe, bed, cat"):
        mixture(FULL, MixtureSettings("cg-low", "sketch", ("dog",)))
    with pytest.raises(InputError, match="the size of setting 'leave-out' is that of 'cg-low', which needs held_out"):
        mixture(FULL, MixtureSettings("leave-out", "sketch"))


# --- the trainer's table ---------------------------------------------------------------------------------------------


def test_table_reads_back_as_the_trainer_reads_it(tmp_path: Path) -> None:
    samples = records({("real", "axe"): 2, ("sketch", "axe"): 1})
    captions = dict(
        zip((r.relative for r in samples), ['a "sharp" axe, big', "two\taxes \n here", "l'axe à côté"], strict=True)
    )
    path = write_mixture(samples, captions, tmp_path / "runs" / "train.tsv")
    assert path.read_text(encoding="utf-8").splitlines()[0] == "filepath\ttitle"
    table = pd.read_csv(path, sep="\t")
    assert table["filepath"].tolist() == [str(r.path) for r in samples]
    assert table["title"].tolist() == ['a "sharp" axe, big', "two axes here", "l'axe à côté"]
    counts = json.loads((tmp_path / "runs" / "train.counts.json").read_text())
    assert counts == {"total": 3, "counts": {"real": {"axe": 2}, "sketch": {"axe": 1}}}


def test_captions_are_read_from_the_root(tmp_path: Path) -> None:
    (tmp_path / "captions.tsv").write_text('filepath\ttitle\nreal/axe/0.png\tNA\nreal/axe/1.png\t"a ""b"" c"\n')
    assert read_captions(tmp_path) == {"real/axe/0.png": "NA", "real/axe/1.png": 'a "b" c'}


def test_bad_captions(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there are no captions: expected the file .*captions\.tsv"):
        read_captions(tmp_path)
    (tmp_path / "captions.tsv").write_text("file\ttitle\n")
    with pytest.raises(InputError, match=r"captions\.tsv must have the columns filepath and title; it has file, title"):
        read_captions(tmp_path)
    samples = records({("real", "axe"): 7})
    captions = {"real/axe/0.png": "an axe", "real/axe/1.png": " "}
    expected = "6 of 7 images have no caption, such as real/axe/1.png, .*real/axe/5.png; add them to the captions"
    with pytest.raises(InputError, match=expected):
        write_mixture(samples, captions, tmp_path / "train.tsv")
    with pytest.raises(InputError, match="no images to write to"):
        write_mixture([], captions, tmp_path / "train.tsv")
    with pytest.raises(InputError, match=r"the trainer would read the caption 'None' as .*nan.*; reword it"):
        write_mixture(samples[:2], {"real/axe/0.png": "an axe", "real/axe/1.png": "None"}, tmp_path / "train.tsv")
    assert not (tmp_path / "train.tsv").exists()

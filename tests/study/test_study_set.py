"""The list of the study's mixtures, its names and the study's own."""

from collections import Counter

import pytest

from circuitry.data.imagenet_classes import STUDY_HELD_OUT
from circuitry.runs import InputError
from experiments.study.selection import MixtureSettings
from experiments.study.study_set import MixtureSpec, study_mixtures, study_trainings

BASES = ("imagenet-captions", "cc3m", "cc12m")
MODELS = ("rn50", "vit-s-32", "swin-t")
TESTED = ("clipart", "infograph", "painting", "quickdraw", "sketch")


def names(**asked: object) -> list[str]:
    return [spec.name for spec in study_mixtures(**asked)]  # type: ignore[arg-type]


def test_all_mixtures_by_hand() -> None:
    expected = ["natural-only"]
    shares = ("0.05", "0.1", "0.2", "0.4", "0.6", "0.8")
    for test in TESTED:
        expected += [
            f"{s}-{test}"
            for s in (
                "cg-low",
                "cg-high",
                "leave-out",
                "upper-low",
                "upper-high",
                "aligned",
            )
        ]
        expected += [
            f"class-interpolation-{p}{kind}-{test}"
            for kind in ("-low", "")
            for p in shares
        ]
    quick, paint, info, clip, pencil = (
        "quickdraw",
        "painting",
        "infograph",
        "clipart",
        "sketch",
    )
    for test, subsets in {
        "sketch": (
            *(
                [quick],
                [paint],
                [info],
                [clip],
                [clip, quick],
                [clip, paint],
                [clip, info],
            ),
            *([clip, paint, quick], [clip, info, paint]),
        ),
        "clipart": (
            *(
                [pencil],
                [quick],
                [paint],
                [info],
                [quick, pencil],
                [info, pencil],
                [paint, pencil],
            ),
            *([paint, quick, pencil], [info, paint, pencil]),
        ),
    }.items():
        expected += [
            f"domain-interpolation-{'+'.join(others)}-{test}" for others in subsets
        ]
    expected += [
        "natural-only-imagenet-sketch",
        "leave-out-sketch-imagenet-sketch",
        "cg-high-sketch-imagenet-sketch",
    ]
    expected += [
        f"cg-high-sketch-imagenet-sketch-{p}"
        for p in ("0.5", "0.25", "0.3", "0.1", "0.05", "0.01", "one")
    ]
    assert sorted(names()) == sorted(expected)
    assert len(expected) == 1 + 5 * (6 + 12) + 18 + 10 == 119


def test_each_base_set_has_all_of_them_and_parts_can_be_chosen() -> None:
    specs = study_mixtures(["imagenet-captions", "cc12m"])
    assert Counter(spec.base for spec in specs) == {
        "imagenet-captions": 119,
        "cc12m": 119,
    }
    assert (
        len({spec.name for spec in specs})
        == len({spec.study_name for spec in specs})
        == 238
    )
    assert specs[0].name == "imagenet-captions-natural-only"
    assert all(spec.settings.held_out_classes == STUDY_HELD_OUT for spec in specs)
    assert (len(names(sketches=False)), len(names(test_domains=["painting"]))) == (
        109,
        19,
    )
    toy = names(
        domains=("clipart", "real", "sketch"), test_domains=["sketch"], sketches=False
    )
    assert [name for name in toy if name.startswith("domain-")] == [
        "domain-interpolation-clipart-sketch"
    ]
    with pytest.raises(InputError, match=r"'real'.*clipart"):
        study_mixtures(test_domains=["real"])


def test_the_studys_own_names() -> None:
    high, low = "lso-cipqrs-nosketchclasses", "lso-rs-nosketchclasses"
    for setting, sketches, base, more, study in (
        ("cg-low", None, "imagenet-captions", {}, f"combined-captions-train-{low}"),
        ("upper-low", None, "cc12m", {}, f"cc12m-train-{low}-pseudo"),
        ("aligned", None, None, {}, f"dn-captions-train-{high}-aligned"),
        (
            "class-interpolation",
            None,
            "cc3m",
            {"fraction": 0.05, "other_domains": ()},
            f"cc3m-train-{low}-allow0.05",
        ),
        (
            "domain-interpolation",
            None,
            "cc3m",
            {"other_domains": ("quickdraw",)},
            "cc3m-train-lso-qrs-nosketchclasses",
        ),
        (
            "cg-high",
            "imagenet-sketch-0.25",
            "cc3m",
            {},
            f"cc3m-train-{high}-with-in-sketches-twentyfivep",
        ),
    ):
        settings = MixtureSettings(setting, "sketch", ("axe",), **more)
        assert MixtureSpec(settings, sketches, base).study_name == study


def test_the_trainings_of_the_study_are_533() -> None:
    trainings = study_trainings(study_mixtures(BASES), BASES[0], MODELS, (0, 1, 2))
    kinds = Counter(
        "supervised"
        if one.supervised
        else one.mixture.base
        if one.mixture.base != BASES[0]
        else one.model
        for one in trainings
    )
    # 15 settings and photographs alone; also upper bounds, aligned, 60 + 18 interpolations, 10 with ImageNet-Sketch
    assert kinds == {
        "rn50": 3 * (16 + 10 + 1 + 60 + 18 + 10), "vit-s-32": 3 * 16, "swin-t": 3 * 16, "supervised": 3 * (1 + 15 + 10),
        "cc3m": 7, "cc12m": 7,
    }  # fmt: skip
    assert len({one.name for one in trainings}) == len(trainings) == 533
    sevens = {
        one.mixture.settings.name for one in trainings if one.mixture.base == "cc12m"
    }
    assert sevens == {
        "natural-only", *(f"{setting}-{domain}" for setting in ("cg-low", "cg-high", "leave-out")
                          for domain in ("sketch", "clipart")),
    }  # fmt: skip

"""Mixtures on disk: a miniature DomainNet, every setting against an independent derivation of its table."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from circuitry.data import DomainFolder
from circuitry.training import read_captions
from circuitry.training.trainer_table import read_description
from experiments.study.base_sets import caption_table
from experiments.study.mixture_files import mixture_summary, write_mixture
from experiments.study.selection import SETTINGS, MixtureSettings, mixture

DOMAINS = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]
CLASSES = ["aircraft_carrier", "axe", "bed", "zebra"]
HELD_OUT = ("aircraft carrier", "Bed")
ROUND = ("real", "quickdraw", "painting", "sketch", "infograph", "clipart")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature DomainNet with a base set: 1 to 17 images a class, none of beds in painting."""
    folder = tmp_path_factory.mktemp("mini") / "DomainNet"
    captions = ["filepath\ttitle"]
    for (d, domain), (split, less) in product(
        enumerate(DOMAINS), (("train", 1), ("test", 3))
    ):
        lines = []
        for label, name in enumerate(CLASSES):
            for i in range(
                0
                if (domain, name) == ("painting", "bed")
                else 1 + (5 * d + 7 * label) % 17 // less
            ):
                path = f"{domain}/{name}/{split}_{i}.png"
                lines.append(f"{path} {label}\n")
                captions.append(f"{path}\tcaption {i} of {name}")
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).touch()
        (folder / f"{domain}_{split}.txt").write_text("".join(lines))
    (folder / "captions.tsv").write_text("\n".join(captions))
    (folder / "photos").mkdir()
    for i in range(3):
        (folder / f"photos/{i}.jpg").touch()
    (folder / "photos.tsv").write_text(
        "filepath\ttitle\n" + "".join(f"photos/{i}.jpg\tphoto  {i}\n" for i in range(3))
    )
    return folder


# The naive derivation, from the definition of the study, without the package.
def naive_lists(root: Path, split: str = "train") -> list[str]:
    return [
        line.split(" ")[0]
        for d in DOMAINS
        for line in (root / f"{d}_{split}.txt").read_text().splitlines()
    ]


def naive_shrink(
    paths: Sequence[str],
    n: int,
    domains: Sequence[str] = ROUND,
    classes: Sequence[str] = (),
) -> set[str]:
    """Cut each group to ceil(s count), then drop last ones in turn: the rule of the study, word by word."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        domain, name, _ = path.split("/")
        groups.setdefault((domain, name), []).append(path)
    s = Fraction(n, max(len(paths), 1))
    for key, group in groups.items():
        groups[key] = group[: math.ceil(s * len(group))]
    while sum(map(len, groups.values())) > n:
        for domain, name in product(domains, classes or CLASSES):
            if sum(map(len, groups.values())) > n and groups.get((domain, name)):
                groups[domain, name].pop()
    return {path for group in groups.values() for path in group}


def naive_mixture(
    root: Path, setting: str, test: str, p: str = "0.5", others: Sequence[str] = (),
    held_out: Sequence[str] = ("aircraft_carrier", "bed"),
) -> list[str]:  # fmt: skip
    everything = naive_lists(root)
    held = tuple(f"{test}/{name}/" for name in held_out)

    def of(*domains: str, seen: tuple[str, ...] = held) -> list[str]:
        return [
            path
            for path in everything
            if path.split("/")[0] in domains and not path.startswith(seen)
        ]

    low, none = of("real", test), ("nothing",)
    shrunk = {
        "cg-high": of(*DOMAINS),
        "aligned": of(*DOMAINS),
        "leave-out": of(*(set(DOMAINS) - {test})),
    }
    shrunk |= {"upper-low": of("real", test, seen=none), "upper-high": everything}
    shrunk["domain-interpolation"] = of("real", test, *others)
    if setting in ("natural-only", "cg-low"):
        kept = set(low if setting == "cg-low" else of("real"))
    elif setting in shrunk:
        kept = naive_shrink(shrunk[setting], len(low))
    else:
        everything = shrunk["upper-low"] if setting == "class-low" else everything
        s, fixed = Fraction(len(low), len(everything)), []
        for prefix in held:
            images = [path for path in everything if path.startswith(prefix)]
            fixed += images[: math.ceil(Fraction(p) * s * len(images))]
        kept = {
            *fixed,
            *naive_shrink(
                [path for path in everything if not path.startswith(held)],
                len(low) - len(fixed),
            ),
        }
    return [path for path in everything if path in kept]


def settings_of(setting: str, test: str) -> MixtureSettings:
    fraction = 0.5 if setting == "class-interpolation" else None
    others = tuple(other_domains(test)) if setting == "domain-interpolation" else None
    return MixtureSettings(
        setting, test, HELD_OUT, fraction=fraction, other_domains=others
    )


def other_domains(test: str) -> list[str]:
    return [domain for domain in DOMAINS if domain not in ("real", test)][1:3]


def make(root: Path, out: Path, settings: MixtureSettings, **about: object) -> Path:
    """Write a mixture of the miniature, with its base set."""
    train = DomainFolder(root, split="train").records
    base = caption_table(root / "photos.tsv", "photos")
    return write_mixture(
        mixture(train, settings),
        read_captions(root),
        out / "mix.tsv",
        settings,
        base=base,
        about=about,
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_table_equals_the_naive_one(
    setting: str, root: Path, tmp_path: Path
) -> None:
    for test in ("clipart", "infograph", "painting", "quickdraw", "sketch"):
        path = make(root, tmp_path, settings_of(setting, test))
        lines = [f"{root}/photos/{i}.jpg\tphoto {i}\n" for i in range(3)]
        lines += [
            f"{root}/{image}\tcaption {image[:-4].split('_')[-1]} of {image.split('/')[1]}\n"
            for image in naive_mixture(root, setting, test, others=other_domains(test))
        ]
        assert path.read_text() == "filepath\ttitle\n" + "".join(lines)


def test_the_json_and_the_summary_say_what_is_in_it(root: Path, tmp_path: Path) -> None:
    path = make(root, tmp_path, settings_of("cg-low", "sketch"), seed=3, base="photos")
    described = json.loads(path.with_suffix(".json").read_text())
    chosen = naive_mixture(root, "cg-low", "sketch")
    assert described["images"] == len(chosen) + 3
    told = (
        "setting",
        "test_domain",
        "held_out",
        "captions",
        "sketches",
        "base",
        "seed",
    )
    assert [described[key] for key in told] == [
        "cg-low",
        "sketch",
        list(HELD_OUT),
        "standard",
        None,
        "photos",
        3,
    ]
    assert described["settings"]["held_out_classes"] == list(HELD_OUT)
    assert described["left_out"] == {"missing_files": 0, "no_caption": 0}
    counts: dict[str, Counter[str]] = {"photos": Counter({"": 3})}
    for image in chosen:
        domain, name, _ = image.split("/")
        counts.setdefault(domain, Counter())[name] += 1
    assert described["counts"] == counts
    held = counts["real"]["aircraft_carrier"] + counts["real"]["bed"]
    assert mixture_summary([path], HELD_OUT).to_numpy().tolist() == [
        ["mix", "photos", "base", 3],
        ["mix", "real", "seen", counts["real"].total() - held],
        ["mix", "real", "held-out", held],
        ["mix", "sketch", "seen", counts["sketch"].total()],
        ["mix", "sketch", "held-out", 0],
    ]


def test_the_digest_is_that_of_the_content(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "DomainNet"
    shutil.copytree(root, moved)

    def digest(folder: Path) -> object:
        return read_description(
            make(folder, tmp_path, settings_of("cg-low", "sketch"))
        )["digest"]

    assert digest(root) == digest(moved) == "d2d9a3b31aeca47b"  # for ever
    text = (
        (moved / "captions.tsv")
        .read_text()
        .replace("caption 0 of axe", "caption zero of axe")
    )
    (moved / "captions.tsv").write_text(text)
    assert digest(moved) != digest(root)

"""Mixtures on disk: a miniature DomainNet, every setting against an independent derivation of its table."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest

from circuitry.data import DomainFolder
from circuitry.runs import InputError
from circuitry.training import generated_captions, read_captions, read_description
from experiments.study.base_sets import caption_table
from experiments.study.mixture_files import check_one_study, mixture_summary, write_mixture
from experiments.study.selection import MixtureSettings, Setting, mixture

DOMAINS = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]
CLASSES = ["aircraft_carrier", "axe", "bed", "zebra"]
HELD_OUT = ("aircraft carrier", "Bed")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature DomainNet with a base set: 1 to 17 images a class, none of beds in painting."""
    folder = tmp_path_factory.mktemp("mini") / "DomainNet"
    captions = ["filepath\ttitle"]
    for d, domain in enumerate(DOMAINS):
        for split, less in (("train", 1), ("test", 3)):
            lines = []
            for label, name in enumerate(CLASSES):
                n = 0 if (domain, name) == ("painting", "bed") else 1 + (5 * d + 7 * label) % 17 // less
                for i in range(n):
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
    (folder / "photos.tsv").write_text("".join(f"photos/{i}.jpg\tphoto  {i}\n" for i in range(3)))
    return folder


# --- the naive derivation, from the definition of the study, without the package --------------------------------------


def naive_lists(root: Path, split: str = "train") -> list[str]:
    return [line.split(" ")[0] for d in DOMAINS for line in (root / f"{d}_{split}.txt").read_text().splitlines()]


def naive_shrink(paths: Sequence[str], n: int) -> set[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        domain, name, _ = path.split("/")
        groups.setdefault((domain, name), []).append(path)
    s = Fraction(n, len(paths))
    for key, group in groups.items():
        groups[key] = group[: math.ceil(s * len(group))]
    while sum(map(len, groups.values())) > n:
        for domain in ("real", "quickdraw", "painting", "sketch", "infograph", "clipart"):
            for name in CLASSES:
                if sum(map(len, groups.values())) > n and groups.get((domain, name)):
                    groups[domain, name].pop()
    return {path for group in groups.values() for path in group}


def naive_mixture(
    root: Path,
    setting: str,
    test: str,
    p: str = "0.5",
    others: Sequence[str] = (),
    held_out: Sequence[str] = ("aircraft_carrier", "bed"),
) -> list[str]:
    everything = naive_lists(root)
    held = {f"{test}/{name}/" for name in held_out}

    def unseen(path: str) -> bool:
        return any(path.startswith(prefix) for prefix in held)

    def of(*domains: str, without: bool = True) -> list[str]:
        return [path for path in everything if path.split("/")[0] in domains and not (without and unseen(path))]

    low = of("real", test)
    kept: set[str]
    if setting == "natural-only":
        kept = set(of("real"))
    elif setting == "cg-low":
        kept = set(low)
    elif setting in ("cg-high", "aligned"):
        kept = naive_shrink(of(*DOMAINS), len(low))
    elif setting == "leave-out":
        kept = naive_shrink(of(*(domain for domain in DOMAINS if domain != test)), len(low))
    elif setting == "upper-low":
        kept = naive_shrink(of("real", test, without=False), len(low))
    elif setting == "upper-high":
        kept = naive_shrink(everything, len(low))
    elif setting == "domain-interpolation":
        kept = naive_shrink(of("real", test, *others), len(low))
    else:
        if setting == "class-low":
            everything = of("real", test, without=False)
        s = Fraction(len(low), len(everything))
        fixed = []
        for prefix in held:
            images = [path for path in everything if path.startswith(prefix)]
            fixed += images[: math.ceil(Fraction(p) * s * len(images))]
        kept = set(fixed) | naive_shrink([path for path in everything if not unseen(path)], len(low) - len(fixed))
    return [path for path in everything if path in kept]


def settings_of(setting: Setting, test: str) -> MixtureSettings:
    return MixtureSettings(
        setting,
        test,
        HELD_OUT,
        fraction=0.5 if setting == "class-interpolation" else None,
        other_domains=tuple(other_domains(test)) if setting == "domain-interpolation" else None,
    )


def other_domains(test: str) -> list[str]:
    return [domain for domain in DOMAINS if domain not in ("real", test)][1:3]


@pytest.mark.parametrize("setting", get_args(Setting))
def test_every_table_equals_the_naive_one(setting: Setting, root: Path, tmp_path: Path) -> None:
    train = DomainFolder(root, split="train").records
    for test in ("clipart", "infograph", "painting", "quickdraw", "sketch"):
        settings = settings_of(setting, test)
        path = write_mixture(
            mixture(train, settings),
            read_captions(root),
            tmp_path / "train.tsv",
            settings=settings,
            base=caption_table(root / "photos.tsv", "photos"),
        )
        chosen = naive_mixture(root, setting, test, others=other_domains(test))
        captions = [f"caption {image[:-4].split('_')[-1]} of {image.split('/')[1]}" for image in chosen]
        lines = [f"{root}/photos/{i}.jpg\tphoto {i}\n" for i in range(3)]
        lines += [f"{root}/{image}\t{caption}\n" for image, caption in zip(chosen, captions, strict=True)]
        assert path.read_text() == "filepath\ttitle\n" + "".join(lines)


# --- the description -------------------------------------------------------------------------------------------------


def make(root: Path, out: Path) -> Path:
    settings = settings_of("cg-low", "sketch")
    return write_mixture(
        mixture(DomainFolder(root, split="train").records, settings),
        read_captions(root),
        out / "mix.tsv",
        settings=settings,
        base=caption_table(root / "photos.tsv", "photos"),
        about={"seed": 3, "base": "photos"},
    )


def test_the_json_says_how_it_was_made(root: Path, tmp_path: Path) -> None:
    path = make(root, tmp_path)
    described = json.loads(path.with_suffix(".json").read_text())
    chosen = naive_mixture(root, "cg-low", "sketch")
    assert described["images"] == len(chosen) + 3
    assert (described["base"], described["counts"]["photos"]) == ("photos", {"": 3})
    told = ("setting", "test_domain", "fraction", "other_domains", "held_out", "captions", "sketches")
    assert [described[key] for key in told] == ["cg-low", "sketch", None, None, list(HELD_OUT), "standard", None]
    assert described["seed"] == 3
    assert described["settings"]["held_out_classes"] == list(HELD_OUT)
    assert described["left_out"] == {"missing_files": 0, "no_caption": 0}
    counts = {
        (domain, name): sum(path.startswith(f"{domain}/{name}/") for path in chosen)
        for domain in ("real", "sketch")
        for name in CLASSES
    }
    found = {(d, c): n for d, of_domain in described["counts"].items() for c, n in of_domain.items() if d != "photos"}
    assert found == {pair: n for pair, n in counts.items() if n}
    assert {"python", "clip-circuitry", "commit"} <= described["versions"].keys()


def test_the_digest_is_that_of_the_content(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "DomainNet"
    shutil.copytree(root, moved)
    digests = [
        read_description(make(folder, tmp_path / str(i)))["digest"] for i, folder in enumerate((root, root, moved))
    ]
    assert digests == ["d2d9a3b31aeca47b"] * 3  # for ever
    text = (moved / "captions.tsv").read_text().replace("caption 0 of axe", "caption zero of axe")
    (moved / "captions.tsv").write_text(text)
    assert read_description(make(moved, tmp_path / "3"))["digest"] != digests[0]


def test_mixtures_of_one_study_are_made_alike() -> None:
    alike = {"caption_source": "stream", "caption_seed": 42, "caption_file": None, "held_out": ["axe"]}
    check_one_study({"a": alike, "b": {**alike, "setting": "cg-low"}, "c": {"held_out": ["axe"]}})
    with pytest.raises(InputError, match=r"caption_source 'stream'.*'by-image'"):
        check_one_study({"a": alike, "b": {**alike, "caption_source": "by-image"}})
    with pytest.raises(InputError, match=r"held_out \['axe'\].*\['bed'\]"):
        check_one_study({"a": alike, "b": {}, "c": {"held_out": ["bed"]}})


def test_the_summary_adds_up(root: Path, tmp_path: Path) -> None:
    low, chosen = make(root, tmp_path), naive_mixture(root, "cg-low", "sketch")
    summary = mixture_summary([low], HELD_OUT)
    assert summary.to_numpy().tolist() == [
        ["mix", "photos", "base", 3],
        ["mix", "real", "seen", sum(path.startswith(("real/axe", "real/zebra")) for path in chosen)],
        ["mix", "real", "held-out", sum(path.startswith(("real/air", "real/bed")) for path in chosen)],
        ["mix", "sketch", "seen", sum(path.startswith("sketch/") for path in chosen)],
        ["mix", "sketch", "held-out", 0],
    ]


def test_missing_files_are_skipped_before_subsampling(root: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "DomainNet"
    shutil.copytree(root, damaged)
    lost = [damaged / path for path in naive_lists(root)[::3]]
    for file in lost:
        file.unlink()
    with pytest.raises(InputError, match=rf" {len(lost)} .*clipart/"):
        DomainFolder(damaged, split="train")
    images = DomainFolder(damaged, split="train", missing_files="skip")
    assert images.missing == len(lost)
    assert not {record.path for record in images.records} & set(lost)
    unchecked = DomainFolder(damaged, split="train", missing_files="unchecked")
    assert (len(unchecked), unchecked.missing) == (len(naive_lists(root)), 0)
    settings = settings_of("cg-high", "sketch")
    table = write_mixture(mixture(images.records, settings), generated_captions(), tmp_path / "t.tsv", settings)
    lines: Callable[[Path], list[str]] = lambda path: path.read_text().splitlines()[1:]  # noqa: E731
    assert len(lines(table)) == len(mixture(images.records, settings_of("cg-low", "sketch")))

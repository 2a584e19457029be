"""The study's choice of images, against its scripts' steps written out once more."""

import random
from pathlib import Path

import pytest

from circuitry import DomainFolder
from circuitry.data import ShuffledImages

CLASSES = ("aircraft_carrier", "axe", "bear", "bed", "cat")
ORDER = ("real", "quickdraw", "sketch", "clipart", "infograph", "painting")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of six domains, whose classes come in another order in each; painting lacks one of them."""
    folder, rng = tmp_path_factory.mktemp("lists"), random.Random(7)
    for domain in ORDER:
        names = [name for name in CLASSES if (domain, name) != ("painting", "cat")]
        rng.shuffle(names)
        lines = [f"{domain}/{name}/{i}.png {CLASSES.index(name)}" for name in names for i in range(rng.randint(5, 9))]
        (folder / f"{domain}_test.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            file = folder / line.partition(" ")[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return folder


def chosen_by_the_study(root: Path, seed: int, n: int) -> dict[tuple[str, int], list[str]]:
    random.seed(seed)
    found = {}
    for domain in ORDER:
        lines = (root / f"{domain}_test.txt").read_text().splitlines()
        of_label: dict[int, list[int]] = {}
        for index, line in enumerate(lines):
            of_label.setdefault(int(line.split(" ")[1]), []).append(index)
        out = [0, 1, 3]  # aircraft carrier, axe, bed
        for label in out + [label for label in of_label if label not in out]:
            random.shuffle(of_label[label])
            found[domain, label] = [lines[index].split(" ")[0] for index in of_label[label][:n]]
    return found


@pytest.mark.parametrize(("seed", "n"), [(42, 4), (42, 50), (1, 3)])
def test_images_are_those_that_the_study_draws(root: Path, seed: int, n: int) -> None:
    images = ShuffledImages(root, first=("aircraft carrier", "axe", "bed"))
    for (domain, label), names in chosen_by_the_study(root, seed, n).items():
        assert [record.relative for record in images.select(CLASSES[label], domain, n, seed)] == names
    assert images.select("cat", "painting", n, seed) == ()


def test_the_choice_does_not_depend_on_what_is_selected(root: Path) -> None:
    held_out = ("aircraft carrier", "axe", "bed")
    some = ShuffledImages(root, first=held_out, domains=("sketch",), classes=("cat",))
    assert some.select("cat", "sketch", 3, 42) == ShuffledImages(root, first=held_out).select("cat", "sketch", 3, 42)
    assert len(some) == len(some.select("cat", "sketch"))
    by_name = DomainFolder(root).select("cat", "sketch", None, 42)
    assert set(some.select("cat", "sketch", None, 42)) == set(by_name)
    assert some.select("cat", "sketch", None, 42) != by_name

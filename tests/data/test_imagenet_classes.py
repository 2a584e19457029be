"""DomainNet's classes and their ImageNet partners; spellings of class names."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry.data import imagenet_partners
from circuitry.data.imagenet_classes import STUDY_HELD_OUT, class_key, imagenet_index, study_held_out
from circuitry.data.names import chosen_names
from tests.conftest import shared


def test_the_table_has_domainnets_labels() -> None:
    names = list(imagenet_partners())
    assert len(names) == 345
    labels = [0, 11, 13, 15, 25, 58, 174, 190, 197, 218, 225, 250, 305, 319, 320]  # as the study gives them
    assert [names.index(name) for name in STUDY_HELD_OUT] == labels


def test_partners_by_hand() -> None:
    partners = imagenet_partners()
    assert partners["bear"] == (294, 295, 296)  # brown, American black, ice bear
    assert partners["angel"] == ()
    indices = [i for own in partners.values() for i in own]
    assert len(indices) == len(set(indices)) == 450  # no ImageNet class has two partners
    assert set(indices) <= set(range(1000))


def test_the_table_is_the_lent_one() -> None:
    lent = json.loads(shared("facts/domainnet_to_imagenet.json").read_text())
    assert list(imagenet_partners().items()) == [(name, tuple(own or ())) for name, own in lent.items()]


def test_the_index_is_the_place_among_the_sorted_folders() -> None:
    wnids = [f"n{7 * i:08d}" for i in range(1000)]
    assert imagenet_index(reversed(wnids)) == {wnid: i for i, wnid in enumerate(wnids)}


@settings(deadline=None)
@given(st.text(alphabet="aB_- ", max_size=12))
def test_spellings_share_a_key(name: str) -> None:
    assert class_key(name.upper().replace(" ", "_")) == class_key(name.lower().replace("_", "-")) == class_key(name)


def test_names_are_found_in_any_spelling() -> None:
    asked = ["Traffic light", "axe", "traffic_light"]
    assert chosen_names("class", asked, ["axe", "traffic-light"], class_key) == ("traffic-light", "axe")
    assert study_held_out(["cat", "traffic_light", "axe"]) == ("axe", "traffic_light")
    assert len({class_key(name) for name in imagenet_partners()}) == 345

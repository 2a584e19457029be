"""What a unit is: a kind on the stage, which outsiders add in a few lines, and which identities hold."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitry import Encoder, InputError, Task, attribute, node_overlap
from circuitry.bases import in_components
from circuitry.circuits import score_units
from circuitry.encoder import Stage, UnitKind
from circuitry.encoder.unit_kinds import name_kinds
from tests.support.towers import make_tower
from tests.support.work import QUIET

IMAGES = torch.linspace(-1, 1, 2 * 3 * 64 * 64).sin().reshape(2, 3, 64, 64)
SITE = "layer2.0"


def first_feature(embedding: Tensor) -> Tensor:
    return embedding[:, 0]


def rotation(width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn: Tensor = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return turn


# What an outsider writes for a new kind of unit: directions of an orthonormal basis. The test below counts it.
def in_directions(encoder: Encoder, site: str, turn: Tensor) -> Encoder:
    stages = list(encoder.stages)
    place = encoder.sites.index(site) - 1
    at, after = stages[place : place + 2]
    kind = UnitKind("direction", 1, made_of=turn)
    turned = lambda x: torch.einsum("bchw,cd->bdhw", at.run(x), turn)  # noqa: E731
    back = lambda x: after.run(torch.einsum("bdhw,cd->bchw", x, turn))  # noqa: E731
    stages[place : place + 2] = [Stage(site, turned, kind), Stage(after.site, back, 1)]
    return Encoder(encoder.tower, stages, encoder.image_size, chain=encoder.chain)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_tower(make_tower("resnet"))


def graph_of(encoder: Encoder) -> Any:
    return attribute(
        encoder, IMAGES, first_feature, method="gradient", size=0.2, progress=False
    )


def test_a_new_kind_of_unit_is_nine_lines_and_results_of_two_are_not_compared(
    encoder: Encoder,
) -> None:
    lines, _ = inspect.getsourcelines(in_directions)
    assert len(lines) == 9
    width = encoder(IMAGES, stop=SITE).shape[1]
    first, again, second = (
        in_directions(encoder, SITE, rotation(width, seed)) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first(IMAGES), encoder(IMAGES), atol=1e-4, rtol=1e-4)
    assert first.kinds[SITE].name == "direction"
    assert first.identity == again.identity
    assert first.identity["basis"] != second.identity["basis"]
    scores = score_units(Task(first, IMAGES, first_feature, work=QUIET))
    assert scores[SITE].shape == (width,)
    graphs = [graph_of(one) for one in (first, again, second)]
    assert node_overlap(graphs[0], graphs[1])[SITE] == 1
    with pytest.raises(InputError, match=r"stages.*layer2\.1"):
        node_overlap(graphs[0], graphs[2])


def test_a_kind_of_which_nobody_can_read_what_it_is_made_of_equals_nothing(
    encoder: Encoder,
) -> None:
    def marked(made_of: Any) -> Encoder:
        stages = list(encoder.stages)
        place = encoder.sites.index(SITE) - 1
        kind = UnitKind("mark", 1, made_of=made_of)
        stages[place] = replace(stages[place], units=kind)
        return Encoder(encoder.tower, stages, encoder.image_size, chain=encoder.chain)

    with open(__file__, encoding="utf-8") as file:
        unread = marked(file)
        assert unread.identity.unknown == ("basis",)
        graphs = [graph_of(unread) for _ in range(2)]
    with pytest.raises(InputError, match="basis"):
        node_overlap(*graphs)
    assert marked("mine 1").identity["basis"] == {SITE: "mine 1"}


def test_another_axis_is_another_encoder_and_no_head(encoder: Encoder) -> None:
    stages = list(encoder.stages)
    place = encoder.sites.index(SITE) - 1
    identities = []
    for units in (1, 2, UnitKind("row of pixels", 2), UnitKind("column of pixels", 3)):
        stages[place] = replace(stages[place], units=units)
        other = Encoder(encoder.tower, stages, encoder.image_size, chain=encoder.chain)
        identities.append(other.identity["stages"])
    assert identities[0] == {}
    assert identities[1] == identities[2] != identities[0]
    assert identities[3] != identities[2]
    assert other.kinds[SITE] == UnitKind("column of pixels", 3)
    assert Stage("x", torch.relu, 2).kind == UnitKind("unit", 2)


def test_the_kinds_of_the_package_have_their_names() -> None:
    names = {
        tower: [
            kind.name
            for kind in in_components(
                Encoder.from_tower(make_tower(tower))
            ).kinds.values()
        ]
        for tower in ("vit", "resnet")
    }
    assert names["vit"][:4] == ["channel", "feature", "head", "neuron"]
    assert names["vit"][-1] == "feature"
    assert names["resnet"][-2:] == ["head", "feature"]
    assert {"hidden channel", "projection channel"} <= set(names["resnet"])
    kinds = [UnitKind(name, 1) for name in ("channel", "head", "channel", "latent")]
    assert name_kinds(kinds) == "channels, heads and latents"
    assert name_kinds(kinds[:1]) == "channels"


def test_equal_definitions_of_other_units_are_other_encoders(encoder: Encoder) -> None:
    def marked(kind: UnitKind | int, site: str = SITE) -> Encoder:
        stages = list(encoder.stages)
        place = encoder.sites.index(site) - 1
        stages[place] = replace(stages[place], units=kind)
        return Encoder(encoder.tower, stages, encoder.image_size, chain=encoder.chain)

    names: dict[str, Any] = {"made_of": "mine"}
    assert (
        marked(UnitKind("a", 1, **names)).identity
        == marked(UnitKind("b", 1, **names)).identity
    )
    others = (UnitKind("a", 2, **names), UnitKind("a", 1, is_vector=True, **names))
    for other in others:
        assert (
            marked(other).identity["stages"]
            != marked(UnitKind("a", 1, **names)).identity["stages"]
        )
    # The axis alone says as much as the kind that has it.
    assert marked(1, "attnpool").identity == encoder.identity


def test_code_tells_units_apart_whose_definition_is_equal(encoder: Encoder) -> None:
    def scaled(factor: float, opened: Any = None) -> Encoder:
        stages = list(encoder.stages)
        place = encoder.sites.index(SITE) - 1
        at, after = stages[place : place + 2]
        kind = UnitKind("mark", 1, made_of="mine")
        stages[place] = Stage(SITE, lambda x: (at.run(x), opened)[0] * factor, kind)
        stages[place + 1] = replace(after, run=lambda x: after.run(x / factor))
        return Encoder(encoder.tower, stages, encoder.image_size, chain=encoder.chain)

    assert scaled(1.0).identity == scaled(1.0).identity
    assert scaled(1.0).identity["stages"] != scaled(2.0).identity["stages"]
    with open(__file__, encoding="utf-8") as file:
        assert scaled(1.0, file).identity.unknown == ()


def test_units_that_make_another_network_are_refused(encoder: Encoder) -> None:
    width = encoder(IMAGES, stop=SITE).shape[1]
    # What is not orthogonal is not undone by its transpose.
    with pytest.raises(InputError, match="do not compute what the tower computes"):
        in_directions(encoder, SITE, 2 * rotation(width, 0))
    with pytest.raises(InputError, match=rf"up to {SITE}"):
        in_directions(encoder, SITE, rotation(width + 1, 0))


@pytest.mark.parametrize(("axis", "words"), [(4, f"{SITE}.*axis 4"), (-5, "axis -5")])
def test_units_lie_along_an_axis_of_the_activation(
    encoder: Encoder, axis: int, words: str
) -> None:
    stages = [
        replace(stage, units=UnitKind("unit", axis)) if stage.site == SITE else stage
        for stage in encoder.stages
    ]
    with pytest.raises(InputError, match=words):
        Encoder(encoder.tower, stages, encoder.image_size, chain=encoder.chain)


def test_images_are_no_units() -> None:
    with pytest.raises(InputError, match="0, the axis of images"):
        UnitKind("image", 0)

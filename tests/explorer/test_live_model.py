"""What a model answers live equals patching of one unit, and runs by hooks: of a group, and of a circuit alone."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from circuitry import CausalChecks, Clip, DomainFolder, InputError, Task, patch_effects
from circuitry.explorer import LiveModel
from tests.explorer.made import found_in
from tests.explorer.test_model_view import images_of, kept
from tests.support.assert_same import assert_same
from tests.support.differences import assert_same_differences


def test_units_that_are_no_units_and_huge_images_are_refused(
    checks: CausalChecks,
) -> None:
    live = LiveModel(checks)
    site = checks.clip.encoder.sites[-2]
    for unit in ("9" * 5000, "01", "-1", "\u0663", "7000"):
        with pytest.raises(InputError, match=site):
            live.effects("cat", [f"{site}/{unit}"], "zero")
    picture = BytesIO()
    Image.new("1", (13_000, 13_000)).save(picture, "PNG")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalChecks, "read", pytest.fail)
        with pytest.raises(InputError, match="169,000,000 pixels"):
            live.look("cat", "real", picture.getvalue())
    with pytest.raises(InputError, match="the image"):
        live.look("cat", "real", b"damaged")


@pytest.mark.parametrize(
    ("by", "baseline"), [("zero", "zero"), ("mean", "mean-position")]
)
def test_the_effect_of_one_unit_is_that_of_patching(
    checks: CausalChecks, by: Any, baseline: str
) -> None:
    _, images = images_of(checks, "cat")
    site = checks.clip.encoder.sites[-2]
    other = checks.baseline_called(baseline).of("cat", "real", len(images))
    task = Task(
        checks.clip.encoder, images, checks.metric_of("cat", "real"), baseline=other
    )
    expected = patch_effects(replace(task, sites=(site,)))
    live = LiveModel(checks)
    strongest = np.argsort(-np.abs(expected.scores[site]))
    for unit in strongest[:2].tolist():
        found = live.effects("cat", [f"{site}/{unit}"], by)["real"]
        assert_same_differences(
            found["effect"], expected.scores[site][unit], of=[expected.clean_metric]
        )
        assert found["metric"] == pytest.approx(expected.clean_metric, abs=1e-6)
        assert found["images"] == len(images)


def test_a_group_is_replaced_in_one_run(checks: CausalChecks) -> None:
    _, images = images_of(checks, "axe")
    encoder = checks.clip.encoder
    metric = checks.metric_of("axe", "real")
    group = {encoder.sites[-2]: [1, 4, 9], encoder.sites[-1]: [0, 3]}

    def put_to_zero(site: str) -> Any:
        def hook(activation: torch.Tensor, hook: object) -> torch.Tensor:
            changed = activation.clone()
            changed[:, group[site]] = 0
            return changed

        return hook

    cut = encoder.run_with_hooks(
        images, fwd_hooks=[(site, put_to_zero(site)) for site in group]
    )
    whole = float(metric(encoder(images)).mean())
    without = float(metric(cut).mean())
    names = [f"{site}/{unit}" for site, units in group.items() for unit in units]
    found = LiveModel(checks).effects("axe", [*names, names[0]], "zero")["real"]
    assert_same_differences(found["effect"], whole - without, of=[whole, without])


def test_other_classes_need_no_images(
    clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The circuit of the other class was found on all images that are left of it."""
    checks = found_in(clip, tmp_path)
    for record in checks.chosen.own(("axe", "real")):
        record.path.unlink()
    left = CausalChecks(
        clip, DomainFolder(tmp_path / "images"), checks.graphs, checks.settings
    )
    assert (
        LiveModel(left).effects("cat", [f"{clip.encoder.sites[-2]}/0"], "zero")["real"][
            "images"
        ]
        == 2
    )
    tested = [key for key in left.chosen.keys if key != ("axe", "real")]
    curves = left.extract_faithfulness(
        tmp_path / "curves", rankings=["signed"], sizes=[0.5], random_draws=0
    )
    assert (
        [(curve.class_name, curve.domain) for curve in curves]
        == left.chosen.tested
        == tested
    )
    (told,) = caplog.messages
    assert told.startswith(f"1 of {len(tested) + 1} circuits cannot be tested")
    assert told.endswith(": axe in real.")


def test_an_own_image_is_seen_whole_and_by_the_circuit_alone(
    checks: CausalChecks,
) -> None:
    clip = checks.clip
    graph = checks.graphs["cat", "real"]
    record = checks.chosen.found_on(("cat", "real"))[0]
    image = checks.read([record])

    hooks = [[], kept(graph, True), kept(graph, False)]
    embeddings = [clip.encoder.run_with_hooks(image, fwd_hooks=some) for some in hooks]
    shares = torch.cat(
        [clip.pair_logits(one, checks.weights("real")) for one in embeddings]
    ).softmax(-1)
    found = LiveModel(checks).look("cat", "real", record.path.read_bytes())
    assert found["baseline"] == "zero"
    for run, expected in zip(found["answers"], shares, strict=True):
        assert [name for name, _ in run] == [
            ("axe", "cat")[i] for i in expected.argsort(descending=True)
        ]
        assert_same(
            torch.tensor([share for _, share in run]),
            expected.sort(descending=True).values,
            1e-3,
            rtol=1e-3,
        )


def test_units_fire_as_a_share_of_the_most_in_images_of_the_class(
    checks: CausalChecks,
) -> None:
    clip = checks.clip
    graph = checks.graphs["cat", "real"]
    paths, own = images_of(checks, "cat")
    found = LiveModel(checks).look(
        "cat", "real", (checks.images.root / paths[0]).read_bytes()
    )["fire"]
    assert set(found) == {
        f"{site}/{unit}"
        for site in graph.inner_sites
        for unit in graph.kept_units[site]
    }
    _, cache = clip.encoder.run_with_cache(own)
    assert any(0 < share < 1 for share in found.values())
    expected = {}
    for name in found:
        site, unit = name.rsplit("/", 1)
        active = cache[site][:, int(unit)].reshape(len(own), -1).amax(-1)
        expected[name] = float(active[0] / active.max()) if active[0] > 0 else 0.0
    assert any(share == 0 for share in expected.values())
    assert_same(
        np.array([found[name] for name in expected]),
        np.array(list(expected.values())),
        0.5,
        rtol=1e-4,
    )

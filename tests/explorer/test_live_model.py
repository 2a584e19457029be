"""What a model answers live equals patching of one unit, and runs by hooks: of a group, and of a circuit alone."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from circuitry import (
    CausalChecks,
    Clip,
    DomainFolder,
    InputError,
    Task,
    explain,
    patch_effects,
)
from circuitry.explorer import LiveModel
from tests.explorer.made import found_in
from tests.explorer.test_model_view import images_of
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
            live.look(picture.getvalue())
    with pytest.raises(InputError, match="the image"):
        live.look(b"damaged")


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


def test_an_own_image_is_explained(checks: CausalChecks) -> None:
    record = checks.chosen.found_on(("cat", "real"))[0]
    found = LiveModel(checks).look(record.path.read_bytes())
    texts = [f"a photo of a {name}" for name in checks.images.all_classes]
    why = explain(checks.clip, checks.read([record])[0], texts)
    assert found["said"] == str(why).splitlines()
    assert "photo of a" in found["said"][0]
    largest = why.units["effect"].max()
    expected = {
        f"{row.site}/{row.unit}": row.effect / largest for row in why.units.itertuples()
    }
    assert found["effects"] == pytest.approx(expected)

"""Sweeps of patches, maps of pixels and checks of attribution against paper, single patches and hooks."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.patching import generic_activation_patch

from circuitry import (
    Encoder,
    InputError,
    Task,
    attribute,
    class_logit,
    left_rule,
    load_clip,
    mean_baseline,
    midpoint_rule,
)
from circuitry.bases import in_feature_basis
from circuitry.encoder import AnyBaseline, Counterfactual, Stage
from circuitry.encoder.baselines import ZERO
from circuitry.gates import Patch, patch_effects, patched
from circuitry.interventions import (
    AttributionCheck,
    check_attribution,
    logit_pixels,
)
from circuitry.runs import Work
from tests.support.assert_same import assert_same
from tests.support.differences import assert_same_differences, rounding_of
from tests.support.feature_bases import setting as in_latents
from tests.support.oracles import setting
from tests.support.towers import make_tower
from tests.support.work import AS_STUDIED, QUIET


def hand_worked() -> Encoder:
    """Input [B,3,1,2] -> units (x0 + x1, x1 x2) per position -> embedding: sums over positions."""
    stages = (
        Stage(
            "mixed", lambda x: torch.stack([x[:, 0] + x[:, 1], x[:, 1] * x[:, 2]], 1), 1
        ),
        Stage("embedding", lambda x: x.sum((2, 3)), 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 2))


def square_and_tenfold(e: Tensor) -> Tensor:
    return e[:, 0] ** 2 + 10 * e[:, 1]


def by_hand(baseline: AnyBaseline = "zero") -> Task:
    return Task(hand_worked(), CLEAN, square_and_tenfold, baseline=baseline, work=QUIET)


CLEAN = torch.tensor([[[[1.0, 0]], [[2, 1]], [[3, 1]]]])
CORRUPTED = torch.tensor([[[[0.0, 1]], [[1, 1]], [[2, 0]]]])
# Clean:     mixed = (3, 1), (6, 1);  embedding = 4, 7;  metric = 16 + 70 = 86.
# Corrupted: mixed = (1, 2), (2, 0);  embedding = 3, 2;  metric =  9 + 20 = 29.


@pytest.mark.parametrize(
    ("by", "direction", "mixed", "image"),
    [
        # mixed: u0 -> (1, 2): 9 + 70 = 79; u1 -> (2, 0): 16 + 20 = 36.
        # image: x0 -> (0, 1): (2, 2): 86, no change; x1 -> (1, 1): (2, 1), (3, 1): 9 + 40 = 49; x2 -> (2, 0): (4, 0):
        # 16 + 40 = 56.
        ("unit", "noise", [7, 50], [0, 37, 30]),
        # mixed: u0 <- (3, 1): 16 + 20 = 36, 36 - 29; u1 <- (6, 1): 9 + 70 = 79, 79 - 29.
        # image: x0 <- (1, 0): (2, 1): 9 + 20 = 29; x1 <- (2, 1): (2, 2), (4, 0): 16 + 40 = 56; x2 <- (3, 1): (3, 1):
        # 9 + 40 = 49.
        ("unit", "denoise", [7, 50], [0, 27, 20]),
        # mixed: position 0 -> (1, 2): 2^2 + 10 * 3 = 34; position 1 -> (2, 0): 25 + 60 = 85. The same from the image:
        # positions do not mix before the embedding.
        ("position", "noise", [[52, 1]], [[52, 1]]),
        # mixed: position 0 <- (3, 6): 25 + 60 = 85; position 1 <- (1, 1): 4 + 30 = 34.
        ("position", "denoise", [[56, 5]], [[56, 5]]),
        ("site", "noise", 57, 57),
        ("site", "denoise", 57, 57),
    ],
)
def test_hand_worked_pair(
    by: str, direction: str, mixed: object, image: object
) -> None:
    effects = patch_effects(by_hand(CORRUPTED), by=by, direction=direction)
    assert effects.scores["mixed"].tolist() == mixed
    assert effects.scores["input"].tolist() == image
    assert (
        effects.clean_metric,
        effects.baseline_metric["mixed"],
        effects.n_images,
    ) == (86, 29, 1)
    assert (effects.by, effects.direction, effects.settings["baseline"]) == (
        by,
        direction,
        "counterfactual",
    )


def test_hand_worked_zero_baseline_and_table() -> None:
    effects = patch_effects(by_hand(), units={"mixed": [1]})
    assert effects.sites == ("mixed",)
    assert effects.to_pandas().to_dict("records") == [
        {"site": "mixed", "index": 1, "value": 70}
    ]
    assert np.isnan(effects.scores["mixed"][0])
    # In a run of nothing but zeros u1 = (6, 1) alone gives 70, so removing it from there costs 70; u0 gives 16.
    back = patch_effects(by_hand(), direction="denoise")
    assert back.scores["mixed"].tolist() == [16, 70]


@torch.no_grad()
@pytest.mark.parametrize("direction", ["noise", "denoise"])
@pytest.mark.parametrize("by", ["unit", "position", "site"])
def test_a_sweep_equals_patches_one_by_one(
    any_tower: nn.Module, by: str, direction: str
) -> None:
    encoder, images, weights = setting(any_tower)
    metric, corrupted = class_logit(weights, 1), torch.randn_like(images)
    sites = (encoder.sites[-3], encoder.sites[-1])
    task = Task(encoder, images, metric, baseline=corrupted, sites=sites, work=QUIET)
    effects = patch_effects(task, by=by, direction=direction)
    base, other = (images, corrupted) if direction == "noise" else (corrupted, images)
    before = float(metric(encoder(base)).mean())
    for site in sites:
        found, expected = list[float](), list[float]()
        for index in range(0, effects.scores[site].size, 7):
            only = {
                "unit": {"units": [index]},
                "position": {"positions": [index]},
                "site": {},
            }[by]
            with patched(encoder, [Patch(site, Counterfactual(other), **only)]):
                after = float(metric(encoder(base)).mean())
            expected.append(before - after if direction == "noise" else after - before)
            found.append(effects.scores[site].reshape(-1)[index])
        assert_same_differences(
            found, expected, of=[metric(encoder(images)), metric(encoder(corrupted))]
        )


def keep_output(
    outputs: list[Tensor], module: nn.Module, given: object, out: Tensor
) -> None:
    outputs.append(out)


def write_token(
    source: Tensor, token: int, module: nn.Module, given: object, out: Tensor
) -> Tensor:
    changed = out.clone()
    changed[:, token] = source[:, token]
    return changed


@torch.no_grad()
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_patches_of_a_picture_equal_hooks_of_torch_on_the_tower(direction: str) -> None:
    """The oracle knows only the open_clip tower: its blocks, forward hooks and a metric written out."""
    tower: Any = make_tower("vit")
    clean, corrupt = torch.randn(2, 1, 3, 32, 32)
    text = torch.randn(16)

    def cosine(embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=-1) @ text

    task = Task(Encoder.from_tower(tower), clean, cosine, baseline=corrupt, work=QUIET)
    effects = patch_effects(task, by="position", direction=direction)
    base, source = (clean, corrupt) if direction == "noise" else (corrupt, clean)
    sign = -1 if direction == "noise" else 1
    before = float(cosine(tower(base)))
    for layer, block in enumerate(tower.transformer.resblocks):
        outputs = list[Tensor]()
        hook = block.register_forward_hook(partial(keep_output, outputs))
        tower(source)
        hook.remove()
        expected = []
        for token in range(outputs[0].shape[1]):
            hook = block.register_forward_hook(partial(write_token, outputs[0], token))
            expected.append(sign * (float(cosine(tower(base))) - before))
            hook.remove()
        found = effects.scores[f"transformer.resblocks.{layer}"]
        assert_same_differences(found, expected, of=[float(text.norm())])


@torch.no_grad()
def test_denoised_heads_equal_the_sweep_of_transformer_lens() -> None:
    task, base, cache = between_images("vit-tiny", "denoise")
    encoder = task.encoder
    sites = [site for site in encoder.sites if site.endswith(".attn")]
    n_heads = encoder.count_units(sites)[sites[0]]
    swept = pd.DataFrame(
        [(layer, head) for layer in range(len(sites)) for head in range(n_heads)],
        columns=["layer", "head"],
    )

    def write_head(corrupted: Tensor, index: list[int], clean: Tensor) -> Tensor:
        corrupted[:, :, index[1]] = clean[:, :, index[1]]
        return corrupted

    settings = SimpleNamespace(device="cpu")
    model = SimpleNamespace(
        cfg=settings, training=False, run_with_hooks=encoder.run_with_hooks
    )
    measured = generic_activation_patch(
        model, base, cache, task.metric, write_head, "z", index_df=swept, reduce="mean"
    )
    effects = patch_effects(
        task, units={site: range(n_heads) for site in sites}, direction="denoise"
    )
    found = np.concatenate([effects.scores[site] for site in sites])
    before = float(task.metric(encoder(base)))
    assert_same_differences(found, measured - before, of=[measured])


def linear_encoder() -> Encoder:
    torch.manual_seed(1)
    tower = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.Conv2d(5, 4, 3),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 6),
    )
    first, second, *rest = tower.double().requires_grad_(False)
    last = nn.Sequential(*rest)
    return Encoder(
        tower,
        (
            Stage("first", first, 1),
            Stage("second", second, 1),
            Stage("embedding", last, 1),
        ),
        (6, 6),
    )


@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_in_a_linear_network_attribution_equals_patching(direction: str) -> None:
    encoder = linear_encoder()
    images = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    for baseline in (ZERO, mean_baseline(encoder, [torch.randn(5, 3, 6, 6)])):
        graph = attribute(
            encoder,
            images,
            lambda e: e[:, 2],
            1.0,
            left_rule(1),
            baseline=baseline,
            progress=False,
            **AS_STUDIED,
        )
        task = Task(encoder, images, lambda e: e[:, 2], baseline=baseline, work=QUIET)
        effects = patch_effects(task, direction=direction)
        assert_same(effects.scores, graph.node_scores, 1e-2, rtol=1e-9)
        for site in encoder.sites:
            total = effects.clean_metric - effects.baseline_metric[site]
            assert effects.scores[site].sum() == pytest.approx(
                total
            )  # in a linear network effects add up


def test_cut_and_memory_change_nothing(resnet: nn.Module) -> None:
    encoder, images, weights = setting(resnet, n=5)
    metric, corrupted = class_logit(weights, 1), torch.randn_like(images)
    task = Task(encoder, images, metric, baseline=corrupted, work=QUIET)
    whole = patch_effects(task)
    parts = patch_effects(replace(task, images=[images[:2], images[2:]]))
    small = patch_effects(replace(task, work=Work(memory_gib=0.003, progress=False)))
    for found in (parts, small):
        for site, scores in whole.scores.items():
            assert_same_differences(
                found.scores[site], scores, of=[metric(encoder(images))]
            )


def task_of(tower: str, n: int = 2, each: bool = False) -> Task:
    encoder = Encoder.from_tower(make_tower(tower).double())
    images = 0.5 * torch.randn(n, 3, *encoder.image_size, dtype=torch.double)
    metric = class_logit(F.normalize(torch.randn(3, 16, dtype=torch.double), dim=-1), 1)
    return Task(
        encoder,
        images,
        metric,
        baseline=torch.randn_like(images) if each else "zero",
        work=QUIET,
    )


def test_a_linear_metric_is_its_gradient_times_the_pixels() -> None:
    encoder, images = linear_encoder(), torch.randn(2, 3, 6, 6, dtype=torch.double)
    one = images.clone().requires_grad_()
    gradient = torch.autograd.grad(encoder(one)[:, 2].sum(), one)[0]
    found = logit_pixels(Task(encoder, images, third, work=QUIET))
    assert_same(found, (gradient * images).sum(1), 1e-2)


@pytest.mark.parametrize("tower", ["resnet", "vit"])
def test_maps_sum_to_what_the_path_changes(tower: str) -> None:
    task = task_of(tower)
    encoder, images = task.encoder, task.images
    assert isinstance(images, torch.Tensor)
    found = logit_pixels(task)
    with torch.no_grad():
        blank = encoder(torch.zeros_like(images))
        change = task.metric(encoder(images)) - task.metric(blank)
    assert found.shape == (2, *encoder.image_size)
    assert found.sum((1, 2)).tolist() == pytest.approx(change.tolist(), abs=5e-2)
    assert not any(hook.fwd_hooks for hook in encoder.hook_dict.values())


def test_memory_changes_no_pixels() -> None:
    task = task_of("resnet", 3)
    small = replace(task, work=Work(progress=False, memory_gib=1e-6))
    assert_same(logit_pixels(small), logit_pixels(task), 1e-7)


def third(e: Tensor) -> Tensor:
    return e[:, 2]


def test_a_linear_network_correlates_perfectly() -> None:
    encoder = linear_encoder()
    images = torch.randn(3, 3, 6, 6)
    graph = attribute(
        encoder, images, third, rule=left_rule(1), progress=False, **AS_STUDIED
    )
    check = check_attribution(
        Task(encoder, images, third, work=QUIET), graph, top=3, random=4
    )
    assert check.points["exact"].to_numpy() == pytest.approx(
        check.points["attributed"].to_numpy()
    )
    table = check.to_pandas().set_index(["site", "sample"])
    assert table.loc[("first", "top"), "pearson"] == pytest.approx(1)
    assert table.loc[("second", "random"), "spearman"] == pytest.approx(1)
    assert table.loc[("first", "random"), "n_units"] == 4
    top = check.points.query("site == 'first' and top")["unit"]
    assert set(top) == set(np.argsort(-np.abs(graph.node_scores["first"]))[:3])


def test_hand_worked_scores_across_sites() -> None:
    rows = [
        ("input", 0, 9.0, 9.0, True),
        ("early", 0, 4.0, 1.0, True),
        ("early", 1, -4.0, -3.0, True),
        ("early", 2, 9.0, 9.0, False),
        ("late", 0, 1.0, 2.0, True),
        ("late", 1, 0.0, 0.0, True),
        ("late", 2, 1.0, -6.0, True),
    ]
    points = pd.DataFrame(
        rows, columns=["site", "unit", "attributed", "exact", "random"]
    ).assign(top=True)
    found = AttributionCheck(points).across_sites()
    expected = {
        "site": ["early", "late"],
        "n_units": [2, 3],
        "exact_per_score": [0.5, 4.0],
    }
    expected |= {
        "strongest_by_score": [1, 0],
        "strongest_by_exact": [0, 1],
    }  # one unit of five
    assert found.to_dict("list") == expected


def test_samples_are_seeded_and_more_points_agree_better() -> None:
    encoder = Encoder.from_tower(make_tower("resnet"))
    images = torch.randn(3, 3, 64, 64)
    metric = class_logit(F.normalize(torch.randn(3, 16), dim=-1), 1)
    baseline = mean_baseline(encoder, [torch.randn(4, 3, 64, 64)])
    sites = ["layer2.0", "layer4.0"]
    graph = attribute(
        encoder,
        images,
        metric,
        0.1,
        midpoint_rule(10),
        baseline,
        sites,
        progress=False,
        **AS_STUDIED,
    )
    task = Task(encoder, images, metric, baseline=baseline, work=QUIET)
    one, same = (check_attribution(task, graph, top=5, random=10) for _ in range(2))
    pd.testing.assert_frame_equal(one.points, same.points)
    assert one.points.groupby("site")[["top", "random"]].sum().to_numpy().tolist() == [
        [5, 10],
        [5, 10],
    ]
    assert one.to_pandas()["pearson"].min() > 0.5
    with pytest.raises(InputError, match=r"'mean-position'.*'zero'"):
        check_attribution(Task(encoder, images, metric, work=QUIET), graph)
    with pytest.raises(InputError, match="top=0 and random=0"):
        check_attribution(task, graph, top=0, random=0)


def test_correlation_of_known_points() -> None:
    points = pd.DataFrame(
        {
            "site": "a",
            "unit": range(4),
            "top": [True, True, False, False],
            "random": True,
        }
        | {"attributed": [0.0, 1, 2, 3], "exact": [0.0, 1, 4, 9]}
    )
    table = AttributionCheck(points).to_pandas()
    assert table["n_units"].tolist() == [2, 4]
    assert np.isnan(table["pearson"][0])
    # x - 1.5 = -1.5 -0.5 0.5 1.5 (sum of squares 5), y - 3.5 = -3.5 -2.5 0.5 5.5 (49): 15 / sqrt(245).
    assert table["pearson"][1] == pytest.approx(15 / 245**0.5)
    assert table["spearman"][1] == pytest.approx(1)


def test_in_a_feature_basis_the_nodes_are_latents_alone() -> None:
    plain, saes, images, weights = in_latents("resnet", "relu", n=2)
    encoder, site = in_feature_basis(plain, saes), plain.sites[-1]
    metric, n_latents = class_logit(weights, 1), saes[site].n_features
    task = Task(encoder, images, metric, sites=[site], work=QUIET)
    graph = attribute(
        encoder,
        images,
        metric,
        rule=left_rule(2),
        sites=[site],
        progress=False,
        **AS_STUDIED,
    )
    points = check_attribution(task, graph, top=n_latents, random=n_latents).points
    assert points["unit"].tolist() == list(range(n_latents))
    latent = int(np.argmax(np.abs(points["exact"])))
    with torch.no_grad():
        activation = encoder(images, stop=site)
        without = activation.clone()
        without[:, latent] = 0
        lost = metric(encoder(activation, start=site)) - metric(
            encoder(without, start=site)
        )
    assert points["exact"][latent] == pytest.approx(float(lost.mean()))


def test_one_partial_run_per_unit_from_the_site_on() -> None:
    encoder = hand_worked()
    rows: dict[str, int] = {"mixed": 0, "embedding": 0}

    def counted(stage: Stage) -> Stage:
        def run(x: Tensor) -> Tensor:
            rows[stage.site] += len(x)
            return stage.run(x)

        return Stage(stage.site, run, stage.unit_dim)

    encoder.stages = tuple(counted(stage) for stage in encoder.stages)
    n = 4
    patch_effects(
        Task(
            encoder,
            CLEAN.expand(n, -1, -1, -1),
            square_and_tenfold,
            sites=["mixed"],
            work=QUIET,
        )
    )
    # Finding the memory of an image takes one and two; then one clean run. From the site on: the source, and one run
    # for each of two units.
    assert rows == {"mixed": 3 + n, "embedding": 3 + n + (1 + 2) * n}


def test_copies_of_all_sites_share_a_run() -> None:
    encoder = hand_worked()
    rows: dict[str, list[int]] = {"mixed": [], "embedding": []}

    def counted(stage: Stage) -> Stage:
        def run(x: Tensor) -> Tensor:
            rows[stage.site].append(len(x))
            return stage.run(x)

        return Stage(stage.site, run, stage.unit_dim)

    encoder.stages = tuple(counted(stage) for stage in encoder.stages)
    sites = ["input", "mixed"]
    patch_effects(Task(encoder, CLEAN, square_and_tenfold, sites=sites, work=QUIET))
    # Finding the memory of an image takes one and two; then one clean run, and one with a copy for each colour and for
    # the source of the image, which a copy for each unit and for the source of the site joins.
    assert rows == {"mixed": [1, 2, 1, 3 + 1], "embedding": [1, 2, 1, 3 + 1 + 2 + 1]}


def between_images(
    model: str, direction: str
) -> tuple[Task, Tensor, dict[str, Tensor]]:
    """Return a task between two images in units of components, what patches are written into, and the cache of the
    other image, which they are taken from."""
    clip = load_clip(model).in_components()
    clean, other = torch.randn(
        2, 1, 3, *clip.encoder.image_size, generator=torch.Generator().manual_seed(3)
    )
    weights = F.normalize(torch.randn(4, clip.encoder(clean).shape[1]), dim=-1)
    task = Task(
        clip.encoder, clean, class_logit(weights, 1), baseline=other, work=QUIET
    )
    base, source = (clean, other) if direction == "noise" else (other, clean)
    return task, base, clip.encoder.run_with_cache(source)[1]


@torch.no_grad()
@pytest.mark.parametrize("direction", ["noise", "denoise"])
@pytest.mark.parametrize("model", ["vit-tiny", "rn-tiny"])
@pytest.mark.parametrize("by", ["site", "position"])
def test_between_two_images_the_units_of_components_alone_are_written(
    by: str, model: str, direction: str
) -> None:
    """The residual stream, which is carried past heads, neurons and hidden channels, stays the base's."""
    task, base, cache = between_images(model, direction)
    encoder, metric = task.encoder, task.metric
    effects = patch_effects(task, by=by, direction=direction)
    before = float(metric(encoder(base)))
    sign = -1 if direction == "noise" else 1
    for site in encoder.carried:
        scores = effects.scores[site].reshape(-1)
        found, expected, metrics = list[float](), list[float](), [before]
        for index in range(0, len(scores), max(1, len(scores) // 5)):
            where = {} if by == "site" else {"positions": [index]}
            with patched(encoder, Patch(site, cache[site], **where)):
                metrics.append(float(metric(encoder(base))))
            found.append(scores[index])
            expected.append(sign * (metrics[-1] - before))
        assert_same_differences(found, expected, of=metrics)


@torch.no_grad()
@pytest.mark.parametrize("direction", ["noise", "denoise"])
@pytest.mark.parametrize("model", ["vit-tiny", "rn-tiny"])
def test_effects_of_sites_are_read_against_the_metric_at_the_baseline(
    model: str, direction: str
) -> None:
    task, base, cache = between_images(model, direction)
    encoder, metric = task.encoder, task.metric
    effects = patch_effects(task, by="site", direction=direction)
    for site in encoder.carried:
        with patched(encoder, Patch(site, cache[site])):
            after = float(metric(encoder(base)))
        at_baseline = after if direction == "noise" else float(metric(encoder(base)))
        assert effects.baseline_metric[site] == pytest.approx(
            at_baseline, abs=rounding_of([at_baseline])
        )


@pytest.mark.parametrize("model", ["vit-tiny", "rn-tiny"])
def test_on_the_path_to_other_images_the_units_of_components_alone_move(
    model: str,
) -> None:
    task, base, cache = between_images(model, "noise")
    encoder, metric = task.encoder, task.metric
    graph = attribute(
        encoder,
        base,
        metric,
        None,
        midpoint_rule(40),
        task.baseline,
        progress=False,
        **AS_STUDIED,
    )
    with torch.no_grad():
        clean = float(metric(encoder(base)))
        for site in encoder.carried:
            with patched(encoder, Patch(site, cache[site])):
                after = float(metric(encoder(base)))
            told = graph.completeness[site]
            assert_same_differences(
                told.metric_difference, clean - after, of=[clean, after]
            )
            assert abs(told.gap) < 0.05 * abs(told.metric_difference) + 1e-4


@torch.no_grad()
@pytest.mark.parametrize(
    ("part", "point"), [("attn", "attn.hook_z"), ("mlp", "mlp.hook_post")]
)
def test_a_hook_writes_what_is_carried_too_and_a_patch_and_the_points_inside_do_not(
    part: str, point: str
) -> None:
    task, base, cache = between_images("vit-tiny", "noise")
    encoder, site, inside = (
        task.encoder,
        f"transformer.resblocks.2.{part}",
        f"blocks.2.{point}",
    )
    by_hook = encoder.run_with_hooks(
        base, fwd_hooks=[(site, lambda a, hook: cache[site])]
    )
    by_point = encoder.run_with_hooks(
        base, fwd_hooks=[(inside, lambda a, hook: cache[inside])]
    )
    by_carrying = encoder.run_with_hooks(
        base, fwd_hooks=[(site, lambda a, hook: encoder.carry(site, cache[site], a))]
    )
    with patched(encoder, Patch(site, cache[site])):
        expected = encoder(base)
    assert_same(by_point, expected, 0.1)
    assert_same(by_carrying, expected, 0.1)
    assert not torch.allclose(by_hook, expected, rtol=0.01)

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuitry import Encoder, InputError
from circuitry.models.sites import INPUT
from circuitry.models.stages import Stage
from tests.support.towers import make_tower


def images_for(encoder: Encoder, n: int = 2) -> Tensor:
    return torch.randn(n, 3, *encoder.image_size)


def test_idle_encoder_is_bit_equal_to_its_tower(any_tower: nn.Module) -> None:
    encoder = Encoder.from_tower(any_tower)
    images = images_for(encoder)
    with torch.no_grad():
        assert torch.equal(encoder(images), any_tower(images))


def test_partial_runs_join_to_the_whole_run(any_tower: nn.Module) -> None:
    encoder = Encoder.from_tower(any_tower)
    images = images_for(encoder)
    with torch.no_grad():
        embedding, cache = encoder.run_with_cache(images)
        assert tuple(cache) == encoder.sites
        for before, site in zip(encoder.sites, encoder.sites[1:], strict=False):
            assert torch.equal(encoder(cache[before], start=before, stop=site), cache[site])
            assert torch.equal(encoder(cache[site], start=site), embedding)


def test_sites_are_module_paths_of_the_tower(any_tower: nn.Module) -> None:
    encoder = Encoder.from_tower(any_tower)
    for site in encoder.sites[1:]:
        parent = site.rpartition(".")[0]
        assert hasattr(any_tower.get_submodule(parent), site.rpartition(".")[2])


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("resnet", [3, 4, 4, 8, 8, 32, 64, 64, 128, 256, 16]),
        ("vit", [3, 32, 32, 32, 16]),
        ("vit-attentional-pooling", [3, 32, 32, 32, 16]),
        ("swin", [3, 16, 16, 16, 32, 16]),
        ("convnext", [3, 8, 8, 8, 16, 16, 16, 16]),
        ("timm-vit", [3, 16, 16, 16, 16]),
    ],
)
def test_units_lie_on_the_axis_that_the_adapter_says(name: str, units: list[int]) -> None:
    encoder = Encoder.from_tower(make_tower(name))
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images_for(encoder))
    assert [cache[site].shape[encoder.unit_dim(site)] for site in encoder.sites] == units


def test_resnet_sites_are_those_of_the_study(resnet: Any) -> None:
    assert Encoder.from_tower(resnet).sites == (
        *("input", "act1", "act2", "act3", "avgpool"),
        *("layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer4.0", "attnpool"),
    )


def test_hooks_write_in_whole_and_partial_runs(resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet)
    images = images_for(encoder)

    def zero(activation: Tensor, hook: object) -> Tensor:
        return torch.zeros_like(activation)

    with torch.no_grad():
        _, cache = encoder.run_with_cache(images)
        by_hand = encoder(torch.zeros_like(cache["layer2.0"]), start="layer2.0")
        whole = encoder.run_with_hooks(images, fwd_hooks=[("layer2.0", zero)])
        partial = encoder.run_with_hooks(cache["avgpool"], start="avgpool", fwd_hooks=[("layer2.0", zero)])
        assert torch.equal(whole, by_hand)
        assert torch.equal(partial, by_hand)
        assert torch.equal(encoder(images), encoder.run_with_cache(images)[0])  # nothing was left behind


def test_hooks_are_removed_after_an_exception(resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet)

    def fail(activation: Tensor, hook: object) -> Tensor:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        encoder.run_with_hooks(images_for(encoder), fwd_hooks=[("layer4.0", fail)])
    assert not any(point.fwd_hooks for point in encoder.hook_dict.values())


def test_frozen_restores_mode_and_gradients_even_after_an_exception(resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet)
    resnet.train()
    resnet.layer1.eval()
    resnet.conv1.weight.requires_grad_(True)
    modes = [m.training for m in resnet.modules()]
    with encoder.frozen():
        assert not any(m.training for m in resnet.modules())
        assert not resnet.conv1.weight.requires_grad
    with pytest.raises(InputError), encoder.frozen():
        encoder(torch.zeros(1))
    assert [m.training for m in resnet.modules()] == modes
    assert resnet.conv1.weight.requires_grad
    assert not resnet.conv2.weight.requires_grad


def test_light_runs_are_equal_but_for_rounding_and_end_with_the_block(any_tower: nn.Module) -> None:
    encoder = Encoder.from_tower(any_tower.double())
    images = images_for(encoder).double()
    with torch.no_grad():
        plain, cache = encoder.run_with_cache(images)
        with encoder.light():
            light, light_cache = encoder.run_with_cache(images)
        torch.testing.assert_close(light, plain, rtol=1e-10, atol=1e-12)
        for site in encoder.sites:
            torch.testing.assert_close(light_cache[site], cache[site], rtol=1e-10, atol=1e-12)
        with pytest.raises(InputError), encoder.light():
            encoder(torch.zeros(1))
        assert torch.equal(encoder(images), plain)


def test_the_tower_keeps_its_modules_and_names(resnet: Any) -> None:
    before = [(name, id(module)) for name, module in resnet.named_modules()]
    Encoder.from_tower(resnet)
    assert [(name, id(module)) for name, module in resnet.named_modules()] == before
    assert not hasattr(resnet.conv1, "name")


def test_unknown_site_lists_the_sites(resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet)
    message = r"no site 'layer9\.0'; this encoder's sites are input, act1"
    with pytest.raises(InputError, match=message):
        encoder(images_for(encoder), stop="layer9.0")
    with pytest.raises(InputError, match=message):
        encoder.run_with_hooks(images_for(encoder), fwd_hooks=[("layer9.0", lambda x, hook: x)])


def test_a_run_backwards_is_refused(resnet: Any) -> None:
    encoder = Encoder.from_tower(resnet)
    with pytest.raises(InputError, match=r"'act1' lies before 'layer1\.0'"):
        encoder(torch.zeros(1, 32, 16, 16), start="layer1.0", stop="act1")


def test_images_of_the_wrong_size_are_refused(resnet: Any) -> None:
    with pytest.raises(InputError, match=r"takes images \[batch, 3, 64, 64\], but was given \[1, 3, 32, 64\]"):
        Encoder.from_tower(resnet)(torch.zeros(1, 3, 32, 64))


def test_unsupported_tower_lists_what_is_supported() -> None:
    with pytest.raises(InputError, match=r"type Linear; supported are: open_clip ModifiedResNet; .*Swin"):
        Encoder.from_tower(nn.Linear(2, 2))


def test_equal_site_names_are_refused() -> None:
    stage = Stage(INPUT, nn.Identity(), 1)
    with pytest.raises(InputError, match="must differ"):
        Encoder(nn.Linear(1, 1), [stage], (1, 1))

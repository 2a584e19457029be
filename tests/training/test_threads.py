"""The same command gives the same weights on machines with other numbers of cores; see test_clip.py for CLIP."""

import torch

from circuitry.training import SaeTraining, train_sae


def weights() -> bytes:
    """Train a sparse autoencoder, and return its weights."""
    samples = torch.randn(3000, 48, generator=torch.Generator().manual_seed(0))
    sae = train_sae(samples, SaeTraining(steps=20, batch_size=1024), progress=False)
    return bytes(sae.w_enc.numpy().tobytes() + sae.w_dec.numpy().tobytes())


def test_threads_of_the_machine_change_no_weight() -> None:
    assert torch.get_num_threads() == 1
    one = weights()
    torch.set_num_threads(2)  # as on a machine of two cores
    assert weights() == one

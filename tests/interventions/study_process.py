"""A process's share of a causal study; imported by processes that tests start, kill and start again."""

import os
from pathlib import Path

import torch

from circuitry import CausalStudy, DomainFolder, GraphFolder, load_clip
from circuitry.interventions import CausalSettings
from circuitry.runs import Work, WorkSettings


def extract_share(study: CausalStudy, out: Path, work: Work) -> None:
    """Do one process's share of a folder of curves and of one of tables."""
    study.extract_faithfulness(out / "f", fractions=(0.1, 0.5), random_draws=1, work=work)
    study.extract_transfer(out / "t", work=work)


def run(config: Path, weights: Path, folder: Path, out: Path, rank: tuple[int, int]) -> None:
    """Do what one of torchrun's ranks does."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank[0]), "WORLD_SIZE": str(rank[1]), "XDG_CACHE_HOME": str(folder / "cache")}
    clip = load_clip(config, weights)
    study = CausalStudy(
        clip, DomainFolder(folder / "images"), GraphFolder(folder / "graphs"), CausalSettings(n_images=2, n_others=2)
    )
    is_first = WorkSettings(progress=False).share_out(lambda work: extract_share(study, out, work), out / "jobs")
    assert is_first == (rank[0] == 0)

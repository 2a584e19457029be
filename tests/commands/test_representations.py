"""Autoencoders, shared features and representations by scripts, and their reports."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from circuitry.models import load_sae
from circuitry.runs import InputError
from circuitry.training import SaeTraining
from tests.support.scripts import CLASSES, STYLES, command_module, study_config


def test_a_sparse_autoencoder_is_trained_and_measured(
    quickstart: Path,
    model_of_the_quickstart: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = command_module("train-sae")
    out = quickstart / "sae"
    short = SaeTraining(steps=5)
    config = module.Config(
        **model_of_the_quickstart,
        out=out,
        site="layer3.0",
        positions_per_image=2,
        training=short,
    )
    with pytest.raises(InputError, match="layer9"):  # which claims no folder
        module.main(replace(config, site="layer9"))
    module.main(config)
    printed = capsys.readouterr().out
    assert "768 features of 192 units at layer3.0" in printed
    assert "explained_variance" in printed
    assert load_sae(out / "sae.safetensors").about["training"][
        "samples"
    ] == 2 * 5 * len(CLASSES) * len(STYLES)
    assert pd.read_csv(out / "history.csv")["step"].tolist() == [5]
    assert not (out / "state.safetensors").exists()
    module.main(config)  # finished: read again
    assert "768 features of 192 units at layer3.0" in capsys.readouterr().out
    table = quickstart / "more.tsv"
    table.write_text(
        "filepath\n"
        + "".join(
            f"{path}\n" for path in (quickstart / "run" / "toy").glob("real/*/*.png")
        )
    )
    with pytest.raises(
        InputError, match=r"another configuration \(tables: .* is new\)"
    ):
        module.main(replace(config, more_tables=(table,)))
    given = {**model_of_the_quickstart, "out": out / "study", "more_tables": (table,)}
    study = study_config("train-sae", "--steps", "3", "--piece", "20", **given)
    module.main(study)
    trained = load_sae(out / "study" / "sae.safetensors").about["training"]
    photographs = 5 * len(
        CLASSES
    )  # that are trained on without the table, too, and count once
    assert (
        trained["samples"]
        == photographs * len(STYLES)
        + len(table.read_text().splitlines())
        - 1
        - photographs
    )
    assert not (
        out / "study" / "activations"
    ).exists()  # the pieces of 20 images, which only the training needs

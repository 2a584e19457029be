"""The page on shared features holds the numbers of its tables."""

from pathlib import Path

import numpy as np
import pytest

from circuitry import Clip, DomainFolder, InputError
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.representations import compare_features, image_features, name_features
from experiments.study.features_command import add_features, add_sharing, feature_table, images_of_feature
from tests.representations.test_strongest_features import root as root
from tests.representations.test_strongest_features import sae_at
from tests.support.work import QUIET


def test_the_tables_and_the_page(clip: Clip, root: Path, tmp_path: Path) -> None:
    sae, images = sae_at(clip, "attnpool"), DomainFolder(root)
    found = image_features(clip, sae, images, work=QUIET)
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
    assert images_of_feature(found, feature, "real", 1)
    absent = next(i for i in range(64) if i not in features.index) if len(features) < 64 else 64
    with pytest.raises(InputError, match=f"Feature {absent} "):
        add_features(Report("None"), found, table, images, [absent])

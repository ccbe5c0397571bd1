"""Tables of results as CSV, and what an analysis adds to its JSON document."""

import json

import numpy as np
import pandas as pd
import pytest

from braggscope.modalities.dfxm.dislocations.characters import characters_of
from braggscope.modalities.dfxm.dislocations.model import ImageModel
from braggscope.modalities.dfxm.dislocations.setting import PRESETS

TOLD = ("--preset", "al-002-legacy", "--character", "5")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """One image of a dislocation of character 5, as a NumPy file."""
    setting = PRESETS["al-002-legacy"]
    model = ImageModel(setting, characters_of(setting), (50, 50))
    expected = 20 + 1.8 * model.image([4], np.array([[120.0, -60.0]]), derivatives=False)[0]
    counts = expected + np.sqrt(expected) * np.random.default_rng(0).standard_normal(expected.shape)
    path = tmp_path_factory.mktemp("tables") / "image.npy"
    np.save(path, counts)
    return path


def test_each_table_is_a_file_with_units(image, cli, tmp_path):
    code, said, wrong = cli("dfxm", "localise", image, *TOLD, "--csv", tmp_path / "found.csv")
    assert (code, wrong) == (0, "") and "found_dislocation.csv" in said
    table = pd.read_csv(tmp_path / "found_dislocation.csv")
    assert table["x (nm)"][0] == pytest.approx(120, abs=6) and {"x_std (nm)", "character"} <= set(table)
    assert len(pd.read_csv(tmp_path / "found_image.csv")) == 1
    code, _, wrong = cli("dfxm", "localise", image, *TOLD, "--csv", tmp_path / "found.csv")
    assert code == 2 and "exists; give another name or --overwrite" in wrong


def test_the_json_document_has_what_the_analysis_adds(image, cli):
    code, said, _ = cli("dfxm", "localise", image, *TOLD, "--json")
    (only,) = json.loads(said)["images"][0]["dislocations"]
    assert code == 0 and set(only) == {"x_nm", "y_nm", "covariance_nm2", "character", "probability"}
    assert only["y_nm"] == pytest.approx(-60, abs=6)


@pytest.mark.parametrize(("name", "words"), [("found.txt", "name of a .csv file"), ("no/found.csv", "there is no folder")])
def test_where_a_table_cannot_be_is_said_beforehand(image, cli, tmp_path, name, words):
    code, _, wrong = cli("dfxm", "localise", image, *TOLD, "--csv", tmp_path / name)
    assert code == 2 and words in wrong

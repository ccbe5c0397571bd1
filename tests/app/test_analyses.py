"""Every analysis there is: its command is made from its signature, and its result is a map with provenance."""

import inspect
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import xarray as xr

import braggscope
from braggscope.app.provenance import file_hash
from braggscope.core import maps
from braggscope.core.analysis import Says, arguments, summary_line
from braggscope.core.errors import InputError
from braggscope.core.modality import Modality, modalities
from braggscope.modalities.dfxm.oblique.reflections import PUBLISHED

ANALYSES = [(kind.name, name) for kind in modalities().values() for name in kind.analyses()]
each = pytest.mark.parametrize(("modality", "name"), ANALYSES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small simulated scan of two motors and its map, and one of grains with the map that is true."""
    made = tmp_path_factory.mktemp("analyses")
    braggscope.simulate(
        "dfxm", "subgrains", shape=(9, 11), frame_shape=(20, 24), peak=3000.0, output=made / "scan.h5", progress=False, seed=2
    )
    braggscope.map(made / "scan.h5", "moments", output=made / "map.h5", progress=False)
    laue = modalities()["laue"]
    film = laue.phantom("film")(laue.load(laue.example_geometry)(), **laue.example_phantom, seed=1)
    film.write(made / "laue_scan.h5")
    truth = film.truth
    flag = maps.empty_map([], ("y", "x"), truth["grain"].shape, {}, {1: "missing"})["flag"]
    stated = {"modality": "laue", "method": "truth", "geometry": json.dumps(laue.load(laue.example_geometry)().to_mapping())}
    maps.save(truth.drop_dims(["number", "fine_y", "fine_x"]).assign(flag=flag).assign_attrs(stated), made / "laue_map.h5")
    return made


@each
def test_the_command_explains_every_input_and_option(cli, modality, name):
    analysis = modalities()[modality].analysis(name)
    code, said, wrong = cli(modality, name.replace("_", "-"), "--help")
    assert (code, wrong) == (0, "")
    words = " ".join(said.split())
    assert " ".join(summary_line(analysis).split())[:40] in words
    for one in arguments(analysis):
        if one.keyword and one.kind == "option":
            assert f"--{one.name.replace('_', '-')}" in words and one.says.doc, one.name


@each
def test_the_docstring_names_what_comes_back(modality, name):
    analysis = modalities()[modality].analysis(name)
    assert (analysis.__doc__ or "").count("\n") >= 2, "more than one line"
    assert inspect.signature(analysis).return_annotation in ("xr.Dataset", "dict[str, object]", "dict[str, Any]")


def takes_one(modality, name, kind):
    """Whether one scan (or one map) is all that it must have."""
    needed = [one for one in arguments(modalities()[modality].analysis(name)) if one.required]
    return len(needed) == 1 and needed[0].kind == kind and not needed[0].keyword


@pytest.mark.parametrize(("modality", "name"), [a for a in ANALYSES if takes_one(*a, "scan") or takes_one(*a, "map")])
def test_a_result_is_a_map_with_provenance_or_one_sentence_says_why_not(cli, folder, tmp_path, modality, name):
    own = "laue_" if modality == "laue" else ""
    source = folder / (own + ("scan.h5" if takes_one(modality, name, "scan") else "map.h5"))
    out = tmp_path / "result.h5"
    code, said, wrong = cli(modality, name.replace("_", "-"), source, "-o", out, "--json")
    if code:  # they need an axis of energy, scattering angle, height or time, images alone, several layers, or boundaries
        named = {"strain", "track", "localise", "volume", "boundaries", "boundaries_of_volume", "export_boundaries"}
        assert name in named, wrong
        assert code == 2 and wrong.startswith("error: ") and wrong.count("\n") == 1 and not out.exists(), wrong
        return
    document, result = json.loads(said), braggscope.load(out)
    maps.check_map(result)
    over = [v for n, v in result.data_vars.items() if n != "flag" and set(result["flag"].dims) <= set(v.dims)]
    assert document["analysis"] == name and any(np.isfinite(v).any() for v in over)  # some method may doubt every point of it
    assert result.attrs["method"] == name and result.attrs["input_hash"] and result.attrs["version"] == braggscope.__version__
    code, _, wrong = cli(modality, name.replace("_", "-"), source, "-o", out)
    assert code == 2 and "exists; give another name" in wrong
    page = tmp_path / "page.html"
    assert cli("report", out, "-o", page)[0] == 0 and page.read_text().count("<img ") >= 1
    again = braggscope.analyse(modality, name, source)
    for variable in result.data_vars:
        assert np.array_equal(result[variable].values, again[variable].values, equal_nan=result[variable].dtype.kind == "f")


def test_an_analysis_takes_maps_in_memory_and_options_by_name(folder):
    m = braggscope.load(folder / "map.h5")
    small, large = (braggscope.analyse("dfxm", "kam", m, size=size) for size in (3, 5))
    assert isinstance(small, xr.Dataset) and json.loads(small.attrs["options"])["size"] == 3
    assert np.nanmedian(large["kam"]) > np.nanmedian(small["kam"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["kam"], "missing argument"),
        (["kam", "MAP", "--kernel", "round"], "option kernel must be one of square, diamond, got 'round'"),
        (["kam", "SCAN"], "is not a map file"),
        (["components", "MAP"], "holds no image stack"),
        (["deformation", "MAP"], "missing option '--reflections'"),
        (["horoscope", "MAP"], "no such command 'horoscope'"),
        (["kam", "MAP", "--quiet"], "the result would be lost"),
        (["kam", "SCAN", "--quiet"], "the result would be lost"),  # before the input is looked at
        (["kam", "MAP", "-o", "MAP", "--overwrite"], "is also an input"),
        (["kam", "MAP", "-o", "/nowhere/at/all.h5"], "folder /nowhere/at does not exist"),
    ],
)
def test_bad_use_gives_one_sentence(cli, folder, words, sentence):
    files = {"MAP": folder / "map.h5", "SCAN": folder / "scan.h5"}
    code, said, wrong = cli("dfxm", *[files.get(word, word) for word in words])
    assert code == 2 and said == "" and wrong.count("\n") == 1
    assert sentence in wrong, wrong


def test_a_table_is_over_the_same_points_as_that_of_map_and_says_which(cli, folder):
    from braggscope.app.findings import findings, findings_text
    from braggscope.app.summary import summarise, table

    whole = maps.load(folder / "map.h5")
    for flagged in (0, whole["flag"].size):  # none, all
        dataset = whole.copy(deep=True)
        dataset["flag"].values.ravel()[:flagged] |= 2
        dataset["total"].values[0, 0], dataset[next(iter(dataset.data_vars))].values[0, 0] = 1e9, np.nan
        mapped, found = summarise(dataset), findings(dataset)
        assert found["over"] == mapped["over"] and found["quantities"]["total"] == mapped["quantities"]["total"]
        head = f"over {mapped['over']}:"
        assert head in table(mapped) and head in findings_text(found)


def test_numbers_of_a_vector_are_printed_to_four_digits():
    from braggscope.app.findings import _text

    assert _text("-0.15625690685412419 0 0.98771644668922143") == "-0.1563 0 0.9877"
    assert _text("-0.98768342557407252 -4.3e-17 12345") == "-0.9877 0 12345"
    assert (_text("diffry 0.123456"), _text("0.123456.h5"), _text(0.123456)) == ("diffry 0.123456", "0.123456.h5", "0.1235")


def test_a_help_text_starts_with_a_capital_but_a_symbol_stays(cli):
    _, said, _ = cli("dfxm", "export-orientation", "--help")
    assert "  a, b, c (angstrom), alpha, beta, gamma" in said
    _, said, _ = cli("dfxm", "deformation", "--help")
    assert "  TOML file of the reflections" in said and "examples/dfxm_al113.toml" in said


def test_from_python_an_unknown_name_lists_those_there_are():
    with pytest.raises(InputError, match=r"unknown dfxm analysis 'horoscope'; there are: .*kam"):
        braggscope.analyse("dfxm", "horoscope")
    with pytest.raises(InputError, match="dfxm kam takes a map, got 0 inputs"):
        braggscope.analyse("dfxm", "kam")
    with pytest.raises(InputError, match="has no option 'colour'; it has: size"):
        braggscope.analyse("dfxm", "kam", xr.Dataset(), colour=1)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("kam", {"size": "5"}, "option size must be an integer, got '5'"),
        ("kam", {"size": 5.0}, "option size must be an integer, got 5.0"),
        ("kam", {"size": np.eye(2)}, "option size must be an integer, got array([[1., 0... [0., 1.]])"),
        ("kam", {"neighbours": True}, "option neighbours must be an integer, got True"),
        ("kam", {"kernel": 5}, "option kernel must be one of square, diamond, got '5'"),
        ("kam", {"kernel": ["square"]}, "option kernel must be a word, got ['square']"),
        ("domains", {"threshold": "0.2"}, "option threshold must be a number, got '0.2'"),
        ("orientation", {"reference_pixel": (1,)}, "option reference_pixel must be 2 integers, got (1,)"),
        ("orientation", {"reference_pixel": (1, 2.5)}, "option reference_pixel must be 2 integers, got (1, 2.5)"),
        ("orientation", {"still": "mu"}, "option still must be a list of words, got 'mu'"),
        ("deformation", {"reflections": 3}, "option reflections must be the path of a file, got 3"),
        ("deformation", {"reflections": "al.toml", "covariance": "no"}, "option covariance must be True or False, got 'no'"),
    ],
)
def test_from_python_an_option_of_another_type_is_refused_in_a_sentence(folder, name, options, sentence):
    with pytest.raises(InputError) as refusal:
        braggscope.analyse("dfxm", name, folder / "map.h5", **options)
    assert str(refusal.value) == sentence


def test_from_python_numbers_of_numpy_lists_and_none_do(folder):
    m = braggscope.load(folder / "map.h5")
    found = braggscope.analyse("dfxm", "kam", m, size=np.int64(5), max_angle=np.float32(0.5), kernel=None)
    options = json.loads(found.attrs["options"])
    assert (options["size"], options["max_angle"], options["kernel"]) == (5, 0.5, "square")
    found = braggscope.analyse("dfxm", "orientation", m, reference_pixel=np.array([3, 4]), still=["omega=1.5"])
    options = json.loads(found.attrs["options"])
    assert (options["reference_pixel"], options["still"]) == ([3, 4], ["omega=1.5"])


def test_an_option_of_a_type_that_no_flag_has_is_a_mistake_of_the_analysis():
    def one(*, limit: float | str = 1.0): ...

    def several(*, limits: list[float]): ...

    for analysis in (one, several):
        with pytest.raises(TypeError, match="must be a float, int, str, bool, Path or a tuple of these"):
            arguments(analysis)


def test_no_file_that_is_read_is_overwritten(folder, tmp_path):
    reflections = tmp_path / "al.toml"
    reflections.write_text(PUBLISHED)
    geometry, scan = tmp_path / "geometry.toml", tmp_path / "scan.h5"
    geometry.write_text("[dfxm]\nenergy_kev = 17.0\n")
    scan.write_bytes((folder / "scan.h5").read_bytes())
    for name, inputs, options in (
        ("sensitivity", (), {"reflections": str(reflections), "output": reflections}),
        ("orientation", (folder / "map.h5",), {"geometry": geometry, "output": geometry}),
        ("components", (braggscope.open(scan),), {"output": scan}),
    ):
        before = options["output"].read_bytes()
        with pytest.raises(InputError, match="is also an input; give another name"):
            braggscope.analyse("dfxm", name, *inputs, overwrite=True, **options)
        assert options["output"].read_bytes() == before


def test_the_provenance_names_the_files_of_options(folder, tmp_path, monkeypatch):
    def compared(dataset: xr.Dataset, *, table: Annotated[Path, Says("a table")]) -> xr.Dataset:
        return dataset[["flag"]].assign_attrs(length=len(table.read_text()))

    monkeypatch.setattr(Modality, "analysis", lambda kind, name: compared)
    table = tmp_path / "table.txt"
    table.write_text("1 2")
    found = braggscope.analyse("dfxm", "compared", folder / "map.h5", table=str(table))
    hashes = {path.name: file_hash(path)["input_hash"] for path in (folder / "map.h5", table)}
    assert (found.attrs["length"], found.attrs["input_file"]) == (3, "map.h5, table.txt")
    assert json.loads(found.attrs["input_hashes"]) == hashes

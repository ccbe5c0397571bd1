"""Corrections by name: dark and flat images from files, options as words, and what is refused in a sentence."""

import h5py
import numpy as np
import pytest

import braggscope
from braggscope.app.correcting import _options
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

IMAGE = np.arange(20.0).reshape(5, 4)


@pytest.fixture
def scan(tiny, scan_file):
    """A scan of 42 frames of 5 x 4 pixels."""
    return braggscope.open(scan_file())


def written(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values, compression="gzip" if np.ndim(values) else None)
    return path


def dark_of(scan):
    """The dark image that the frames of a scan are corrected with."""
    return scan.frames.offset


def test_the_sole_image_of_a_file_is_read_and_nothing_else(scan, tmp_path, monkeypatch):
    path = written(tmp_path / "dark.h5", image=IMAGE, time=np.arange(7.0), row=np.ones((1, 9)), words=np.full((3, 3), b"no"))
    read = []
    plain = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda one, args: (read.append(one.name), plain(one, args))[1])
    np.testing.assert_array_equal(dark_of(braggscope.correct(scan, dark=path)), IMAGE)
    assert read == ["/image"]


def test_beside_a_stack_or_another_image_there_is_no_sole_one(scan, tmp_path):
    path = written(tmp_path / "both.h5", image=IMAGE, stack=np.full((3, 5, 4), 2.0))
    np.testing.assert_array_equal(dark_of(braggscope.correct(scan, dark=path)), 2.0)  # the mean of the stack
    path = written(tmp_path / "two.h5", image=IMAGE, other=IMAGE)
    with pytest.raises(InputError, match=r"two\.h5"):
        braggscope.correct(scan, dark=path)


def test_damaged_images_are_refused_in_a_sentence(refused, scan_file, tmp_path):
    scan, whole = scan_file(), written(tmp_path / "whole.h5", image=np.random.default_rng(1).normal(100, 5, (5, 4)))
    content = whole.read_bytes()
    with h5py.File(whole) as file:
        chunk = file["image"].id.get_chunk_info(0)
    inside = content[: chunk.byte_offset] + b"?" * chunk.size + content[chunk.byte_offset + chunk.size :]
    for name, damaged, says in (
        ("cut.h5", content[: len(content) // 2], "cut.h5 is a truncated HDF5 file"),
        ("head.h5", content[:8] + b"?" * 40 + content[48:], "head.h5 is damaged, HDF5 cannot open it"),
        ("inside.h5", inside, "inside.h5 cannot be read, it may be damaged"),
        ("empty.h5", b"", "empty.h5 is empty (0 bytes)"),
    ):
        (tmp_path / name).write_bytes(damaged)
        for flag in ("--dark", "--flat"):
            assert says in refused("map", scan, flag, tmp_path / name, "-o", tmp_path / "m.h5")


def test_options_of_corrections_are_read_by_type():
    def mended(scan: Scan, *, size: int = 3, least: float = 0.5, fill: bool = False, motors: tuple[str, ...] = ()): ...

    read = _options("mended", mended, {"size": "5", "least": "1e-2", "fill": "False", "motors": None})
    assert read == {"size": 5, "least": 0.01, "fill": False}
    assert _options("mended", mended, {"fill": "true", "motors": ["mu"]}) == {"fill": True, "motors": ("mu",)}
    for name, word, wanted in (
        ("size", "5.5", "an integer"),
        ("least", "high", "a number"),
        ("fill", "maybe", "True or False"),
        ("motors", "mu", "a list of words"),
    ):
        with pytest.raises(InputError, match=f"mended:{name} must be {wanted}, got '{word}'"):
            _options("mended", mended, {name: word})


def test_a_map_never_takes_the_place_of_a_dark_image(scan, tmp_path):
    path = written(tmp_path / "dark.h5", image=np.zeros((5, 4)))
    before = path.read_bytes()
    corrected = braggscope.correct(scan, dark=path)
    with pytest.raises(InputError, match="is also an input"):
        braggscope.map(corrected, output=path, overwrite=True)
    with pytest.raises(InputError, match="is also an input"):
        braggscope.analyse("dfxm", "multiresolution", corrected, output=path, overwrite=True)
    assert path.read_bytes() == before

"""Simulated scans in the layout of ESRF ID03: they come back, and their tree is that of the real files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import braggscope
from braggscope.core.errors import InputError
from braggscope.core.source import open_scan
from braggscope.io.nexus import write_scan
from braggscope.io.write_id03 import write_id03
from braggscope.modalities.dfxm.geometry import DfxmGeometry, id03
from braggscope.modalities.dfxm.phantoms.grains import bent_crystal
from braggscope.modalities.dfxm.phantoms.twins import twins

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
MADE = {1: {"shape": (13,)}, 2: {"shape": (5, 7), "motors": "chi diffry"}, 3: {"shape": (3, 4, 5)}}


@pytest.mark.parametrize("motors", [1, 2, 3])
@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_a_simulation_comes_back(tmp_path, motors, jitter):
    source, seen = twins(id03(), frame_shape=(12, 17), jitter=jitter, **MADE[motors]), []
    write_id03(source, tmp_path / "scan.h5", progress=lambda done, of: seen.append((done, of)))
    scan = open_scan(tmp_path / "scan.h5")
    points = int(np.prod(source.shape))
    assert seen[-1] == (points, points)
    assert (scan.modality, scan.shape, scan.frame_shape, scan.missing) == ("dfxm", source.shape, (12, 17), ())
    batches = list(scan.batches())
    assert np.array_equal(np.concatenate([b.index for b in batches]), np.arange(points))
    frames = np.concatenate([b.frames for b in batches])
    assert frames.dtype == np.uint16 and np.array_equal(frames, source.frames(np.arange(points)))
    assert DfxmGeometry.from_scan(scan) == source.geometry
    assert scan.truth is not None and scan.truth.identical(source.truth)
    for name in source.grid.dims:
        planned = np.broadcast_to(
            source.grid[name].values.reshape([-1 if d == name else 1 for d in source.grid.dims]), source.shape
        )
        reached = source.grid[f"measured_{name}"].values if jitter else planned
        np.testing.assert_allclose(scan.grid[f"measured_{name}"].values, reached, rtol=0, atol=1e-12)
        if not jitter:
            np.testing.assert_allclose(scan.grid[name].values, source.grid[name].values, rtol=0, atol=1e-12)
        assert scan.grid[name].attrs["units"] == "deg"


@pytest.mark.parametrize(
    ("real", "motors", "shape"), [("id03_rocking_mu", "mu", (13,)), ("id03_mosa_chi_diffry", "chi diffry", (5, 7))]
)
def test_the_tree_is_that_of_a_real_scan(tmp_path, real, motors, shape):
    write_id03(bent_crystal(id03(), shape=shape, motors=motors, frame_shape=(6, 8)), tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as ours, h5py.File(EXAMPLES / f"{real}.h5") as theirs:
        tree, length = [], theirs["1.1/instrument"][motors.split()[0]]["value"].shape[0]
        ours["1.1"].visititems(lambda name, item: tree.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in tree:
            if name.startswith("measurement/") or (name.startswith("instrument/positioners/") and name.split("/")[-1] in motors):
                continue  # links to what is compared here; the example files keep some of them
            image = "image" if "pco_ff/image" in theirs["1.1/instrument"] else "data"
            there = theirs["1.1"].get(name.replace("pco_ff/data", f"pco_ff/{image}"))
            assert there is not None, f"{name} is not in the real file"
            mine, real_one = ours["1.1"][name], there
            assert mine.dtype.kind in (real_one.dtype.kind, "f" if real_one.dtype.kind == "i" else real_one.dtype.kind), name
            along = {length: int(np.prod(shape))}.get(real_one.shape[0]) if real_one.ndim else None
            assert mine.ndim == real_one.ndim and (mine.ndim == 0 or mine.shape[0] == along), name
        words = [file["1.1/title"][()].decode().split() for file in (ours, theirs)]
        assert len(words[0]) == len(words[1]) and [w for w in words[0] if w.isalpha()] == [w for w in words[1] if w.isalpha()]
        assert ours["1.1/measurement/pco_ff"] == ours["1.1/instrument/pco_ff/data"]
        assert ours["1.2/measurement/elapsed_time"].shape == ours["1.2/instrument/sbcurr/signal"].shape
        assert ours["1.1/end_reason"][()] == theirs["1.1/end_reason"][()] == b"SUCCESS"


def test_a_continuous_motor_starts_half_a_step_before_its_first_place(tmp_path):
    write_id03(bent_crystal(id03(), shape=(11,), motors="mu:0.1", frame_shape=(3, 4)), tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5") as file:
        assert file["1.1/title"][()] == b"fscan mu -0.55 0.1 11 0.5 0.500417"
        assert file["1.1/instrument/mu/value"][0] == pytest.approx(-0.5)
        # 2 d sin(theta) = hc/E: silicon 111 at 17 keV
        assert file["1.1/instrument/positioners/ccmth"][()] == pytest.approx(6.67841, abs=1e-4)
        assert file["1.1/instrument/positioners/obpitch"][()] == 17.95


def test_the_same_seed_gives_the_same_bytes_of_every_dataset_and_the_command_line_writes_it(tmp_path):
    for name in ("a.h5", "b.h5"):
        braggscope.simulate(
            "dfxm", "twins", output=tmp_path / name, layout="id03", progress=False, shape=(5,), frame_shape=(6, 8)
        )
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        names: list[str] = []
        a.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(names) > 50 and all(np.array_equal(a[n][()], b[n][()], equal_nan=a[n].dtype.kind == "f") for n in names)


def test_an_unknown_layout_and_one_of_another_microscopy_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown layout 'id06'; there are: id03, nexus"):
        braggscope.simulate("dfxm", output=tmp_path / "x.h5", layout="id06")
    with pytest.raises(InputError, match="layout id03 is for dfxm scans over one to three motors, got nanobeam"):
        braggscope.simulate("nanobeam", output=tmp_path / "x.h5", layout="id03", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_wider_count_in_a_later_batch_widens_the_stack(tmp_path):
    source = bent_crystal(id03(), shape=(9,), frame_shape=(4, 5), noise=None, peak=1000.0)

    class Growing:
        shape, frame_shape, grid, geometry, modality, provenance = (9,), (4, 5), source.grid, id03(), "dfxm", source.provenance

        def batches(self, size=None, *, only=None):
            for batch in source.batches(2):
                kind = np.uint16 if batch.index[0] < 4 else np.int64
                frames = np.rint(batch.frames).astype(kind) * (1 if kind == np.uint16 else 100)
                yield type(batch)(batch.index, frames)

    for write, name in ((write_id03, "a.h5"), (write_scan, "b.h5")):
        write(Growing(), tmp_path / name)
        frames = np.concatenate([b.frames for b in open_scan(tmp_path / name).batches()])
        wanted = np.concatenate([b.frames for b in Growing().batches()])
        assert frames.dtype == np.uint32 and np.array_equal(frames, wanted)

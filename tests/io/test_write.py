"""Simulated and other scans written as generic files: the same frames, grid, geometry and truth come back."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tracemalloc
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from braggscope.core.geometry import Geometry, quantity
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.core.source import open_scan
from braggscope.io.nexus import write_scan


@dataclasses.dataclass(frozen=True)
class Camera(Geometry):
    modality: ClassVar[str] = "camera"
    distance_m: float = quantity("m", low=1e-3, high=100, doc="distance")
    order: int = quantity("1", low=1, high=9, whole=True, doc="order")
    pupil_file: str | None = None


@pytest.fixture
def simulation():
    """(level, noise, shape) -> a simulation with frames of 5 x 7."""

    def make(level=4.0, noise=Noise(), shape=(3, 4)):  # noqa: B008
        dims = ("y", "x")[-len(shape) :]
        coords = {d: ((d,), 0.5 * np.arange(n), {"units": "um"}) for d, n in zip(dims, shape, strict=True)}
        truth = xr.Dataset(
            {"strain": (dims, np.random.default_rng(0).random(shape), {"units": "1", "long_name": "strain"})}, coords=coords
        )

        def expected(index):
            return level * (1 + torch.as_tensor(index % 5)[:, None, None]) * torch.ones(5, 7)

        geometry = Camera(distance_m=0.85, order=2, pupil_file="pupil.h5")
        return Simulation(geometry, xr.Dataset(coords=coords), (5, 7), expected, truth, noise, seed=3, label="a film")

    return make


@pytest.mark.parametrize("shape", [(3, 4), (12,)])
def test_a_simulation_comes_back(simulation, tmp_path, shape):
    source, seen = simulation(shape=shape), []
    write_scan(source, tmp_path / "film.h5", progress=lambda done, of: seen.append((done, of)))
    scan = open_scan(tmp_path / "film.h5")
    assert scan.shape == shape and scan.missing == ()
    assert np.array_equal(next(scan.batches()).frames, source.frames(np.arange(12)))
    assert scan.frames.dtype == np.uint16
    assert scan.grid.identical(source.grid)
    assert scan.modality == "camera"
    assert Camera.from_scan(scan) == source.geometry
    assert scan.title == "a film"
    assert seen[-1] == (12, 12)
    with xr.open_dataset(tmp_path / "film.h5", group="entry/truth", engine="h5netcdf") as truth:
        assert truth.load().identical(source.truth)


def test_the_file_is_nexus_and_compressed_by_frames(simulation, tmp_path):
    write_scan(simulation(), tmp_path / "film.h5")
    with h5py.File(tmp_path / "film.h5") as file:
        data = file[file.attrs["default"]][file["entry"].attrs["default"]]
        assert data.attrs["NX_class"] == "NXdata"
        assert data[data.attrs["signal"]].shape == (3, 4, 5, 7)
        assert list(data.attrs["axes"]) == ["y", "x", ".", "."]
        assert data["x"].attrs["units"] == "um"
        assert data["data"].chunks[-2:] == (5, 7)
        assert data["data"].id.get_create_plist().get_filter(0)[0] == 32008  # bitshuffle


def test_noise_free_frames_stay_float(simulation, tmp_path):
    source = simulation(0.25, None)
    write_scan(source, tmp_path / "film.h5")
    assert np.array_equal(next(open_scan(tmp_path / "film.h5").batches()).frames, source.frames(np.arange(12)))


class Given:
    """A source of given batches."""

    modality = geometry = None
    provenance: ClassVar[dict] = {}

    def __init__(self, batches, shape, frame_shape):
        self._batches, self.shape, self.frame_shape = batches, shape, frame_shape
        self.grid = xr.Dataset(coords={"x": (("x",), np.arange(float(shape[0])))})

    def batches(self, size=None, *, only=None):
        yield from self._batches


def batches_of(frames, *indices, **more):
    from braggscope.core.batch import Batch

    return [Batch(np.array(index), frames[index], **{k: v[index] for k, v in more.items()}) for index in indices]


@pytest.mark.parametrize(("high", "kind"), [(65534, np.uint16), (65535, np.uint32), (2**31, np.uint32)])
def test_counts_that_do_not_fit_into_16_bits_widen_the_file(stack, tmp_path, high, kind):
    """65535 would read as an overflow. The large count comes in the last batch, when the others are already written."""
    frames = stack(6).astype(np.int64)
    frames[5, 2, 3] = high
    write_scan(Given(batches_of(frames, [0, 1, 2], [3, 4], [5]), (6,), (5, 7)), tmp_path / "a.h5")
    scan = open_scan(tmp_path / "a.h5")
    assert scan.frames.dtype == kind
    assert np.array_equal(next(scan.batches()).frames, frames)


def test_frames_in_any_order_with_gaps_and_a_monitor_come_back(stack, tmp_path):
    frames = stack(7)
    write_scan(Given(batches_of(frames, [5, 1], [6, 0, 2], monitor=np.arange(7.0)), (7,), (5, 7)), tmp_path / "a.h5")
    scan = open_scan(tmp_path / "a.h5")
    assert scan.shape == (7,) and scan.order.tolist() == [0, 1, 2, 5, 6]
    assert scan.missing == ("2 of 7 frames (they were not recorded)",)
    (batch,) = scan.batches()
    assert np.array_equal(batch.frames, frames[[0, 1, 2, 5, 6]])
    assert batch.monitor.tolist() == [0, 1, 2, 5, 6]


def test_saturated_8_bit_counts_stay_saturated(stack, tmp_path):
    frames = (stack(3) % 256).astype(np.uint8)
    frames[1, 2, 3] = 255
    write_scan(Given(batches_of(frames, [0, 1, 2]), (3,), (5, 7)), tmp_path / "a.h5")
    (batch,) = open_scan(tmp_path / "a.h5").batches()
    assert not batch.mask[1, 2, 3]


def test_measured_positions_come_back(bliss, stack, tmp_path):
    motors = {"chi": np.repeat([0.0, 1], 3) + 0.01, "mu": np.tile([5.0, 6, 7], 2)}
    scan = open_scan(bliss("fscan2d chi 0 1 2 mu 5 1 3 0.1", stack(6), motors))
    write_scan(scan, tmp_path / "copy.h5")
    copy = open_scan(tmp_path / "copy.h5")
    assert copy.grid.identical(scan.grid)
    assert (copy.modality, copy.geometry_values) == (scan.modality, scan.geometry_values)


def test_memory_is_that_of_a_few_batches(tmp_path):
    """16 batches of 2 MB."""
    frames = np.random.default_rng(0).integers(0, 9, (4, 512, 512)).astype(np.uint16)

    class Long(Given):
        def batches(self, size=None, *, only=None):
            from braggscope.core.batch import Batch

            for start in range(0, 64, 4):
                yield Batch(np.arange(start, start + 4), frames.copy())

    tracemalloc.start()
    write_scan(Long([], (64,), (512, 512)), tmp_path / "a.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * frames.nbytes


def test_an_interrupted_write_leaves_nothing_and_what_was_there_stays(simulation, stack, tmp_path):
    write_scan(simulation(), tmp_path / "film.h5")
    before = (tmp_path / "film.h5").read_bytes()

    def stop(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scan(simulation(7.0), tmp_path / "film.h5", progress=stop)
    assert (tmp_path / "film.h5").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["film.h5"]


FULL = """
import resource, signal, sys
import numpy as np, xarray as xr
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from braggscope.core.batch import Batch
from braggscope.io.nexus import write_scan

class Source:
    modality = geometry = None
    provenance, shape, frame_shape = {}, (40,), (256, 256)
    grid = xr.Dataset(coords={"x": np.arange(40.0)})
    def batches(self, size=None, *, only=None):
        rng = np.random.default_rng(0)
        for i in range(40):
            yield Batch(np.array([i]), rng.integers(0, 60000, (1, 256, 256)).astype(np.uint16))

resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try:
    write_scan(Source(), sys.argv[1])
except OSError as error:
    print("OSError")
"""


def test_a_full_disk_raises_and_leaves_nothing(tmp_path):
    """The process may write one megabyte; the scan needs five."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "a.h5")], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "OSError", done.stderr
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []

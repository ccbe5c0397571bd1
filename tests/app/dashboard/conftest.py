"""Maps of every modality, a run that grows as the test says, and servers on the loopback address."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest
import uvicorn

import braggscope
from braggscope.app.dashboard.finished_map import FinishedMap
from braggscope.app.dashboard.live_run import LiveRun
from braggscope.app.dashboard.running import listening
from braggscope.app.dashboard.server import application
from braggscope.app.live.asked import Asked
from braggscope.app.live.scan_mapping import ScanMapper
from braggscope.core.source import open_scan
from braggscope.live.frame_log import FrameWriter
from braggscope.live.playing import Frames, start_of
from braggscope.live.run_folder import RunFolder, write_json

SHAPE, FRAME = (9, 12), (64, 64)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Scan and map of each modality, by name."""
    folder, found = tmp_path_factory.mktemp("made"), {}
    asked = {
        "nanobeam": ({"shape": SHAPE, "frame_shape": FRAME}, "likelihood", {}),
        "dfxm": ({"shape": (15,), "frame_shape": (24, 30)}, "moments", {}),
        "laue": (
            {"shape": (3, 4), "frame_shape": (122, 102), "size": 1.0, "step": 0.2},
            "indexing",
            {"within": 0.5, "sample": 4, "threshold": 15.0},
        ),
    }
    for name, (phantom, method, options) in asked.items():
        scan, out = folder / f"{name}.h5", folder / f"{name}_map.h5"
        braggscope.simulate(name, output=scan, progress=False, seed=1, **phantom)
        braggscope.map(scan, method, output=out, progress=False, workers=1, **options)
        found[name] = scan, out
    return found


class Served:
    """A server in a thread; `stop` and `start` at the same port."""

    def __init__(self, provider, token=None):
        self.provider, self.token, self.port = provider, token, 0
        self.start()

    def start(self):
        listener = listening("127.0.0.1", self.port)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(application(self.provider, self.token), log_level="error", lifespan="off", ws="websockets-sansio")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self):
        self.server.should_exit = True
        self.server.force_exit = True
        self.thread.join(10)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def served():
    """Serve a provider; every server is stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(provider, token=None):
            one = Served(provider, token)
            stack.callback(one.stop)
            return one

        yield start


@pytest.fixture
def finished(made, served):
    """A finished map of a modality, with its scan, on a server."""

    def start(name, scan=True, **more):
        path, out = made[name]
        return served(FinishedMap(out, path if scan else None), **more)

    return start


class Growing:
    """A run that maps as many frames as it is told to."""

    def __init__(self, root, scan_path):
        self.scan = open_scan(scan_path)
        root.mkdir()
        self.run = RunFolder(root)
        self.asked = Asked(f"replay:{scan_path}", str(root.with_suffix("")), method="likelihood")
        self.asked.write(self.run)
        self.folder = self.run.next_scan(start_of(self.scan))
        self.frames = Frames(self.scan)
        self.writer = FrameWriter(self.folder.path, self.scan.frames.shape[1:], self.scan.frames.dtype)
        self.mapper = None
        self.sent = 0
        self.provider = LiveRun(root)

    def grow(self, count):
        which = range(self.sent, self.sent + count)
        self.writer.append([self.frames[n] for n in which], [int(self.scan.order[n]) for n in which], [False] * count)
        self.sent += count
        if self.mapper is None:
            self.mapper = ScanMapper(self.run, self.folder, self.asked)
            assert self.mapper.begin()
        while self.mapper.step():
            pass

    def end(self):
        self.writer.close()
        write_json(self.folder.path / "end.json", {"reason": "complete", "frames": self.sent, "time": time.time()})
        self.mapper.finish()


@pytest.fixture
def growing(made, tmp_path):
    run = Growing(tmp_path / "m.h5.live", made["nanobeam"][0])
    yield run
    if run.folder.done is None:
        run.writer.close()
        if run.mapper is not None:
            run.mapper.log.close()


def floats(response):
    shape = tuple(int(n) for n in response.headers["X-Shape"].split(","))
    return np.frombuffer(response.content, "<f4").reshape(shape)

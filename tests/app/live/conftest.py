"""A small nanobeam scan and the program as a child process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import braggscope
from braggscope.live.run_folder import RunFolder, folder_of

SHAPE = (20, 30)


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """600 frames of 64 x 64, as a scan file."""
    path = tmp_path_factory.mktemp("scan") / "film.h5"
    braggscope.simulate("nanobeam", shape=SHAPE, frame_shape=(64, 64), output=path, progress=False, seed=2)
    return path


@pytest.fixture(scope="session")
def offline(scan):
    return braggscope.map(scan, "likelihood", workers=1, progress=False)


class Program:
    """`braggscope` running, with the folder of its run."""

    def __init__(self, *words, output=None):
        command = [sys.executable, "-m", "braggscope", *(str(word) for word in words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        self.run = None if output is None else RunFolder(folder_of(output))

    def until(self, ready, seconds=60):
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, (
                f"not within {seconds} s: {self.run.reported('receiver')} {self.run.reported('mapper')}"
            )
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def mapped(self):
        return int(self.run.reported("mapper").get("mapped", 0))

    def kill(self, part):
        os.kill(int(self.run.reported(part)["pid"]), signal.SIGKILL)

    def end(self, seconds=90):
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def document(self):
        code, out, err = self.end()
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def program():
    """Start the program; whatever is left of it is ended."""
    started = []

    def start(*words, output=None):
        started.append(Program(*words, output=output))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.communicate(timeout=30)
        for stream in (one.process.stdout, one.process.stderr):
            stream.close()


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "m.h5"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]

"""Models of a run: versions as they are trained, and the swap of one for the next while frames come.

A version is complete on the disk before `current.json` names it. A thread of the mapper looks for it, loads it and lets it map
once, so that every buffer and graph is made; the mapper then takes it between two batches and waits for nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from braggscope.core.learned import Learned
from braggscope.core.model import Model, load_model, save_model
from braggscope.live.run_folder import RunFolder, read_json, write_json

LOOK_S = 0.1
HISTORY = "history.jsonl"


def publish(run: RunFolder, model: Model, about: Mapping[str, Any]) -> int:
    """Add a version; its number. about: Further values for its line in the history."""
    folder = run.models
    folder.mkdir(parents=True, exist_ok=True)
    version = 1 + current_version(run)
    name = f"version_{version:04d}.safetensors"
    save_model(model, folder / name)
    write_json(folder / "current.json", {"version": version, "file": name})
    with (folder / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"version": version, "time": time.time(), **about}) + "\n")
    return version


def current_version(run: RunFolder) -> int:
    """The newest version; 0 where there is none."""
    found = read_json(run.models / "current.json")
    return 0 if found is None else int(found["version"])


def current_model(run: RunFolder) -> tuple[int, Model] | None:
    """The newest version and its number; None where there is none."""
    found = read_json(run.models / "current.json")
    return None if found is None else (int(found["version"]), load_model(run.models / str(found["file"])))


def history(run: RunFolder) -> list[dict[str, Any]]:
    """A document for each version; a line that a kill left half written is passed over."""
    path, found = run.models / HISTORY, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


class Swap:
    """Looks for new versions and has the next one ready.

    make: Model -> method that has mapped a frame already.
    version: Of the method in use; 0: the one that the run began with.
    """

    def __init__(self, run: RunFolder, make: Callable[[Model], Learned], version: int = 0) -> None:
        self.run, self.make, self.version = run, make, version
        self._ready: tuple[int, Learned] | None = None
        self._failed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="braggscope models", daemon=True)
        self._thread.start()

    def take(self) -> Learned | None:
        """The next method where one is ready; it is in use from now on."""
        ready, self._ready = self._ready, None
        if ready is None:
            return None
        self.version, method = ready
        return method

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(5)

    def _look(self) -> None:
        while not self._stop.wait(LOOK_S):
            newest = current_version(self.run)
            held = self._ready[0] if self._ready is not None else self.version
            if newest <= held or newest == self._failed:
                continue
            try:
                found = current_model(self.run)
                if found is not None:
                    self._ready = found[0], self.make(found[1])
            except Exception as error:  # a model that does not suit must not end the map
                self._failed = newest
                self.run.report("swap", state="failed", version=newest, error=f"{type(error).__name__}: {error}")

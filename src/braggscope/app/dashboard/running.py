"""Running the server: as a part of a live run (`python -m braggscope.app.dashboard.running RUN_FOLDER`), or for one map."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braggscope.core.errors import InputError
from braggscope.core.modality import modalities
from braggscope.live.run_folder import RunFolder

from .provider import Provider

PORT, TRIES = 8200, 50
WARM_TRIES = 600  # seconds


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: 8200 or the next that is free. Raises InputError where there is none."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    wanted = [port] if port else range(PORT, PORT + TRIES)
    reason = ""
    for one in wanted:
        found = socket.socket(kind, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host.strip("[]"), one))
            found.listen(128)
            return found
        except OSError as error:
            found.close()
            reason = error.strerror or str(error)
    raise InputError(f"the page cannot be served at {host}, port {port or f'{PORT} to {PORT + TRIES - 1}'} ({reason})")


def serve(
    provider: Provider, host: str = "127.0.0.1", port: int = 0, token: str | None = None, told: Callable[[str], None] = print
) -> None:
    """Serve until the process is told to end.

    told: Is given the address of the page, with the token where there is one.
    """
    import uvicorn

    from .server import application

    listener = listening(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")
    quiet: dict[str, Any] = {
        "log_level": "critical",
        "access_log": False,
        "lifespan": "off",
        "timeout_graceful_shutdown": 1,
    }  # pages stay connected
    config = uvicorn.Config(
        application(provider, token), ws="websockets-sansio", ws_max_size=65536, timeout_keep_alive=30, **quiet
    )
    server: Any = uvicorn.Server(config)
    ended = threading.Event()
    warming = threading.Thread(target=_warm, args=(provider, ended), daemon=True)
    warming.start()
    told(address)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    ended.set()
    with contextlib.suppress(KeyboardInterrupt):
        warming.join()  # an interpreter that ends in the middle of an import prints the import's traceback


def _warm(provider: Provider, ended: threading.Event) -> None:
    """Load what the first model of a frame needs, so that the first click does not wait for it."""
    for _ in range(WARM_TRIES):
        kind = modalities().get(str(provider.status().get("modality")))
        if kind is not None:
            for dotted in filter(None, (kind.frame_model, kind.spot_model)):
                if not ended.is_set():
                    kind.load(dotted)
                    import torch  # noqa: F401  what most models compute with
            return
        if ended.wait(1):
            return


def main(path: str) -> int:
    """The process of a run; where to listen is in the environment (`security.settings`)."""
    from .live_run import LiveRun

    run = RunFolder(Path(path))
    host, port = os.environ.get("BRAGGSCOPE_HOST", "127.0.0.1"), int(os.environ.get("BRAGGSCOPE_PORT", "0"))
    kept = run.path / "parts" / "port"
    if not port and kept.exists():
        port = int(kept.read_text())  # the page that is open finds the server again

    def told(address: str) -> None:
        kept.write_text(address.split("?")[0].rstrip("/").rsplit(":", 1)[1])
        run.report("server", state="serving", url=address)

    try:
        serve(LiveRun(run.path), host, port, os.environ.get("BRAGGSCOPE_TOKEN"), told)
    except InputError as error:
        run.report("server", state="failed", error=str(error))
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))

"""`braggscope watch`: maps while the scan runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .shared import (
    AsJson,
    Binning,
    Correct,
    Dark,
    Device,
    Flat,
    GeometryFile,
    Grid,
    ModalityName,
    Options,
    Overwrite,
    Quiet,
    Roi,
    Saturation,
    pairs,
    region,
    shows_progress,
    tell,
)  # fmt: skip

if TYPE_CHECKING:
    from braggscope.live.run_folder import RunFolder

SourceUrl = Annotated[
    str,
    typer.Argument(
        help="replay:FILE?rate=1000, h5:FILE, dir:FOLDER, zmq+stream2://HOST:PORT, zmq+json://HOST:PORT or pva://NAME.",
        metavar="SOURCE",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Map file to write; MAP-2.h5 and so on for further scans.")]
Method = Annotated[str | None, typer.Option("--method", help="A method or a model file; by default what is recommended.")]
Plan = Annotated[
    Path | None, typer.Option("--plan", help="A scan file with the same grid and geometry, where the source says neither.")
]
Scans = Annotated[int, typer.Option("--scans", help="How many scans to map; 0: until Ctrl-C.", metavar="N")]
Train = Annotated[bool, typer.Option("--train", help="Train the method's model on the frames while they come.")]
TrainOptions = Annotated[
    list[str] | None, typer.Option("--train-option", help="An option of training, for each round.", metavar="NAME=VALUE")
]
Remap = Annotated[
    bool,
    typer.Option("--remap", help="Map points by earlier models again when there is time, and all of them when the scan is over."),
]
First = Annotated[
    int | None,
    typer.Option("--first", help="Frames on which a method that must see the scan prepares itself; by default all.", metavar="N"),
]
Patience = Annotated[float, typer.Option("--patience", help="Seconds after which a frame that later ones passed is lost.")]
Policy = Annotated[
    str | None,
    typer.Option("--buffer", help="When the disk is too slow: block (hold the sender), spill (to a file) or drop-oldest."),
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", help="Seconds without a frame after which a scan that has begun is over.")
]
Dashboard = Annotated[bool, typer.Option("--dashboard/--no-dashboard", help="Serve the page; it stays until Ctrl-C.")]
Host = Annotated[str, typer.Option("--host", help="Address of the page; another than loopback needs a token.")]
Port = Annotated[int, typer.Option("--port", help="Port of the page; by default 8200 or the next that is free.")]
Token = Annotated[
    str | None, typer.Option("--token", envvar="BRAGGSCOPE_TOKEN", help="Token of the page; made up where one is needed.")
]
Keep = Annotated[bool, typer.Option("--keep-frames", help="Keep the folder with the recorded frames (MAP.h5.live).")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was killed.")]
NAMES = ("expected", "received", "lost", "late", "duplicates", "rate_hz", "latency_ms")


def watch(
    source: SourceUrl,
    output: Output,
    method: Method = None,
    modality: ModalityName = None,
    geometry: GeometryFile = None,
    grid: Grid = None,
    plan: Plan = None,
    scans: Scans = 1,
    train: Train = False,
    train_option: TrainOptions = None,
    remap: Remap = False,
    first: First = None,
    roi: Roi = None,
    binning: Binning = 1,
    saturation: Saturation = None,
    dark: Dark = None,
    flat: Flat = None,
    correct: Correct = None,
    option: Options = None,
    device: Device = "cpu",
    patience: Patience = 2.0,
    buffer: Policy = None,
    timeout: Timeout = None,
    dashboard: Dashboard = True,
    host: Host = "127.0.0.1",
    port: Port = 0,
    token: Token = None,
    keep_frames: Keep = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Map a scan while it runs: every expected frame is received, lost (with the reason) or late, and the map file says which.

    Whatever part of it dies is started again, and nothing that was received is lost. Ctrl-C ends the scan with the map so far.
    """
    from braggscope.core.errors import BraggscopeError

    from ..live.starting import asked_for
    from ..live.watching import watched

    asked = asked_for(
        source,
        output,
        method=method,
        modality=modality,
        geometry=geometry,
        options=pairs(option or [], "--option"),
        grid=grid,
        plan=plan,
        scans=scans or None,
        train=train,
        train_options=pairs(train_option or [], "--train-option"),
        remap=remap,
        first=first,
        roi=None if roi is None else region(roi),
        binning=binning,
        saturation=saturation,
        dark=dark,
        flat=flat,
        correct=correct or [],
        device=device,
        patience_s=patience,
        buffer=buffer,
        timeout_s=timeout,
    )
    parts = ("trainer",) if train else ()
    environment = {}
    if dashboard:
        from ..dashboard.security import settings

        environment = settings(host, port, token)
        parts = (*parts, "server")
    found: list[dict[str, Any]] = []
    show = _Line(shows_progress(quiet or as_json), quiet or as_json)
    for one in watched(
        asked, overwrite=overwrite, resume=resume, keep_frames=keep_frames, parts=parts, environment=environment, show=show,
        linger=dashboard,
    ):  # fmt: skip
        found.append(one)
        show.clear()
        if not as_json and not quiet:
            typer.echo(text(one))
    if as_json:
        tell("", document(found), as_json=True)
    if not found:
        raise BraggscopeError("interrupted before any scan began; there is no map")
    if not any(one.get("output") for one in found):
        raise BraggscopeError("no frame came; there is no map")
    if any(str(one.get("end")).startswith("stopped") for one in found):
        raise BraggscopeError(f"interrupted; {found[-1]['output']} holds the map of the frames that came")


def document(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the last scan, and of each where there are several."""
    if not found:
        return {"scans": []}
    last = {name: found[-1].get(name) for name in NAMES}
    rest = {name: value for name, value in found[-1].items() if name not in NAMES}
    return {**last, **rest, **({"scans": found} if len(found) > 1 else {})}


def text(one: dict[str, Any]) -> str:
    """The ledger of a scan as text for a terminal."""
    if one["output"] is None:
        return f"scan {one['scan']}: no frame came"
    lost = ", ".join(f"{reason}: {count}" for reason, count in one["lost_by_reason"].items())
    refused = ", ".join(f"{kind}: {count}" for kind, count in one["refused_by_kind"].items())
    p = one["latency_ms"]
    said = f"scan {one['scan']}: {one['received']} of {one['expected']} frames received, {one['lost']} lost"
    said += f" ({lost}), " if lost else ", "
    said += f"{one['late']} late, {one['duplicates']} duplicates" + (f", refused {refused}" if refused else "")
    said += f"; {one['outside']} more lie outside the grid" if one.get("outside") else ""
    pace = [f"{one['rate_hz']:.1f} frames a second"] if one["rate_hz"] else []
    if p["p50"] is not None:
        pace.append(f"from frame to map {p['p50']:.1f} ms (median), {p['p99']:.1f} ms (99 %)")
    lines = [said, f"  {'; '.join(pace)}", f"  {one['output']}"]
    return "\n".join(lines)


class _Line:
    """One line that says how far the run is; on a terminal only. Where the page is, once."""

    def __init__(self, draws: bool, silent: bool) -> None:
        self.draws, self.silent, self.told = draws, silent, False

    def __call__(self, run: RunFolder) -> None:
        server = run.reported("server")
        if not self.told and server.get("url") and not self.silent:
            self.told = True
            self.clear()
            typer.echo(f"the page is at {server['url']} (Ctrl-C ends)", err=True)
        if self.draws:
            receiver, mapper = run.reported("receiver"), run.reported("mapper")
            counts = receiver.get("counts") or {}
            line = (
                "starting"
                if not receiver
                else (
                    f"{counts.get('received', 0)} of {counts.get('expected', '?')} frames, {counts.get('lost', 0)} lost, "
                    f"{receiver.get('rate_hz', 0):.0f}/s; mapped {mapper.get('mapped', 0)}, {mapper.get('state', 'starting')}"
                )
            )
            sys.stderr.write(f"\r\033[K{line}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Make room for text."""
        if self.draws:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

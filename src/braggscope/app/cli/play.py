"""`braggscope play`: a scan file sent as a detector would send it, for trying out what watches."""

from __future__ import annotations

from typing import Annotated

import typer

from .shared import AsJson, Quiet, ScanFile, ScanName, shows_progress, tell

To = Annotated[
    str,
    typer.Argument(
        help="Where to: zmq+json://HOST:PORT, zmq+stream2://HOST:PORT, pva://NAME, h5:FILE or dir:FOLDER.", metavar="URL"
    ),
]
Rate = Annotated[float, typer.Option("--rate", help="Frames per second; 0: as fast as they are taken.")]
Lose = Annotated[float, typer.Option("--lose", help="Share of frames that are never sent.")]
Shuffle = Annotated[float, typer.Option("--shuffle", help="Share of frames that are sent out of order.")]
Duplicate = Annotated[float, typer.Option("--duplicate", help="Share of frames that are sent twice.")]
Seed = Annotated[int, typer.Option("--seed", help="Of what is lost, out of order and twice.")]


def play(
    scan: ScanFile,
    to: To,
    name: ScanName = None,
    rate: Rate = 0.0,
    lose: Lose = 0.0,
    shuffle: Shuffle = 0.0,
    duplicate: Duplicate = 0.0,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Send a scan like a simulated detector: at a rate, with losses, out of order, with duplicates. What was left out is said."""
    import time

    from braggscope.core.errors import InputError
    from braggscope.core.source import open_scan
    from braggscope.live.playing import Schedule, play
    from braggscope.live.transports import sender, source_url

    from ..progress import Show

    url = source_url(to)
    schedule = Schedule(rate, lose, shuffle, duplicate, seed)
    source = open_scan(scan, name)
    if url.scheme == "h5" and (lose or shuffle or duplicate):
        raise InputError("a growing file has every frame in order; --lose, --shuffle and --duplicate are for zmq, pva and dir")
    if source.frames is None:
        raise InputError(f"{scan} has no frames to play: {'; '.join(source.missing)}")
    count, sent = min(source.frames.shape[0], len(source.order)), 0
    total = len(schedule.numbers(count))
    end = sender(url)
    begin = time.perf_counter()
    try:
        with Show("play", "frame", shows_progress(quiet or as_json)) as bar:
            for now in play(source, end, schedule):
                if not sent:
                    begin = time.perf_counter()  # a receiver was waited for until now
                sent = now
                bar(sent, total)
    finally:
        end.close()
    seconds = max(time.perf_counter() - begin, 1e-6)
    lost = schedule.lost(count)
    twice = sent + len(lost) - count
    document = {
        "frames": count,
        "sent": sent,
        "lost": lost.tolist(),
        "seconds": round(seconds, 3),
        "rate_hz": round(sent / seconds, 1),
    }
    left = f", {len(lost)} of them never (--json lists these)" if len(lost) else ""
    left += f", {twice} twice" if twice > 0 else ""
    tell(
        f"{count} frames sent in {seconds:.1f} s, {document['rate_hz']} a second{left}",
        document,
        as_json=as_json,
        quiet=quiet,
    )

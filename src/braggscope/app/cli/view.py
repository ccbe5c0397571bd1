"""`braggscope view`: a map on the page, or one picture of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from braggscope.core.errors import BraggscopeError, InputError

from .shared import Overwrite

FORMATS = (".png", ".pdf", ".svg")
MapFile = Annotated[Path, typer.Argument(help="Map file.", metavar="MAP")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help=f"Picture to write ({', '.join(FORMATS)}); left out, the page is served until Ctrl-C."),
]
View = Annotated[
    str | None,
    typer.Option("--view", help="Which picture (`braggscope info --modality NAME` lists them); left out, the first there is."),
]
ScanOption = Annotated[Path | None, typer.Option("--scan", help="The scan of the map, for frames and views that show them.")]
Host = Annotated[str, typer.Option("--host", help="Address of the page; another than loopback needs a token.")]
Port = Annotated[int, typer.Option("--port", help="Port of the page; by default 8200 or the next that is free.")]
Token = Annotated[
    str | None, typer.Option("--token", envvar="BRAGGSCOPE_TOKEN", help="Token of the page; made up where one is needed.")
]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")]


def view(
    map_file: MapFile,
    output: Output = None,
    name: View = None,
    scan: ScanOption = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
    token: Token = None,
    browser: Browser = True,
    overwrite: Overwrite = False,
) -> None:
    """Look at a map: on a page with maps, errors, frames and profiles, or (-o) as a picture by one of the modality's views."""
    if output is None:
        if name is not None:
            raise InputError("--view is for a picture; give its file with -o")
        _page(map_file, scan, host, port, token, browser and sys.stdout.isatty())
        return
    from braggscope.core.maps import load

    from ..output import check_output
    from ..viewing import draw, scan_for

    if output.suffix.lower() not in FORMATS:
        raise InputError(f"output {output} must end in one of {', '.join(FORMATS)}")
    check_output(output, overwrite=overwrite, inputs=(map_file, scan))
    dataset = load(map_file)
    figure = draw(dataset, name, scan_for(dataset, scan))
    try:
        figure.savefig(output, dpi=150)
    except OSError as error:
        output.unlink(missing_ok=True)
        raise BraggscopeError(f"{output} cannot be written ({error.strerror}); nothing was written") from None
    typer.echo(f"written to {output}")


def _page(map_file: Path, scan: Path | None, host: str, port: int, token: str | None, browser: bool) -> None:
    """Serve the page of a map until Ctrl-C."""
    from ..dashboard.finished_map import FinishedMap
    from ..dashboard.running import serve
    from ..dashboard.security import settings

    where = settings(host, port, token)
    provider = FinishedMap(map_file, scan)

    def told(address: str) -> None:
        typer.echo(f"the page is at {address} (Ctrl-C ends)")
        sys.stdout.flush()
        if browser:
            import webbrowser

            webbrowser.open(address)

    serve(provider, host, port, where.get("BRAGGSCOPE_TOKEN"), told)

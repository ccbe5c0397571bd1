"""The program `braggscope`: its commands, and how it ends.

Exit codes: 0 done, 1 the work failed, 2 the input or the usage was wrong. An error is one sentence on standard error.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
import warnings
from importlib.metadata import requires

import typer

from braggscope.core.errors import BraggscopeError, InputError

from . import analysis, calibrate, convert_model, export, info, map, play, report, simulate, train, view, watch
from .shared import Numbers

app = typer.Typer(
    name="braggscope",
    help="Diffraction frames in, physical maps with honest error bars out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command("info", short_help="Say what a scan, a map, a model, a method or a modality is.")(info.info)
app.command("simulate", cls=Numbers, short_help=analysis.SIMULATES)(simulate.simulate)
app.command("map", short_help="Map a scan, with standard deviations, flags and provenance.")(map.map_scan)
app.command("train", short_help="Train a method on scans, or on frames that it simulates; write a model.")(train.train)
app.command("convert-model", short_help="Make a model of published weights.")(convert_model.convert_model)
app.command("export", short_help="Write a model as an ONNX graph.")(export.export)
app.command("calibrate", short_help="Find the instrument's parameters from a scan's own frames.")(calibrate.calibrate)
app.command("watch", short_help="Map a scan while it runs, with a ledger of every frame, and a page to look at.")(watch.watch)
app.command("play", short_help="Send a scan as a detector would, to try out what watches.")(play.play)
app.command("view", short_help="Look at a map, on a page or as a picture file.")(view.view)
app.command("report", short_help="Write one self-contained HTML page about maps.")(report.report)
analysis.add_groups(app)


@app.callback(invoke_without_command=True)
def common(
    version: bool = typer.Option(False, "--version", help="Print the version and end."),
    debug: bool = typer.Option(False, "--debug", help="Show where an error arose (also with BRAGGSCOPE_DEBUG=1)."),
) -> None:
    """Diffraction frames in, physical maps with honest error bars out."""
    if version:
        from braggscope import __version__

        typer.echo(f"braggscope {__version__}")
        raise typer.Exit
    if debug:
        os.environ["BRAGGSCOPE_DEBUG"] = "1"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit code."""
    try:
        if not os.environ.get("BRAGGSCOPE_DEBUG"):
            warnings.simplefilter("ignore")
            logging.basicConfig(handlers=[logging.NullHandler()])  # readers log what the one sentence says too
        code = app(arguments, prog_name="braggscope", standalone_mode=False)
        return _told("interrupted", 1) if code == 130 else int(code or 0)
    except typer.TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return _told("interrupted", 1)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - nobody reads any more; Python flushes it at its end
        return 1
    except BraggscopeError as error:
        return _told(str(error), 2 if isinstance(error, InputError) else 1)
    except ModuleNotFoundError as error:
        return _told(_missing(error), 1)
    except Exception as error:
        reason = " ".join(str(error).split()) or "no message"
        return _told(f"{type(error).__name__}: {reason} (this is a defect; --debug before the command shows where)", 1)


def run() -> None:
    """The entry point of the program."""
    # OpenMP's threads spin while they wait; on a machine with other work that makes torch up to a hundred times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())


def _usage(error: typer.TyperException) -> int:
    """What was wrong with the command line, in one sentence; the help text where no command was given."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message())
        return 2
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    message = " ".join(error.format_message().rstrip(".").split())
    return _told(message[:1].lower() + message[1:] + hint, 2)


def _missing(error: ModuleNotFoundError) -> str:
    """What to do about a package that is not there: it belongs to an extra of this one, or there is a defect."""
    name = (error.name or "").partition(".")[0]
    called = {"skimage": "scikit-image", "sklearn": "scikit-learn", "pywt": "pywavelets"}.get(name, name)
    for line in requires("braggscope") or []:
        found = re.match(r"([\w.-]+).*extra == ['\"](\w+)", line)
        if found and found[1].lower() == called.lower():
            return f"this needs the package {called}, which is not installed: pip install 'braggscope[{found[2]}]'"
    return f"{error} (this is a defect; --debug before the command shows where)"


def _told(message: str, code: int) -> int:
    if os.environ.get("BRAGGSCOPE_DEBUG") and sys.exc_info()[0] is not None:
        traceback.print_exc()
    typer.echo(f"error: {' '.join(message.split())}", err=True)  # what HDF5 says may have several lines
    return code

"""The report: one HTML page, complete in itself, about one or several maps.

Pictures are inside the page, nothing is loaded from elsewhere, and it prints as it looks.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from braggscope.core import maps
from braggscope.core.errors import BraggscopeError, InputError

from ..output import check_output
from ..provenance import file_hash
from ..summary import remarks, summarise
from ..viewing import draw_all, modality_of, scan_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110  # sharp on a screen; a page of four maps stays under 5 MB
HEADLINES = (
    "title",
    "modality",
    "method",
    "reduced_deviance",
    "reduced_deviance_std",
)  # attributes shown elsewhere than under provenance

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def write_report(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    scan: str | Path | Sequence[str | Path] | None = None,
    title: str = "Braggscope report",
    overwrite: bool = False,
) -> Path:
    """Write the page (see `braggscope.report`).

    scan: Scan files; each is used for the maps that were made from it.
    Raises InputError where a file is no map, a scan belongs to none of them, or the output exists.
    """
    scans = [scan] if isinstance(scan, str | Path) else list(scan or [])
    path = check_output(output, overwrite=overwrite, inputs=(*paths, *scans))
    datasets = {Path(one): maps.load(one) for one in paths}
    found = _matched(datasets, [Path(one) for one in scans])
    page = render([_section(f"map{i}", one, data, found.get(one)) for i, (one, data) in enumerate(datasets.items(), 1)], title)
    part = path.with_name(f".{path.name}.writing")
    try:
        part.write_text(page, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BraggscopeError(f"{path} cannot be written ({error.strerror}); nothing was written") from None
    return path


def render(sections: list[dict[str, Any]], title: str) -> str:
    """The page with these sections."""
    import jinja2

    from braggscope import __version__

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = _number
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("template.html").render(maps=sections, title=title, version=__version__, written=written)


def _matched(datasets: dict[Path, xr.Dataset], scans: list[Path]) -> dict[Path, Path]:
    """The scan of each map, by the hash in its provenance."""
    found: dict[Path, Path] = {}
    for scan in scans:
        if not scan.exists():
            raise InputError(f"{scan} does not exist")
        digest = file_hash(scan)["input_hash"]
        mine = [path for path, data in datasets.items() if data.attrs.get("input_hash") == digest]
        if not mine:
            made = ", ".join(sorted({str(data.attrs.get("input_file", "?")) for data in datasets.values()}))
            raise InputError(f"{scan} is not the scan that any of these maps was made from: {made} (as they were then)")
        found |= dict.fromkeys(mine, scan)
    return found


def _section(anchor: str, path: Path, dataset: xr.Dataset, scan: Path | None) -> dict[str, Any]:
    """What the page says about one map."""
    numbers = summarise(dataset)
    views = draw_all(dataset, scan_for(dataset, scan))
    attrs = {name: value for name, value in dataset.attrs.items() if name not in HEADLINES}
    tables = {name: _pairs(attrs.pop(name, "{}")) for name in ("geometry", "options")}
    heading = f"{dataset.attrs.get('input_file', path.name)}: {numbers['method']}"
    return {
        "anchor": anchor,
        "file": path.name,
        "heading": heading,
        "summary": modality_of(dataset).summary,
        "numbers": numbers,
        "shape": " × ".join(str(size) for size in numbers["shape"].values()),
        "axes": ", ".join(numbers["shape"]),
        "share": numbers["good"] / max(1, numbers["points"]),
        "flags": [{"word": w, "count": c, "share": c / numbers["points"]} for w, c in numbers["flags"].items()],
        "remarks": remarks(numbers),
        "geometry": tables["geometry"],
        "options": tables["options"],
        "provenance": {name.replace("_", " "): _text(value) for name, value in attrs.items()},
        "pictures": [
            {"name": name, "caption": caption, "data": _inline(figure), "alt": _alternative(name, caption, heading, numbers)}
            for name, (figure, caption) in views.items()
        ],
    }


def _inline(figure: Figure) -> str:
    """A figure as a data address."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _alternative(name: str, caption: str, heading: str, numbers: dict[str, Any]) -> str:
    """What a picture shows, for those who cannot see it: its caption and the medians that its colours stand for."""
    medians = "; ".join(
        f"{q} median {_number(v['median'])} {v['unit'] if v['unit'] != '1' else ''}".rstrip()
        for q, v in numbers["quantities"].items()
    )
    return f"{name} of {heading}. {caption} {medians}."


def _pairs(text: Any) -> dict[str, str]:
    """A JSON table of an attribute, ready to print."""
    return {name: _text(value) for name, value in json.loads(str(text)).items()}


def _text(value: Any) -> str:
    return f"{float(value):.8g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    """Four digits, with a real minus sign and exponent; a dash where there is no number.

    >>> _number(-1.5e-07)
    '−1.5 × 10⁻⁷'
    """
    if value is None:
        return "–"
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    power = " × 10" + str(int(exponent)).translate(RAISED) if exponent else ""
    return mantissa.replace("-", "−") + power

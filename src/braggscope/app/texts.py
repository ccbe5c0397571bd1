"""Descriptions (see describing.py) as text for a terminal."""

from __future__ import annotations

import textwrap
from typing import Any

WIDTH = 120
LONG = 12  # values of a list that are still shown


def text_of(description: dict[str, Any]) -> str:
    """A description of any kind as text."""
    writers = {
        "scans": _scans, "map": _map, "table": _table, "model": _model, "method": _method, "modality": _modality,
        "program": _program,
    }  # fmt: skip
    return "\n".join(writers[description["kind"]](description))


def shape_text(shape: dict[str, int]) -> str:
    """Lengths and names of dimensions.

    >>> shape_text({"y": 6, "x": 7})
    '6 x 7 points (y, x)'
    """
    return f"{' x '.join(str(n) for n in shape.values())} points ({', '.join(shape)})"


def _scans(found: dict[str, Any]) -> list[str]:
    scans = found["scans"]
    lines = [f"{found['file']}: {len(scans)} scan{'s' if len(scans) != 1 else ''}"]
    for scan in scans:
        lines += ["", f"{scan['name']}  {scan['title']}".rstrip()]
        lines += [row("motor", _axis(axis)) for axis in scan["axes"]]
        lines.append(row("frames", _frames(scan)))
        lines.append(row("detector", scan["detector"] or "not named"))
        if scan["saturation"] is not None:
            lines.append(row("saturation", f"{scan['saturation']:g} counts"))
        lines.append(row("modality", scan["modality"] or "not stated; give --modality to map it"))
        lines.append(row("geometry", _pairs(scan["geometry"]) or "not stated; give --geometry where the modality needs one"))
        lines += _metadata(scan["metadata"])
        lines.append(row("missing", "; ".join(scan["missing"]) or "nothing"))
    return lines


def _metadata(values: dict[str, Any]) -> list[str]:
    """Single values together, then each table in it (motors at rest, for example) by its name."""
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    single = {name: value for name, value in values.items() if name not in tables}
    lines = [row("also", _pairs(single))] if single else []
    return lines + [row(name, _pairs(table)) for name, table in tables.items()]


def _axis(axis: dict[str, Any]) -> str:
    if axis["first"] is None:
        return f"{axis['motor']}: no points"
    unit = f" {axis['unit']}" if axis["unit"] else ""
    step = f", step {axis['step']:.6g}{unit}" if axis["step"] is not None else ""
    return f"{axis['motor']}: {axis['first']:.6g} to {axis['last']:.6g}{unit}, {axis['points']} points{step}"


def _frames(scan: dict[str, Any]) -> str:
    if scan["frames"] is None:
        return "none"
    rows, columns = scan["frame_shape"]
    planned = f" of {scan['planned']} planned" if scan["planned"] not in (None, scan["frames"]) else ""
    return f"{scan['frames']}{planned}, {rows} x {columns} pixels (rows x columns), {scan['dtype']}"


def _map(found: dict[str, Any]) -> list[str]:
    attrs = found["provenance"]
    shape = shape_text(found["shape"])
    finished = "" if found["complete"] else " (NOT FINISHED: repeat its command with --resume)"
    flagged = ", ".join(f"{word} {count}" for word, count in found["flags"].items()) or "none"
    lines = [
        f"{found['file']}: {attrs.get('modality', '?')} map by {attrs.get('method', '?')}, {shape}{finished}",
        row("points", f"{found['points']}, good {found['good']}; flags: {flagged}"),
        "",
    ]
    for name, q in found["quantities"].items():
        std = " +- std" if q["has_std"] else ""
        lines.append(row(name, f"{q['long_name']}, {q['unit'] or '1'}{std}", 24))
    lines += ["", "provenance"]
    lines += [row(name, _pairs(value) if isinstance(value, dict) else str(value), 24) for name, value in attrs.items()]
    return lines


def _table(found: dict[str, Any]) -> list[str]:
    count = ", ".join(f"{size} {name}{'s' if size != 1 else ''}" for name, size in found["shape"].items())
    lines = [f"{found['file']}: a table of {found['modality']}, {count}", ""]
    for name, q in found["quantities"].items():
        ends = f", {q['range'][0]:.6g} to {q['range'][1]:.6g}" if q["range"] else ""
        lines.append(row(name, f"{q['long_name']}{ends}{' ' + q['unit'] if q['unit'] != '1' else ''}", 24))
    lines += ["", row("geometry", _pairs(found["geometry"] or {}) or "not stated; give --geometry", 24)]
    return lines + [row(name, _value(value), 24) for name, value in found["metadata"].items()]


def _method(found: dict[str, Any]) -> list[str]:
    lines = []
    for name, one in found["modalities"].items():
        lines += [f"{found['method']} ({name}): {one['summary']}"]
        why = f"no: {one['uncalibrated_because']}"
        lines.append(row("error bars", "calibrated standard deviations" if one["calibrated"] else why))
        lines.append(row("map point", "one frame" if one["per_frame"] else "all frames together"))
        lines.append(row("runs on", ", ".join(one["devices"])))
        if one["learns"]:
            lines.append(
                row("learns", f"`braggscope train --method {found['method']}` makes a model, `map --method MODEL` uses it")
            )
        lines += _options(one["options"], one["learns"])
        lines.append("")
    return lines[:-1]


def _options(options: list[dict[str, Any]], learns: bool) -> list[str]:
    """The options, those of training apart from those of mapping where a method learns."""
    lines = [] if options else ["  it has no options"]
    for stage in ("training", "mapping"):
        some = [option for option in options if option["stage"] == stage]
        if some:
            lines.append(f"  options of {stage} (--option NAME=VALUE)" if learns else "  options (--option NAME=VALUE)")
        for option in some:
            unit = f" {option['unit']}" if option["unit"] else ""
            choices = f"; one of {', '.join(option['choices'])}" if option["choices"] else ""
            lines.append(row(f"  {option['name']}={option['default']}{unit}", f"{option['doc']}{choices}", 30))
    return lines


def _model(found: dict[str, Any]) -> list[str]:
    rows, columns = found["frame_shape"]
    count = f", {found['parameters']} numbers" if found["parameters"] else ""
    unknown = "" if found["known"] else " (which this version of braggscope does not have)"
    lines = [
        f"{found['file'] or 'model'}: {found['modality']} model by {found['method']}{unknown}",
        row("format", f"{found['format']}, {found['size'] / 1e6:.3g} MB{count}"),
        row("frames", f"{rows} x {columns} pixels (rows x columns)"),
        row("geometry", _pairs(found["geometry"]) or "none"),
        row("options", _pairs(found["options"]) or "none"),
        row("hashes", f"{found['hash']} file"),
        row("", f"{found['weights_hash']} {'weights' if found['format'] == 'safetensors' else 'weights that it was made of'}"),
    ]
    for title in ("facts", "provenance"):
        if found[title]:
            lines += ["", title, *(row(name, _value(value), 24) for name, value in found[title].items())]
    return lines


def _value(value: Any) -> str:
    """A JSON value in a line or a few: a long list by its length, a table as pairs."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(_value(one) for one in value) if len(value) <= LONG else f"{len(value)} values"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _modality(found: dict[str, Any]) -> list[str]:
    lines = _summary(found)
    lines += ["", f"  keys of [{found['modality']}] in a geometry file"]
    for field in found["geometry"]:
        unit = f" ({field['unit']})" if field["unit"] not in ("", "1") else ""
        default = "required" if field["required"] else f"default {field['default']}"
        lines.append(row(f"  {field['field']}{unit}", f"{field['doc'] or 'a file name'}; {default}", 34))
    return lines


def _program(found: dict[str, Any]) -> list[str]:
    lines = ["modalities"]
    for one in found["modalities"].values():
        lines += _summary(one)
    lines += ["", row("formats", ", ".join(found["formats"]))]
    lines += ["", "braggscope info FILE, info --method NAME and info --modality NAME say more."]
    return lines


def _summary(one: dict[str, Any]) -> list[str]:
    methods = [f"{name} (default)" if name == one["default_method"] else name for name in one["methods"]]
    return [
        f"{one['modality']}: {one['summary']}",
        row("methods", ", ".join(methods)),
        row("phantoms", ", ".join(one["phantoms"]) or "none"),
        row("views", ", ".join(one["views"])),
    ]


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())


def row(label: str, content: str, width: int = 12) -> str:
    """A label and its content, wrapped under itself."""
    head = f"  {label:<{width}}" if len(label) < width else f"  {label}  "
    lines = textwrap.wrap(content, WIDTH - width - 2, break_long_words=False, break_on_hyphens=False) or [""]
    return head + f"\n{' ' * (width + 2)}".join(lines)

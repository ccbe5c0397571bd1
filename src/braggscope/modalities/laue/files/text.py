"""Text files: of what kind one is from its first lines, its text, its numbers, and how one is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from braggscope.core.beside import written_beside
from braggscope.core.errors import InputError

START = 4096
"""Bytes that are looked at; the header of every kind lies within."""


def kind_of(path: str | Path) -> str | None:
    """The kind of a peak list, pattern or map: cor, dat, fit, pixels, directions, index, str, ind, ang or ctf; else None."""
    path = Path(path)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            start = stream.read(START)
    except OSError:
        return None
    if b"\0" in start:
        return None
    return _kind(start.decode("utf-8", errors="replace"), path.suffix.lower())


def _kind(start: str, ending: str) -> str | None:
    lines = start.splitlines()
    first = lines[0].split() if lines else []
    if "$IndexFile" in first or ("$filetype" in first and "IndexFile" in first):
        return "index"
    if first[:1] == ["$filetype"]:
        return {"PixelPeakList": "pixels", "PeaksFile": "directions"}.get(first[-1])
    if any(line.lstrip("# ").startswith("Number of indexed spots") for line in lines) and "#" in start[:1]:
        return "fit"
    if [word.lower() for word in first[:2]] == ["2theta", "chi"]:
        return "cor"
    if first[:2] == ["peak_X", "peak_Y"]:
        return "dat"
    if ending == ".ctf" and start.startswith("Channel Text File"):
        return "ctf"
    if ending == ".ang" and start.startswith("#"):
        return "ang"
    listed = any(line.lstrip().startswith("x(exp)") for line in lines)
    if ending in (".str", ".ind") and (listed or any(line.startswith("Grain no") for line in lines)):
        return ending[1:]
    return None


def text_of(path: str | Path) -> str:
    """The text of a file. Raises InputError where there is none to be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None


def numbers(words: Sequence[str] | str, path: str | Path, what: str, count: int | None = None) -> list[float]:
    """Words as numbers; brackets, braces and commas around them do not matter. Raises InputError, naming what they should be."""
    text = words if isinstance(words, str) else " ".join(words)
    for sign in "[]{}(),":
        text = text.replace(sign, " ")
    try:
        found = [float(word) for word in text.split()]
    except ValueError:
        raise InputError(f"{path}: {what} must be numbers, got '{text.strip()[:60]}'") from None
    if count is not None and len(found) != count:
        raise InputError(f"{path}: {what} must be {count} numbers, got {len(found)}")
    return found


def write_lines(path: str | Path, lines: Sequence[str]) -> None:
    """Write a text file, whole or not at all."""
    with written_beside(Path(path)) as target:
        target.write(("\n".join(lines) + "\n").encode())
        target.check()

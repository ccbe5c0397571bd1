"""Sources by URL: `replay:FILE?rate=1000&lose=0.05`, `h5:FILE`, `dir:FOLDER`, `zmq+json://127.0.0.1:9999`, `pva://NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from braggscope.core.errors import InputError

TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no")


@dataclass(frozen=True)
class Url:
    """A source: its scheme, its place (path, address or name) and parameters as words."""

    scheme: str
    place: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        words = "&".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.scheme}:{self.place}" + (f"?{words}" if words else "")

    def check(self, known: Mapping[str, str]) -> None:
        """Raise InputError where a parameter is none of the known ones (name: what it means)."""
        for name in self.parameters:
            if name not in known:
                raise InputError(f"source {self.scheme}: has no parameter '{name}'; it has: {', '.join(known) or 'none'}")

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        """A parameter as a number. Raises InputError where it is none, or out of range."""
        word = self.parameters.get(name)
        try:
            value = default if word is None else float(word)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise InputError(f"parameter {name} of {self.scheme}: must be a number between {low:g} and {high:g}, got '{word}'")
        return value

    def yes(self, name: str) -> bool:
        """A parameter as yes or no; no where it is left out. Raises InputError for another word."""
        word = self.parameters.get(name, "0").lower()
        if word not in TRUE + FALSE:
            raise InputError(f"parameter {name} of {self.scheme}: must be 1 or 0, got '{word}'")
        return word in TRUE


def parse(text: str, schemes: Mapping[str, str]) -> Url:
    """The parts of a source's URL; a plain path is a file to follow ("h5") or a folder ("dir").

    schemes: Those there are, with what each is for.
    Raises InputError for an unknown scheme, a place that is missing, or parameters that are not NAME=VALUE.

    >>> parse("replay:scan.h5?rate=1000", {"replay": ""})
    Url(scheme='replay', place='scan.h5', parameters={'rate': '1000'})
    """
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in schemes:
        from pathlib import Path

        if Path(text).exists():
            return Url("dir" if Path(text).is_dir() else "h5", text)
        listed = "; ".join(f"{name}: {what}" for name, what in schemes.items())
        raise InputError(f"'{text}' must begin with one of these schemes, or be a file or folder there is: {listed}")
    if rest.startswith("//"):
        parts = urlsplit(f"x:{rest}")
        place, query = parts.netloc + parts.path, parts.query
    else:
        place, _, query = rest.partition("?")
        place = unquote(place)
    if not place:
        raise InputError(f"source '{text}' names no file, folder, address or channel after '{scheme}:'")
    pairs = parse_qsl(query, keep_blank_values=True)
    if len(pairs) != len([word for word in query.split("&") if word]) or any(
        "=" not in word for word in query.split("&") if word
    ):
        raise InputError(f"parameters of source '{text}' must be NAME=VALUE, joined by '&'")
    return Url(scheme, place, dict(pairs))

"""Transports: one module for each way in which frames come, found by looking here.

A module has

    SCHEMES: names of its URL schemes and what each is for;
    PARAMETERS: what may follow "?" in its URL, and what it means;
    PACKAGES: optional packages it needs;
    KNOWS_GRID: False where a scan comes without its grid;
    open(url) -> Receiver;
    simulate(url) -> Sender: the detector's side, for `braggscope play` and tests; not for `replay`, which needs none.

zmq, p4p and the like are imported when a transport is opened.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Protocol

from braggscope.core.errors import InputError

from ..messages import End, Frame, Message, Start
from ..urls import Url, parse


class Receiver(Protocol):
    """The receiving end. Never raises for what comes from outside: that is `Refused`.

    It may also have `policy` (of the buffer, where the user says none; else "block"), `announces` (True: every scan begins with
    a Start, a frame outside one is refused), `repeats` (False: a receiver that comes late is not told how the scan under way
    began), `skip(positions)` (these were recorded before a restart), and `state` with `restore(state)` (plain values that one
    which is started again in the middle of a scan must know).
    """

    def receive(self, timeout_s: float, most: int = 256) -> Sequence[Message]:
        """The messages that are there, at most `most`; waits for the first one up to the timeout; empty where none came."""

    def close(self) -> None:
        """Let go of sockets and files."""


class Sender(Protocol):
    """The detector's end: what a simulator sends. `frame` may block where the transport has back-pressure."""

    def start(self, start: Start) -> None: ...
    def frame(self, frame: Frame) -> None: ...
    def end(self, end: End) -> None: ...
    def close(self) -> None: ...


@cache
def transports() -> dict[str, ModuleType]:
    """Each URL scheme and its module."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {scheme: module for module in modules for scheme in module.SCHEMES}


def source_url(text: str) -> Url:
    """The URL of a source, checked against what its transport knows. Raises InputError."""
    found = transports()
    url = parse(text, {scheme: module.SCHEMES[scheme] for scheme, module in found.items()})
    url.check(found[url.scheme].PARAMETERS)
    return url


def receiver(url: Url) -> Receiver:
    """The receiving end of a source. Raises InputError where it cannot be opened, or a package is missing."""
    opened: Receiver = _usable(url).open(url)
    return opened


def sender(url: Url) -> Sender:
    """The detector's end of a source. Raises InputError where there is none, it cannot be opened, or a package is missing."""
    module = _usable(url)
    if not hasattr(module, "simulate"):
        there = ", ".join(f"{scheme}:" for scheme, one in transports().items() if hasattr(one, "simulate"))
        raise InputError(f"nothing can be sent to {url.scheme}:, a scan is played to one of {there}")
    opened: Sender = module.simulate(url)
    return opened


def _usable(url: Url) -> ModuleType:
    """The transport of a URL. Raises InputError where a package that it needs is missing."""
    module = transports()[url.scheme]
    for package in module.PACKAGES:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            raise InputError(f"source {url.scheme}: needs the package {package}: pip install 'braggscope[live]'") from None
    return module

"""The views of a modality as pictures for the page: tracks, grain maps with their key, size distributions and the like."""

from __future__ import annotations

import io
import threading

from braggscope.core.errors import BraggscopeError

from ..viewing import first_sentence, modality_of
from .provider import Missing, Provider

DPI = 110
_lock = threading.Lock()  # one picture at a time: a view is drawn in memory and takes a core


def captions(provider: Provider, scan: int | None = None) -> list[dict[str, str]]:
    """Name and caption of each view of the map's modality. Raises Missing where there is no map file yet."""
    dataset, _ = provider.drawn(scan)
    kind = modality_of(dataset)
    return [{"name": name, "caption": first_sentence(kind.load(dotted))} for name, dotted in kind.views.items()]


def picture(provider: Provider, name: str, scan: int | None = None) -> bytes:
    """A view as PNG. Raises Missing where there is no map file yet, or the view cannot be drawn of it."""
    from ..viewing import draw

    dataset, frames = provider.drawn(scan)
    out = io.BytesIO()
    try:
        with _lock:
            draw(dataset, name, frames).savefig(out, dpi=DPI)
    except BraggscopeError as error:
        raise Missing(str(error)) from None
    return out.getvalue()

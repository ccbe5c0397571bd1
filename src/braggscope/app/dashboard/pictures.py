"""The views of a modality as pictures for the page: tracks, grain maps with their key, size distributions and the like."""

from __future__ import annotations

import io
import threading
from typing import Any

from ..viewing import draw_all
from .provider import Missing, Provider

DPI = 110


class Pictures:
    """The pictures of the map that was asked for last: drawn once, all together, as what can be drawn is known only then."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._lock = threading.Lock()
        self._of: Any = None
        self._drawn: dict[str, tuple[bytes, str]] = {}

    def captions(self, scan: int | None = None) -> list[dict[str, str]]:
        """Name and caption of each view that can be drawn. Raises Missing where there is no map file yet."""
        return [{"name": name, "caption": caption} for name, (_, caption) in self._all(scan).items()]

    def picture(self, name: str, scan: int | None = None) -> bytes:
        """A view as PNG. Raises Missing where there is no map file yet, or no such picture of it."""
        found = self._all(scan)
        if name not in found:
            raise Missing(f"the map has no picture '{name[:60]}'; it has: {', '.join(found) or 'none'}")
        return found[name][0]

    def _all(self, scan: int | None) -> dict[str, tuple[bytes, str]]:
        dataset, frames = self.provider.drawn(scan)
        with self._lock:
            if dataset is not self._of:
                self._drawn = {name: (_png(figure), caption) for name, (figure, caption) in draw_all(dataset, frames).items()}
                self._of = dataset
            return self._drawn


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, dpi=DPI)
    return out.getvalue()

"""What the pages use to show pictures; the pages import it without showing that they do."""

from __future__ import annotations

import base64
import io
from typing import Any

from braggscope.core.modality import modality as named


def draw(modality: str, view: str, dataset: Any, scan: Any = None) -> Any:
    """A view of a map as a figure."""
    one = named(modality)
    return one.load(one.views[view])(dataset, scan)


def html(figure: Any) -> str:
    """A figure as an element of the page."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=80)
    return f'<img alt="what the lines above draw" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'

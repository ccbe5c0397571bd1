"""What the pages use to show the pictures that their commands drew."""

from __future__ import annotations

import base64
from pathlib import Path


def picture(path: str) -> str:
    """A PNG file as an element of the page."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return f'<img alt="what the command above drew" src="data:image/png;base64,{data}">'

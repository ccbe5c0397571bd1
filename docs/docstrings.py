"""Show our docstrings as they read: a line `name: meaning` becomes an item of a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

ITEM = re.compile(r"^([a-z_][\w, ]{0,60}): (?=\S)")


class Items(griffe.Extension):
    """Turns the argument lines of every docstring into a Markdown list."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object that has one."""
        if obj.docstring is None:
            return
        lines, before = [], ""
        for line in obj.docstring.value.splitlines():
            item = ITEM.match(line)
            if item and before and not before.startswith(("- ", " ")):
                lines.append("")
            if before.startswith(("- ", "    ")) and line and not item and not line.startswith(" "):
                lines.append("")
            before = ITEM.sub(lambda found: f"- `{found[1]}`: ", line)
            lines.append(before)
        obj.docstring.value = "\n".join(lines)

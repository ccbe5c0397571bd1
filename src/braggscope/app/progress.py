"""Progress bars with rate and time left."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Self


class Show(contextlib.AbstractContextManager["Show"]):
    """A progress bar on standard error, called as show(done, total); silent where `visible` is False.

    label: What is being done.
    unit: What is counted.
    """

    def __init__(self, label: str, unit: str, visible: bool = True) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(
            total=0, desc=label, unit=unit, unit_scale=True, disable=not visible, dynamic_ncols=True, mininterval=0.2
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Move the bar; a rate counts from the first call, so that resumed work does not look faster than it is.

        note: What to say at its end.
        """
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        if self._bar.total != total:
            self._bar.reset(total)
            self._bar.initial = self._bar.n = done
        self._bar.update(done - self._bar.n)

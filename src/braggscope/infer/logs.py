"""Logs of a training: one row per epoch as CSV, or curves for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from braggscope.core.beside import written_beside
from braggscope.core.errors import InputError

NAME = "log.csv"
CURVES = "tensorboard"  # folder of TensorBoard's event files


class Log(Protocol):
    """Where the rows of a training go."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Take the row of an epoch: `epoch`, losses by name in `train` and `validation`, and further figures."""

    def close(self) -> None:
        """No row follows."""


def open_log(kind: str, folder: Path | None, history: list[dict[str, Any]]) -> Log:
    """The log of a training in its folder; without a folder, one that keeps nothing.

    history: Rows of the epochs before.

    Raises InputError for an unknown kind or where TensorBoard is missing, OSError where the folder cannot be made.
    """
    if kind not in ("csv", "tensorboard"):
        raise InputError(f"log must be csv or tensorboard, got '{kind}'")
    if folder is None:
        return _Nowhere()
    folder.mkdir(parents=True, exist_ok=True)
    return _Table(folder / NAME, history) if kind == "csv" else _Curves(folder / CURVES, len(history))


class _Nowhere:
    def write(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class _Table:
    """A CSV file, written anew with every row (there are few), so that it is whole whenever it is read."""

    def __init__(self, path: Path, history: list[dict[str, Any]]) -> None:
        self._path = path
        self._rows = [_flat(row, "_") for row in history]

    def write(self, row: Mapping[str, Any]) -> None:
        self._rows.append(_flat(row, "_"))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in self._rows for name in row)))
        writer.writeheader()
        writer.writerows(self._rows)
        with written_beside(self._path) as file:
            file.write(text.getvalue().encode())
            file.check()

    def close(self) -> None: ...


class _Curves:
    """Event files of TensorBoard; what an interrupted run wrote after its last checkpoint is taken back."""

    def __init__(self, folder: Path, epochs: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("log tensorboard needs TensorBoard: pip install 'braggscope[train]'; csv would do") from None
        self._writer = SummaryWriter(str(folder), purge_step=epochs + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        for name, value in _flat(row, "/").items():
            if name != "epoch":
                self._writer.add_scalar(name, float(value), row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _flat(row: Mapping[str, Any], joint: str) -> dict[str, Any]:
    """The row with its losses as entries of their own, "train_loss"."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= {f"{name}{joint}{inner}": one for inner, one in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat

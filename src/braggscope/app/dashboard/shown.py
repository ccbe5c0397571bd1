"""A map as the page shows it: variables over a grid, values at a point, changes since a moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

STD = "_std"


@dataclass(frozen=True)
class Variable:
    """One variable of a map. kind: quantity, std, flag or other."""

    name: str
    units: str
    long_name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    kind: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "units": self.units,
            "long_name": self.long_name,
            "dims": list(self.dims),
            "shape": list(self.shape),
            "kind": self.kind,
        }


def kind_of(name: str, all_names: Sequence[str]) -> str:
    """What a variable is, by its name."""
    if name == "flag":
        return "flag"
    if name.endswith(STD) and name.removesuffix(STD) in all_names:
        return "std"
    return "quantity" if f"{name}{STD}" in all_names else "other"


@dataclass
class Shown:
    """Values so far.

    dims, shape: Of the map: scan axes, or rows and columns of the detector.
    axes: Name, values and unit of each dimension.
    values: Flat arrays by name, float64 (flag: int).
    count: Grows with every change.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    axes: list[dict[str, Any]]
    variables: dict[str, Variable]
    flag_meanings: dict[int, str]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    @classmethod
    def of(cls, dataset: xr.Dataset, count: int = 0) -> Shown:
        """Everything of a map over the dimensions of its flag; what has others is left out."""
        dims, shape = tuple(str(d) for d in dataset["flag"].dims), dataset["flag"].shape
        names = [str(n) for n, v in dataset.data_vars.items() if v.dims == dataset["flag"].dims and v.dtype.kind in "iufb"]
        variables = {
            n: Variable(
                n,
                str(dataset[n].attrs.get("units", "")),
                str(dataset[n].attrs.get("long_name", n)),
                dims,
                shape,
                kind_of(n, names),
            )
            for n in names
        }
        meanings = dataset["flag"].attrs
        words = dict(zip(np.atleast_1d(meanings["flag_masks"]).tolist(), str(meanings["flag_meanings"]).split(), strict=True))
        values = {n: np.asarray(dataset[n].values).ravel() for n in names}
        attributes = {str(k): _plain(v) for k, v in dataset.attrs.items()}
        return cls(dims, shape, axes_of(dataset, dims, shape), variables, words, values, attributes, count)

    @property
    def main(self) -> list[str]:
        """The quantities, in the order of the map."""
        return [n for n, v in self.variables.items() if v.kind == "quantity"]

    def array(self, name: str) -> np.ndarray:
        """A variable as little-endian float32, flat."""
        return np.ascontiguousarray(self.values[name], "<f4")

    def at(self, position: int) -> dict[str, float]:
        """Value of each variable at a flat position."""
        return {name: float(values[position]) for name, values in self.values.items()}

    def point(self, position: int) -> dict[str, Any]:
        """All values at a flat position, with axes and what its flag means."""
        index = np.unravel_index(position, self.shape)
        flag = int(self.values["flag"][position]) if "flag" in self.values else 0
        values = {
            n: {"value": number(self.values[n][position]), "units": v.units, "long_name": v.long_name, "kind": v.kind}
            for n, v in self.variables.items()
            if n in self.values and v.kind not in ("flag", "std")
        }
        for name, one in values.items():
            if f"{name}{STD}" in self.values:
                one["std"] = number(self.values[f"{name}{STD}"][position])
        where = [
            {**axis, "values": None, "value": _at(axis, int(i)), "index": int(i)}
            for axis, i in zip(self.axes, index, strict=True)
        ]
        return {"position": position, "axes": where, "values": values, "flag": flag, "flag_words": self.words(flag)}

    def words(self, flag: int) -> list[str]:
        """What a flag means."""
        return [word for bit, word in self.flag_meanings.items() if flag & bit]

    def suggest(self, count: int, missing: Mapping[int, str]) -> list[dict[str, Any]]:
        """Where to measure next: lost positions, then those whose standard deviation is largest in parts of its median."""
        found = [self._suggestion(p, why) for p, why in list(missing.items())[:count]]
        names = [n for n in self.main if f"{n}{STD}" in self.values]
        if len(found) < count and names:
            stds = np.stack([self.values[f"{n}{STD}"] for n in names])
            with np.errstate(all="ignore"):
                medians = np.array([np.median(s[np.isfinite(s)]) if np.isfinite(s).any() else math.nan for s in stds])
                worst = np.nan_to_num(stds / medians[:, None], nan=-1.0, posinf=-1.0)
            score, which = worst.max(0), worst.argmax(0)
            for p in np.argsort(-score, kind="stable")[: count - len(found)]:
                if score[p] > 0:
                    found.append(
                        self._suggestion(int(p), f"standard deviation of {names[which[p]]} is {score[p]:.3g} times its median")
                    )
        return found

    def _suggestion(self, position: int, reason: str) -> dict[str, Any]:
        index = np.unravel_index(position, self.shape)
        where = {axis["name"]: _at(axis, int(i)) for axis, i in zip(self.axes, index, strict=True)}
        return {"position": position, "coordinates": where, "reason": reason}


def axes_of(dataset: xr.Dataset, dims: Sequence[str], shape: Sequence[int]) -> list[dict[str, Any]]:
    """Name, values and unit of each dimension; places counted from 0 where it has no coordinate."""
    found = []
    for name, size in zip(dims, shape, strict=True):
        known = name in dataset.coords and dataset[name].dtype.kind in "iuf"
        values = np.asarray(dataset[name].values, float) if known else np.arange(size, dtype=float)
        found.append(
            {"name": name, "values": values.tolist(), "unit": str(dataset[name].attrs.get("units", "")) if known else ""}
        )
    return found


def number(value: Any) -> float | int | None:
    """A value as JSON has it: None where it is no finite number."""
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else None


def listed(values: np.ndarray) -> list[float | int | None]:
    """Values as JSON has them."""
    return [number(v) for v in values.tolist()]


def _at(axis: Mapping[str, Any], index: int) -> float:
    return float(axis["values"][index])


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | list) else str(value)

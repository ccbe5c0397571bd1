"""Estimators: frames in, map out, in steps that run unchanged offline, live and on a cluster.

    estimator = Likelihood(geometry).prepare(source)
    state = estimator.init(source)
    for batch in source.batches():
        state = estimator.update(state, batch)
    map = estimator.result(state)

A state is a dict of numpy arrays, so that it can be stored, sent and merged. It always holds `seen`: True for each flat grid
position whose frame has been used. A frame that comes twice is used once.

`PerFrame` makes a method of one function frames -> quantities, `PerPixel` of one function curves -> quantities.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import xarray as xr

from .batch import Batch, PixelBlock
from .errors import InputError
from .geometry import Geometry
from .maps import Quantity, empty_map
from .source import Source

State = dict[str, np.ndarray]


def option(default: Any, doc: str, *, unit: str = "", choices: tuple[str, ...] = (), stage: str = "") -> Any:
    """Declare an option of an estimator: its default, what it means, its unit and, for words, the choices.

    stage: "training" for an option that belongs to a trained model (core.learned).
    """
    return dataclasses.field(default=default, metadata={"doc": doc, "unit": unit, "choices": choices, "stage": stage})


@dataclasses.dataclass(frozen=True)
class Estimator(abc.ABC):
    """The base of every method: a frozen dataclass whose fields after `geometry` are its options.

    name: The method's name, that of its file.
    reads: Whether `update` takes Batches of frames or PixelBlocks of curves.
    per_frame: Whether each map point comes from one frame, so that a lost frame is NaN and changes nothing else; otherwise
        the result with a lost frame equals that of the scan without it.
    calibrated: Whether every quantity has a standard deviation whose z-scores have mean 0 and spread 1.
    uncalibrated_because: Why not, for the provenance.
    devices: Where it can run.
    prepares_on_scan: Whether `prepare` reads the scan's frames: live, it waits for them.
    """

    geometry: Geometry | None

    name: ClassVar[str]
    summary: ClassVar[str]
    reads: ClassVar[Literal["frames", "pixels"]] = "frames"
    per_frame: ClassVar[bool]
    calibrated: ClassVar[bool]
    uncalibrated_because: ClassVar[str] = ""
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    prepares_on_scan: ClassVar[bool] = False

    def prepare(self, source: Source) -> Self:
        """What must see the scan before it can start (it may read the source many times); the identity by default."""
        return self

    @abc.abstractmethod
    def init(self, source: Source) -> State:
        """The state before any frame. Raises InputError where the source cannot be mapped with this method."""

    @abc.abstractmethod
    def update(self, state: State, batch: Any) -> State:
        """The state after a Batch (or PixelBlock). May change the given state in place and return it."""

    @abc.abstractmethod
    def merge(self, a: State, b: State) -> State:
        """The state after the frames of both, which share none. Raises ValueError where they do."""

    @abc.abstractmethod
    def result(self, state: State) -> xr.Dataset:
        """The map so far (core.maps); may be called at any time and leaves the state as it is."""

    def options(self) -> dict[str, Any]:
        """The options and their values, for the provenance."""
        return {f.name: getattr(self, f.name) for f in self.declared()}

    def facts(self) -> dict[str, Any]:
        """What else the provenance should say, such as the model in use."""
        return {}

    @classmethod
    def declared(cls) -> list[dataclasses.Field[Any]]:
        """The options, as the fields that declare them."""
        return [f for f in dataclasses.fields(cls) if "doc" in f.metadata]

    @classmethod
    def with_options(cls, geometry: Geometry | None, values: Mapping[str, Any]) -> Self:
        """The method with options given as words or values ("thickness=free"). Raises InputError, naming what is wrong."""
        known = {f.name: f for f in cls.declared()}
        for key in values:
            if key not in known:
                raise InputError(f"method '{cls.name}' has no option '{key}'; it has: {', '.join(known) or 'none'}")
        return cls(geometry, **{key: _option_value(known[key], value) for key, value in values.items()})


def _option_value(field: dataclasses.Field[Any], value: Any) -> Any:
    """A word from the command line as a value of the option's kind."""
    choices, default = field.metadata.get("choices", ()), field.default
    if isinstance(value, str) and choices and value in choices:
        return value
    try:
        if isinstance(default, bool):
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[str(value).lower()]
        number = float(value) if not isinstance(default, str) or choices else None
        if number is not None and not (choices and "VALUE" not in choices):
            if choices or not isinstance(default, int):
                return number
            if number.is_integer():
                return int(number)
    except (KeyError, ValueError):
        pass
    if choices:
        raise InputError(f"option {field.name} must be one of {', '.join(choices)}, got '{value}'")
    if isinstance(default, str):
        return str(value)
    kind = {bool: "true or false", int: "a whole number"}.get(type(default), "a number")
    raise InputError(f"option {field.name} must be {kind}, like {str(default).lower()}, got '{value}'")


def check_ranges(estimator: Estimator, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise InputError where an option of this name is below the lowest or above the highest value, or no number."""
    for name, (low, high) in ranges.items():
        value = getattr(estimator, name)
        if not low <= value <= high:
            raise InputError(f"option {name} must be between {low:g} and {high:g}, got {value:g}")


class PerFrame(Estimator):
    """A method that turns each frame into the quantities of one map point.

    A leaf gives `quantities` and `fit`. Flag 1 is "no frame"; a leaf's own flags are further powers of two.
    """

    per_frame: ClassVar[bool] = True
    flags: ClassVar[Mapping[int, str]] = {}

    @abc.abstractmethod
    def quantities(self) -> tuple[Quantity, ...]:
        """The quantities of the map, without their standard deviations."""

    @abc.abstractmethod
    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        """Each quantity `q`, its `q_std` where calibrated, `flag` (int) and whatever `extras` names; shape (frame,)."""

    def extras(self) -> tuple[Quantity, ...]:
        """Further variables without standard deviation, such as reduced_deviance."""
        return ()

    def check_source(self, source: Source) -> None:
        """Raise InputError where the frames do not suit the geometry."""

    def summarise(self, dataset: xr.Dataset) -> xr.Dataset:
        """Attributes of the whole scan, added to the finished map."""
        return dataset

    def init(self, source: Source) -> State:
        self.check_source(source)
        points = math.prod(source.shape)
        state = {q.name: np.full(points, np.nan) for q in self._all()}
        return {**state, "flag": np.ones(points, np.int32), "seen": np.zeros(points, bool), **grid_state(source)}

    def update(self, state: State, batch: Batch) -> State:
        batch = fresh(state, batch)
        if len(batch):
            values = self.fit(batch)
            for name, value in values.items():
                state[name][batch.index] = value
        return state

    def merge(self, a: State, b: State) -> State:
        check_disjoint(a, b)
        return {k: a[k] if k.startswith("grid_") else np.where(b["seen"], b[k], a[k]) for k in a}

    def result(self, state: State) -> xr.Dataset:
        dims, shape, coords = grid_of(state)
        meanings = {1: "no_frame", **self.flags}
        dataset = empty_map(self._all(), dims, shape, coords, meanings)
        for name in [q.name for q in self._all()] + ["flag"]:
            dataset[name].values[...] = state[name].reshape(shape)
        return self.summarise(dataset)

    def _all(self) -> tuple[Quantity, ...]:
        stds = tuple(q.std() for q in self.quantities()) if self.calibrated else ()
        return (*self.quantities(), *stds, *self.extras())


class PerPixel(Estimator):
    """A method that turns the curve of each detector pixel over the scan into the quantities of one map point.

    A leaf gives `quantities` and `fit`. `seen` counts pixels here, not frames.
    """

    reads: ClassVar[Literal["frames", "pixels"]] = "pixels"
    per_frame: ClassVar[bool] = False
    flags: ClassVar[Mapping[int, str]] = {}

    @abc.abstractmethod
    def quantities(self) -> tuple[Quantity, ...]:
        """The quantities of the map, without their standard deviations."""

    @abc.abstractmethod
    def fit(self, block: PixelBlock, motors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The value of each quantity `q`, of `q_std` where calibrated, `flag` and whatever `extras` names; shape (pixel,).

        motors: Position of each motor at each flat grid position, shape (point,).
        """

    def extras(self) -> tuple[Quantity, ...]:
        """Further variables without standard deviation, such as reduced_deviance."""
        return ()

    def summarise(self, dataset: xr.Dataset) -> xr.Dataset:
        """Attributes of the whole scan, added to the finished map."""
        return dataset

    def init(self, source: Source) -> State:
        rows, columns = source.frame_shape
        state = {q.name: np.full(rows * columns, np.nan) for q in self._all()}
        motors = {f"motor_{name}": value for name, value in motor_positions(source).items()}
        sizes = {"grid_shape": np.array([rows, columns])}
        return {**state, **motors, **sizes, "flag": np.ones(rows * columns, np.int32), "seen": np.zeros(rows * columns, bool)}

    def update(self, state: State, batch: PixelBlock) -> State:
        motors = {k.removeprefix("motor_"): v for k, v in state.items() if k.startswith("motor_")}
        for name, value in self.fit(batch, motors).items():
            state[name][batch.index] = value
        state["seen"][batch.index] = True
        return state

    def merge(self, a: State, b: State) -> State:
        check_disjoint(a, b)
        return {k: a[k] if k.startswith(("grid_", "motor_")) else np.where(b["seen"], b[k], a[k]) for k in a}

    def result(self, state: State) -> xr.Dataset:
        shape = tuple(int(n) for n in state["grid_shape"])
        dataset = empty_map(self._all(), ("row", "column"), shape, {}, {1: "not_yet_fitted", **self.flags})
        for name in [q.name for q in self._all()] + ["flag"]:
            dataset[name].values[...] = state[name].reshape(shape)
        return self.summarise(dataset)

    def _all(self) -> tuple[Quantity, ...]:
        stds = tuple(q.std() for q in self.quantities()) if self.calibrated else ()
        return (*self.quantities(), *stds, *self.extras())


def fresh(state: State, batch: Batch) -> Batch:
    """The frames of a batch that the state has not seen, marked as seen from now on."""
    new = ~state["seen"][batch.index]
    if len(np.unique(batch.index)) < len(batch):
        first = np.zeros(len(batch), bool)
        first[np.unique(batch.index, return_index=True)[1]] = True
        new &= first
    state["seen"][batch.index] = True
    return batch if new.all() else batch.take(new)


def check_disjoint(a: State, b: State) -> None:
    """Raise ValueError where two states to be merged have used the same frame."""
    both = int((a["seen"] & b["seen"]).sum())
    if both:
        raise ValueError(f"cannot merge: {both} frames or pixels were used by both states")


def motor_positions(source: Source) -> dict[str, np.ndarray]:
    """Position of each scan motor at each flat grid position, measured where it was recorded, else nominal; float64."""
    grid = source.grid
    mesh = np.meshgrid(*(grid[name].values for name in grid.dims), indexing="ij")
    positions = {}
    for name, nominal in zip(grid.dims, mesh, strict=True):
        measured = grid.get(f"measured_{name}")
        values = nominal if measured is None else np.where(np.isfinite(measured.values), measured.values, nominal)
        positions[str(name)] = np.asarray(values, np.float64).ravel()
    return positions


def grid_state(source: Source) -> State:
    """Scan axes as state entries, so that a state alone gives its map."""
    coords = {
        f"grid_axis{i}:{name}:{source.grid[name].attrs.get('units', '')}": np.asarray(source.grid[name].values)
        for i, name in enumerate(source.grid.dims)
    }
    return {"grid_shape": np.array(source.shape), **coords}


def grid_of(state: State) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
    """Dimension names, shape and coordinates that `PerFrame.init` put into a state."""
    axes = sorted(key for key in state if key.startswith("grid_axis"))
    names = tuple(key.split(":")[1] for key in axes)
    coords = {n: ((n,), state[k], {"units": k.split(":", 2)[2]}) for n, k in zip(names, axes, strict=True)}
    return names, tuple(int(n) for n in state["grid_shape"]), coords

"""What `watch` was asked for, as run.json holds it, and the parts it means: scan, modality, geometry, method."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from braggscope.core.errors import InputError
from braggscope.core.estimator import Estimator
from braggscope.core.geometry import Geometry
from braggscope.core.learned import Learned
from braggscope.core.modality import Modality
from braggscope.core.model import Model, load_model
from braggscope.core.scan import Scan
from braggscope.live.recorded import recorded_scan
from braggscope.live.run_folder import RunFolder, ScanFolder, read_json, write_json

from ..choosing import choose_estimator, choose_geometry, choose_modality, located
from ..correcting import correct
from ..reopening import cut_and_binned


@dataclass(frozen=True)
class Asked:
    """A run: every value is plain, so that each process can read it.

    source, plan, patience_s, buffer, scans, timeout_s: For the receiver (`live.receiving`).
    output: Map file of the first scan.
    method, model: Name of the method, or file of a model.
    geometry: Values, or None where the source says them.
    first: Frames on which a method that prepares itself on a scan does so; None: the whole scan, when it has ended.
    train: Whether models are trained while the scan goes on; train_options, rounds: How, and at most how often.
    remap: Whether points by earlier models are mapped again whenever there is time, and all of them when the scan is over.
    command: As it was typed.
    """

    source: str
    output: str
    plan: dict[str, Any] | None = None
    patience_s: float | None = None
    buffer: str | None = None
    scans: int | None = 1
    timeout_s: float | None = None
    modality: str | None = None
    method: str | None = None
    model: str | None = None
    geometry: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    roi: tuple[int, int, int, int] | None = None
    binning: int = 1
    saturation: float | None = None
    dark: str | None = None
    flat: str | None = None
    correct: tuple[str, ...] = ()
    first: int | None = None
    train: bool = False
    train_options: dict[str, Any] = field(default_factory=dict)
    rounds: int | None = None
    remap: bool = False
    device: str = "cpu"
    workers: int = 1
    command: str = ""

    def write(self, run: RunFolder) -> None:
        """Put it into the run folder."""
        write_json(run.path / "run.json", dataclasses.asdict(self))

    @classmethod
    def read(cls, run: RunFolder) -> Asked:
        """What a run folder holds. Raises InputError where it is none."""
        found = read_json(run.path / "run.json")
        if found is None:
            raise InputError(f"{run.path} is not the folder of a live run: it has no run.json")
        return cls(**{**found, "roi": None if found["roi"] is None else tuple(found["roi"]), "correct": tuple(found["correct"])})

    def output_of(self, scan: ScanFolder) -> Path:
        """The map file of a scan: MAP.h5, then MAP-2.h5, MAP-3.h5 ..."""
        first = Path(self.output)
        return first if scan.number <= 1 else first.with_name(f"{first.stem}-{scan.number}{first.suffix}")

    def scan(self, folder: ScanFolder) -> Scan:
        """The frames so far, cut, binned and corrected as asked."""
        scan = cut_and_binned(recorded_scan(folder), self.roi, self.binning)
        if self.saturation is not None:
            scan = dataclasses.replace(scan, saturation=self.saturation)
        return correct(scan, list(self.correct), dark=self.dark, flat=self.flat, kind=self.modality)

    def parts(self, scan: Scan, model: Model | None = None) -> tuple[Scan, Modality, Estimator]:
        """The scan with its geometry, the modality, and the method, not prepared yet.

        model: In place of the one that was asked for.
        Raises InputError as `map` does.
        """
        model = model or (None if self.model is None else load_model(self.model))
        kind = choose_modality(scan, self.modality, self.geometry if self.geometry is None else self._geometry(scan), model)
        chosen = choose_geometry(scan, kind, self.geometry, model)
        options = {**self.options, **(self.train_options if model is None else {})}
        cls = kind.estimator(self.method or kind.default_method) if model is None else None
        if cls is not None and not issubclass(cls, Learned):
            options = dict(self.options)
        return located(scan, chosen), kind, choose_estimator(kind, chosen, self.method, options, self.device, model)

    def _geometry(self, scan: Scan) -> Geometry | None:
        """The geometry that was given, as one of the modality that was named or that the scan says."""
        name = self.modality or scan.modality
        if name is None or self.geometry is None:
            return None
        from braggscope.core.modality import modality

        return modality(name).geometry_class().from_mapping(self.geometry)

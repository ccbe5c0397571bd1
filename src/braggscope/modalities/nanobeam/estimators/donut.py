"""DONUT: a network that learns without labels, through the physics (Luo et al., npj Comput. Mater. 11, 380 (2025)).

An encoder gives strain, omega, chi and, on request, thickness of a frame; the forward model turns them back into a frame, and so
does a decoder; both are compared with the frame. Trained on any frames, measured, simulated or both, 64 at least.

The recipe "published": counts enter as they are, the modelled frame has its own maximum scaled to the peak, mean absolute
difference, weight 1 for the decoder and 5 for the physics, AdamW with rates 1e-4 and 1e-5, batches of 64, 60 epochs. But
the physics is the closed form: the published sum is aliased and has no gradient to speak of (physics_branch.py). This recipe is
fragile: whether it leaves its first plateau depends on weights and seed.

The recipe "robust" is ours: the Poisson deviance with scale and background of each frame at their best, so that no dose has to be
known and none is lost; frames enter divided by their mean; the ring is blurred at first, which shows the way from far off; the
learning rate rises to 1e-3 and falls once; there is no decoder, which costs half the time and teaches the encoder
nothing that the physics does not.

With Monte Carlo dropout (`dropout` at training, `passes` at mapping; published: 0.1 and 30) the spread of the passes is
reported. It is no standard deviation: it says nothing of the noise of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.estimator import check_ranges, option
from braggscope.core.learned import Report, Training, ending
from braggscope.core.maps import Quantity
from braggscope.core.source import Source

from ..geometry import check_frame
from ..networked import JUDGED, Networked

if TYPE_CHECKING:
    from torch import nn

    from braggscope.infer.network import Runner

RANGE = {"strain": 1.7159e-2, "omega": 0.17159, "chi": 0.34318}  # that the bounded outputs can reach
THICKNESS = "thickness"
RECIPES: dict[str, dict[str, Any]] = {
    "published": {
        "loss": "mae", "normalise": "maximum", "decoder_weight": 1.0, "physics_weight": 5.0, "epochs": 60, "batch": 64,
        "rate": 1e-4, "decoder_rate": 1e-5,
    },
    "robust": {
        "loss": "poisson", "normalise": "dose", "decoder_weight": 0.0, "physics_weight": 1.0, "epochs": 4, "batch": 32,
        "rate": 1e-3, "decoder_rate": 1e-3,
    },
}  # fmt: skip


@dataclass(frozen=True)
class DonutMethod(Networked):
    """Strain, tilts and thickness by an encoder trained through the physics (see the module)."""

    name: ClassVar[str] = "donut"
    summary: ClassVar[str] = "an encoder trained without labels through the physics, on the frames themselves; no errors"
    uncalibrated_because: ClassVar[str] = "the encoder gives no error; the spread of dropout does not hold the noise of the frame"

    recipe: str = option("published", "how it is trained", choices=("published", "robust"), stage="training")
    size: str = option(
        "published", "encoder: the published one or a compact one", choices=("published", "compact"), stage="training"
    )
    parameters: int = option(3, "3, or 4 with the thickness of the film", stage="training")
    thickness_middle: float = option(117.0, "film thickness at an output of 0", unit="angstrom", stage="training")
    thickness_half: float = option(50.0, "change of the thickness by an output of 1", unit="angstrom", stage="training")
    decoder: str = option("bilinear", "upsampling of the decoder", choices=("bilinear", "dysample"), stage="training")
    loss: str = option("recipe", "comparison of frames", choices=("recipe", "mae", "smooth_l1", "poisson"), stage="training")
    normalise: str = option(
        "recipe",
        "modelled frames: own maximum scaled to the peak, or own dose",
        choices=("recipe", "maximum", "dose"),
        stage="training",
    )
    peak: float = option(
        0.0, "counts of the brightest pixel; published: 7; 0: found from the frames", unit="count", stage="training"
    )
    decoder_weight: float = option(
        -1.0, "weight of the decoder's loss; -1: as the recipe has it, 0: no decoder", stage="training"
    )
    physics_weight: float = option(-1.0, "weight of the physics' loss; -1: as the recipe has it", stage="training")
    dropout: float = option(
        0.0, "share of neurons left out in training; 0.1 as published for Monte Carlo dropout", stage="training"
    )
    warming: float = option(0.2, "share of a robust training in which the ring is blurred", stage="training")
    epochs: int = option(0, "epochs; 0: as the recipe has it", stage="training")
    batch: int = option(0, "frames of a step; 0: as the recipe has it", stage="training")
    rate: float = option(0.0, "learning rate, with recipe robust its largest; 0: as the recipe has it", stage="training")
    decoder_rate: float = option(0.0, "learning rate of the decoder; 0: as the recipe has it", stage="training")
    frames: int = option(0, "frames to learn from at most, spread evenly; 0: all", stage="training")
    passes: int = option(0, "passes of Monte Carlo dropout at mapping; 30 as published; 0: one without dropout")

    def __post_init__(self) -> None:
        if self.parameters not in (3, 4):
            raise InputError(f"option parameters must be 3 or 4, got {self.parameters}")
        ranges = {
            "dropout": (0, 0.99), "warming": (0, 1), "peak": (0, 1e6), "decoder_weight": (-1, 1e6), "physics_weight": (-1, 1e6),
            "epochs": (0, 100_000), "batch": (0, 65536), "rate": (0, 1), "decoder_rate": (0, 1), "frames": (0, 10**9),
            "thickness_half": (-5000, 5000), "thickness_middle": (10, 5000),
        }  # fmt: skip
        check_ranges(self, ranges)
        if self.batch == 1:
            raise InputError("option batch must be 0 or at least 2, got 1")
        if self.size == "compact" and self.dropout > 0:
            raise InputError(f"option dropout must be 0 with size=compact, which has no dropout, got {self.dropout:g}")
        if self.passes < 0 or self.passes == 1:
            raise InputError(f"option passes must be 0 or at least 2, got {self.passes}")
        if self.passes and not self.dropout:
            raise InputError("option passes needs a model that was trained with dropout, such as dropout=0.1")
        if self.thickness_middle - 1.7159 * abs(self.thickness_half) < 10:
            raise InputError(
                "option thickness_middle must exceed 1.72 x thickness_half by 10 angstrom, or films have no thickness"
            )

    def network(self, frame_shape: tuple[int, int]) -> nn.Module:
        """The encoder, which is all that maps."""
        from ..networks import donut

        if self.size == "compact":
            return donut.Mapper(donut.Compact(self.geometry, frame_shape, self.parameters))
        encoder = donut.Encoder(frame_shape, self.parameters, self.dropout, relative=self.recipe == "robust")
        return donut.Mapper(encoder)

    def estimated(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        from ..physics_branch import in_map_units

        outputs = [np.asarray(output, np.float64) for output in self.outputs(counts)]
        values = dict(in_map_units(outputs[0], self._thickness))
        if self.passes:
            units = in_map_units(np.ones((1, self.parameters)), (0.0, self.thickness_half))
            values |= {f"{name}_spread": outputs[1][:, i] * units[name][0] for i, name in enumerate(self.trained_range())}
        return values

    @cached_property
    def runner(self) -> Runner:
        """The encoder, with Monte Carlo dropout where it is asked for."""
        from braggscope.infer.network import torch_runner

        from ..networks.donut import Encoder, Passes

        if not self.passes:
            return super().runner
        encoder = self.trained_network().encoder
        assert isinstance(encoder, Encoder)
        return torch_runner(Passes(encoder, (self._model.frame_shape[0], self._model.frame_shape[1]), self.passes).eval())

    def trained_range(self) -> Mapping[str, tuple[float, float]]:
        ranges = {name: (-high, high) for name, high in RANGE.items()}
        if self.parameters == 4:
            half = 1.7159 * abs(self.thickness_half)
            ranges[THICKNESS] = (self.thickness_middle - half, self.thickness_middle + half)
        return ranges

    def extras(self) -> tuple[Quantity, ...]:
        if not self.passes:
            return super().extras()
        spread = (Quantity(f"{q.name}_spread", q.unit, f"spread of dropout in {q.long_name}") for q in self.quantities())
        return (*super().extras(), *spread)

    def train(self, sources: Sequence[Source], training: Training) -> Iterator[Report]:
        """Train on the frames of these sources; their truth, where they know it, is not used."""
        from braggscope.infer.train import train

        from ..donut_training import prepared

        if not sources:
            raise InputError("method donut learns from frames; give at least one scan or simulation")
        for source in sources:
            check_frame(self.geometry, source.frame_shape)
        made = prepared(self, sources, training)

        def finished(last: Report) -> DonutMethod:
            shape = (made.counts.shape[1], made.counts.shape[2])
            provenance = {"data_hash": made.task.data_hash, "recipe": self.recipe}
            apart = made.counts[made.validation[:JUDGED]]
            facts = {"peak": made.peak, "frames": len(made.counts)}
            return self.with_network(made.network.without_decoder(), shape, np.maximum(apart, 0), provenance, **facts)

        yield from ending(train(made.task, training), finished)

    def plan(self) -> dict[str, Any]:
        """The recipe, with what options say instead."""
        plan = dict(RECIPES[self.recipe])
        for name, value in plan.items():
            given = getattr(self, name)
            if isinstance(value, str):
                plan[name] = value if given == "recipe" else given
            elif name.endswith("_weight"):
                plan[name] = value if given < 0 else given
            else:
                plan[name] = given or value
        return plan

    @property
    def _thickness(self) -> tuple[float, float]:
        return self.thickness_middle, self.thickness_half

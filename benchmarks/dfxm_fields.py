"""Fields of dislocations against what every field obeys, against each other, and their cost.

    python benchmarks/dfxm_fields.py

Aluminium, copper, nickel and tungsten; b = a/2 [110] in (1-11), at 0, 30, 45, 60 and 90 degrees to the line. Relative
figures: the circuit's error to |b|, the residuals to the largest gradient (of the distortion, of the stress) at the same point.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from braggscope.physics import dislocation_checks as checks
from braggscope.physics.anisotropic_dislocations import anisotropic_dislocation
from braggscope.physics.dislocation_arrangements import superposed, tilt_wall_field, wall
from braggscope.physics.dislocation_segments import circular_loop, polygon, segment_distortion
from braggscope.physics.dislocations import dislocation_frame, mixed_dislocation, perpendicular, straight_dislocation
from braggscope.physics.elasticity import crystal_stiffness, cubic_stiffness, isotropic_stiffness, voigt_average
from braggscope.physics.slip_systems import line_direction, slip_system

SYSTEM = slip_system("[110](1-11)")
B = 0.4049 * torch.tensor(SYSTEM.burgers, dtype=torch.float64)
NORMAL = torch.tensor(SYSTEM.normal, dtype=torch.float64)
ANGLES = (0, 30, 45, 60, 90)
METALS = ("Al", "Cu", "Ni", "W")
NU, CORE = 0.334, 0.286
POINTS = 20 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ISOTROPIC = isotropic_stiffness(1.0, NU)


def row(what: str, target: str, measured: object) -> None:
    print(f"{what:84s}| {target:>8} | {measured}", flush=True)


def figure(values: list[float]) -> str:
    return f"{max(values):.1e}"


def line_at(degrees: float) -> Tensor:
    return torch.tensor(line_direction(SYSTEM, degrees), dtype=torch.float64)


def straight_fields() -> None:
    """Circuit, compatibility and equilibrium of all characters, isotropic and anisotropic."""
    climbing = B + 0.1 * NORMAL
    cases: dict[str, list[tuple[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor]]] = {"isotropic": [], "anisotropic": []}
    for degrees in ANGLES:
        t = line_at(degrees)
        for b in (B, climbing):
            cases["isotropic"].append((lambda p, b=b, t=t: mixed_dislocation(p, b, t, NU), b, t, ISOTROPIC))
        for metal in METALS:
            c = crystal_stiffness(metal)
            cases["anisotropic"].append((lambda p, t=t, c=c: anisotropic_dislocation(p, B, t, c), B, t, c))
    for kind, fields in cases.items():
        circuits, curls, forces = [], [], []
        for field, b, t, c in fields:
            found = checks.burgers_circuit(field, 0 * b, t, 50.0)
            circuits.append(float((found - b).norm() / b.norm()))
            gradient = checks.gradients(field, POINTS)
            curls.append(float(checks.incompatibility(gradient).max()))
            forces.append(float(checks.imbalance(gradient, c).max()))
        of = "0 to 90 deg, also with climb" if kind == "isotropic" else f"0 to 90 deg, {', '.join(METALS)}"
        row(f"{kind}: Burgers circuit, {of}", "1e-6", figure(circuits))
        row(f"{kind}: compatibility, curl H", "1e-6", figure(curls))
        row(f"{kind}: equilibrium, div C:H", "1e-6", figure(forces))


def isotropic_limit() -> None:
    for excess, target in ((0.0, "1e-6"), (1e-6, ""), (1e-3, "")):
        lame = 2 * NU / (1 - 2 * NU)
        c = cubic_stiffness(lame + 2, lame, 1.0 + excess)
        row(f"anisotropic against isotropic closed form, anisotropy 1 + {excess:g}", target, figure(_anisotropy(c, NU)))
    for metal in METALS:
        c = crystal_stiffness(metal)
        apart = _anisotropy(c, voigt_average(c)[1])
        row(
            f"{metal}: anisotropic against isotropic of its Voigt average, rms; 0 ... 90 deg",
            "",
            ", ".join(f"{v:.3f}" for v in apart),
        )


def _anisotropy(stiffness: Tensor, poisson: float) -> list[float]:
    """How far the anisotropic field is from the isotropic one, at each angle."""
    lines = [line_at(a) for a in ANGLES]
    return [_apart(anisotropic_dislocation(POINTS, B, t, stiffness), mixed_dislocation(POINTS, B, t, poisson)) for t in lines]


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def chains() -> None:
    """A straight chain of segments, and how its core is spread."""
    t = line_at(60)
    across = perpendicular(t)
    places = 10 * torch.stack([across, torch.linalg.cross(t, across)])
    exact = mixed_dislocation(places, B, t, NU)
    for length in (1e3, 1e4, 1e5, 1e6):
        field = _field(_chain(length, t, 20), 0.0)
        row(
            f"chain of 20 segments, half length {length:.0e} nm, a = 0, against straight, at 10 nm",
            "",
            f"{_apart(field(places), exact):.1e}",
        )
    for core in (0.286, 0.0286):
        field = _field(_chain(1e6, t, 20), core)
        row(f"the same, 1e6 nm, a = {core} nm: (a/r)^2 = {(core / 10) ** 2:.1e}", "", f"{_apart(field(places), exact):.1e}")
    w = torch.arange(512, dtype=torch.float64) * (2 * math.pi / 512)
    x, y, _ = dislocation_frame(across, t)
    errors = []
    for radius in (0.1, 0.286, 1.0, 10.0):
        place = radius * (w.cos()[:, None] * x + w.sin()[:, None] * y)
        step = radius * (w.cos()[:, None] * y - w.sin()[:, None] * x) * (2 * math.pi / 512)
        found = torch.einsum("pij,pj->i", _field(_chain(1e6, t, 20), CORE)(place), step)
        errors.append(float((found / B.norm() - (1 - (CORE**2 / (radius**2 + CORE**2)) ** 2) * B / B.norm()).norm()))
    row("Burgers vector within 0.1 to 10 nm of the line, against b [1 - a^4/(r^2 + a^2)^2]", "1e-6", figure(errors))


def loops() -> None:
    """Circuits, residuals and the far field of a loop."""
    loop = circular_loop(200.0, NORMAL, 48)
    found = [checks.burgers_circuit(_field(loop), s.mean(0), s[1] - s[0], 40.0, count=1024) for s in loop[::6]]
    row("circuit at 40 nm about the line of a loop of 200 nm", "1e-6", figure([float((f - B).norm() / B.norm()) for f in found]))
    points = torch.stack([loop[0, 0] + 0.02, loop[5].mean(0) + 0.1, loop[0, 0] * 0.3, loop[9].mean(0) * 0.8])
    gradient = checks.gradients(_field(loop), points)
    row(
        "equilibrium, at a node, in the core, at 140 nm, at 40 nm",
        "1e-6",
        figure(checks.imbalance(gradient, ISOTROPIC).tolist()),
    )
    curls = checks.incompatibility(gradient)[2:].tolist()
    row("compatibility, at 140 nm, at 40 nm: 4 (a/r)^4 = 7e-11, 1e-8", "1e-6", ", ".join(f"{v:.1e}" for v in curls))
    far = torch.tensor([[800.0, -300.0, 500.0]], dtype=torch.float64)
    for size in (20.0, 2.0):
        row(f"loop of {size:g} nm at 990 nm against a dipole of forces: (R/r)^2 = {(size / 990) ** 2:.0e}", "",
            f"{_apart(_field(circular_loop(size, NORMAL, 48))(far), _dipole_of_forces(far[0], size)):.1e}")  # fmt: skip


def _chain(length: float, t: Tensor, pieces: int) -> Tensor:
    ends = torch.linspace(-length, length, pieces + 1, dtype=torch.float64)[:, None] * t
    across = length * perpendicular(t)
    return polygon(torch.cat([ends, ends[-1:] + across, ends[:1] + across]))


def _field(network: Tensor, core: float = CORE) -> Callable[[Tensor], Tensor]:
    return lambda points: segment_distortion(points, network, B.expand(len(network), 3), NU, core)


def _dipole_of_forces(place: Tensor, radius: float) -> Tensor:
    """Gradient of u_i = C_jlmn b_m A_n dG_ij/dx_l with Kelvin's G."""

    def green(r: Tensor) -> Tensor:
        shape = (3 - 4 * NU) * torch.eye(3, dtype=r.dtype) + torch.outer(r, r) / (r @ r)
        return shape / (16 * math.pi * (1 - NU) * r.norm())

    area = math.pi * radius**2 * NORMAL
    return torch.func.jacrev(lambda r: torch.einsum("jlmn,m,n,ijl->i", ISOTROPIC, B, area, torch.func.jacrev(green)(r)))(place)


def walls() -> None:
    x, z = torch.eye(3, dtype=torch.float64)[[0, 2]]
    b, h = 0.286, 20.0
    points = torch.tensor([[3.0, 4.0, 0.0], [-15.0, 9.0, 0.0]], dtype=torch.float64)
    exact = tilt_wall_field(points[:, 0], points[:, 1], b, h, NU)
    for count in (101, 1001):
        positions, burgers = wall(count, torch.tensor([0.0, h, 0.0], dtype=torch.float64), b * x)
        found = superposed(lambda p, one: mixed_dislocation(p, one, z, NU), points, positions, burgers)
        row(f"tilt wall of {count} dislocations against the infinite one, near its middle", "", f"{_apart(found, exact):.1e}")
    right, left = tilt_wall_field(torch.tensor([500.0, -500.0]).double(), torch.tensor(1.0).double(), b, h, NU)
    turn = float((right - left)[0, 1] - (right - left)[1, 0]) / 2
    row("misorientation across it against b/h (Frank)", "1e-6", f"{abs(turn * h / b - 1):.1e}")


def cost() -> None:
    points, t = 100 * torch.randn(25000, 3, dtype=torch.float64), line_at(60)
    loop, copper = circular_loop(50.0, NORMAL, 48), crystal_stiffness("Cu")
    for name, work in (
        ("isotropic", lambda: straight_dislocation(points, B, NORMAL, t, NU)),
        ("anisotropic", lambda: anisotropic_dislocation(points, B, t, copper)),
        ("48 segments", lambda: _field(loop)(points)),
    ):
        row(
            f"{name}, 25 000 points: 50 x 50 pixels, 10 places on the ray",
            "",
            f"{1e3 * _quickest(work):.0f} ms",
        )


def _quickest(work: Callable[[], object]) -> float:
    times = []
    for _ in itertools.repeat(None, 5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    straight_fields()
    isotropic_limit()
    chains()
    loops()
    walls()
    cost()

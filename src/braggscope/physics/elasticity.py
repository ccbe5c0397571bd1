"""Linear elasticity: stiffness tensors, stress, and constants of some crystals.

Stiffnesses C_ijkl have shape (..., 3, 3, 3, 3), in GPa where they come from `CRYSTALS`; fields of dislocations need only their
ratios. The axes are Cartesian crystal axes, as in `slip_systems`. Voigt indices: 1 to 6 for xx, yy, zz, yz, xz, xy.
"""

from __future__ import annotations

import torch
from torch import Tensor

VOIGT = ((0, 5, 4), (5, 1, 3), (4, 3, 2))
CRYSTALS: dict[str, tuple[float, ...]] = {
    "Al": (108.2, 61.3, 28.5),
    "Cu": (168.4, 121.4, 75.4),
    "Ni": (246.5, 147.3, 124.7),
    "Fe": (242.0, 146.5, 112.0),
    "W": (521.0, 201.0, 160.0),
    "Ti": (162.4, 92.0, 69.0, 180.7, 46.7),
    "Mg": (59.7, 26.2, 21.7, 61.7, 16.4),
}
"""c11, c12, c44 of cubic crystals and c11, c12, c13, c33, c44 of hexagonal ones, GPa (Hirth & Lothe 1982, appendix 1; hexagonal:
Simmons & Wang 1971)."""


def stiffness_tensor(voigt: Tensor) -> Tensor:
    """C_ijkl from the 6 x 6 matrix of Voigt; shape (..., 6, 6) -> (..., 3, 3, 3, 3)."""
    index = torch.tensor(VOIGT, device=voigt.device)
    return voigt[..., index[:, :, None, None], index[None, None, :, :]]


def cubic_stiffness(c11: float, c12: float, c44: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Stiffness of a cubic crystal along its axes, shape (3, 3, 3, 3).

    >>> cubic_stiffness(3.0, 1.0, 0.5)[0, 1, 0, 1].item()  # c_66 = c_44
    0.5
    """
    return hexagonal_like(c11, c12, c12, c11, c44, c44, dtype)


def hexagonal_stiffness(
    c11: float, c12: float, c13: float, c33: float, c44: float, *, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Stiffness of a hexagonal crystal with c along z, c66 = (c11 - c12) / 2; shape (3, 3, 3, 3)."""
    return hexagonal_like(c11, c12, c13, c33, c44, (c11 - c12) / 2, dtype)


def isotropic_stiffness(shear: float, poisson: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Stiffness of an isotropic solid, lambda = 2 mu nu / (1 - 2 nu); shape (3, 3, 3, 3)."""
    lame = 2 * shear * poisson / (1 - 2 * poisson)
    return cubic_stiffness(lame + 2 * shear, lame, shear, dtype=dtype)


def hexagonal_like(
    c11: float, c12: float, c13: float, c33: float, c44: float, c66: float, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Stiffness of tetragonal form, which the cubic and the hexagonal one are of; shape (3, 3, 3, 3)."""
    voigt = torch.diag(torch.tensor([c11, c11, c33, c44, c44, c66], dtype=dtype))
    for i, j, value in ((0, 1, c12), (0, 2, c13), (1, 2, c13)):
        voigt[i, j] = voigt[j, i] = value
    return stiffness_tensor(voigt)


def crystal_stiffness(name: str, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Stiffness of a crystal of `CRYSTALS`, GPa, shape (3, 3, 3, 3). Raises ValueError for another name."""
    if name not in CRYSTALS:
        raise ValueError(f"no elastic constants of '{name}'; there are those of {', '.join(sorted(CRYSTALS))}")
    constants = CRYSTALS[name]
    return (cubic_stiffness if len(constants) == 3 else hexagonal_stiffness)(*constants, dtype=dtype)


def rotated_stiffness(stiffness: Tensor, rotation: Tensor) -> Tensor:
    """C_ijkl in another frame, R_ia R_jb R_kc R_ld C_abcd.

    rotation: From the frame of the stiffness into the other one, shape (3, 3).
    """
    return torch.einsum("ia,jb,kc,ld,...abcd->...ijkl", rotation, rotation, rotation, rotation, stiffness)


def stress(distortion: Tensor, stiffness: Tensor) -> Tensor:
    """sigma_ij = C_ijkl H_kl of a small distortion, shape (..., 3, 3), in the unit of the stiffness."""
    return torch.einsum("ijkl,...kl->...ij", stiffness, distortion)


def voigt_average(stiffness: Tensor) -> tuple[float, float]:
    """Shear modulus and Poisson's ratio of the isotropic solid nearest to a crystal (Voigt 1928; Hirth & Lothe 1982, ch. 13).

    >>> [round(v, 3) for v in voigt_average(crystal_stiffness("Al"))]
    [26.48, 0.346]
    """
    bulk = float(torch.einsum("iijj", stiffness)) / 9
    shear = (float(torch.einsum("ijij", stiffness)) - 3 * bulk) / 10
    return shear, (3 * bulk - 2 * shear) / (2 * (3 * bulk + shear))

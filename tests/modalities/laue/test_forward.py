"""The torch model against the compiled kernels, and at the reference."""

import numpy as np
import torch

from braggscope.modalities.laue.brightness import layer
from braggscope.modalities.laue.forward import ROTATION, STRAINS, LauePattern
from braggscope.modalities.laue.geometry import film
from braggscope.modalities.laue.patterns import spot_image, spots_of, strong
from braggscope.physics.crystals import crystal_of

U = np.array([[2.0, -1.0, 2.0], [2.0, 2.0, -1.0], [-1.0, 2.0, 2.0]]) / 3


def values(**some):
    every = dict.fromkeys((*ROTATION, *STRAINS), 0.0) | {"scale": 1000.0, "background": 0.0} | some
    return {n: torch.tensor(v, dtype=torch.float64) for n, v in every.items()}


def test_the_kernels_are_the_torch_model():
    from scipy.spatial.transform import Rotation

    geometry = film()
    own = layer(geometry, crystal_of("Au"), thickness_um=0.3)
    model = LauePattern(geometry, U, crystal=own)
    strain = np.array([[1e-3, 2e-4, -4e-4], [2e-4, -7e-4, 5e-4], [-4e-4, 5e-4, -3e-4]])
    six = {n: float(strain[i, j]) for n, (i, j) in zip(STRAINS, [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)], strict=True)}
    expected = model(values(orientation_x=0.7, orientation_y=-1.1, orientation_z=1.9, background=2.0, **six)).numpy()
    turned = Rotation.from_rotvec(np.deg2rad([0.7, -1.1, 1.9])).as_matrix() @ U
    spots = spots_of(own, turned, strain, margin_px=10)
    image = spot_image(geometry, spots, 1000 / strong(own)) + 2.0
    assert image.max() > 50
    assert np.abs(image - expected).max() < 1e-5 * image.max()  # beyond five sigma the kernel draws nothing


def test_derivatives_are_there_at_the_reference_itself():
    model = LauePattern(film().replace(rows=60, columns=50, pixel_um=2800.0, xcen_px=25, ycen_px=31), U)
    _, jacobian = model.jacobian(values(), (*ROTATION, *STRAINS, "scale", "background"))
    assert torch.isfinite(jacobian).all() and (jacobian.flatten(1).abs().amax(1) > 0).all()


def test_pressure_moves_no_spot():
    model = LauePattern(film(), U)
    rest = model.spots(values())
    swollen = model.spots(values(strain_xx=1e-3, strain_yy=1e-3, strain_zz=1e-3))
    assert torch.allclose(rest[0], swollen[0], atol=1e-9) and torch.allclose(rest[1], swollen[1], atol=1e-9)


def test_the_surface_turns_with_the_laboratory_about_the_beam():
    from braggscope.modalities.laue.frames import about_beam, surface_axes
    from braggscope.modalities.laue.geometry import film
    from braggscope.modalities.laue.spectrum import surface_normal

    straight, rolled = film(), film().replace(roll_deg=30.0)
    np.testing.assert_allclose(surface_normal(rolled), about_beam(30.0) @ surface_normal(straight), atol=1e-12)
    np.testing.assert_allclose(surface_axes(rolled) @ about_beam(30.0), surface_axes(straight), atol=1e-12)

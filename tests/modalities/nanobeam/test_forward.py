import numpy as np
import pytest
import torch

from braggscope.core.forward import Forward
from braggscope.modalities.nanobeam.compiled import expected, packed, tables
from braggscope.modalities.nanobeam.forward import DEGREE, NanobeamForward, full_pupil_sum
from braggscope.modalities.nanobeam.geometry import published

GOOD = published()
SHAPE = (60, 64)


def params(**changes):
    values = {"strain": 2e-3, "omega": -0.03, "chi": 0.06, "scale": 7.0, "background": 0.1, "thickness": 117.0, **changes}
    return {n: torch.as_tensor(v, dtype=torch.float64) for n, v in values.items()}


def frame(geometry=GOOD, shape=SHAPE, **changes):
    return NanobeamForward(geometry, shape)(params(**changes))


def centre(image):
    """Centre of mass (row, column) above the background, pixels from the first."""
    light = image - 0.1
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in image.shape)
    return float((light.sum(1) * rows).sum() / light.sum()), float((light.sum(0) * columns).sum() / light.sum())


@pytest.mark.parametrize(
    ("thickness", "width", "tolerance"),
    [(80.0, 0.1, 5e-4), (117.0, 0.1, 1e-3), (300.0, 0.1, 2e-3), (3000.0, 0.1, 1e-2), (117.0, 0.3, 3e-3)],
)
def test_the_closed_form_is_the_sum_over_the_pupil(thickness, width, tolerance):
    """L1 over the frame, scale included. What remains is that ring edge and fringe are averaged over a pixel one by one."""
    geometry = GOOD.replace(crystal_width_tau=width, thickness_a=thickness)
    rng = np.random.default_rng(7)
    for _ in range(2):
        drawn = {"strain": rng.uniform(-5e-3, 5e-3), "omega": rng.uniform(-0.05, 0.05), "chi": rng.uniform(-0.1, 0.1)}
        values = {**drawn, "scale": 7.0, "background": 0.0, "thickness": thickness}
        whole = full_pupil_sum(geometry, SHAPE, values)
        assert float((frame(geometry, **values) - whole).abs().sum() / whole.sum()) < tolerance


def test_the_sum_over_the_pupil_with_a_source_has_a_softer_ring():
    geometry = GOOD.replace(source_px=0.6)
    values = {"strain": 1e-3, "omega": 0.02, "chi": -0.04, "scale": 7.0, "background": 0.0}
    whole = full_pupil_sum(geometry, SHAPE, values)
    assert float((frame(geometry, **values) - whole).abs().sum() / whole.sum()) < 1e-3


@pytest.mark.parametrize("name", ["strain", "omega", "chi", "scale", "background", "thickness"])
def test_the_analytic_jacobian_is_the_gradient(name):
    forward = NanobeamForward(GOOD, SHAPE)
    values = params(strain=[2e-3, -4e-3], chi=[0.06, -0.09], thickness=[117.0, 250.0])
    mine = forward.jacobian(values, (name,))[1]
    automatic = Forward.jacobian(forward, values, (name,))[1]
    assert (mine - automatic).abs().max() < 1e-12 * automatic.abs().max()


@pytest.mark.parametrize("name", ["chi", "omega"])
def test_no_step_of_a_tilt_is_visible(name):
    """Finite differences over 1e-5 deg equal the derivative everywhere, within 3e-3 of the steepest pixel.

    The published models differ by less than 6e-4 of the maximum over 4e-3 deg and then jump; here a difference over 1e-5 deg is
    already the slope; what is left is the curvature of a sharp edge, of which central differences are free (1e-5).
    """
    forward, step = NanobeamForward(GOOD, SHAPE), 1e-5
    at = torch.linspace(-0.1, 0.1, 41, dtype=torch.float64) + 1.234e-4
    full = {n: v.expand(41) for n, v in params(strain=1e-3, omega=0.01, chi=0.02).items()}
    slope = forward.jacobian({**full, name: at}, (name,))[1][:, 0]
    difference = (forward({**full, name: at + step}) - forward({**full, name: at})) / step
    assert (difference - slope).abs().amax() < 3e-3 * slope.abs().max()
    central = (forward({**full, name: at + step / 2}) - forward({**full, name: at - step / 2})) / step
    assert (central - slope).abs().amax() < 1e-5 * slope.abs().max()


def test_chi_moves_the_ring_along_the_rows_by_its_published_amount():
    """1 px is 0.0136 deg of chi; positive chi moves the ring to smaller rows."""
    one_px = GOOD.pixel_angle / (2 * GOOD.bragg_sine) / DEGREE
    assert one_px == pytest.approx(0.01356, abs=1e-5)
    still, moved = frame(strain=0.0, omega=0.0, chi=0.0), frame(strain=0.0, omega=0.0, chi=2 * one_px)
    assert torch.allclose(moved[:-2], still[2:], atol=1e-9)


def test_opposite_chi_mirrors_the_rows():
    assert torch.allclose(frame(chi=0.04), frame(chi=-0.04).flip(0), atol=1e-12)


def test_a_shift_along_x_is_strain_with_omega():
    """1 px in x = strain 2.3e-4 with omega 3.7e-3 deg: why the beam centre cannot be told from constant strain and tilt."""
    shifted = frame(GOOD.replace(centre_column_px=1.0), strain=0.0, omega=0.0, chi=0.0)
    still = frame(strain=0.0, omega=0.0, chi=0.0)
    k_step = GOOD.wavevector * GOOD.pixel_angle
    strain = k_step * np.cos(GOOD.bragg_angle) / GOOD.reciprocal_length
    omega = GOOD.pixel_angle / 2 / DEGREE
    assert strain == pytest.approx(2.3e-4, abs=3e-6) and omega == pytest.approx(3.7e-3, abs=1e-5)
    both = [frame(strain=s * strain, omega=o * omega, chi=0.0) for s in (-1, 1) for o in (-1, 1)]
    distances = [float((b - shifted).abs().sum() / shifted.sum()) for b in both]
    assert min(distances) < 0.03 * float((still - shifted).abs().sum() / shifted.sum())


def test_strain_moves_only_the_fringe():
    """The ring's edge in the row through its middle stays, the light inside it moves."""
    a, b = frame(strain=-2e-3, omega=0.0, chi=0.0), frame(strain=2e-3, omega=0.0, chi=0.0)
    lit = [(image - 0.1 > 1e-6) for image in (a, b)]
    assert (lit[0] == lit[1]).float().mean() > 0.99
    assert abs(centre(a)[1] - centre(b)[1]) > 1.0


def test_a_thicker_film_has_a_narrower_fringe():
    def width(thickness):
        profile = frame(strain=0.0, omega=0.0, chi=0.0, thickness=thickness)[30] - 0.1
        return int((profile > 3.5).sum())

    assert width(80.0) > width(117.0) > width(300.0)


def test_the_brightest_pixel_is_the_scale():
    assert float(frame(strain=0.0, omega=0.0, chi=0.0, scale=50.0).max()) == pytest.approx(50.1, rel=0.02)


def test_single_precision_gives_the_same_counts():
    forward = NanobeamForward(GOOD, SHAPE)
    single = forward({n: v.float() for n, v in params().items()})
    assert single.dtype == torch.float32 and (single - forward(params())).abs().max() < 1e-4


def test_the_compiled_model_is_the_same():
    rng = np.random.default_rng(1)
    drawn = {"strain": rng.uniform(-5e-3, 5e-3, 20), "omega": rng.uniform(-0.05, 0.05, 20), "chi": rng.uniform(-0.1, 0.1, 20)}
    rest = {"scale": np.full(20, 7.0), "background": np.full(20, 0.1), "thickness": rng.uniform(80, 300, 20)}
    mine = expected(tables(GOOD, SHAPE), SHAPE, packed({**drawn, **rest}))
    reference = NanobeamForward(GOOD, SHAPE)({n: torch.from_numpy(v) for n, v in {**drawn, **rest}.items()})
    assert np.abs(mine - reference.numpy()).max() < 5e-6 * 7  # float32


def test_a_ring_far_off_the_frame_leaves_the_background():
    forward = NanobeamForward(GOOD, SHAPE)
    values = params(chi=[0.9, -0.9], omega=[0.0, 0.4])
    assert torch.allclose(forward(values), torch.full((2, *SHAPE), 0.1, dtype=torch.float64), atol=1e-9)
    far = packed({n: v.expand(2).numpy() for n, v in values.items()})
    assert np.allclose(expected(tables(GOOD, SHAPE), SHAPE, far), 0.1)


def test_the_sum_over_the_pupil_needs_the_ideal_pupil():
    with pytest.raises(ValueError, match="pupil_file"):
        full_pupil_sum(GOOD.replace(pupil_file="x.npz"), SHAPE, {"strain": 0.0, "omega": 0.0, "chi": 0.0, "scale": 1.0})


@pytest.mark.parametrize(("name", "value", "axis"), [("chi", 0.03, 0), ("omega", 0.01, 1), ("strain", 1e-3, 1)])
def test_positive_values_move_the_light_to_smaller_rows_or_columns(name, value, axis):
    """The signs of README.md; the other axis does not feel it."""
    still = frame(strain=0.0, omega=0.0, chi=0.0)
    moved = frame(**{"strain": 0.0, "omega": 0.0, "chi": 0.0, name: value})
    assert centre(moved)[axis] < centre(still)[axis] - 1
    assert centre(moved)[1 - axis] == pytest.approx(centre(still)[1 - axis], abs=1e-6)

"""Images of dislocations by the torch reference: the compiled ones, limits, gradients, and the resolution function."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from braggscope.core.errors import InputError
from braggscope.modalities.dfxm.dislocations import imaging, kernels
from braggscope.modalities.dfxm.dislocations.characters import characters_of
from braggscope.modalities.dfxm.dislocations.model import ImageModel
from braggscope.modalities.dfxm.dislocations.resolution import Resolution, between, closed
from braggscope.modalities.dfxm.dislocations.setting import PRESETS
from braggscope.physics.elasticity import isotropic_stiffness

SHAPE = (24, 31)
WEAK = PRESETS["al-002"]


def lines(setting, which):
    return tuple(v[which] for v in imaging.in_sample(characters_of(setting), setting))


def places(count, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-400, 400, (count, 2)))


@pytest.mark.parametrize("preset", ["al-002", "al-002-legacy"])
@pytest.mark.parametrize("which", [[0], [3, 7, 11]])
def test_image_and_derivatives_are_those_of_the_compiled_model(preset, which):
    setting = PRESETS[preset]
    at, model = places(len(which)), ImageModel(setting, characters_of(setting), SHAPE)
    compiled, slopes = model.image(which, at.numpy())

    def image(p):
        return imaging.image(setting, imaging.straight_lines(setting, p, *lines(setting, which)), SHAPE, reach=kernels.REACH)

    # far from a line the kernel goes to second order in the distortion (3e-11, where the resolution's edge is 1e-5 wide)
    assert abs(image(at).numpy() - compiled).max() < 1e-7 * compiled.max()
    jacobian = torch.func.jacfwd(image)(at).movedim((2, 3), (0, 1)).reshape(slopes.shape).numpy()
    assert abs(jacobian - slopes).max() < 1e-6 * abs(slopes).max()


def test_rocking_stack_is_the_images_at_each_angle():
    field = imaging.straight_lines(WEAK, places(2), *lines(WEAK, [1, 8]))
    phi, chi = torch.tensor([-3e-4, 1e-4, 2.9e-4], dtype=torch.float64), torch.tensor([[0.0], [4e-4]], dtype=torch.float64)
    stack = imaging.image(WEAK, field, SHAPE, phi=phi, chi=chi)
    assert stack.shape == (2, 3, *SHAPE)
    alone = WEAK.replace(phi_deg=math.degrees(1e-4), chi_deg=math.degrees(4e-4))
    torch.testing.assert_close(stack[1, 1], imaging.image(alone, field, SHAPE), rtol=0, atol=1e-9)


def test_sets_of_places_make_an_image_each_and_float32_is_enough():
    sets = torch.stack([places(2, seed) for seed in range(3)])
    field = imaging.straight_lines(WEAK, sets, *lines(WEAK, [4, 4]))
    stack = imaging.image(WEAK, field, SHAPE)
    one = imaging.image(WEAK, imaging.straight_lines(WEAK, sets[2], *lines(WEAK, [4, 4])), SHAPE)
    torch.testing.assert_close(stack[2], one)
    single = [v.float() for v in (sets[2], *lines(WEAK, [4, 4]))]
    rough = imaging.image(WEAK, imaging.straight_lines(WEAK, *single), SHAPE, like=single[0])
    assert rough.dtype == torch.float32
    assert (rough - one).abs().max() < 2e-4 * one.max()  # rounding of places of 1e4 nm, on slopes of 1 per 100 nm


@pytest.mark.parametrize("resolution", ["closed", "full"])
def test_gradients_by_place_burgers_vector_line_and_angles(resolution):
    b, n, t = lines(WEAK, [0])
    setting = WEAK.replace(depth_points=2)

    def image(p, burgers, line, angles):
        field = imaging.straight_lines(setting, p, burgers, n - (n * line).sum(-1, keepdim=True) * line / (line**2).sum(), line)
        return imaging.image(setting, field, (5, 4), phi=angles[0], chi=angles[1], dtt=angles[2], resolution=resolution)

    given = [places(1), b, t, torch.tensor([3.2e-4, 1e-4, 2e-5], dtype=torch.float64)]
    for k, (start, step) in enumerate(zip(given, (1e-3, 1e-6, 1e-6, 1e-9), strict=True)):
        direction = torch.linspace(1, 2, start.numel(), dtype=torch.float64).reshape(start.shape)

        def along(s, k=k, start=start, direction=direction):
            return image(*[start + s * direction if i == k else v for i, v in enumerate(given)])

        exact = torch.func.jacfwd(along)(torch.zeros((), dtype=torch.float64))
        numeric = (along(step) - along(-step)) / (2 * step)
        assert exact.abs().max() > 0
        torch.testing.assert_close(exact, numeric, rtol=0, atol=1e-5 * float(exact.abs().max()))


def test_anisotropic_field_with_isotropic_constants_gives_the_isotropic_image():
    straight = imaging.straight_lines(WEAK, places(2), *lines(WEAK, [0, 5]))
    stiffness = isotropic_stiffness(26.0, WEAK.poisson)
    other = imaging.straight_lines(WEAK, places(2), *lines(WEAK, [0, 5]), stiffness=stiffness)
    image = imaging.image(WEAK, straight, SHAPE)
    torch.testing.assert_close(imaging.image(WEAK, other, SHAPE), image, rtol=0, atol=1e-8 * float(image.max()))


def test_perfect_crystal_in_the_strong_beam_shows_the_whole_beam():
    strong = WEAK.replace(phi_deg=0.0, chi_deg=0.0)
    still = imaging.image(strong, lambda r: torch.zeros(*r.shape, 3, dtype=r.dtype), SHAPE, resolution="full")
    _, weight = imaging.rays(strong, SHAPE)
    torch.testing.assert_close(still, weight.sum().expand(SHAPE))


def test_full_resolution_is_the_closed_form_but_where_the_aperture_cuts():
    wide = WEAK.replace(aperture_rad=0.1)
    field = imaging.straight_lines(wide, places(1), *lines(wide, [2]))
    full, form = (imaging.image(wide, field, SHAPE, resolution=name) for name in ("full", "closed"))
    torch.testing.assert_close(full, form, rtol=1e-9, atol=1e-9)
    edge = math.degrees(WEAK.aperture_rad / (4 * math.sin(math.radians(WEAK.two_theta_deg) / 2)))  # of the aperture, in chi
    full, form = (imaging.image(WEAK.replace(chi_deg=edge), field, SHAPE, resolution=name) for name in ("full", "closed"))
    assert 0 < full.sum() < 0.8 * form.sum()


def test_resolution_function_is_the_density_of_random_rays():
    """In bins of the scattering plane and along the rolling direction; the beam is such that all spreads matter."""
    r = Resolution.of(WEAK.replace(bandwidth_fwhm=1.4e-3, horizontal_divergence=1e-4))
    q = r.rays(400_000, torch.Generator().manual_seed(3)).numpy()
    edges = [np.linspace(-1, 1, n + 1) * reach for n, reach in ((12, 6.3e-4), (10, 2.5e-3))]
    seen = np.histogram2d(q[:, 0], q[:, 2], bins=edges)[0]
    fine = [np.linspace(e[0], e[-1], 9 * (len(e) - 1) + 1) for e in edges]
    rock, par = np.meshgrid(*((f[1:] + f[:-1]) / 2 for f in fine), indexing="ij")
    share = r.in_plane(torch.from_numpy(rock), torch.from_numpy(par)).numpy().reshape(12, 9, 10, 9).mean((1, 3))
    expected = share / share.sum() * seen.sum()
    enough = expected > 30
    assert ((seen - expected)[enough] ** 2 / expected[enough]).sum() < enough.sum() + 4 * math.sqrt(2 * enough.sum())
    roll = np.linspace(-2.5e-3, 2.5e-3, 41)
    counts = np.histogram(q[:, 1], bins=roll)[0]
    middles = torch.from_numpy((roll[1:, None] + roll[:-1, None]) / 2 + np.linspace(-0.5, 0.5, 21) * (roll[1] - roll[0]))
    share = r.across(middles).mean(1).numpy()
    expected = share / share.sum() * counts.sum()
    enough = expected > 30
    assert ((counts - expected)[enough] ** 2 / expected[enough]).sum() < enough.sum() + 4 * math.sqrt(2 * enough.sum())


def test_closed_form_is_the_distribution_of_q_1_of_random_rays():
    r = Resolution.of(WEAK)
    q = r.rays(200_000, torch.Generator().manual_seed(4))
    q_1 = (math.cos(r.theta) * q[:, 0] + math.sin(r.theta) * q[:, 2]).sort().values
    grid = torch.linspace(-4e-4, 4e-4, 4001, dtype=torch.float64)
    p = closed(grid, math.cos(r.theta) * r.divergence / 2, math.sin(r.theta) * r.bandwidth)
    below = torch.cumsum(p, 0) / p.sum()
    empirical = torch.searchsorted(q_1, grid) / len(q_1)
    assert (below - empirical).abs().max() < 1.95 / math.sqrt(len(q_1))  # Kolmogorov-Smirnov at 0.1 %


def test_difference_of_error_functions_keeps_its_digits_in_the_tails():
    low = torch.tensor([8.0, -9.0], dtype=torch.float64)
    from scipy.stats import norm

    assert between(low, low + 1).numpy() == pytest.approx(norm.cdf([-8.0, -8.0]) - norm.cdf([-9.0, -9.0]), rel=1e-12)


def test_unknown_resolution_and_the_full_one_of_the_released_code_are_refused():
    field = imaging.straight_lines(WEAK, places(1), *lines(WEAK, [2]))
    with pytest.raises(InputError, match="resolution must be one of closed, full, got 'gauss'"):
        imaging.image(WEAK, field, SHAPE, resolution="gauss")
    with pytest.raises(InputError, match="needs the conventions 'exact'"):
        imaging.image(PRESETS["al-002-legacy"], field, SHAPE, resolution="full")

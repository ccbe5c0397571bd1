"""The table of sensitivities against finite differences, the regression and choices that are known."""

import numpy as np
import pytest
import torch

from braggscope.core.errors import InputError
from braggscope.core.maps import check_map
from braggscope.modalities.dfxm.analysis.sensitivity import sensitivity
from braggscope.modalities.dfxm.oblique import vectors as oblique
from braggscope.modalities.dfxm.oblique.reflections import PUBLISHED, published, read_reflections
from braggscope.physics.deformation import deformation_from_vectors, diffraction_vector


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "al.toml"
    path.write_text(PUBLISHED)
    return path


def test_derivatives_are_those_of_the_exact_settings(toml):
    found, chosen = sensitivity(reflections=toml), published()
    check_map(found)
    seen, h = oblique.Observed(("chi", "phi"), "obpitch"), 1e-6
    for k, (one, q0) in enumerate(zip(chosen.reflections, torch.from_numpy(chosen.reference_vectors()), strict=True)):
        for c in range(9):
            step = torch.zeros(9, dtype=torch.float64)
            step[c] = h
            eye = torch.eye(3, dtype=torch.float64)
            up, down = (
                oblique.settings(one, chosen.instrument, seen, diffraction_vector(eye + s * step.reshape(3, 3), q0)[None])
                for s in (1, -1)
            )
            numeric = np.degrees((up - down)[0].numpy() / (2 * h))
            assert np.allclose(found["derivative"].values[k, :, c], numeric, rtol=1e-5, atol=1e-4)


def test_errors_are_those_of_the_regression(toml):
    found, chosen = sensitivity(reflections=toml, rocking_error_deg=2e-4, strain_error=5e-5), published()
    seen = oblique.Observed(("chi", "phi"), "obpitch")
    std = torch.tensor(np.radians([2e-4, 2e-4, 5e-5]))
    q, covariance = [], []
    for one in chosen.reflections:
        vector, jacobian = oblique.vectors(one, chosen.instrument, seen, oblique.nominal(one, chosen.instrument, seen))
        q.append(vector)
        covariance.append(jacobian @ torch.diag(std**2) @ jacobian.T)
    q0 = torch.from_numpy(chosen.reference_vectors())
    cov = deformation_from_vectors(torch.stack(q), q0, torch.stack(covariance))[1].numpy()
    assert np.allclose(found["error"], np.sqrt(cov.diagonal()), rtol=1e-6)
    assert np.allclose(
        found["rotation_error"].values[2], np.degrees(np.sqrt(cov[1, 1] + cov[3, 3] - 2 * cov[1, 3]) / 2), rtol=1e-6
    )
    assert found["error_without"].values.min() > found["error"].values.min()
    assert found.attrs["best_3"].count(",") == 2 and found.attrs["best_3_worst_error"] > found.attrs["worst_error"]


def test_without_one_of_three_nothing_is_known(toml, tmp_path):
    path = tmp_path / "three.toml"
    path.write_text("[[reflection]]".join(PUBLISHED.split("[[reflection]]")[:4]))
    found = sensitivity(reflections=path)
    assert np.isnan(found["error_without"]).all() and np.isfinite(found["error"]).all()
    assert "best_3" not in found.attrs


def test_errors_in_the_crystal_frame_are_the_same_however_the_crystal_stands_in_the_sample(toml, tmp_path):
    # the published crystal stands as the sample does; with one more motor under it at 37 deg it is turned in the sample's frame
    path = tmp_path / "turned.toml"
    text = PUBLISHED.replace("phi:y", "phi:y psi:z").replace("at = {", "at = {psi = 37.0, ")
    path.write_text(text)
    assert not np.allclose(read_reflections(path).orientation, np.eye(3), atol=0.1)
    straight = sensitivity(reflections=toml)
    crystal, sample = (sensitivity(reflections=path, frame=frame) for frame in ("crystal", "sample"))
    for name in ("error", "strain_error", "rotation_error"):
        np.testing.assert_allclose(crystal[name], straight[name], rtol=1e-6)
    np.testing.assert_allclose(crystal["derivative"], straight["derivative"], rtol=1e-5, atol=1e-5)
    assert (abs(sample["error"] / straight["error"] - 1) > 0.01).any()


def test_other_axes_are_offered(toml):
    found = sensitivity(reflections=toml, strain_axis="ccmth", motors=("mu", "chi"))
    assert np.isfinite(found["error"]).all() and found["observable"].values.tolist() == ["mu", "chi", "ccmth"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"motors": ("chi", "psi")}, r"motors must be two of the goniometer's \(mu, omega, chi, phi\), got chi, psi"),
        ({"motors": ("chi", "chi")}, "motors must be two of the goniometer's"),
        ({"strain_axis": "theta"}, "strain_axis must be one of obpitch"),
        ({"rocking_error_deg": 0.0}, "rocking_error_deg must be positive, got 0"),
    ],
)
def test_bad_options_are_named(toml, options, message):
    with pytest.raises(InputError, match=message):
        sensitivity(reflections=toml, **options)

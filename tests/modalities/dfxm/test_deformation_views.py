"""Pictures of F and of the sensitivity: drawn of their own datasets, and of nothing else."""

import numpy as np
import pytest
import xarray as xr

from braggscope.core.modality import modality
from braggscope.modalities.dfxm.analysis.deformation import deformation
from braggscope.modalities.dfxm.analysis.sensitivity import sensitivity
from braggscope.modalities.dfxm.oblique.reflections import PUBLISHED
from braggscope.modalities.dfxm.phantoms import oblique as phantom

VIEWS = ("deformation_gradient", "strain_and_rotation", "dislocation_density")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A map of F with a circuit, a table of sensitivities."""
    path = tmp_path_factory.mktemp("views") / "al.toml"
    path.write_text(PUBLISHED)
    maps = []
    for k in (1, 2, 3, 4):
        truth = phantom.edge_dislocation(None, frame_shape=(24, 44), reflection=k).truth
        named = {n: truth[n] for n in phantom.SEEN.names}
        stds = {f"{n}_std": xr.full_like(v, 3e-5) for n, v in named.items()}
        flag = (("row", "column"), np.zeros((24, 44), np.int32), {"flag_masks": np.array([1]), "flag_meanings": "bad"})
        maps.append(xr.Dataset({**named, **stds, "flag": flag}))
    found = deformation(maps, reflections=path, register="none", circuit_um=(-0.7, 0.7, -0.7, 0.7))
    return found, sensitivity(reflections=path)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_f_draws_f_alone(drawn, name):
    kind = modality("dfxm")
    view = kind.load(kind.views[name])
    assert view(drawn[0]) is not None
    assert view(drawn[1]) is None


def test_the_burgers_vector_of_the_circuit_is_written_above_the_density(drawn):
    kind = modality("dfxm")
    figure = kind.load(kind.views["dislocation_density"])(drawn[0])
    assert f"x {drawn[0].attrs['burgers_x_nm']:.4f} +-" in figure.get_suptitle()


def test_a_table_of_sensitivities_is_drawn_with_a_row_for_every_observable(drawn):
    kind = modality("dfxm")
    view = kind.load(kind.views["sensitivity"])
    assert view(drawn[0]) is None
    left, right = view(drawn[1]).axes[:2]
    assert [t.get_text() for t in left.get_yticklabels()][:3] == ["-1 -1 3: chi", "-1 -1 3: phi", "-1 -1 3: obpitch"]
    assert len(right.get_yticklabels()) == 5

"""Networks from files: ParaDiS and VTK."""

import numpy as np
import pytest
import torch

from braggscope.core.errors import InputError
from braggscope.modalities.dfxm.files import Network, open_nodes, read_paradis, read_vtk
from braggscope.physics.dislocation_segments import segment_distortion

# a triangle of which one side leaves the box of 100 x 100 x 80 and comes back on the other side
PARADIS = """\
dataFileVersion =   4
numFileSegments =   1
minCoordinates = [
  -5.0e+01
  -5.0e+01
  -4.0e+01
  ]
maxCoordinates = [
  5.0e+01
  5.0e+01
  4.0e+01
  ]
nodeCount =   3
dataDecompType =   2
#
#  END OF DATA FILE PARAMETERS
#
domainDecomposition =
# Dom_ID  Minimum XYZ bounds   Maximum XYZ bounds
  0  -50.0 -50.0 -40.0  50.0 50.0 40.0
nodalData =
#  Primary lines: node_tag, x, y, z, num_arms, constraint
#  Secondary lines: arm_tag, burgx, burgy, burgz, nx, ny, nz
     0,0     40.0  0.0  0.0  2  0
           0,1   0.5  0.5  0.0
                 1.0 -1.0  1.0
           0,2  -0.5 -0.5  0.0
                 1.0 -1.0  1.0
     0,1    -45.0  10.0  0.0  2  0
           0,2   0.5  0.5  0.0
                 1.0 -1.0  1.0
           0,0  -0.5 -0.5  0.0
                 1.0 -1.0  1.0
     0,2     45.0  -20.0  5.0  2  0
           0,0   0.5  0.5  0.0
                 1.0 -1.0  1.0
           0,1  -0.5 -0.5  0.0
                 1.0 -1.0  1.0
"""


@pytest.fixture
def written(tmp_path):
    def write(text=PARADIS):
        path = tmp_path / "network.data"
        path.write_text(text)
        return path

    return write


def test_a_paradis_network_in_nm_across_a_periodic_border(written):
    found = read_paradis(written(), burgers_nm=0.25)
    assert found.segments.shape == (3, 2, 3) and found.burgers.shape == (3, 3)
    by_start = {tuple(s[0] / 0.25): (s[1] / 0.25, b) for s, b in zip(found.segments, found.burgers, strict=True)}
    end, b = by_start[(40.0, 0.0, 0.0)]
    assert tuple(end) in [(55.0, 10.0, 0.0), (45.0, -20.0, 5.0)]  # -45 + 100
    assert np.abs(b) == pytest.approx([0.125, 0.125, 0.0]) and len(open_nodes(found)) == 0
    lengths = sorted(np.linalg.norm(found.segments[:, 1] - found.segments[:, 0], axis=1) / 0.25)
    assert lengths == pytest.approx(sorted([np.hypot(15, 10), np.sqrt(5**2 + 20**2 + 5**2), np.sqrt(10**2 + 30**2 + 5**2)]))
    apart = read_paradis(written(), burgers_nm=0.25, periodic=False)
    assert np.linalg.norm(apart.segments[:, 1] - apart.segments[:, 0], axis=1).max() > 0.25 * 80
    assert len(open_nodes(apart)) == 0


def test_its_field_is_that_of_the_loop(written):
    found = read_paradis(written(), burgers_nm=0.25, periodic=False)
    corners = 0.25 * torch.tensor([[40.0, 0, 0], [-45, 10, 0], [45, -20, 5]], dtype=torch.float64)
    loop, b = torch.stack([corners, corners.roll(-1, 0)], 1), torch.tensor([[0.125, 0.125, 0.0]], dtype=torch.float64)
    points = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.0, 7.0]], dtype=torch.float64)
    field = segment_distortion(points, *(torch.from_numpy(v) for v in (found.segments, found.burgers)), 0.33, 0.2)
    assert torch.allclose(field, segment_distortion(points, loop, b.expand(3, 3), 0.33, 0.2), atol=1e-15)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.replace("nodalData", "nodes"), "is not a ParaDiS data file"),
        (lambda t: t.replace("minCoordinates", "corner"), "lacks minCoordinates"),
        (lambda t: t.replace("0,1    -45.0", "0,7    -45.0"), "node 0,0 has an arm to node 0,1, which is not in the file"),
        (lambda t: t[:-40], "is cut or broken after node 0,2"),
        (lambda t: t.replace("0,1   0.5  0.5", "0,1   0.5  0.4"), "the arm from node 0,0 to node 0,1 has no opposite"),
    ],
)
def test_a_broken_paradis_file_is_refused_in_a_sentence(written, change, sentence):
    with pytest.raises(InputError, match=sentence):
        read_paradis(written(change(PARADIS)), burgers_nm=0.25)


def test_other_bad_input(written, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_paradis(tmp_path / "none.data", burgers_nm=0.25)
    with pytest.raises(InputError, match="burgers_nm must be positive, got -1"):
        read_paradis(written(), burgers_nm=-1.0)


def test_the_ends_of_an_open_line_are_found():
    segments = np.array([[[0.0, 0, 0], [1, 0, 0]], [[1, 0, 0], [1, 2, 0]]])
    burgers = np.array([[0.2, 0, 0], [0.2, 0, 0]])
    assert open_nodes(Network(segments, burgers)).tolist() == [[0, 0, 0], [1, 2, 0]]
    closed = Network(np.concatenate([segments, [[[1, 2, 0], [0, 0, 0]]]]), np.concatenate([burgers, burgers[:1]]))
    assert len(open_nodes(closed)) == 0


@pytest.mark.parametrize("suffix", ["vtk", "vtp", "vtu"])
def test_polylines_of_vtk(tmp_path, suffix):
    pyvista = pytest.importorskip("pyvista")
    mesh = pyvista.PolyData()
    mesh.points = np.array([[0.0, 0, 0], [10, 0, 0], [10, 20, 0], [0, 20, 5]])
    mesh.lines = np.array([3, 0, 1, 2, 3, 2, 3, 0])
    mesh.cell_data["other"] = np.ones((2, 3))
    mesh.cell_data["Burgers vector"] = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    path = tmp_path / f"lines.{suffix}"
    (mesh.cast_to_unstructured_grid() if suffix == "vtu" else mesh).save(path)
    found = read_vtk(path, unit_nm=0.1, burgers_unit_nm=2.0)
    assert found.segments[:, 0].tolist() == (0.1 * mesh.points[[0, 1, 2, 3]].astype(float)).tolist()
    assert np.allclose(found.segments[:, 1], 0.1 * mesh.points[[1, 2, 3, 0]])
    assert found.burgers == pytest.approx(np.tile([0.2, 0.4, 0.6], (4, 1))) and len(open_nodes(found)) == 0
    with pytest.raises(InputError, match="of three components are: "):
        read_vtk(path, array="b")


def test_a_vtk_file_without_lines_and_no_vtk_file(tmp_path):
    pyvista = pytest.importorskip("pyvista")
    cube = pyvista.Cube()
    cube.cell_data["burgers"] = np.ones((cube.n_cells, 3))
    cube.save(tmp_path / "cube.vtp")
    with pytest.raises(InputError, match="has no lines"):
        read_vtk(tmp_path / "cube.vtp")
    (tmp_path / "notes.txt").write_text("no mesh")
    with pytest.raises(InputError, match="cannot be read as a VTK file"):
        read_vtk(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="does not exist"):
        read_vtk(tmp_path / "none.vtp")


def test_without_pyvista_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyvista", None)
    with pytest.raises(InputError, match=r"needs pyvista: pip install 'braggscope\[volumes\]'"):
        read_vtk(tmp_path / "a.vtp")

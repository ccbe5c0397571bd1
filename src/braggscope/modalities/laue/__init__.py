"""White-beam Laue microdiffraction: grains, their orientation and strain, from patterns that mix several of them."""

from braggscope.core.modality import Modality

_HERE = "braggscope.modalities.laue"

MODALITY = Modality(
    name="laue",
    summary="a white beam is rastered over a polycrystal; one frame full of spots per position: grains, orientation, strain",
    package=_HERE,
    geometry=f"{_HERE}.geometry:LaueGeometry",
    forward=f"{_HERE}.forward:LauePattern",
    phantoms={name: f"{_HERE}.phantoms.film:{name}" for name in ("film", "polycrystal", "single")},
    spot_model=f"{_HERE}.expected_spots:expected_spots",
    tables=f"{_HERE}.files:TABLES",
    calibrate=f"{_HERE}.calibrate:calibrate",
    default_method="indexing",
    views={
        "overview": f"{_HERE}.views.overview:overview",
        "grain_map": f"{_HERE}.views.grains:grain_map",
        "boundaries": f"{_HERE}.views.boundaries:boundaries",
        "correlation": f"{_HERE}.views.correlation:correlation",
        "grain_sizes": f"{_HERE}.views.sizes:grain_sizes",
        "indexed_pattern": f"{_HERE}.views.indexed:indexed_pattern",
        "ebsd_comparison": f"{_HERE}.views.ebsd:ebsd_comparison",
        "peaks": f"{_HERE}.views.peaks:peaks",
        "pattern": f"{_HERE}.views.overview:pattern",
    },
    example_geometry=f"{_HERE}.geometry:film",
    example_forward=f"{_HERE}.forward:example",
    example_phantom={"shape": (18, 20), "frame_shape": (60, 50), "step": 0.2},
    example_scans={
        "indexing": {"shape": (8, 9), "frame_shape": (122, 102), "size": 1.0},
        "unmixing": {"shape": (8, 9), "frame_shape": (244, 204), "size": 0.7},
    },
    example_options={
        "indexing": {"within": 0.5, "sample": 10, "threshold": 15.0},  # the example's pixels are huge
        "canon": {"epochs": 2, "side": 32},
        "piml": {"epochs": 2, "side": 32},
    },
)

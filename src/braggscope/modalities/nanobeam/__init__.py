"""Scanning X-ray diffraction microscopy of an epitaxial film with a convergent nanobeam: strain, two tilts, film thickness."""

from braggscope.core.modality import Modality

_HERE = "braggscope.modalities.nanobeam"

MODALITY = Modality(
    name="nanobeam",
    summary="a focused beam is rastered over an epitaxial film; one frame per position: strain, tilts, thickness",
    package=_HERE,
    geometry=f"{_HERE}.geometry:NanobeamGeometry",
    forward=f"{_HERE}.forward:NanobeamForward",
    phantoms={
        name: f"{_HERE}.phantom:{name}"
        for name in ("sinusoid_sigmoid", "domains", "wedge", "random_fields", "uniform", "published_grid")
    },
    default_method="likelihood",
    calibrate=f"{_HERE}.calibrate:calibrate",
    frame_model=f"{_HERE}.expected_frame:expected_frame",
    misfit_hint="is the geometry calibrated, is everything free that varies?",
    views={name: f"{_HERE}.views:{name}" for name in ("overview", "frame", "pupil")},
    example_geometry=f"{_HERE}.geometry:published",
    example_forward=f"{_HERE}.forward:example",
    example_phantom={"shape": (20, 18), "frame_shape": (64, 62), "peak": 30.0},
    example_options={
        "amortised": {"width": 32, "epochs": 2, "frames": 2048},
        "donut": {"recipe": "robust", "size": "compact", "epochs": 3},
        "nanobeamnn": {"recipe": "quick", "kernel": "closed_form", "grid": 6, "epochs": 3, "peak": 30.0},
    },
)

"""Dark-field X-ray microscopy: a full-field image of the inside of a crystal at every position of one to three motors."""

from braggscope.core.modality import Modality

_HERE = "braggscope.modalities.dfxm"

MODALITY = Modality(
    name="dfxm",
    summary="a crystal is imaged while one to three motors are scanned; per pixel: orientation, spread, intensity",
    package=_HERE,
    geometry=f"{_HERE}.geometry:DfxmGeometry",
    forward=f"{_HERE}.forward:RockingCurve",
    phantoms={
        "subgrains": f"{_HERE}.phantoms.grains:subgrains",
        "bent_crystal": f"{_HERE}.phantoms.grains:bent_crystal",
        "dislocation_walls": f"{_HERE}.phantoms.walls:dislocation_walls",
        "twins": f"{_HERE}.phantoms.twins:twins",
        "crystal": f"{_HERE}.phantoms.twins:crystal",
        "edge_dislocation": f"{_HERE}.phantoms.oblique:edge_dislocation",
        "dislocations": f"{_HERE}.phantoms.dislocations:dislocations",
        "finite_strain": f"{_HERE}.phantoms.oblique:finite_strain",
        "boundaries": f"{_HERE}.phantoms.boundaries:boundaries",
        "dislocation_movie": f"{_HERE}.phantoms.movie:dislocation_movie",
    },
    default_method="moments",
    curve_model=f"{_HERE}.expected_curve:expected_curve",
    misfit_hint="the curves are not of the shape fitted: try --option peaks=2 or, for one motor, --option shape=pseudo_voigt; "
    "a wrong gain does the same",
    views={
        **{name: f"{_HERE}.views.rocking:{name}" for name in ("overview", "mosaicity", "rocking_curves")},
        **{name: f"{_HERE}.views.orientation:{name}" for name in ("orientation", "misorientation", "layers")},
        "domains": f"{_HERE}.views.domains:domains",
        "strain": f"{_HERE}.views.strain:strain",
        "boundaries": f"{_HERE}.views.boundaries:boundaries",
        "localised": f"{_HERE}.views.localise:localised",
        "burgers": f"{_HERE}.views.burgers:burgers",
        "visibility": f"{_HERE}.views.visibility:visibility",
        "components": f"{_HERE}.views.components:separated",
        "component_count": f"{_HERE}.views.components:scree",
        "beams": f"{_HERE}.views.gram_schmidt:beams",
        "scales": f"{_HERE}.views.multiresolution:scales",
        "scales_of_frames": f"{_HERE}.views.multiresolution:scales_of_frames",
        **{name: f"{_HERE}.views.tracking:{name}" for name in ("tracks", "positions", "displacements")},
        **{
            name: f"{_HERE}.views.deformation:{name}"
            for name in ("deformation_gradient", "strain_and_rotation", "dislocation_density", "sensitivity")
        },
    },
    example_geometry=f"{_HERE}.geometry:id03",
    example_forward=f"{_HERE}.forward:example",
    example_phantom={"shape": (41,), "frame_shape": (30, 26), "peak": 15000.0},
)

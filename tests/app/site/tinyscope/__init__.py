"""A microscopy for tests of the program: each frame is flat, and its level is what is mapped."""

from braggscope.core.modality import Modality

MODALITY = Modality(
    name="tiny",
    summary="flat frames, for tests",
    package="tinyscope",
    geometry="tinyscope.parts:TinyGeometry",
    forward="tinyscope.parts:none",
    phantoms={"ramp": "tinyscope.parts:ramp"},
    default_method="mean",
    views={"overview": "tinyscope.parts:overview", "frame": "tinyscope.parts:frame"},
    tables="tinyscope.levels:TABLES",
    calibrate="tinyscope.parts:calibrate",
    example_geometry="tinyscope.parts:TinyGeometry",
)

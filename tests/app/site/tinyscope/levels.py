"""Lists of levels, as another program would write them: the word LEVELS, then a number a line."""

from pathlib import Path

import numpy as np

from braggscope.core.errors import InputError
from braggscope.core.maps import Quantity, empty_map
from braggscope.core.modality import Tables


def matches(path):
    return Path(path).is_file() and Path(path).read_bytes().startswith(b"LEVELS")


def read(path):
    try:
        values = np.array(Path(path).read_text().split()[1:], float)
    except ValueError as error:
        raise InputError(f"{path} must hold numbers: {error}") from None
    table = empty_map([Quantity("level", "count", "level")], ["peak"], [len(values)], {}, {1: "no_frame"})
    table["level"].values[:] = values
    return table.assign_attrs(geometry='{"gain": 2.0}')


TABLES = Tables(matches, read)

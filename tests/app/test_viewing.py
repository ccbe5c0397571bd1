"""Views of maps: where the scan is asked for, and where it would be of no use."""

import numpy as np
import pytest

import braggscope
from braggscope.app.viewing import draw
from braggscope.core import maps
from braggscope.core.errors import InputError

ALONE = "alone: give its scan file with --scan"


def map_of(*names, modality="dfxm"):
    found = maps.empty_map([maps.Quantity(n, "deg", n) for n in names], ("row", "column"), (4, 6), {}, {1: "no_signal"})
    for name in names:
        found[name].values[...] = np.arange(24.0).reshape(4, 6)
    return found.assign_attrs(modality=modality, method="moments")


@pytest.mark.parametrize(
    ("view", "names", "helps"),
    [
        ("orientation", ("total", "mu"), False),
        ("strain", ("total", "mu"), False),
        ("rocking_curves", ("total", "mu", "mu_width"), True),
        ("rocking_curves", ("kam",), False),  # its curves need motors, whether the scan is there or not
    ],
)
def test_the_scan_is_asked_for_where_the_view_would_use_it(view, names, helps):
    with pytest.raises(InputError, match=f"view '{view}' cannot be drawn of this map") as refusal:
        draw(map_of(*names), view)
    assert (ALONE in str(refusal.value)) is helps
    assert "views that can be: overview" in str(refusal.value)


def test_a_scan_that_is_given_is_not_asked_for(tiny, scan_file):
    scan = braggscope.open(scan_file())
    with pytest.raises(InputError) as refusal:
        draw(map_of("kam"), "rocking_curves", scan)
    assert ALONE not in str(refusal.value)

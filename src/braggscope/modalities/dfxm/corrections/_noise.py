"""How the counts of a scan scatter, from the curves of some pixels over some of its lines (see ../photon_transfer.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from braggscope.core.scan import Scan

if TYPE_CHECKING:
    from ..photon_transfer import DetectorNoise

FRAMES = 256  # that are looked at, about: every correction looks again, at frames that those before it have changed
AT_ONCE = 16  # of them at most


def scan_noise(scan: Scan) -> DetectorNoise:
    """Gain, dark level and dark variance of the counts of a scan in its region of interest; NaN where they do not show."""
    from ..photon_transfer import sampled_curves

    scan = scan.bin(1)
    return sampled_curves(scan, frames=FRAMES, size=min(scan.batch_size(), AT_ONCE)).noise()


def believed_noise(scan: Scan) -> DetectorNoise:
    """The same; gain 1 and no variance where they do not show."""
    from ..photon_transfer import believed

    return believed(scan_noise(scan))

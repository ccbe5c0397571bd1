import numpy as np
import xarray as xr

from braggscope.modalities.laue.peaks.search import find_spots
from braggscope.modalities.laue.peaks.table import peak_table
from braggscope.modalities.laue.views.peaks import peaks


def table(height):
    random, (y, x) = np.random.default_rng(0), np.mgrid[:64, :80]
    light = 20 + height * np.exp(-0.5 * ((y - 30) ** 2 + (x - 50) ** 2))
    return peak_table(find_spots(random.poisson(light).astype(np.uint16))).assign_attrs(frame_rows=64, frame_columns=80)


def test_the_detector_is_drawn_with_row_0_above():
    figure = peaks(table(500))
    detector = figure.axes[0]
    assert detector.get_xlim() == (-0.5, 79.5) and detector.get_ylim() == (63.5, -0.5)
    assert "1 peak," in figure.get_suptitle()
    figure.draw_without_rendering()


def test_a_table_without_peaks_is_drawn_and_another_is_not():
    peaks(table(0).isel(peak=slice(0, 0))).draw_without_rendering()
    assert peaks(xr.Dataset({"flag": ("grain", np.zeros(2, np.int32))})) is None

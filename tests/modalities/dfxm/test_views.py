"""DFXM pictures: what each shows, and when it shows nothing."""

import numpy as np
import pytest
import xarray as xr

from braggscope.core.batch import Batch
from braggscope.modalities.dfxm.estimators.moments import Moments
from braggscope.modalities.dfxm.phantoms.grains import subgrains
from braggscope.modalities.dfxm.views import rocking as views
from braggscope.plot.colour_key import key_colours


def mapped(shape):
    source = subgrains(None, shape=shape, frame_shape=(14, 22))
    estimator = Moments(None)
    state = estimator.init(source)
    for batch in source.batches():
        state = estimator.update(state, batch)
    return source, estimator.result(state)


def test_overview_has_each_quantity_and_its_error():
    _, m = mapped((21,))
    titles = " ".join(ax.get_title(loc="left") for ax in views.overview(m).axes)
    for name in ("mu (deg)", "mu_width (deg)", "total (count)", "pedestal (count)", "standard deviation of mu_kurtosis", "flags"):
        assert name in titles


def result(flag_dims=("row", "column"), **variables):
    """What an analysis may give: quantities of pixels, of levels, of names."""
    sizes = {"layer": 3, "row": 4, "column": 6, "level": 2, "beam": 3, "domain": 5}
    random, found = np.random.default_rng(0), {}
    for name, dims in variables.items():
        found[name] = (dims, random.normal(size=[sizes[d] for d in dims]), {"units": "deg", "long_name": name})
    attributes = {"flag_masks": np.array([1], np.int32), "flag_meanings": "dark"}
    found["flag"] = (flag_dims, np.zeros([sizes[d] for d in flag_dims], np.int32), attributes)
    return xr.Dataset(found, coords={"beam": ["strong", "minus", "plus"]}, attrs={"method": "kam"})


def test_overview_draws_what_is_over_pixels_and_leaves_levels_curves_and_tables_out():
    pixels = ("row", "column")
    m = result(
        kam=pixels, kam_std=pixels, detail=("level", *pixels), profile=("beam", "level"), size=("domain",), spread=("domain",)
    )
    figure = views.overview(m)
    assert figure.get_suptitle() == "kam: every quantity of the pixels"
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert titles == ["kam (deg)", "standard deviation of kam (deg)", "flags: 24 of 24 points have none (white)"]


def test_overview_of_a_volume_is_its_middle_layer():
    volume = ("layer", "row", "column")
    m = result(volume, rotation_x=volume)
    figure = views.overview(m)
    assert figure.get_suptitle().endswith("layer 2 of 3")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), m["rotation_x"].values[1])
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high  # a rotation has a sign


def test_a_volume_of_motor_positions_is_no_mosaicity_picture():
    volume = ("layer", "row", "column")
    assert views.mosaicity(result(volume, mu=volume, mu_width=volume, chi=volume, chi_width=volume)) is None


def test_a_table_is_not_drawn_as_an_image():
    assert views.overview(result(("domain",), size=("domain",))) is None


def test_mosaicity_shows_the_image_and_a_key_with_motors_and_units():
    _, m = mapped((9, 11))
    image, key = views.mosaicity(m).axes
    assert image.images[0].get_array().shape == (14, 22, 3)
    assert (key.get_xlabel(), key.get_ylabel()) == ("mu (deg)", "chi (deg)")
    left, right, bottom, top = key.images[0].get_extent()
    assert (left, right) == pytest.approx(np.nanpercentile(m["mu"], [2, 98]))
    assert (bottom, top) == pytest.approx(np.nanpercentile(m["chi"], [2, 98]))


def test_a_map_of_one_motor_has_no_mosaicity_picture_and_no_curves_without_the_scan():
    _, m = mapped((21,))
    assert views.mosaicity(m) is None and views.rocking_curves(m) is None


@pytest.mark.parametrize("shape", [(21,), (9, 11)])
def test_rocking_curves_mark_pedestal_mean_and_width(shape):
    source, m = mapped(shape)
    figure = views.rocking_curves(m, source)
    image, *panels = figure.axes
    assert (image.get_xlabel(), image.get_ylabel()) == ("column (px)", "row (px)")
    assert "total" in image.get_title() and len(panels) == views.CURVES * len(shape)
    panel = panels[0]
    row, column = (int(w.strip(",")) for w in panel.get_title().split()[1::2])
    pixel = m.isel(row=row, column=column)
    curve, pedestal, mean = panel.lines
    assert pedestal.get_ydata()[0] == pytest.approx(pixel["pedestal"].item())
    motor = views.motors_of(m)[0]
    assert mean.get_xdata()[0] == pytest.approx(pixel[motor].item())
    assert len(curve.get_xdata()) == shape[0]


def test_a_curve_of_two_motors_is_the_mean_over_the_other_at_each_position():
    shape = (5, 14)
    source, m = mapped(shape)
    panel_chi, panel_mu = views.rocking_curves(m, source).axes[1:3]
    row, column = (int(w.strip(",")) for w in panel_chi.get_title().split()[1::2])
    counts = np.concatenate([batch.frames[:, row, column] for batch in source.batches()]).reshape(shape)
    for panel, axis, name in ((panel_chi, 0, "chi"), (panel_mu, 1, "mu")):
        x, y = panel.lines[0].get_data()
        np.testing.assert_allclose(x, source.grid[name].values)
        np.testing.assert_allclose(y, counts.mean(axis=1 - axis))


class Masked:
    """A source in which the counts of some frames may not be used."""

    def __init__(self, source, frames):
        self.source, self.frames = source, frames

    def __getattr__(self, name):
        return getattr(self.source, name)

    def batches(self):
        for batch in self.source.batches():
            good = np.ones(batch.frames.shape, bool)
            good[np.isin(batch.index, self.frames)] = False
            yield Batch(batch.index, batch.frames, mask=good)


def test_counts_that_may_not_be_used_are_no_part_of_a_curve():
    source, m = mapped((21,))
    y = views.rocking_curves(m, Masked(source, [4, 10])).axes[1].lines[0].get_ydata()
    assert np.flatnonzero(np.isnan(y)).tolist() == [4, 10]
    shape = (5, 14)
    source, m = mapped(shape)
    lost = [*range(14, 28), 3]  # the second position of chi, and one point of the first
    panel = views.rocking_curves(m, Masked(source, lost)).axes[1]
    row, column = (int(w.strip(",")) for w in panel.get_title().split()[1::2])
    counts = np.concatenate([batch.frames[:, row, column] for batch in source.batches()]).astype(float).reshape(shape)
    y = panel.lines[0].get_ydata()
    assert np.isnan(y[1]) and y[0] == pytest.approx(np.delete(counts[0], 3).mean())
    assert y[2:] == pytest.approx(counts[2:].mean(axis=1))


def test_the_colour_key_tells_directions_apart():
    corners = key_colours(np.array([0.0, 0, 1, 1, 0.5]), np.array([0.0, 1, 0, 1, 0.5]), (0, 1), (0, 1))
    apart = np.linalg.norm(corners[:, None] - corners[None], axis=-1)[~np.eye(5, dtype=bool)]
    assert apart.min() > 0.25 and (corners >= 0).all() and (corners <= 1).all()
    assert np.ptp(corners[4]) < 0.02  # the middle has no hue

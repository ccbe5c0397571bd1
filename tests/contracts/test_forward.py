"""Every forward model: gradients, Jacobian, leading axes, device and dtype."""

import pytest
import torch

from .discovered import MODALITIES

each = pytest.mark.parametrize("modality", MODALITIES, ids=lambda m: m.name)


def example(modality):
    forward, params = modality.load(modality.example_forward)()
    return forward, {name: torch.as_tensor(value, dtype=torch.float64) for name, value in params.items()}


@each
def test_the_example_names_every_parameter(modality):
    forward, params = example(modality)
    assert isinstance(forward, modality.load(modality.forward))
    assert set(params) == set(forward.params)
    for name, value in params.items():
        assert forward.params[name].low <= value.min() and value.max() <= forward.params[name].high, name


@each
def test_gradients_are_the_finite_differences(modality):
    forward, params = example(modality)
    for name, value in params.items():
        low, high = forward.params[name].low, forward.params[name].high
        step = 1e-6 * (high - low if high - low < 1e3 else float(value.abs().max()))
        slope = torch.func.jvp(lambda v, n=name: forward({**params, n: v}), (value,), (torch.ones_like(value),))[1]
        difference = (forward({**params, name: value + step}) - forward({**params, name: value - step})) / (2 * step)
        # 1e-5 of the steepest pixel: truncation of the central difference at this step
        assert (slope - difference).abs().max() <= 1e-5 * slope.abs().max(), name


@each
def test_the_jacobian_is_the_derivative_of_forward(modality):
    forward, params = example(modality)
    names = tuple(forward.params)
    leading = torch.broadcast_shapes(*(v.shape for v in params.values()))
    expected, jacobian = forward.jacobian(params, names)
    full = {n: v.expand(leading) for n, v in params.items()}
    assert torch.allclose(expected, forward(full), rtol=1e-9, atol=1e-12)
    for i, name in enumerate(names):
        column = torch.func.jvp(
            lambda v, n=name: forward({**full, n: v}), (full[name],), (torch.ones(leading, dtype=torch.float64),)
        )[1]
        part = jacobian.select(len(leading), i)
        assert (part - column).abs().max() <= 1e-6 * column.abs().max(), name


@each
def test_leading_axes_broadcast(modality):
    forward, params = example(modality)
    one = {n: v.flatten()[0] for n, v in params.items()}
    name = next(iter(params))
    many = torch.stack([one[name], one[name] * 1.01, one[name] * 0.99])[:, None].expand(3, 2)
    stacked = forward({**one, name: many})
    assert stacked.shape[:2] == (3, 2)
    for i in range(3):
        assert torch.allclose(stacked[i, 1], forward({**one, name: many[i, 0]}), rtol=1e-12, atol=1e-12)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_device_and_dtype_are_kept(modality, dtype):
    forward, params = example(modality)
    expected = forward.to(dtype)({n: v.to(dtype) for n, v in params.items()})
    assert expected.dtype == dtype and expected.device == torch.device("cpu")
    assert torch.isfinite(expected).all() and (expected >= 0).all()


@each
def test_single_precision_is_enough_for_counts(modality):
    forward, params = example(modality)
    double = forward(params)
    single = forward.to(torch.float32)({n: v.float() for n, v in params.items()})
    assert (single.double() - double).abs().max() <= 1e-3 * double.max()

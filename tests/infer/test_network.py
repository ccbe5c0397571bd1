"""Networks in use: convolutions, normalisation and dense layers, two outputs."""

import numpy as np
import onnxruntime
import pytest
import torch

from braggscope.core.errors import InputError
from braggscope.core.model import KEY, SEAL
from braggscope.infer import runtime
from braggscope.infer.network import export, load_arrays, onnx_runner, state_arrays, torch_runner


class Two(torch.nn.Module):
    """An image and a few numbers per frame in, a vector and an image out."""

    def __init__(self):
        super().__init__()
        self.convolutions = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(8, 17, 3, padding=1),
            torch.nn.LeakyReLU(0.01),
        )
        self.dense = torch.nn.Sequential(torch.nn.Linear(17 * 9 * 6 + 3, 37), torch.nn.ReLU(), torch.nn.Linear(37, 5))
        self.up = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, images, numbers):
        seen = self.convolutions(images)
        return self.dense(torch.cat([seen.flatten(1), numbers], dim=1)), self.up(seen)


def built(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Two()
        for _ in range(3):  # running means and variances that are not those of a new layer
            network(2 * torch.randn(32, 1, 18, 12) + 1, torch.randn(32, 3))
    return network.eval()


def frames(count, seed=1):
    draw = np.random.default_rng(seed)
    return draw.poisson(5.0, (count, 1, 18, 12)).astype(np.float32), draw.normal(size=(count, 3)).astype(np.float32)


def graph(network, document="{}"):
    return export(network, (torch.zeros(2, 1, 18, 12), torch.zeros(2, 3)), document)


@pytest.fixture(params=["torch", "onnx"], scope="module")
def runner(request):
    network = built()
    return torch_runner(network) if request.param == "torch" else onnx_runner(graph(network))


def test_a_frame_has_the_same_result_in_any_batch_and_at_any_place(runner):
    images, numbers = frames(200)
    whole = runner(images, numbers)
    draw = np.random.default_rng(4)
    for count in (1, 3, 63, 64, 65, 131):
        some = draw.permutation(200)[:count]
        for part, all_of_it in zip(runner(images[some], numbers[some]), whole, strict=True):
            assert part.dtype == np.float32
            assert np.array_equal(part, all_of_it[some]), count


class Dense(torch.nn.Module):
    """Dense layers of one input; their number of inputs and outputs is what decides how a matrix product adds up."""

    def __init__(self, inputs):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(inputs, outputs) for outputs in (1, 2, 5, 8, 11, 17, 64))

    def forward(self, x):
        return tuple(layer(x) for layer in self.layers)


@pytest.mark.parametrize("inputs", [5, 37, 255, 256, 921])
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_dense_layers_of_any_width_do_not_see_the_place_of_a_frame(inputs, kind):
    network = Dense(inputs)
    run = torch_runner(network) if kind == "torch" else onnx_runner(export(network, (torch.zeros(2, inputs),), "{}"))
    draw = np.random.default_rng(inputs)
    x = draw.normal(size=(100, inputs)).astype(np.float32)
    whole = run(x)
    for _ in range(5):
        order = draw.permutation(100)
        unaligned = np.empty(x.size + 1, np.float32)[1:].reshape(x.shape)  # as a slice of somebody's array may lie in memory
        unaligned[...] = x[order]
        for part, all_of_it in zip(run(unaligned), whole, strict=True):
            assert np.array_equal(part, all_of_it[order])


def test_a_runner_gives_what_the_network_gives():
    network, (images, numbers) = built(), frames(70)
    with torch.no_grad():
        expected = network(torch.from_numpy(images), torch.from_numpy(numbers))
    for run in (torch_runner(network), onnx_runner(graph(network))):
        for found, true in zip(run(images, numbers), expected, strict=True):
            assert found.shape == true.shape
            # float32 sums of 1000 terms, values of order 1
            np.testing.assert_allclose(found, true.numpy(), rtol=1e-5, atol=1e-5)


def test_several_threads_give_the_same_bits(runner, monkeypatch):
    images, numbers = frames(400)
    monkeypatch.setattr(runtime, "_threads", 1)
    alone = runner(images, numbers)
    monkeypatch.setattr(runtime, "_threads", 3)
    runtime._pool.cache_clear()
    together = runner(images, numbers)
    runtime._pool.cache_clear()
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_torch_has_its_threads_back_after_a_run():
    before = torch.get_num_threads()
    torch_runner(built())(*frames(3))
    assert torch.get_num_threads() == before


def test_no_frames_give_empty_results_of_the_right_shape(runner):
    assert [value.shape for value in runner(*frames(0))] == [(0, 5), (0, 17, 18, 12)]


def test_a_network_of_one_output_gives_a_tuple_of_one():
    network = torch.nn.Linear(3, 2).eval()
    x = np.ones((4, 3))  # float64 comes in, float32 goes out
    for run in (torch_runner(network), onnx_runner(export(network, (torch.zeros(1, 3),), "{}"))):
        (found,) = run(x)
        assert found.shape == (4, 2)
        assert found.dtype == np.float32


def test_dropout_is_off_in_a_runner():
    network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 2)).train()
    run, x = torch_runner(network), np.ones((4, 3), np.float32)
    assert np.array_equal(run(x)[0], run(x)[0])


def test_the_graph_says_what_it_is_and_names_its_frames():
    session = onnxruntime.InferenceSession(graph(built(), '{"method": "Gauß"}'), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert sorted(said) == [KEY, SEAL]
    assert said[KEY] == '{"method": "Gauß"}'
    assert [one.shape for one in session.get_inputs()] == [["frame", 1, 18, 12], ["frame", 3]]
    assert [one.shape[0] for one in session.get_outputs()] == ["frame", "frame"]


def test_export_leaves_the_network_as_it_was():
    network = built().train()
    before = state_arrays(network)
    graph(network)
    assert network.training
    assert all(np.array_equal(value, before[name]) for name, value in state_arrays(network).items())


def test_no_graph_is_refused():
    with pytest.raises(InputError, match="ONNX Runtime cannot run the model"):
        onnx_runner(b"no graph")


def test_arrays_go_back_into_a_network():
    source, target = built(1), built(2)
    arrays = state_arrays(source)
    load_arrays(target, arrays, "here")
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True))
    assert arrays["convolutions.1.num_batches_tracked"] == 3
    arrays["dense.0.bias"][:] = 7  # copies, both ways
    assert not (source.dense[0].bias == 7).any()
    assert not (target.dense[0].bias == 7).any()


def test_arrays_that_do_not_fit_are_named_and_nothing_is_loaded():
    network = built()
    before = state_arrays(network)
    arrays = {**before, "dense.2.weight": np.zeros((5, 38), np.float32), "dense.9.bias": np.zeros(3, np.float32)}
    del arrays["dense.0.bias"]
    with pytest.raises(InputError) as refused:
        load_arrays(network, arrays, "model.safetensors")
    assert str(refused.value) == (
        "the weights in model.safetensors do not fit the network: dense.0.bias is missing; dense.9.bias is not of this network; "
        "dense.2.weight is 5 x 38, this network has 5 x 37"
    )
    assert all(np.array_equal(value, before[name]) for name, value in state_arrays(network).items())

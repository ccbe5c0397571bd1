"""Networks in use: frames through torch or ONNX Runtime, weights as plain arrays, a network as an ONNX graph.

Frames go through a network in blocks of one size, the last one filled up with zeros, each block on one thread: what a network
says of a frame does not depend, to the last bit, on the frames that came with it or on its place among them, so that a live
map equals the one made afterwards. Convolutions and ONNX Runtime keep that by themselves; torch's dense layers do where all rows
begin at the same alignment (see `_Aligned`).
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from braggscope.core.errors import InputError
from braggscope.core.model import BLANK, KEY, SEAL, sealed

from .runtime import in_threads, single_threaded_torch

BLOCK = 64  # frames
OPSET = 17  # of the ONNX operators; run by ONNX Runtime since 1.12
ALIGNED = 16  # float32 numbers, 64 bytes
EDGE = "pip install 'braggscope[edge]'"

Arrays = tuple[np.ndarray, ...]


class Runner(Protocol):
    """A network that is ready for frames."""

    def __call__(self, *inputs: np.ndarray) -> Arrays:
        """Its outputs, float32, shape (frame, ...), for inputs of shape (frame, ...)."""


def torch_runner(network: torch.nn.Module) -> Runner:
    """A network as it is, in evaluation mode, on the device where its weights are."""
    network.eval()
    device = next((value.device for value in network.parameters()), torch.device("cpu"))

    def block(*inputs: np.ndarray) -> Arrays:
        torch.set_num_threads(1)  # of this thread; single_threaded_torch speaks for the calling one
        with torch.no_grad(), _Aligned():
            found = network(*(torch.tensor(x, device=device) for x in inputs))
        return tuple(value.float().cpu().numpy() for value in (found if isinstance(found, tuple | list) else (found,)))

    def run(*inputs: np.ndarray) -> Arrays:
        with single_threaded_torch():
            return _in_blocks(block, inputs)

    return run


class _Aligned(TorchFunctionMode):
    """Dense layers whose result for a frame is the same wherever it stands in a block.

    The matrix product of MKL adds up in another order where a row does not begin at a multiple of 16 bytes; zeros at the end of
    each row see to that. (Without them, seen with 2 to 11 outputs and any number of inputs that is not a multiple of 4.)
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.linear and not kwargs and args[0].shape[-1] % ALIGNED:
            missing = -args[0].shape[-1] % ALIGNED
            args = (*(functional.pad(one, (0, missing)) for one in args[:2]), *args[2:])
        return function(*args, **(kwargs or {}))


def onnx_runner(graph: bytes) -> Runner:
    """An ONNX graph in ONNX Runtime, on the CPU. Raises InputError where ONNX Runtime is missing or cannot run it."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"an ONNX model needs ONNX Runtime: {EDGE}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"ONNX Runtime cannot run the model ({' '.join(str(error).split())})") from None
    names = [one.name for one in session.get_inputs()]

    def block(*inputs: np.ndarray) -> Arrays:
        return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

    return lambda *inputs: _in_blocks(block, inputs)


def _in_blocks(block: Callable[..., Arrays], inputs: Sequence[np.ndarray]) -> Arrays:
    """Outputs of all frames, from a function for one block of them."""
    count = len(inputs[0])
    found: list[Arrays] = [()] * max(1, -(-count // BLOCK))

    def some(first: int, last: int) -> None:
        for i in range(first, last):
            found[i] = block(*(_padded(x[i * BLOCK : (i + 1) * BLOCK]) for x in inputs))

    in_threads(some, len(found))
    return tuple(np.concatenate(parts)[:count].astype(np.float32, copy=False) for parts in zip(*found, strict=True))


def _padded(frames: np.ndarray) -> np.ndarray:
    """The frames of one block as float32, filled up with zeros."""
    if len(frames) == BLOCK:
        return np.ascontiguousarray(frames, np.float32)
    block = np.zeros((BLOCK, *frames.shape[1:]), np.float32)
    block[: len(frames)] = frames
    return block


def export(network: torch.nn.Module, example_inputs: Sequence[Tensor], document: str) -> bytes:
    """A network as an ONNX graph that takes any number of frames.

    example_inputs: Tensors of some frames, shape (frame, ...) each; their values do not matter.
    document: What the graph says of itself (core.model.Model.document).
    """
    try:
        import onnx
    except ImportError:
        raise InputError(f"export needs onnx: {EDGE}") from None
    with _evaluated(network):
        graph = onnx.load_model_from_string(_traced(network, tuple(example_inputs)))
    onnx.helper.set_model_props(graph, {KEY: document, SEAL: BLANK})
    return sealed(graph.SerializeToString())


@contextlib.contextmanager
def _evaluated(network: torch.nn.Module) -> Iterator[None]:
    """The network in evaluation mode for a while."""
    before = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _traced(network: torch.nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    """The graph of a network as ONNX, without metadata."""
    with torch.no_grad():
        found = network(*inputs)
    ins = [f"input_{i}" for i in range(len(inputs))]
    outs = [f"output_{i}" for i in range(len(found) if isinstance(found, tuple | list) else 1)]
    written: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the exporter itself; its successor needs onnxscript
        torch.onnx.export(
            network,
            inputs,
            written,
            dynamo=False,
            opset_version=OPSET,
            input_names=ins,
            output_names=outs,
            dynamic_axes={name: {0: "frame"} for name in ins + outs},
        )
    return written.getvalue()


def state_arrays(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """Parameters and buffers of a network by name, copies."""
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}


def load_arrays(network: torch.nn.Module, arrays: Mapping[str, Any], where: str) -> None:
    """Give a network its parameters and buffers.

    arrays: Arrays or tensors by the names that `state_arrays` gives.
    where: Where they are from, for errors.

    Raises InputError, naming them, where some are missing, unexpected or of another shape; the network then stays as it was.
    """
    own = network.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in arrays]
    wrong += [f"{name} is not of this network" for name in arrays if name not in own]
    for name in own:
        if name in arrays and tuple(own[name].shape) != tuple(arrays[name].shape):
            theirs, ours = (" x ".join(map(str, one[name].shape)) or "a number" for one in (arrays, own))
            wrong.append(f"{name} is {theirs}, this network has {ours}")
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"the weights in {where} do not fit the network: {'; '.join(wrong[:3])}{more}")
    network.load_state_dict({k: one if isinstance(one, Tensor) else torch.from_numpy(np.array(one)) for k, one in arrays.items()})

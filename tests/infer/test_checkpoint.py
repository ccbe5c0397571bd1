"""Checkpoints: what comes back is what was written, and nothing else is taken for one."""

import errno
import json
import pickle

import pytest
import torch
from safetensors.torch import save

from braggscope.core.beside import BesideFile
from braggscope.core.errors import InputError
from braggscope.infer.checkpoint import Checkpoint, check_identity, load_checkpoint, save_checkpoint


def example(**changes):
    weights = {
        "layer.weight": torch.tensor([[1.5, -0.0], [float("inf"), 1e-42]]),
        "norm.num_batches_tracked": torch.tensor(7),
        "half": torch.tensor([1.0, 3.1], dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
    }
    values = {
        "identity": {"seed": 3, "config": {"rates": [0.1, 0.02], "name": "a"}},
        "weights": weights,
        "best": {name: value + 1 if value.dtype == torch.float32 else value for name, value in weights.items()},
        "optimiser": {
            "state": {0: {"step": torch.tensor(4.0), "history": [torch.ones(2), None]}},
            "param_groups": [{"betas": (0.9, 0.99)}],
        },
        "history": [{"epoch": 1, "train": {"loss": 0.1 + 0.2}, "best": True}],
    }
    return Checkpoint(**{**values, **changes})


def written(folder, **changes):
    save_checkpoint(example(**changes), folder)
    return folder / "checkpoint.safetensors"


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].shape == b[name].shape
        assert torch.equal(a[name], b[name])


def test_everything_comes_back(tmp_path):
    written(tmp_path / "new" / "folder")
    found, expected = load_checkpoint(tmp_path / "new" / "folder"), example()
    assert_same(found.weights, expected.weights)
    assert_same(found.best, expected.best)
    assert (found.identity, found.history) == (expected.identity, expected.history)


def test_what_an_optimiser_remembers_keeps_its_kinds(tmp_path):
    written(tmp_path)
    found = load_checkpoint(tmp_path).optimiser
    assert found["param_groups"] == [{"betas": (0.9, 0.99)}]
    assert list(found["state"]) == [0]
    assert found["state"][0]["step"].item() == 4.0
    assert torch.equal(found["state"][0]["history"][0], torch.ones(2))
    assert found["state"][0]["history"][1] is None


def test_the_states_of_torchs_optimisers_come_back(tmp_path):
    for kind in (torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.LBFGS, torch.optim.Adagrad):
        network = torch.nn.Linear(3, 2)
        optimiser = kind(network.parameters(), lr=0.1)

        def loss(network=network, optimiser=optimiser):
            optimiser.zero_grad()
            value = network(torch.ones(4, 3)).square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        written(tmp_path, optimiser=optimiser.state_dict())
        twin = torch.nn.Linear(3, 2)
        twin.load_state_dict(network.state_dict())
        second = kind(twin.parameters(), lr=0.5)
        second.load_state_dict(load_checkpoint(tmp_path).optimiser)
        optimiser.step(loss)
        second.step(lambda network=twin, optimiser=second, loss=loss: loss(network, optimiser))
        assert torch.equal(network.weight, twin.weight), kind


def test_weights_that_share_memory_are_written_each(tmp_path):
    shared = torch.ones(3)
    written(tmp_path, weights={"a": shared, "b": shared, "c": shared[1:]})
    assert set(load_checkpoint(tmp_path).weights) == {"a", "b", "c"}


def test_no_pickle_is_read(tmp_path, monkeypatch):
    written(tmp_path)

    def forbidden(*args, **kwargs):
        raise AssertionError("pickle")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    load_checkpoint(tmp_path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = written(tmp_path)
    before = path.read_bytes()

    def full(self, view):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BesideFile, "_write_all", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path, history=[])
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


@pytest.mark.parametrize("where", ["head", "document", "arrays"])
def test_a_changed_byte_is_noticed(tmp_path, where):
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    place = {"head": 9, "document": data.index(b"betas") + 3, "arrays": len(data) - 5}[where]
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError) as refused:
        load_checkpoint(tmp_path)
    assert str(refused.value) == f"checkpoint {path} is corrupt or cut short; train without resume to begin anew"


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint", save({"a": torch.ones(2)}), save({"a": torch.ones(2)}, {"braggscope": "{}"})]
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is corrupt or cut short"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("length", [4, 200, -1])
def test_a_cut_one_is_refused(tmp_path, length):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="is corrupt or cut short"):
        load_checkpoint(tmp_path)


def test_a_later_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("braggscope.infer.checkpoint.FORMAT", 2)
    written(tmp_path)
    monkeypatch.setattr("braggscope.infer.checkpoint.FORMAT", 1)
    with pytest.raises(InputError, match="has format 2, this version of braggscope reads format 1"):
        load_checkpoint(tmp_path)


def test_a_missing_one_is_said(tmp_path):
    with pytest.raises(InputError, match="there is no checkpoint in"):
        load_checkpoint(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="there is no checkpoint in"):
        load_checkpoint(tmp_path / "file")


def test_an_unreadable_one_is_said(tmp_path):
    (tmp_path / "checkpoint.safetensors").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_the_same_identity_passes_whatever_the_order_and_kind_of_sequence(tmp_path):
    check_identity(example(), {"config": {"name": "a", "rates": (0.1, 0.02)}, "seed": 3}, tmp_path)


def test_all_that_differs_is_named(tmp_path):
    with pytest.raises(InputError) as refused:
        check_identity(example(), {"seed": 4, "config": {"rates": [0.1], "name": "a", "depth": None}, "data": "x"}, tmp_path)
    assert str(refused.value) == (
        f"the checkpoint in {tmp_path} is of another training: seed is 3 there and 4 here; config.rates is [0.1, 0.02] there and "
        "[0.1] here; data is not set there and x here; train without resume to begin anew"
    )


def test_the_document_is_json(tmp_path):
    data = written(tmp_path).read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(head["__metadata__"]["braggscope.checkpoint"])["identity"] == example().identity

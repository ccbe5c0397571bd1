"""Training on a small regression: five numbers per frame, two of their combinations to be found."""

import csv
import itertools
import math
import sys

import numpy as np
import pytest
import torch

from braggscope.core.errors import BraggscopeError, InputError
from braggscope.core.learned import Training
from braggscope.infer.train import Task, train

EPOCHS = 4


def frames(seed, count):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=draw)
    mix = torch.linspace(-1, 1, 10).reshape(5, 2)
    return x, x @ mix + 0.05 * torch.randn(count, 2, generator=draw)


def batches(epoch):
    x, y = frames(1, 48)
    order = torch.from_numpy(np.random.default_rng([7, epoch]).permutation(len(x)))
    return [(x[i], y[i]) for i in order.split(16)]


def built(seed=3):
    """A network with what is hard to resume: dropout, batch normalisation with running means and an integer count."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 2)
        )


def linear(seed=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Linear(5, 2)


def squares(network, batch):
    x, y = batch
    residual = network(x) - y
    return {"loss": (residual**2).mean(), "bias": residual.mean()}


def adamw(network):
    return torch.optim.AdamW(network.parameters(), lr=2e-2)


def task(**changes):
    values = {
        "network": built(),
        "batches": batches,
        "loss": squares,
        "validation": lambda: [frames(2, 20), frames(3, 7)],
        "optimiser": adamw,
        "epochs": EPOCHS,
        "config": {"width": 8, "betas": (0.9, 0.99)},
        "data_hash": "abc",
    }
    return Task(**{**values, **changes})


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(a, b):
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


def stored(folder):
    """The arrays of a checkpoint as bytes, without the document, which has times in it."""
    data = (folder / "checkpoint.safetensors").read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def interrupted(folder, after, **changes):
    """The first reports of a training that is then given up."""
    begun = train(task(**changes), Training(folder))
    reports = list(itertools.islice(begun, after))
    begun.close()
    return reports


def watched(measure=squares):
    """Changes of a task, and the weights that they see at the end of each epoch."""
    now, seen = [], {}

    def validate(network, batch):
        seen[now[-1]] = weights(network)
        return measure(network, batch)

    return {"batches": lambda epoch: now.append(epoch) or batches(epoch), "validate": validate}, seen


def rows(folder):
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def turning_bad(epoch, step, value=math.nan):
    """A loss that is not finite from one step on; steps taken are counted by `calls`."""
    calls = []

    def loss(network, batch):
        calls.append(1)
        found = squares(network, batch)
        bad = network.training and len(calls) > 3 * (epoch - 1) + step - 1
        return {**found, "loss": found["loss"] * value} if bad else found

    return loss, calls


def test_training_lowers_the_validation_loss_and_reports_every_epoch():
    reports = list(train(task(epochs=30), Training()))
    assert [r.epoch for r in reports] == list(range(1, 31))
    assert {r.epochs for r in reports} == {30}
    assert reports[-1].validation["loss"] < 0.2 * reports[0].validation["loss"]
    assert set(reports[0].train) == {"loss", "bias"}
    assert not any(r.stopped for r in reports)
    assert all(a.seconds < b.seconds for a, b in itertools.pairwise(reports))


def test_validation_is_the_mean_over_frames_not_over_batches():
    done = task(epochs=1)
    (report,) = train(done, Training())
    x, y = (torch.cat(parts) for parts in zip(frames(2, 20), frames(3, 7), strict=True))
    with torch.no_grad():
        assert report.validation["loss"] == pytest.approx(float(((done.network(x) - y) ** 2).mean()), rel=1e-6)


def test_the_network_ends_with_its_best_weights_ready_for_use():
    watching, seen = watched()
    done = task(epochs=8, optimiser=lambda network: torch.optim.SGD(network.parameters(), lr=0.4), **watching)  # jumps about
    running = train(done, Training(seed=1))
    reports = []
    for report in running:
        reports.append(report)
        if report.epoch == 8:
            at_last_report = weights(done.network)
    losses = [r.validation["loss"] for r in reports]
    best = min(range(8), key=losses.__getitem__) + 1
    assert best < 8
    assert [r.best for r in reports] == [loss == min(losses[: i + 1]) for i, loss in enumerate(losses)]
    assert_same(at_last_report, seen[best])
    assert_same(weights(done.network), seen[best])
    assert not done.network.training


@pytest.mark.parametrize("after", [1, 3])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, after):
    schedule = lambda progress: 1 - 0.9 * progress  # noqa: E731
    whole = task(schedule=schedule, clip=0.5)
    expected = list(train(whole, Training(tmp_path / "whole")))
    first = interrupted(tmp_path / "parts", after, schedule=schedule, clip=0.5)
    torch.rand(5)  # what else draws random numbers does not matter
    later = task(network=built(seed=99), schedule=schedule, clip=0.5)
    second = list(train(later, Training(tmp_path / "parts", resume=True)))
    for kind in ("epoch", "train", "validation", "best"):
        assert [getattr(r, kind) for r in first] == [getattr(r, kind) for r in expected[:after]]
        assert [getattr(r, kind) for r in second] == [getattr(r, kind) for r in expected]
    assert all(a.seconds < b.seconds for a, b in itertools.pairwise(second))
    assert_same(weights(later.network), weights(whole.network))
    assert stored(tmp_path / "parts") == stored(tmp_path / "whole")


@pytest.mark.parametrize(
    "optimiser",
    [
        lambda network: torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9),
        lambda network: torch.optim.Adam(network.parameters(), lr=0.02, amsgrad=True),
        lambda network: torch.optim.AdamW(
            [{"params": network[0].parameters(), "lr": 0.01}, {"params": [*network[1].parameters(), *network[4].parameters()]}]
        ),
    ],
)
def test_what_the_optimiser_remembers_is_resumed(tmp_path, optimiser):
    list(train(task(optimiser=optimiser), Training(tmp_path / "whole")))
    interrupted(tmp_path / "parts", 2, optimiser=optimiser)
    list(train(task(optimiser=optimiser), Training(tmp_path / "parts", resume=True)))
    assert stored(tmp_path / "parts") == stored(tmp_path / "whole")


def test_the_seed_decides_and_nothing_else():
    def ended(seed):
        done = task()
        list(train(done, Training(seed=seed)))
        return weights(done.network)

    torch.manual_seed(1)
    one = ended(4)
    torch.manual_seed(2)
    assert_same(one, ended(4))
    assert not torch.equal(one["4.weight"], ended(5)["4.weight"])


def test_the_random_state_of_others_is_left_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    list(train(task(), Training()))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("epochs", [EPOCHS, 2])
def test_a_finished_training_gives_its_reports_again(tmp_path, epochs):
    done = task()
    first = list(train(done, Training(tmp_path)))
    again = task(network=built(seed=99), epochs=epochs)
    assert list(train(again, Training(tmp_path, resume=True))) == first
    assert_same(weights(again.network), weights(done.network))


def test_closed_early_the_network_has_its_best_weights_and_the_folder_its_checkpoint(tmp_path):
    begun = task(network=linear())
    running = train(begun, Training(tmp_path))
    reports = [next(running), next(running)]
    running.close()
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2"]
    assert not begun.network.training
    x, y = (torch.cat(parts) for parts in zip(frames(2, 20), frames(3, 7), strict=True))
    with torch.no_grad():
        loss = float(((begun.network(x) - y) ** 2).mean())
    assert loss == pytest.approx(min(r.validation["loss"] for r in reports), rel=1e-6)


@pytest.mark.parametrize(
    "changes, training, said",
    [
        ({"config": {"width": 9, "betas": (0.9, 0.99)}}, {}, "config.width is 8 there and 9 here"),
        ({"config": {"betas": (0.9, 0.99)}}, {}, "config.width is 8 there and not set here"),
        ({"config": {"width": 8, "betas": (0.9, 0.98)}}, {}, "config.betas is [0.9, 0.99] there and [0.9, 0.98] here"),
        ({"data_hash": "abd"}, {}, "data is abc there and abd here"),
        ({}, {"seed": 3}, "seed is 0 there and 3 here"),
        ({}, {"precision": "bf16"}, "precision is 32 there and bf16 here"),
        ({"clip": 2.0}, {}, "clip is not set there and 2.0 here"),
        ({"schedule": math.sqrt}, {}, "epochs is not set there and 4 here"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, changes, training, said):
    interrupted(tmp_path, 1)
    before = stored(tmp_path)
    with pytest.raises(InputError) as refused:
        list(train(task(**changes), Training(tmp_path, resume=True, **training)))
    assert said in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    assert stored(tmp_path) == before


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    interrupted(tmp_path, 1)
    monkeypatch.setattr("braggscope.infer.train.version", lambda name: "9.9")
    with pytest.raises(InputError, match=r"version is \d+\.\d+\.\d+ there and 9\.9 here"):
        list(train(task(), Training(tmp_path, resume=True)))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    interrupted(tmp_path, 1)
    with pytest.raises(
        InputError, match=r"do not fit the network: weight is missing; bias is missing; .* is not of this network; and 8 more"
    ):
        list(train(task(network=linear()), Training(tmp_path, resume=True)))


def test_more_epochs_may_be_added_where_no_schedule_depends_on_them(tmp_path):
    list(train(task(epochs=2), Training(tmp_path / "parts")))
    reports = list(train(task(epochs=4), Training(tmp_path / "parts", resume=True)))
    assert [(r.epoch, r.epochs) for r in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    list(train(task(epochs=4), Training(tmp_path / "whole")))
    assert stored(tmp_path / "parts") == stored(tmp_path / "whole")


def test_nothing_to_resume_from_is_said(tmp_path):
    with pytest.raises(InputError, match=r"there is no checkpoint in .*none to resume from; train without resume to begin anew"):
        list(train(task(), Training(tmp_path / "none", resume=True)))
    with pytest.raises(InputError, match="resume needs the folder"):
        list(train(task(), Training(resume=True)))


def test_it_stops_when_it_gets_no_better(tmp_path):
    level = iter([5.0, 4.0, 4.5, 4.0, 3.0, 3.5])
    watching, seen = watched(lambda network, batch: {"loss": torch.tensor(next(level))})
    watching["validation"] = lambda: [frames(2, 1)]
    stopping = task(epochs=9, **watching)
    reports = list(train(stopping, Training(tmp_path, patience=2)))
    assert [r.best for r in reports] == [True, True, False, False]
    assert [r.stopped for r in reports[:-1]] == ["", "", ""]
    assert reports[-1].stopped == "no better validation loss for 2 epochs; the weights of epoch 2 are kept"
    assert_same(weights(stopping.network), seen[2])
    resumed = task(epochs=9, network=built(seed=99))
    assert list(train(resumed, Training(tmp_path, resume=True, patience=2))) == reports
    assert_same(weights(resumed.network), seen[2])
    patient = list(train(task(epochs=6, **watching), Training(tmp_path, resume=True, patience=3)))
    assert [r.stopped for r in patient] == [""] * 6
    assert [r.best for r in patient] == [True, True, False, False, True, False]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_it_with_the_best_weights(tmp_path, value):
    loss, calls = turning_bad(epoch=3, step=2, value=value)
    watching, seen = watched()
    ending = task(loss=loss, epochs=9, **watching)
    reports = list(train(ending, Training(tmp_path)))
    best = max(r.epoch for r in reports if r.best)
    assert len(reports) == 3
    assert reports[-1].stopped == f"the loss is not finite in epoch 3, step 2; the weights of epoch {best} are kept"
    assert not math.isfinite(reports[-1].train["loss"])
    assert math.isnan(reports[-1].validation["loss"])
    assert len(calls) == 3 + 3 + 2
    assert_same(weights(ending.network), seen[best])
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2", "3"]


def test_after_a_loss_that_is_not_finite_the_last_good_checkpoint_is_there(tmp_path):
    loss, _ = turning_bad(epoch=3, step=1)
    list(train(task(loss=loss, validate=squares), Training(tmp_path / "bad")))
    reports = list(train(task(network=built(seed=99)), Training(tmp_path / "bad", resume=True)))
    assert [r.epoch for r in reports] == [1, 2, 3, 4]
    assert [row["epoch"] for row in rows(tmp_path / "bad")] == ["1", "2", "3", "4"]
    list(train(task(), Training(tmp_path / "good")))
    assert stored(tmp_path / "bad") == stored(tmp_path / "good")


def test_a_gradient_that_is_not_finite_takes_no_step():
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    def loss(network, batch):
        found = squares(network, batch)["loss"]
        return {"loss": Root.apply(found) if network.training and seen else found}

    watching, seen = watched()
    ending = task(loss=loss, clip=1.0, network=linear(), **watching)
    reports = list(train(ending, Training()))
    assert reports[-1].stopped == "the gradient of the loss is not finite in epoch 2, step 1; the weights of epoch 1 are kept"
    assert all(torch.isfinite(value).all() for value in ending.network.parameters())


def test_a_validation_loss_that_is_not_finite_ends_it():
    level = iter([2.0, math.nan])
    measured = {"validation": lambda: [frames(2, 1)], "validate": lambda network, batch: {"loss": torch.tensor(next(level))}}
    *_, last = train(task(**measured), Training())
    assert last.stopped == "the validation loss is not finite in epoch 2; the weights of epoch 1 are kept"


def test_a_first_epoch_that_fails_is_an_error(tmp_path):
    loss, _ = turning_bad(epoch=1, step=3)
    with pytest.raises(BraggscopeError, match="the loss is not finite in epoch 1, step 3, and there are no weights") as failed:
        list(train(task(loss=loss), Training(tmp_path)))
    assert not isinstance(failed.value, InputError)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_the_schedule_goes_from_0_to_1_in_steps():
    asked, rates = [], []

    def schedule(progress):
        asked.append(progress)
        return 1 - progress

    def loss(network, batch):
        if network.training:
            rates.append(made[0].param_groups[0]["lr"])
        return squares(network, batch)

    made = []
    optimiser = lambda network: made.append(adamw(network)) or made[0]  # noqa: E731
    list(train(task(schedule=schedule, loss=loss, optimiser=optimiser, epochs=2), Training()))
    assert asked == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert rates == pytest.approx([0.02 * (1 - progress) for progress in asked])


def test_batches_without_a_length_have_a_rate_per_epoch():
    asked = []
    list(train(task(batches=lambda epoch: iter(batches(epoch)), schedule=lambda p: asked.append(p) or 1.0, epochs=2), Training()))
    assert asked == [0, 0, 0, 0.5, 0.5, 0.5]


def test_gradients_are_clipped_to_their_norm():
    start = linear()
    before = weights(start)
    sgd = lambda network: torch.optim.SGD(network.parameters(), lr=1.0)  # noqa: E731
    one = lambda epoch: batches(epoch)[:1]  # noqa: E731
    list(train(task(network=start, optimiser=sgd, batches=one, clip=1e-3, epochs=1), Training()))
    moved = torch.cat([(value - before[name]).flatten() for name, value in start.state_dict().items()])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_numpy_arrays_reach_the_loss_as_they_are():
    kinds = []

    def loss(network, batch):
        kinds.append((type(batch["counts"][0]), type(batch["counts"][1]), batch["name"]))
        return {"loss": network(batch["counts"][0]).square().mean()}

    one = {"counts": (torch.ones(4, 5), np.ones((4, 3))), "name": "a"}
    list(train(task(loss=loss, batches=lambda epoch: [one], validation=lambda: [one], epochs=1), Training()))
    assert set(kinds) == {(torch.Tensor, np.ndarray, "a")}


def test_bfloat16_casts_the_network_and_keeps_its_weights_and_losses_in_float32(tmp_path):
    inside = []

    class Watched(torch.nn.Linear):
        def forward(self, x):
            found = super().forward(x)
            inside.append(found.dtype)
            return found

    done = task(network=Watched(5, 2))
    outside = []

    def loss(network, batch):
        found = network(batch[0])
        outside.append(found.dtype)
        return {"loss": (found - batch[1]).square().mean()}

    reports = list(train(task(network=done.network, loss=loss, epochs=10), Training(tmp_path, precision="bf16")))
    assert set(inside) == {torch.bfloat16}
    assert set(outside) == {torch.float32}
    assert {value.dtype for value in done.network.parameters()} == {torch.float32}
    assert reports[-1].validation["loss"] < reports[0].validation["loss"]


def test_the_csv_log_has_a_row_per_epoch(tmp_path):
    reports = list(train(task(), Training(tmp_path)))
    table = rows(tmp_path)
    assert list(table[0]) == [
        "epoch",
        "train_loss",
        "train_bias",
        "validation_loss",
        "validation_bias",
        "best",
        "learning_rate",
        "seconds",
    ]
    assert [float(row["validation_loss"]) for row in table] == [r.validation["loss"] for r in reports]
    assert {row["learning_rate"] for row in table} == {"0.02"}


def test_the_csv_log_goes_on_with_resume(tmp_path):
    interrupted(tmp_path, 2)
    list(train(task(), Training(tmp_path, resume=True)))
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2", "3", "4"]


def test_the_tensorboard_log_has_a_curve_per_loss(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reports = list(train(task(), Training(tmp_path, log="tensorboard")))
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    curve = read.Scalars("validation/loss")
    assert [point.step for point in curve] == [1, 2, 3, 4]
    assert [point.value for point in curve] == pytest.approx([r.validation["loss"] for r in reports])  # stored as float32
    assert not (tmp_path / "log.csv").exists()


def test_the_tensorboard_log_goes_on_with_resume(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loss, _ = turning_bad(epoch=3, step=2)
    list(
        train(task(loss=loss, validate=squares), Training(tmp_path, log="tensorboard"))
    )  # logs an epoch that is not in its checkpoint
    reports = list(train(task(), Training(tmp_path, log="tensorboard", resume=True)))
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    curve = read.Scalars("validation/loss")
    assert [point.step for point in curve] == [1, 2, 3, 4]
    assert curve[2].value == pytest.approx(reports[2].validation["loss"])


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(train(task(), Training()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes, training, said",
    [
        ({"epochs": 0}, {}, "epochs must be at least 1, got 0"),
        ({}, {"seed": -1}, "seed must not be negative, got -1"),
        ({}, {"patience": -1}, "patience must not be negative, got -1"),
        ({}, {"precision": "16"}, "precision must be 32 or bf16, got '16'"),
        ({}, {"log": "xml"}, "log must be csv or tensorboard, got 'xml'"),
        ({}, {"device": "abacus"}, "device must be cpu or cuda, got 'abacus'"),
        ({}, {"devices": 0}, "devices and nodes must be at least 1, got 0 and 1"),
        (
            {},
            {"devices": 2},
            "devices 2 and nodes 1 make 2 processes, and this is one of 1; start them with torchrun",
        ),
        ({"batches": lambda epoch: []}, {}, "there is no training batch; give more frames"),
        ({"validation": list}, {}, "there is no validation batch; give more frames"),
    ],
)
def test_what_will_not_do_is_said(tmp_path, changes, training, said):
    with pytest.raises(InputError) as refused:
        list(train(task(**changes), Training(tmp_path, **training)))
    assert said in str(refused.value)


def test_missing_fabric_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(InputError, match=r"training needs Lightning Fabric: pip install 'braggscope\[train\]'"):
        list(train(task(), Training()))


def test_missing_tensorboard_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"log tensorboard needs TensorBoard: pip install .*; csv would do"):
        list(train(task(), Training(tmp_path, log="tensorboard")))


def test_inside_a_slurm_job_one_process_is_one_process(monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "map", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"}.items():
        monkeypatch.setenv(name, value)
    seen = []
    list(
        train(task(loss=lambda network, batch: seen.append(1) or squares(network, batch), validate=squares, epochs=1), Training())
    )
    assert len(seen) == 3


def test_a_training_that_begins_with_weights_keeps_them_unless_it_gets_better():
    """Steps that only harm leave the weights it began with; steps that help begin where they ended."""
    from braggscope.infer.network import state_arrays

    first = task()
    *_, last = train(first, Training())
    begun = state_arrays(first.network)
    harmful = task(optimiser=lambda net: torch.optim.SGD(net.parameters(), lr=30.0))
    list(train(harmful, Training(start=begun)))
    assert all(np.array_equal(value, begun[name]) for name, value in state_arrays(harmful.network).items())
    further = list(train(task(epochs=10), Training(start=begun)))
    assert min(r.validation["loss"] for r in further) < last.validation["loss"]

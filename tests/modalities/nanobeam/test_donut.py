import dataclasses

import numpy as np
import pytest
import torch

from braggscope.core.batch import Batch
from braggscope.core.errors import InputError
from braggscope.core.learned import Training
from braggscope.modalities.nanobeam.donut_training import Learning, robust
from braggscope.modalities.nanobeam.estimators.amortised import Amortised
from braggscope.modalities.nanobeam.estimators.donut import DonutMethod
from braggscope.modalities.nanobeam.geometry import published
from braggscope.modalities.nanobeam.phantom import uniform
from braggscope.modalities.nanobeam.physics_branch import PhysicsBranch, blurred, in_map_units
from braggscope.modalities.nanobeam.pooled import Batches, pooled

BRANCH = PhysicsBranch(published(), (64, 64), (190.0, 90.0))


def scan_of(count, seed=1, **values):
    return uniform(published(), shape=(count,), seed=seed, **values)


def true_outputs(scan):
    truth = scan.truth
    return torch.from_numpy(np.stack([truth["strain"] * 100, truth["omega"] * 10, truth["chi"] * 5], axis=-1)).float()


def test_a_robust_training_finds_strain_and_tilts_without_labels():
    """The compact encoder, 450 frames and 8 epochs from random weights: errors a tenth of the range's spread or less."""
    scan = scan_of(500)
    *_, last = DonutMethod(published(), recipe="robust", size="compact", epochs=8, batch=32).train([scan], Training(seed=2))
    assert last.validation["loss"] < 0.5 * 58  # 58 before it has learned anything
    test = scan_of(200, seed=9)
    found = last.estimator.fit(Batch(np.arange(200), test.frames(np.arange(200))))
    for name, high in (("strain", 5e-3), ("omega", 0.05), ("chi", 0.1)):
        assert np.median(np.abs(found[name] - test.truth[name].values)) < 0.1 * high / np.sqrt(3) * 2, name
    assert last.estimator.model.facts["peak"] == pytest.approx(7, rel=0.1) and (found["flag"] == 0).mean() > 0.9


@pytest.mark.parametrize(
    "options",
    [{}, {"loss": "smooth_l1", "decoder": "dysample", "dropout": 0.1}, {"recipe": "robust", "parameters": 4}],
    ids=["published", "dysample", "thickness"],
)
def test_every_recipe_takes_a_step_and_maps(options):
    *_, last = DonutMethod(published(), epochs=1, batch=32, **options).train([scan_of(64)], Training())
    assert np.isfinite(last.train["loss"]) and ("decoder" in last.train) == ("recipe" not in options)
    passes = {"passes": 2} if "dropout" in options else {}
    method = DonutMethod.from_model(last.estimator.model, published(), passes)
    batch = Batch(np.arange(3), scan_of(3).frames(np.arange(3)))
    found = method.fit(batch)
    names = {q.name for q in (*method.quantities(), *method.extras())}
    assert names == set(found) - {"flag", "deviance_expected", "deviance_variance"}
    assert ("thickness" in found) == ("parameters" in options) and ("chi_spread" in found) == bool(passes)


def test_the_deviance_is_least_at_the_truth_and_leads_there():
    """Gradients by all outputs against finite differences; the blurred ring too."""
    scan = scan_of(4, peak=300.0)
    counts, p = torch.from_numpy(scan.frames(np.arange(4))).float(), true_outputs(scan) + torch.tensor([0.02, -0.01, 0.015])
    for blur in (0.0, 2.0):
        moved = p.clone().requires_grad_()
        BRANCH.deviance(moved, counts, blur).sum().backward()
        for axis, step in enumerate((1e-3, 1e-3, 1e-3)):
            up, down = (BRANCH.deviance(p + sign * step * torch.eye(3)[axis], counts, blur) for sign in (1, -1))
            numeric = ((up - down) / (2 * step)).numpy()
            # float32 outputs and counts: 2 % of the largest slope
            np.testing.assert_allclose(moved.grad[:, axis], numeric, atol=0.02 * np.abs(numeric).max())
    there, off = (BRANCH.deviance(q, counts) for q in (true_outputs(scan), p))
    assert (there < off).all()


@pytest.mark.parametrize("blur", [0.0, 2.0])
def test_the_branch_for_a_gpu_is_that_of_the_cpu(blur):
    """Both computed on the CPU: deviances to single precision, gradients to 1 % of the largest."""
    scan = scan_of(4, peak=40.0)
    counts, found = torch.from_numpy(scan.frames(np.arange(4))).float(), []
    for deviance in (BRANCH.deviance, BRANCH._deviance_on_device):
        p = (true_outputs(scan) + 0.01).requires_grad_()
        value = deviance(p, counts, blur)
        value.sum().backward()
        found.append((value.detach().double(), p.grad))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-3, atol=0.0)
    assert (found[1][1] - found[0][1]).abs().max() < 0.01 * found[0][1].abs().max()


def test_the_usual_deviance_is_that_of_the_truth():
    """Within 5 %: the table is of frames at zero tilt."""
    for peak in (3.0, 30.0):
        scan = scan_of(60, peak=peak)
        counts = torch.from_numpy(scan.frames(np.arange(60))).float()
        deviance = BRANCH.deviance(true_outputs(scan), counts)
        assert BRANCH.usual_deviance(counts).mean().item() == pytest.approx(deviance.mean().item(), rel=0.05)


def test_scale_and_background_of_the_torch_fit_are_those_of_the_compiled_one():
    scan = scan_of(5, peak=50.0)
    counts, p = torch.from_numpy(scan.frames(np.arange(5))).float(), true_outputs(scan)
    scale, background = BRANCH.nuisance(p, counts)
    mean = scale * BRANCH.rendered(p) + background
    ours = (2 * (torch.xlogy(counts, counts / mean) - counts + mean)).sum((1, 2))
    torch.testing.assert_close(ours.double(), BRANCH.deviance(p, counts), rtol=1e-4, atol=0.0)


def test_a_blurred_ring_keeps_its_light():
    assert blurred(published(), (64, 64), 6.0).table.sum() == pytest.approx(
        blurred(published(), (64, 64), 1.0).table.sum(), rel=1e-3
    )


def test_the_published_loss_scales_the_modelled_frame_to_the_peak():
    """Weights 1 and 5; noise-free frames at the truth differ by the background alone, 0.1 counts, scaled by 7 / 6.9."""
    scan = uniform(published(), shape=(3,), seed=5, noise=None)
    plan = DonutMethod(published()).plan()
    assert (plan["loss"], plan["decoder_weight"], plan["physics_weight"], plan["rate"]) == ("mae", 1.0, 5.0, 1e-4)
    learning = Learning(BRANCH, plan, 6.9, 0.0)
    counts = torch.from_numpy(scan.frames(np.arange(3))).float()
    assert learning.physics(true_outputs(scan), counts, 1.0).item() == pytest.approx(0.1, rel=0.15)


def test_the_ring_is_blurred_at_first_and_sharp_in_the_end():
    learning = Learning(BRANCH, DonutMethod(published(), recipe="robust").plan(), 7.0, 0.2)
    assert [learning.blur(x) for x in (0.0, 0.09, 0.11, 0.19, 0.2, 1.0)] == [6.0, 6.0, 2.0, 2.0, 0.0, 0.0]


def test_a_large_excess_counts_as_its_root():
    assert robust(torch.tensor([-5.0, 0.0, 0.1]), 30.0).tolist() == pytest.approx([-5.0, 0.0, 0.1], abs=1e-3)
    assert robust(torch.tensor(4e4), 30.0) / robust(torch.tensor(1e4), 30.0) == pytest.approx(2, rel=0.1)


def test_outputs_have_the_published_units():
    found = in_map_units(np.array([[0.5, -0.5, 0.25, 1.0]]), (117.0, 50.0))
    assert {name: value[0] for name, value in found.items()} == {"strain": 5e-3, "omega": -0.05, "chi": 0.05, "thickness": 167.0}


def test_frames_of_all_sources_are_pooled_and_every_epoch_has_its_order():
    counts = pooled([scan_of(40), scan_of(30, seed=2)])
    assert counts.shape == (70, 64, 64) and np.array_equal(counts[40:], scan_of(30, seed=2).frames(np.arange(30)))
    assert len(pooled([scan_of(100)], most=80)) == 80
    first, again, later = (Batches(counts, np.arange(70), 32, 1, epoch, 5).which for epoch in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, later) and sorted(later) == list(range(70))
    assert len(Batches(counts, np.arange(65), 32, 1, 0, 5)) == 2  # one frame alone is left out


def test_bad_input_is_refused():
    for count, said in ((63, "at least 64 frames, got 63"), (1, "at least 64 frames, got 1")):
        with pytest.raises(InputError, match=said):
            next(DonutMethod(published(), epochs=1).train([scan_of(count)], Training()))
    with pytest.raises(InputError, match="give at least one scan"):
        next(DonutMethod(published()).train([], Training()))
    with pytest.raises(InputError, match="parameters must be 3 or 4, got 5"):
        DonutMethod(published(), parameters=5)
    with pytest.raises(InputError, match=r"passes needs a model that was trained with dropout"):
        DonutMethod(published(), passes=30)
    with pytest.raises(InputError, match="dropout must be 0 with size=compact"):
        DonutMethod(published(), size="compact", dropout=0.1)


@pytest.mark.parametrize("method", [DonutMethod, Amortised])
def test_dark_frames_are_nothing_to_learn_from(method):
    dark = dataclasses.replace(scan_of(100), expected=lambda index: torch.full((len(index), 64, 64), 1e-4), noise=None)
    with pytest.raises(InputError, match=r"training needs at least 64 frames.* 100"):
        next(method(published()).train([dark], Training()))

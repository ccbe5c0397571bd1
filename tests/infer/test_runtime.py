"""Threads: how many torch takes."""

import pytest
import torch

from braggscope.infer.runtime import set_workers, workers


@pytest.mark.parametrize(
    ("said", "count", "taken"), [("1", None, 1), ("3", None, 3), ("1", 2, 2), ("2,1", None, 0), ("0", None, 0)]
)
def test_torch_keeps_to_the_environment_unless_a_number_is_given(monkeypatch, said, count, taken):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    try:
        set_workers(count)
        assert torch.get_num_threads() == (taken or workers())
    finally:
        set_workers(None)
        torch.set_num_threads(before)

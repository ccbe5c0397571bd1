"""A run as Bluesky documents: valid by the schemas of event-model, one event for each result."""

from __future__ import annotations

import itertools
import json
import threading

import event_model
import numpy as np
import pytest

import braggscope
from braggscope.app.dashboard.bluesky import documents, subscribe, write


def checked(found):
    for name, document in found:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(json.loads(json.dumps(document)))
    names = [name for name, _ in found]
    assert names[:2] == ["start", "descriptor"] and names[-1] == "stop" and set(names[2:-1]) == {"event_page"}
    pages = [document for name, document in found if name == "event_page"]
    return {key: list(itertools.chain.from_iterable(page["data"][key] for page in pages)) for key in pages[0]["data"]}, found[-1][
        1
    ]


def test_a_run_is_followed_to_its_end(growing):
    found = []
    following = threading.Thread(target=subscribe, args=(growing.run.path, lambda *one: found.append(one)))
    growing.grow(30)
    following.start()
    growing.grow(78)
    growing.end()
    following.join(20)
    data, stop = checked(found)
    final = braggscope.load(growing.asked.output)
    assert stop["exit_status"] == "success" and stop["num_events"] == {"primary": 108}
    assert np.array_equal(data["strain"], final["strain"].values.ravel())
    assert np.allclose(data["x"], np.tile(final["x"].values, 9))


@pytest.mark.parametrize("modality", ["nanobeam", "dfxm", "laue"])
def test_a_map_file_is_as_well(made, modality, tmp_path):
    out = made[modality][1]
    data, stop = checked(list(documents(out)))
    dataset = braggscope.load(out)
    assert stop["num_events"]["primary"] == dataset["flag"].size == len(data["flag"])
    name = next(n for n in dataset.data_vars if n in data and n != "flag")
    known = [np.nan if v is None else v for v in data[name]]
    assert np.array_equal(known, np.where(np.isfinite(v := dataset[name].values.ravel()), v, np.nan), equal_nan=True)
    with (tmp_path / "documents.jsonl").open("w") as file:
        written = write(out, file)
    assert written == len((tmp_path / "documents.jsonl").read_text().splitlines()) >= 4

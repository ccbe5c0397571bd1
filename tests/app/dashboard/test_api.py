"""The API over real HTTP: what it says is what the map and the scan say; nothing that is asked of it makes it fail."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

import braggscope
from braggscope.app.dashboard.finished_map import FinishedMap
from braggscope.core.source import open_scan

from .conftest import FRAME, SHAPE, floats


def test_a_finished_map_is_served_as_it_is(finished, made):
    dataset, api = braggscope.load(made["nanobeam"][1]), f"{finished('nanobeam').url}/api/v1"
    status = httpx.get(f"{api}/status").json()
    assert (status["state"], status["modality"], status["method"], status["live"]) == ("done", "nanobeam", "likelihood", False)
    assert status["grid"]["shape"] == list(SHAPE) and [a["name"] for a in status["grid"]["axes"]] == ["y", "x"]
    assert np.allclose(status["grid"]["axes"][1]["values"], dataset["x"].values)
    kinds = {v["name"]: (v["kind"], v["units"]) for v in status["variables"]}
    assert kinds["omega"] == ("quantity", "deg") and kinds["omega_std"] == ("std", "deg") and kinds["flag"][0] == "flag"
    for name in ("strain", "omega_std", "flag"):
        assert np.array_equal(floats(httpx.get(f"{api}/map/{name}")), dataset[name].values.astype("f4"), equal_nan=True)
    point = httpx.get(f"{api}/points/17").json()
    assert point["values"]["omega"]["value"] == dataset["omega"].values.ravel()[17]
    assert point["values"]["omega"]["std"] == dataset["omega_std"].values.ravel()[17]
    assert [a["index"] for a in point["axes"]] == [1, 5]


def test_the_frame_at_a_point_is_that_of_the_scan_and_the_model_explains_it(finished, made):
    api, scan = f"{finished('nanobeam').url}/api/v1", open_scan(made["nanobeam"][0])
    frame, model = (floats(httpx.get(f"{api}/{what}/17", timeout=60)) for what in ("frames", "model"))
    assert frame.shape == FRAME and np.array_equal(frame, scan.frame(17).astype("f4"))
    lit = model > 1
    assert abs(((frame - model)[lit] ** 2 / model[lit]).mean() - 1) < 0.2  # Poisson: chi squared per pixel is 1
    missing = httpx.get(f"{finished('nanobeam', scan=False).url}/api/v1/frames/17")
    assert missing.status_code == 404 and "the scan file was not given" in missing.json()["detail"]


def test_the_curve_of_a_detector_pixel_is_that_of_the_scan(finished, made):
    api, scan = f"{finished('dfxm').url}/api/v1", open_scan(made["dfxm"][0])
    curve = httpx.get(f"{api}/curves/7/11").json()
    assert curve["counts"] == [float(scan.frame(i)[7, 11]) for i in range(15)]
    assert list(curve["motors"]) == [axis.name for axis in scan.axes]
    total = float(braggscope.load(made["dfxm"][1])["total"].values[7, 11])
    assert sum(curve["model"]) - 15 * min(curve["model"]) == pytest.approx(total, rel=0.1)
    assert httpx.get(f"{api}/curves/99/0").status_code == 422
    assert httpx.get(f"{api}/frames/3").status_code == 404


def test_the_spots_of_an_indexed_point_lie_on_peaks_of_its_frame(finished, made):
    api, dataset = f"{finished('laue').url}/api/v1", braggscope.load(made["laue"][1])
    known = np.flatnonzero(np.isfinite(dataset["orientation_x"].values.ravel()))
    assert len(known)
    for position in known[:3]:
        spots = httpx.get(f"{api}/spots/{position}", timeout=60).json()
        frame = floats(httpx.get(f"{api}/frames/{position}"))
        padded = np.pad(frame, 2, mode="edge")
        near = [padded[int(s["row"]) : int(s["row"]) + 5, int(s["column"]) : int(s["column"]) + 5].max() for s in spots[:8]]
        assert np.median(near) > 3 * np.median(frame)


def test_changes_are_only_what_changed_and_the_end_is_the_file(growing, served):
    api = f"{served(growing.provider).url}/api/v1"
    assert httpx.get(f"{api}/map/strain").status_code == 404
    growing.grow(40)
    first = httpx.get(f"{api}/status").json()
    assert first["state"] == "running" and first["mapped"] == 40 and first["history"] == 40
    count = int(httpx.get(f"{api}/map/strain").headers["X-Count"])
    growing.grow(10)
    news = httpx.get(f"{api}/changes", params={"since": count, "variables": "strain,strain_std"}).json()
    assert news["positions"] == list(range(40, 50)) and not news["whole"]
    now = floats(httpx.get(f"{api}/map/strain")).ravel()
    assert np.allclose(now[40:50], np.array(news["values"]["strain"], "f4"))
    again = httpx.get(f"{api}/changes", params={"since": news["count"], "variables": "strain"}).json()
    assert again["positions"] == [] and again["count"] == news["count"]
    early = floats(httpx.get(f"{api}/history/strain", params={"at": 25})).ravel()
    assert np.array_equal(early[:25], now[:25]) and np.isnan(early[25:]).all()
    assert httpx.get(f"{api}/frames/70").json()["detail"] == "the frame has not come yet"
    growing.grow(SHAPE[0] * SHAPE[1] - 50)
    growing.end()
    assert httpx.get(f"{api}/status").json()["state"] == "done"
    assert httpx.get(f"{api}/changes", params={"since": news["count"], "variables": "strain"}).json()["whole"]
    final = braggscope.load(growing.asked.output)
    assert np.array_equal(floats(httpx.get(f"{api}/map/strain")), final["strain"].values.astype("f4"))


def test_a_map_of_frames_from_the_network_takes_any_scan_over_its_grid(growing, made):
    from braggscope.core.errors import InputError

    growing.grow(SHAPE[0] * SHAPE[1])
    growing.end()
    scan = open_scan(made["nanobeam"][0])
    assert np.array_equal(FinishedMap(growing.asked.output, made["nanobeam"][0]).frame(17), scan.frame(17))
    with pytest.raises(InputError, match="it has 15 points, the map 9 x 12"):
        FinishedMap(growing.asked.output, made["dfxm"][0])


def test_control_is_checked_and_written(growing, served):
    api = f"{served(growing.provider).url}/api/v1"
    growing.grow(5)
    assert httpx.post(f"{api}/control", json={"paused": True}).json() == {"paused": True}
    assert growing.run.control == {"paused": True}
    assert httpx.get(f"{api}/status").json()["state"] == "paused"
    wrong = httpx.post(f"{api}/control", json={"region": [5, 1, 0, 2]})
    assert wrong.status_code == 422 and "control region must be" in wrong.json()["detail"]
    assert growing.run.control == {"paused": True}
    assert httpx.post(f"{api}/scans/end").json()["end_scan"] == 1


def test_points_beyond_a_threshold_are_listed(growing, served):
    api = f"{served(growing.provider).url}/api/v1"
    assert httpx.get(f"{api}/beyond").json() == {}
    growing.grow(60)
    strain = floats(httpx.get(f"{api}/map/strain")).ravel()
    limit = float(np.nanmedian(strain))
    httpx.post(f"{api}/control", json={"thresholds": {"strain": [None, limit]}})
    wrong = httpx.post(f"{api}/control", json={"thresholds": {"stran": [None, limit]}})
    assert wrong.status_code == 422 and "the map has no variable 'stran'" in wrong.json()["detail"]
    found = httpx.get(f"{api}/beyond").json()
    assert list(found) == ["strain"] and found["strain"]["limits"] == [None, limit]
    assert found["strain"]["positions"] == np.flatnonzero(strain > limit).tolist() and found["strain"]["count"] == 30


@pytest.mark.parametrize("name", ["nanobeam", "dfxm", "laue"])
def test_the_views_of_the_map_are_pictures(finished, name):
    api = f"{finished(name).url}/api/v1"
    listed = httpx.get(f"{api}/pictures", timeout=120).json()
    assert "overview" in [one["name"] for one in listed] and all(one["caption"] for one in listed)
    for one in listed:
        answer = httpx.get(f"{api}/pictures/{one['name']}")
        assert answer.headers["content-type"] == "image/png" and answer.content.startswith(b"\x89PNG")
    assert "the map has no picture 'nothing'; it has: overview" in httpx.get(f"{api}/pictures/nothing").json()["detail"]


def test_pictures_wait_for_the_map_file(growing, served):
    api = f"{served(growing.provider).url}/api/v1"
    growing.grow(5)
    assert "when the scan is over" in httpx.get(f"{api}/pictures").json()["detail"]


def test_a_finished_map_takes_no_control(finished):
    answer = httpx.post(f"{finished('nanobeam').url}/api/v1/control", json={"paused": True})
    assert answer.status_code == 404 and "finished map" in answer.json()["detail"]


def test_the_next_position_is_a_lost_one_then_the_least_certain(made, finished):
    api = f"{finished('nanobeam').url}/api/v1"
    dataset = braggscope.load(made["nanobeam"][1])
    names = [n for n in ("strain", "omega", "chi", "scale", "background")]
    worst = np.max([dataset[f"{n}_std"].values / np.median(dataset[f"{n}_std"].values) for n in names], axis=0).ravel()
    found = httpx.get(f"{api}/suggest", params={"n": 3}).json()
    assert [one["position"] for one in found] == np.argsort(-worst, kind="stable")[:3].tolist()
    assert set(found[0]["coordinates"]) == {"y", "x"} and "times its median" in found[0]["reason"]


def test_updates_come_when_something_changed(growing, served):
    server = served(growing.provider)
    with connect(f"ws://127.0.0.1:{server.port}/api/v1/updates", origin=server.url) as socket:
        assert json.loads(socket.recv(5))["count"] == 0
        growing.grow(30)
        news = json.loads(socket.recv(5))
        while not news["count"]:
            news = json.loads(socket.recv(5))
        assert news["mapped"] == 30 and news["state"] == "running"
    with httpx.stream("GET", f"{server.url}/api/v1/events") as events:
        line = next(events.iter_lines())
        assert json.loads(line.removeprefix("data: "))["mapped"] == 30


def test_openapi_describes_every_path(finished):
    server = finished("nanobeam")
    paths = httpx.get(f"{server.url}/api/v1/openapi.json").json()["paths"]
    assert {"/api/v1/status", "/api/v1/map/{variable}", "/api/v1/control", "/api/v1/suggest", "/api/v1/events"} <= set(paths)
    assert all("summary" in one and one.get("description") for path in paths.values() for one in path.values())


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_asked_the_answer_is_a_sentence_and_never_a_failure(finished, seed):
    server, random = finished("nanobeam"), np.random.default_rng(seed)
    words = [
        "status",
        "map",
        "points",
        "frames",
        "model",
        "curves",
        "history",
        "changes",
        "suggest",
        "ledger",
        "..",
        "%00",
        "-1",
        "1e9",
    ]
    words += [
        "strain",
        "99999999999999999999",
        "\u20ac",
        "a" * 300,
        "NaN",
        "null",
        "__class__",
        "openapi.json",
        "training",
        "spots",
        "beyond",
        "pictures",
    ]
    with httpx.Client(base_url=f"{server.url}/api/v1/", timeout=60) as client:
        for _ in range(40):
            path = "/".join(str(random.choice(words)) for _ in range(int(random.integers(1, 4))))
            query = {str(random.choice(["scan", "since", "at", "n", "variables"])): str(random.choice(words)) for _ in range(2)}
            answer = client.get(path, params=query, follow_redirects=True)
            assert answer.status_code < 500, (path, query)
            body = random.bytes(50) if random.random() < 0.5 else json.dumps(_nested(int(random.integers(1, 200)))).encode()
            answer = client.post("control", content=body, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500


def _nested(depth):
    return {"paused": _nested(depth - 1)} if depth else [1, None, "x"]


def test_a_map_that_is_none_is_refused(tmp_path):
    from braggscope.core.errors import InputError

    (tmp_path / "no.h5").write_bytes(b"no map")
    with pytest.raises(InputError, match="is not a map file"):
        FinishedMap(tmp_path / "no.h5")

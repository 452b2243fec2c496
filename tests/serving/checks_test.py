"""The scripts that check a served model: load, broken requests, portability."""

import importlib.util
import json
import os
import sys

import pytest

pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")
import fuzz  # noqa: E402 - conftest.py puts tools/serving on the path
import load_check  # noqa: E402
import portability  # noqa: E402

MODEL, CLASSES = "robgan", 3


def test_load_check_measures_and_compares_every_answer(server, export_root, tmp_path, monkeypatch):
    monkeypatch.setattr(load_check, "BARE_CALLS", 20)
    out = tmp_path / "load.json"
    arguments = [f"--saved_model={export_root / '2'}", "--callers=1,8", "--requests=64", "--long_run=400"]
    for address in (server.rest, f"grpc://{server.grpc}"):
        options = [f"--server={address}", f"--server_pid={os.getpid()}", f"--out={out}"]
        status = load_check.main([*arguments, *options])
        result = json.loads(out.read_text())
        assert [level["callers"] for level in result["levels"]] == [1, 8]
        for level in (*result["levels"], result["memory"]):
            assert level["errors"] == 0 and level["largest_difference"] < 1e-5
            assert 0 < level["ms"]["p50"] <= level["ms"]["p99"] <= level["ms"]["max"]
        assert len(result["memory"]["resident_mib"]) == 20
        assert status == (0 if result["memory"]["flat"] else 1)


def test_load_check_finds_wrong_answers(server, export_root, tmp_path, monkeypatch):
    monkeypatch.setattr(load_check, "BARE_CALLS", 20)
    arguments = [f"--server={server.rest}", "--callers=2", "--requests=20"]
    assert load_check.main([f"--saved_model={export_root / '1'}", *arguments]) == 1  # version 2 is served


@pytest.mark.parametrize("script", [load_check, fuzz])
def test_other_machines_are_refused(script, capsys):
    flag = "--server=http://example.com:8501" if script is load_check else "--grpc=example.com:8500"
    with pytest.raises(SystemExit) as error:
        script.main(["--saved_model=x", flag])
    assert error.value.code == 2 and "must be on this machine" in capsys.readouterr().err


@pytest.mark.slow
def test_broken_requests_get_an_answer_or_a_reason_and_harm_nobody(server, loaded):
    target = fuzz.Target(server.grpc, server.rest, MODEL, CLASSES)
    requests = int(os.environ.get("ROBGAN_FUZZ_REQUESTS", "900"))
    result = fuzz.fuzz(target, loaded[2], requests, seed=1)
    assert result["faults"] == []
    assert {"file: answered", "file: INVALID_ARGUMENT", "grpc: INVALID_ARGUMENT", "rest: 400"} <= set(
        result["outcomes"]
    )


def test_fuzzing_finds_a_server_that_answers_wrongly(server, loaded):
    target = fuzz.Target(server.grpc, server.rest, MODEL, CLASSES + 1)
    result = fuzz.fuzz(target, loaded[1], 20, seed=1)  # the other version's answers, and another number of classes
    assert len(result["faults"]) >= 20


def test_portability_agrees_with_itself_and_finds_differences(export_root):
    import tensorflow as tf

    first = portability.make_inputs(tf.saved_model.load(str(export_root / "1")), [b"\xff\xd8 no image"][:0])
    one = portability.elsewhere(sys.executable, "tensorflow", str(export_root / "1"), first)
    two = portability.tensorflow_answers(str(export_root / "2"), first)
    same = portability.compare(portability.tensorflow_answers(str(export_root / "1"), first), one)
    assert all(signature["agrees"] for signature in same["signatures"].values()) and len(same["signatures"]) == 4
    assert not any(signature["agrees"] for signature in portability.compare(two, one)["signatures"].values())


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnxruntime")), reason="needs the extra `onnx`"
)
def test_onnx_answers_the_same(export_root, tmp_path):
    out = tmp_path / "portability.json"
    assert portability.main([f"--saved_model={export_root / '1'}", f"--out={out}"]) == 0
    assert set(json.loads(out.read_text())["onnx"]["signatures"]) == {"serving_default", "logits"}

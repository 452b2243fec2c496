"""The client: from files to lines, over both protocols, and what it does when something is wrong."""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("grpc", reason="needs the extra `serving`")
import classify  # noqa: E402 - conftest.py puts tools/serving on the path

SCRIPT = classify.__file__
CLASS_NAMES = ("cat", "dog", "Wölfe")


@pytest.fixture(params=["rest", "grpc"])
def address(request, server):
    return server.rest if request.param == "rest" else f"grpc://{server.grpc}"


@pytest.fixture
def photos(tmp_path):
    """A folder with three images, of which one is in a folder below, and a text file."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.JPG", "below/c.jpeg"]):
        image = np.random.default_rng(number).integers(0, 256, [20, 15 + number, 3], np.uint8)
        encode = tf.io.encode_png if name.endswith("png") else tf.io.encode_jpeg
        (folder / name).write_bytes(encode(image).numpy())
    (folder / "notes.txt").write_text("no image")
    return folder


def expected(loaded, path, version=2):
    answers = loaded[version].signatures["encoded"](encoded=tf.constant([pathlib.Path(path).read_bytes()]))
    return dict(zip((name.decode() for name in answers["classes"][0].numpy()), answers["scores"][0].numpy()))


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_folder_gives_a_line_for_each_image_with_the_answers_of_the_saved_model(
    address, loaded, photos, capsys, batch_size
):
    options = ["--format=json", "--top=9", f"--batch_size={batch_size}"]
    assert classify.main([str(photos), f"--server={address}", *options]) == 0
    answers = lines(capsys)
    assert [os.path.relpath(answer["image"], photos) for answer in answers] == ["a.png", "b.JPG", "below/c.jpeg"]
    for answer in answers:
        scores = expected(loaded, answer["image"])
        assert [one["class"] for one in answer["top"]] == sorted(scores, key=lambda name: -scores[name])
        for one in answer["top"]:
            assert one["score"] == pytest.approx(scores[one["class"]], abs=1e-5)


def test_the_table_names_the_best_classes(address, loaded, photos, capsys):
    assert classify.main([str(photos / "a.png"), f"--server={address}", "--top=2"]) == 0
    scores = expected(loaded, photos / "a.png")
    best = sorted(scores, key=lambda name: -scores[name])[:2]
    assert capsys.readouterr().out == f"{photos / 'a.png'}  " + "  ".join(f"{n} {scores[n]:.4f}" for n in best) + "\n"


@pytest.mark.parametrize(("option", "version"), [("--label=stable", 1), ("--label=canary", 2), ("--version=1", 1)])
def test_label_and_version_choose_the_weights(address, loaded, photos, capsys, option, version):
    path = photos / "a.png"
    assert classify.main([str(path), f"--server={address}", "--format=json", "--top=1", option]) == 0
    (answer,) = lines(capsys)
    scores = expected(loaded, path, version)
    assert answer["top"][0]["score"] == pytest.approx(max(scores.values()), abs=1e-5)


def test_a_refused_image_and_a_missing_file_do_not_stop_the_others(address, photos, capsys):
    (photos / "aa_broken.png").write_bytes(b"GIF89a" + bytes(20))
    os.symlink(photos / "nowhere", photos / "ab_gone.png")
    assert classify.main([str(photos), f"--server={address}", "--format=json"]) == 1
    captured = capsys.readouterr()
    answers = {os.path.relpath(one["image"], photos): one for one in map(json.loads, captured.out.splitlines())}
    assert [name for name, answer in answers.items() if "top" in answer] == ["a.png", "b.JPG", "below/c.jpeg"]
    assert answers["aa_broken.png"]["error"] == (
        "image 0 of the request is neither JPEG nor PNG (26 bytes): convert it to one"
    )
    assert answers["ab_gone.png"]["error"] == "No such file or directory"
    assert "aa_broken.png: image 0" in captured.err and "Traceback" not in captured.err


def test_what_is_not_served_ends_with_one_line_and_status_3(address, photos, capsys):
    for option, named in [("--model=nobody", "nobody"), ("--version=7", "version 7"), ("--label=beta", "label beta")]:
        assert classify.main([str(photos), f"--server={address}", option]) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {address} does not serve") and named in line


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_not_there_is_asked_again_and_then_given_up(photos, capsys, monkeypatch, scheme):
    waits = []
    monkeypatch.setattr(classify.time, "sleep", waits.append)
    monkeypatch.setattr(classify.random, "random", lambda: 0)
    assert classify.main([str(photos), f"--server={scheme}://127.0.0.1:9", "--retries=3", "--timeout=5"]) == 3
    *again, last = capsys.readouterr().err.splitlines()
    assert [line.rsplit("; ")[-1] for line in again] == [f"asking again ({n} of 3)" for n in (1, 2, 3)]
    assert last.startswith(f"error: {scheme}://127.0.0.1:9 gives no answer: ")
    assert waits == [0.2, 0.4, 0.8]


class Flaky(http.server.BaseHTTPRequestHandler):
    """Answers 503 twice, then late, then well."""

    calls = 0

    def do_POST(self):
        Flaky.calls += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        if Flaky.calls == 3:
            time.sleep(1)
        body = json.dumps({"predictions": [{"classes": ["cat"], "scores": [1.0]}]}).encode()
        self.send_response(503 if Flaky.calls < 3 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass  # the client went away

    def log_message(self, *arguments):
        pass


def test_busy_and_late_servers_are_asked_again(photos, capsys, monkeypatch):
    monkeypatch.setattr(classify, "FIRST_WAIT", 0.01)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    assert classify.main([str(photos / "a.png"), f"--server={address}", "--timeout=0.5"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("a.png  cat 1.0000\n") and Flaky.calls == 4
    assert [line.split(";")[0] for line in captured.err.splitlines()] == [
        "HTTP 503: HTTP 503 Service Unavailable",
        "HTTP 503: HTTP 503 Service Unavailable",
        "no answer within 0.5 s",
    ]
    server.shutdown()
    server.server_close()


def run(*arguments, **options):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, timeout=120, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "error: nowhere.png: there is no such file or folder"),
        (["."], "error: .: the folder has no .jpg, .jpeg, .png files"),
        (["x", "--server=localhost:8500"], "--server must begin with http://, https://, grpc:// or grpcs://"),
        (["x", "--batch_size=0"], "--batch_size must be 1 or more, got 0"),
        (["x", "--version=1", "--label=canary"], "not allowed with argument"),
        ([], "the following arguments are required: images"),
    ],
)
def test_wrong_usage_ends_with_status_2(tmp_path, arguments, message):
    failed = run(*arguments, cwd=tmp_path, text=True)
    assert failed.returncode == 2 and message in failed.stderr and "Traceback" not in failed.stderr


def test_standard_input_is_an_image(server, loaded, photos):
    path = photos / "b.JPG"
    done = run("-", f"--server={server.rest}", "--format=json", input=path.read_bytes())
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["image"] == "-"
    assert answer["top"][0]["score"] == pytest.approx(max(expected(loaded, path).values()), abs=1e-5)


def test_neither_protocol_needs_tensorflow(server, photos):
    hidden = "import sys; sys.modules['tensorflow'] = sys.modules['tensorflow_serving'] = None\n"
    code = f"{hidden}sys.path.insert(0, {os.path.dirname(SCRIPT)!r}); import classify; sys.exit(classify.main())"
    for address in (server.rest, f"grpc://{server.grpc}"):
        command = [sys.executable, "-c", code, str(photos), f"--server={address}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and len(done.stdout.splitlines()) == 3, done.stderr


def test_the_clients_messages_are_those_of_tensorflow_serving():
    apis = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="needs the extra `serving`")
    request_class, response_class = classify._messages()
    request = request_class()
    request.model_spec.name, request.model_spec.signature_name = "robgan", "encoded"
    request.model_spec.version.value = 3
    request.inputs["encoded"].dtype = 7
    request.inputs["encoded"].tensor_shape.dim.add(size=2)
    request.inputs["encoded"].string_val.extend([b"one", b"two"])
    real = apis.PredictRequest.FromString(request.SerializeToString())
    assert (real.model_spec.name, real.model_spec.version.value) == ("robgan", 3)
    assert tf.make_ndarray(real.inputs["encoded"]).tolist() == [b"one", b"two"]
    answer = apis.PredictResponse()
    answer.outputs["scores"].CopyFrom(tf.make_tensor_proto([[0.25, 0.75]]))
    (scores,) = response_class.FromString(answer.SerializeToString()).outputs.values()
    assert np.frombuffer(scores.tensor_content, "<f4").tolist() == [0.25, 0.75]

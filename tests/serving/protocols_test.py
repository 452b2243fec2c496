"""The export behind a server: what is answered over the wire is what the SavedModel answers."""

import base64
import concurrent.futures
import json
import re
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

grpc = pytest.importorskip("grpc")
pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

MODEL, IMAGE_SHAPE, CLASS_NAMES = "robgan", (12, 12, 3), ("cat", "dog", "Wölfe")


class Caller:
    """Both protocols to one server. Answers are dicts of arrays; errors are (status, message)."""

    def __init__(self, server):
        self.rest = server.rest
        channel = grpc.insecure_channel(server.grpc)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(channel)

    def post(self, path, body):
        request = urllib.request.Request(f"{self.rest}/v1/models/{path}", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["error"]

    def get(self, path):
        with urllib.request.urlopen(f"{self.rest}/v1/models/{path}", timeout=60) as response:
            return json.load(response)

    def rest_predict(self, signature, value, where=MODEL, columns=False):
        body = {"signature_name": signature, "inputs" if columns else "instances": as_json(value)}
        answer = self.post(f"{where}:predict", body)
        if isinstance(answer, tuple):
            return answer
        if columns:
            rows = answer["outputs"]
            return {k: np.array(v) for k, v in rows.items()} if isinstance(rows, dict) else {"logits": np.array(rows)}
        rows = answer["predictions"]
        if not isinstance(rows[0], dict):
            return {"logits": np.array(rows)}
        return {key: np.array([row[key] for row in rows]) for key in rows[0]}

    def grpc_predict(self, signature, value, version=None, label=None):
        request = predict_pb2.PredictRequest(model_spec=spec(signature, version, label))
        name = {"encoded": "encoded", "classify": "inputs"}.get(signature, "images")
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        try:
            response = self.prediction.Predict(request, timeout=60)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return decoded({key: tf.make_ndarray(proto) for key, proto in response.outputs.items()})

    def grpc_classify(self, examples, signature="classify"):
        request = classification_pb2.ClassificationRequest(model_spec=spec(signature))
        for example in examples:
            request.input.example_list.examples.add().ParseFromString(example)
        try:
            response = self.prediction.Classify(request, timeout=60)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        rows = [[(one.label, one.score) for one in row.classes] for row in response.result.classifications]
        return paired(rows)

    def rest_classify(self, examples, signature="classify"):
        answer = self.post(f"{MODEL}:classify", {"signature_name": signature, "examples": examples})
        return answer if isinstance(answer, tuple) else paired(answer["results"])


def spec(signature, version=None, label=None):
    made = {"name": MODEL, "signature_name": signature, "version_label": label or ""}
    return {**made, "version": {"value": version}} if version else made


def paired(rows):
    return {
        "classes": np.array([[p[0] for p in row] for row in rows]),
        "scores": np.array([[p[1] for p in r] for r in rows]),
    }


def as_json(value):
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return [as_json(one) for one in value] if isinstance(value, list) else np.asarray(value).tolist()


def decoded(answers):
    """Names as text instead of bytes."""
    names = {k: np.array([[c.decode() for c in row] for row in v]) for k, v in answers.items() if k == "classes"}
    return {**answers, **names}


def example(encoded, feature="image/encoded"):
    values = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    return tf.train.Example(features=tf.train.Features(feature={feature: values})).SerializeToString()


def pixels(count):
    return np.random.default_rng(5).integers(0, 256, [count, *IMAGE_SHAPE], np.uint8)


def files(count):
    """PNG and JPEG by turns, of several sizes."""
    images = [np.random.default_rng(row).integers(0, 256, [12 + 5 * row, 20, 3], np.uint8) for row in range(count)]
    return [(tf.io.encode_png if row % 2 else tf.io.encode_jpeg)(image).numpy() for row, image in enumerate(images)]


@pytest.fixture(scope="session")
def caller(server):
    return Caller(server)


def assert_same(answers, expected):
    assert isinstance(answers, dict), answers
    expected = decoded({key: value.numpy() for key, value in expected.items()})
    assert set(answers) == set(expected)
    for key, value in expected.items():
        if key == "classes":
            assert answers[key].tolist() == value.tolist()
        else:
            np.testing.assert_allclose(answers[key], value, rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("protocol", ["rest", "rest columns", "grpc"])
@pytest.mark.parametrize("signature", ["serving_default", "encoded", "classify", "logits"])
def test_predict_answers_what_the_saved_model_answers(caller, loaded, signature, protocol, batch):
    value = {
        "serving_default": lambda: pixels(batch),
        "encoded": lambda: files(batch),
        "classify": lambda: [example(file) for file in files(batch)],
        "logits": lambda: (pixels(batch) / 127.5 - 1).astype(np.float32),
    }[signature]()
    expected = loaded[2].signatures[signature](tf.constant(value))
    if protocol == "grpc":
        answers = caller.grpc_predict(signature, value)
    else:
        answers = caller.rest_predict(signature, value, columns="columns" in protocol)
    assert_same(answers, expected)


@pytest.mark.parametrize("batch", [1, 5])
def test_classify_answers_what_the_saved_model_answers(caller, loaded, batch):
    encoded = files(batch)
    expected = loaded[2].signatures["classify"](tf.constant([example(file) for file in encoded]))
    assert_same(caller.grpc_classify([example(file) for file in encoded]), expected)
    assert_same(caller.rest_classify([{"image/encoded": as_json(file)} for file in encoded]), expected)


@pytest.mark.parametrize("signature", ["serving_default", "encoded", "logits"])
def test_classify_refuses_signatures_of_another_method(caller, signature):
    code, message = caller.grpc_classify([example(files(1)[0])], signature)
    assert code == "INVALID_ARGUMENT" and "method_name to be tensorflow/serving/classify" in message
    code, message = caller.rest_classify([{"image/encoded": as_json(files(1)[0])}], signature)
    assert code == 400 and "method_name to be tensorflow/serving/classify" in message


def test_versions_and_labels_choose_the_weights(caller, loaded):
    images = pixels(2)
    one, two = (loaded[version].signatures["serving_default"](tf.constant(images)) for version in (1, 2))
    assert np.abs(one["scores"] - two["scores"]).max() > 0.01
    for where, expected in {"/versions/1": one, "/labels/stable": one, "/labels/canary": two, "": two}.items():
        assert_same(caller.rest_predict("serving_default", images, MODEL + where), expected)
    for choice, expected in [({"version": 1}, one), ({"label": "stable"}, one), ({"label": "canary"}, two)]:
        assert_same(caller.grpc_predict("serving_default", images, **choice), expected)
    assert caller.rest_predict("encoded", files(1), f"{MODEL}/versions/9")[0] == 404
    assert caller.grpc_predict("encoded", files(1), version=9)[0] == "NOT_FOUND"


def test_status_and_metadata(caller):
    statuses = caller.get(MODEL)["model_version_status"]
    assert {(one["version"], one["state"]) for one in statuses} == {("1", "AVAILABLE"), ("2", "AVAILABLE")}
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": MODEL})
    assert {one.version for one in caller.model.GetModelStatus(request, timeout=60).model_version_status} == {1, 2}
    signatures = caller.get(f"{MODEL}/metadata")["metadata"]["signature_def"]["signature_def"]
    dims = signatures["serving_default"]["inputs"]["images"]["tensor_shape"]["dim"]
    assert [dim["size"] for dim in dims] == ["-1", "12", "12", "3"]
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec={"name": MODEL}, metadata_field=["signature_def"]
    )
    answer = get_model_metadata_pb2.SignatureDefMap()
    caller.prediction.GetModelMetadata(request, timeout=60).metadata["signature_def"].Unpack(answer)
    assert answer.signature_def["classify"].method_name == "tensorflow/serving/classify"


# ---------------------------------------------------------------------------------------------------- bad requests


@pytest.mark.parametrize(
    ("signature", "value", "message"),
    [
        ("serving_default", np.zeros([0, *IMAGE_SHAPE], np.uint8), r"N >= 1, got \[0, 12, 12, 3\]"),
        ("serving_default", np.zeros([2, 24, 24, 3], np.uint8), r"shape \[N, 12, 12, 3\] .* got \[2, 24, 24, 3\]"),
        ("serving_default", np.zeros([12, 12, 3], np.uint8), r"got \[12, 12, 3\]"),
        ("serving_default", np.zeros([1, 12, 12, 1], np.uint8), r"got \[1, 12, 12, 1\]"),
        ("serving_default", np.uint8(3), r"got \[\]"),
        ("logits", np.zeros([0, *IMAGE_SHAPE], np.float32), r"N >= 1, got \[0, 12, 12, 3\]"),
        ("logits", np.full([1, *IMAGE_SHAPE], np.nan, np.float32), "finite floats in .* from nan to nan"),
        ("logits", np.full([1, *IMAGE_SHAPE], 200, np.float32), r"pixel / 127.5 - 1\), got values from 200"),
        ("encoded", np.zeros([0], object), r"N >= 1, got \[0\]"),
        ("encoded", [[b"a", b"b"]], r"expected JPEG or PNG files of shape \[N\] .* got \[1, 2\]"),
        ("encoded", [b""], r"image 0 of the request is neither JPEG nor PNG \(0 bytes\)"),
        ("classify", files(1), "expected serialized tf.Examples .* go to the signature `encoded`"),
        ("classify", [b"\nno example"], "(Could not parse example input|Can't parse serialized)"),
        ("classify", [example(b"x", "image")], "Feature: image/encoded .* is required but could not be found"),
    ],
)
def test_a_bad_request_is_an_invalid_argument_that_says_why(caller, signature, value, message):
    proto = tf.make_tensor_proto(value, dtype=tf.string if signature in ("encoded", "classify") else None)
    code, text = caller.grpc_predict(signature, tf.make_ndarray(proto))
    assert code == "INVALID_ARGUMENT" and re.search(message, text), (code, text)
    if np.ndim(value) and np.size(value):  # an empty list has no shape in JSON, a number is no list
        code, text = caller.rest_predict(signature, value)
        assert code == 400 and re.search(message, text), (code, text)
    # The server is well.
    assert isinstance(caller.grpc_predict("encoded", files(1)), dict)


@pytest.mark.parametrize("columns", [False, True])
def test_an_empty_list_over_rest_is_refused(caller, columns):
    assert caller.rest_predict("encoded", [], columns=columns)[0] == 400
    assert caller.rest_classify([])[0] == 400


def test_wrong_types_are_refused(caller):
    code, message = caller.grpc_predict("serving_default", np.zeros([1, *IMAGE_SHAPE], np.float32))
    assert code == "INVALID_ARGUMENT" and "float" in message and "uint8" in message
    assert caller.grpc_predict("encoded", pixels(1))[0] == "INVALID_ARGUMENT"
    assert caller.rest_predict("serving_default", np.full([1, *IMAGE_SHAPE], 0.5))[0] == 400
    assert caller.rest_predict("serving_default", np.full([1, *IMAGE_SHAPE], 256))[0] == 400
    assert caller.rest_predict("nothing", pixels(1))[0] == 400
    assert caller.post(f"{MODEL}:predict", {"instances": [[1, 2], [3]]})[0] == 400


def test_one_bad_file_fails_its_own_request_and_is_named(caller):
    code, message = caller.grpc_predict("encoded", [*files(2), b"GIF89a" + bytes(50)])
    assert code == "INVALID_ARGUMENT" and "image 2 of the request is neither JPEG nor PNG (56 bytes)" in message


def test_no_caller_gets_the_answer_of_another(caller, loaded):
    images = pixels(40)
    expected = loaded[2].signatures["serving_default"](tf.constant(images))["scores"].numpy()

    def ask(row):
        if row % 5 == 0:  # some fail beside the others
            assert caller.grpc_predict("encoded", [b"broken"])[0] == "INVALID_ARGUMENT"
        answers = [
            caller.grpc_predict("serving_default", images[row : row + 1]),
            caller.rest_predict("encoded", [tf.io.encode_png(images[row]).numpy()]),
        ]
        return max(float(np.abs(answer["scores"][0] - expected[row]).max()) for answer in answers)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert max(pool.map(ask, range(len(images)))) < 1e-5


def test_the_warm_up_of_every_signature_is_replayed_when_a_version_is_loaded(export_root):
    import conformance_server

    version = conformance_server.Version(export_root / "1")
    assert sorted(version.replayed) == ["classify", "encoded", "logits", "serving_default"]


def test_labels_can_not_be_moved_to_versions_that_are_not_loaded(export_root):
    import conformance_server

    def config(versions, stable):
        policy = {"specific": {"versions": versions}}
        return conformance_server.one_model(
            MODEL, export_root, model_version_policy=policy, version_labels={"stable": stable}
        )

    models = conformance_server.Models(config([1], 1), labels_before_loading=True)
    with pytest.raises(conformance_server.Refusal, match="version 2 .* not currently available"):
        models.reload(config([1, 2], 2))
    assert models.find(MODEL, label="stable")[0] == 1
    models.reload(config([1, 2], 2))  # it was loaded all the same
    assert models.find(MODEL, label="stable")[0] == 2
    with pytest.raises(conformance_server.Refusal, match="not currently available"):
        conformance_server.Models(config([1], 1))

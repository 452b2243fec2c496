"""A small model server for tests that speaks TensorFlow Serving's protocols. It is NOT TensorFlow Serving.

    python tests/serving/conformance_server.py --model_config_file=models.config --port=8500 --rest_api_port=8501

What it shares with the real one: the messages and services of tensorflow-serving-api, the JSON mapping of the REST API,
a TensorFlow session in which the graph of the SavedModel runs, and the rules that stop a wrong export: method names,
warm-up replayed at load, types checked but shapes not, labels only for versions that are loaded. What it can't show:
the real one's speed, batching, memory, and faults.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import http.server
import json
import os
import pathlib
import re
import socket
import threading
import time
import urllib.error
import urllib.request

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format, text_format
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

PREDICT, CLASSIFY = "tensorflow/serving/predict", "tensorflow/serving/classify"
HTTP_STATUS = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "FAILED_PRECONDITION": 412, "UNIMPLEMENTED": 501}
URL = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata)|:(predict|classify))?$")
AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


class Refusal(Exception):
    """A request that can't be answered: gRPC's name of the status, and the message."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code, self.message = code, message


def invalid(message):
    return Refusal("INVALID_ARGUMENT", message)


class Version:
    """A version folder, loaded as TF Serving does: its graph in a session, its warm-up requests replayed."""

    def __init__(self, directory: pathlib.Path):
        saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
        (meta,) = [one for one in saved.meta_graphs if "serve" in one.meta_info_def.tags]
        # Python's session compares what it is fed with the shape of the placeholder, which the C++ one does not.
        for node in meta.graph_def.node:
            if node.op == "Placeholder":
                node.attr["shape"].shape.Clear()
                node.attr["shape"].shape.unknown_rank = True
                node.attr.pop("_output_shapes", None)
        self.signatures = dict(meta.signature_def)
        self.signatures.pop("__saved_model_init_op", None)
        graph = tf.Graph()
        with graph.as_default():
            self.session = tf.compat.v1.Session(graph=graph)
            saver = tf.compat.v1.train.import_meta_graph(meta)
            saver.restore(self.session, str(directory / "variables" / "variables"))
        self._calls, self._lock = {}, threading.Lock()
        self.replayed = self._replay(directory / "assets.extra" / "tf_serving_warmup_requests")

    def _replay(self, path) -> list[str]:
        """The names of the signatures that were warmed up; an error of one of them is one of the version."""
        replayed = []
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator() if path.exists() else ():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            kind = log.WhichOneof("log_type")
            {"predict_log": self.predict, "classify_log": self.classify}[kind](getattr(log, kind).request)
            replayed.append(getattr(log, kind).request.model_spec.signature_name)
        return replayed

    def _signature(self, name):
        name = name or "serving_default"
        if name not in self.signatures:
            raise invalid(f"No signature was found with the name: {name}")
        return self.signatures[name]

    def _run(self, signature, name, value):
        info = signature.inputs[name]
        wanted = tf.as_dtype(info.dtype)
        given = tf.as_dtype(value.dtype)
        if given != wanted:
            raise invalid(f"Type mismatch: actual {given.name} vs. expect {wanted.name}")
        fetches = {output: tensor.name for output, tensor in signature.outputs.items()}
        try:
            return self.session.run(fetches, {info.name: value})
        except tf.errors.OpError as error:
            text = error.message.split("Graph execution error:")[-1].strip()
            codes = {code.value[0]: code.name for code in grpc.StatusCode}
            raise Refusal(codes[error.error_code], text) from None
        except UnicodeDecodeError:  # of Python, where TensorFlow's message holds bytes of the request
            raise invalid("(a message with bytes of the request, which Python can't show)") from None

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        signature = self._signature(request.model_spec.signature_name)
        if set(request.inputs) != set(signature.inputs):
            raise invalid(
                f"input size does not match signature: sent {{{','.join(request.inputs)}}}, "
                f"required {{{','.join(signature.inputs)}}}"
            )
        ((name, proto),) = request.inputs.items()
        try:
            value = tf.make_ndarray(proto)
        except (ValueError, TypeError, MemoryError, OverflowError) as error:
            raise invalid(f"tensor parsing error: {name}") from error
        response = predict_pb2.PredictResponse()
        for output, answer in self._run(signature, name, value).items():
            response.outputs[output].CopyFrom(as_proto_field(answer))
        return response

    def classify(self, request: classification_pb2.ClassificationRequest) -> classification_pb2.ClassificationResponse:
        signature = self._signature(request.model_spec.signature_name)
        if signature.method_name != CLASSIFY:
            raise invalid(
                f"Expected classification signature method_name to be {CLASSIFY}. Was: {signature.method_name}"
            )
        if set(signature.inputs) != {"inputs"} or not {"classes", "scores"} >= set(signature.outputs):
            raise invalid("Expected an input `inputs` and outputs `classes` and `scores`.")
        examples = [example.SerializeToString() for example in request.input.example_list.examples]
        if not examples:
            raise invalid("Input is empty.")
        answers = self._run(signature, "inputs", np.array(examples, object))
        if not answers["classes"].shape == answers["scores"].shape == (len(examples), answers["scores"].shape[1]):
            raise invalid("Expected classes and scores of shape [batch_size, num_classes].")
        response = classification_pb2.ClassificationResponse()
        for labels, scores in zip(answers["classes"], answers["scores"]):
            classifications = response.result.classifications.add()
            for label, score in zip(labels, scores):
                classifications.classes.add(label=label.decode(), score=float(score))
        return response


def as_proto_field(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Numbers one by one, as TF Serving sends them by default; `make_tensor_proto` packs them as bytes."""
    if array.dtype != np.float32:
        return tf.make_tensor_proto(array)
    dims = [{"size": side} for side in array.shape]
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape={"dim": dims}, float_val=array.ravel())


class Models:
    """The configured models with their loaded versions and labels."""

    def __init__(self, config: model_server_config_pb2.ModelServerConfig, labels_before_loading: bool = False):
        self.versions, self.labels = {}, {}
        self.labels_before_loading = labels_before_loading
        self.reload(config)

    def reload(self, config):
        """Takes a new configuration: loads first, then moves the labels, as TF Serving does."""
        available = {name: dict(versions) for name, versions in self.versions.items()}
        new = {one.name: self._load(one) for one in config.model_config_list.config}
        labels = {}
        for one in config.model_config_list.config:
            for label, version in one.version_labels.items():
                moved = self.labels.get((one.name, label), version) != version
                if version not in available.get(one.name, {}) and (moved or not self.labels_before_loading):
                    self.versions = {**self.versions, **new}  # loading goes on; the labels stay
                    raise Refusal(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {version} of model {one.name}, which is not currently "
                        f"available for inference",
                    )
                labels[one.name, label] = version
        self.versions, self.labels = new, labels

    def _load(self, one):
        root = pathlib.Path(one.base_path)
        found = sorted(int(path.name) for path in root.iterdir() if path.name.isdecimal())
        wanted = set(one.model_version_policy.specific.versions) or set(found[-1:])
        loaded = self.versions.get(one.name, {})
        return {v: loaded.get(v) or Version(root / str(v)) for v in found if v in wanted}

    def find(self, name, version=None, label=None) -> tuple[int, Version]:
        versions = self.versions.get(name, {})
        if label:
            if (name, label) not in self.labels:
                raise invalid(f"Unrecognized servable version label: {label}")
            version = self.labels[name, label]
        if version is None and versions:
            version = max(versions)
        if version not in versions:
            wanted = f"Specific({name}, {version})" if version is not None else f"Latest({name})"
            raise Refusal("NOT_FOUND", f"Servable not found for request: {wanted}")
        return version, versions[version]

    def of_spec(self, spec):
        version = spec.version.value if spec.HasField("version") else None
        return self.find(spec.name, version, spec.version_label)

    def status(self, name, version=None, label=None):
        response = get_model_status_pb2.GetModelStatusResponse()
        if name not in self.versions:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        chosen = [self.find(name, version, label)[0]] if version or label else sorted(self.versions[name], reverse=True)
        for one in chosen:
            response.model_version_status.add(version=one, state=AVAILABLE)
        return response

    def metadata(self, name, version=None, label=None):
        number, found = self.find(name, version, label)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = name, number
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in found.signatures.items():
            signatures.signature_def[key].CopyFrom(signature)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def predict(self, request):
        number, version = self.of_spec(request.model_spec)
        return _stamped(version.predict(request), request.model_spec, number)

    def classify(self, request):
        number, version = self.of_spec(request.model_spec)
        return _stamped(version.classify(request), request.model_spec, number)


def _stamped(response, spec, number):
    response.model_spec.name, response.model_spec.version.value = spec.name, number
    response.model_spec.signature_name = spec.signature_name or "serving_default"
    return response


# ---------------------------------------------------------------------------------------------------------------- gRPC


def _answer(function, request, context):
    try:
        return function(request)
    except Refusal as refusal:
        context.abort(grpc.StatusCode[refusal.code], refusal.message)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models: Models):
        self.models = models

    def Predict(self, request, context):
        return _answer(self.models.predict, request, context)

    def Classify(self, request, context):
        return _answer(self.models.classify, request, context)

    def GetModelMetadata(self, request, context):
        return _answer(lambda r: self.models.metadata(r.model_spec.name), request, context)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models: Models):
        self.models = models

    def GetModelStatus(self, request, context):
        return _answer(lambda r: self.models.status(r.model_spec.name), request, context)


# ---------------------------------------------------------------------------------------------------------------- REST


def from_json(value, dtype: tf.DType) -> np.ndarray:
    """A tensor from nested lists, by the rules of TF Serving's json_tensor.cc."""

    def shape_of(item):
        return (len(item), *(shape_of(item[0]) if item else ())) if isinstance(item, list) else ()

    shape, flat = shape_of(value), []

    def walk(item, left):
        if isinstance(item, list) != bool(left) or (left and len(item) != left[0]):
            raise invalid(f"Encountered list at unexpected size: {len(item) if isinstance(item, list) else item!r}")
        for one in item if left else ():
            walk(one, left[1:])
        if not left:
            flat.append(scalar(item))

    def scalar(item):
        if dtype == tf.string:
            if isinstance(item, dict) and set(item) == {"b64"}:
                try:
                    return base64.b64decode(item["b64"], validate=True)
                except (ValueError, TypeError):
                    raise invalid("Unable to base64 decode") from None
            if isinstance(item, str):
                return item.encode()
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            if dtype.is_floating or (isinstance(item, int) and dtype.min <= item <= dtype.max):
                return item
        raise invalid(f"JSON Value: {str(item)[:50]} is not of expected type: {dtype.name}")

    walk(value, shape)
    return np.array(flat, object if dtype == tf.string else dtype.as_numpy_dtype).reshape(shape)


def to_json(proto):
    array = tf.make_ndarray(proto)
    return np.vectorize(bytes.decode, otypes=[object])(array).tolist() if array.dtype == object else array.tolist()


def rest_predict(models: Models, body, name, version, label):
    _, found = models.find(name, version, label)
    spec = {"signature_name": body.get("signature_name", "")}
    signature = found._signature(spec["signature_name"])
    if ("instances" in body) == ("inputs" in body):
        raise invalid("Missing 'inputs' or 'instances' key, or both of them")
    request = predict_pb2.PredictRequest(model_spec=spec)
    ((input_name, info),) = signature.inputs.items()
    value = body.get("instances", body.get("inputs"))
    if "instances" in body:
        if not isinstance(value, list) or not value:
            raise invalid("'instances' must be a list with at least one element")
        if all(isinstance(one, dict) and "b64" not in one for one in value):
            if any(set(one) != {input_name} for one in value):
                raise invalid(f"Failed to process element: JSON object: does not have named input: {input_name}")
            value = [one[input_name] for one in value]
    elif isinstance(value, dict) and "b64" not in value:
        if set(value) != {input_name}:
            raise invalid(f"Missing named input: {input_name}")
        value = value[input_name]
    array = from_json(value, tf.as_dtype(info.dtype))
    request.inputs[input_name].CopyFrom(tf.make_tensor_proto(array, dtype=info.dtype))
    outputs = {key: to_json(proto) for key, proto in found.predict(request).outputs.items()}
    single = next(iter(outputs.values())) if len(outputs) == 1 else None
    if "inputs" in body:
        return {"outputs": outputs if single is None else single}
    rows = single if single is not None else [dict(zip(outputs, row)) for row in zip(*outputs.values())]
    return {"predictions": rows}


def rest_classify(models: Models, body, name, version, label):
    _, found = models.find(name, version, label)
    request = classification_pb2.ClassificationRequest(model_spec={"signature_name": body.get("signature_name", "")})
    if not isinstance(body.get("examples"), list) or not body["examples"]:
        raise invalid("When method is classify, key 'examples' is expected and was not found or is empty")
    for features in body["examples"]:
        if not isinstance(features, dict):
            raise invalid("Example must be JSON object but got JSON value")
        example = request.input.example_list.examples.add()
        for key, values in features.items():
            for value in values if isinstance(values, list) else [values]:
                feature = example.features.feature[key]
                if isinstance(value, (str, dict)):
                    feature.bytes_list.value.append(from_json(value, tf.string).item())
                elif isinstance(value, int):
                    feature.int64_list.value.append(value)
                else:
                    feature.float_list.value.append(value)
    result = found.classify(request).result
    return {"results": [[[one.label, one.score] for one in row.classes] for row in result.classifications]}


def make_handler(models: Models):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self, verb):
            try:
                match = URL.match(self.path)
                if not match or (verb == "POST") != bool(match[5]):
                    raise invalid(f"Malformed request: {verb} {self.path}")
                name, version, label, metadata, method = match.groups()
                where = name, version and int(version), label
                if method:
                    try:
                        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                    except (ValueError, TypeError) as error:
                        raise invalid(f"JSON Parse error: {error}") from error
                    if not isinstance(body, dict):
                        raise invalid("Request is not a JSON object")
                    content = {"predict": rest_predict, "classify": rest_classify}[method](models, body, *where)
                else:
                    message = (models.metadata if metadata else models.status)(*where)
                    content = json_format.MessageToDict(message, preserving_proto_field_name=True)
                status = 200
            except Refusal as refusal:
                status, content = HTTP_STATUS.get(refusal.code, 500), {"error": refusal.message}
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def do_GET(self):
            self.answer("GET")

        def do_POST(self):
            self.answer("POST")

        def log_message(self, *arguments):
            pass

    return Handler


class HTTPServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Server:
    """Both protocols on the loopback. Ports of 0 are chosen; `port` and `rest_api_port` tell them."""

    def __init__(self, models: Models, port: int = 0, rest_api_port: int = 0):
        self.models = models
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=unlimited)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(models), self.grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), self.grpc)
        self.port = self.grpc.add_insecure_port(f"127.0.0.1:{port}")
        self.rest = HTTPServer(("127.0.0.1", rest_api_port), make_handler(models))
        self.rest_api_port = self.rest.server_address[1]
        self.grpc.start()
        threading.Thread(target=self.rest.serve_forever, daemon=True).start()

    def stop(self):
        self.grpc.stop(0)
        self.rest.shutdown()
        self.rest.server_close()


def read_config(path) -> model_server_config_pb2.ModelServerConfig:
    return text_format.Parse(pathlib.Path(path).read_text(), model_server_config_pb2.ModelServerConfig())


def one_model(name, base_path, **options) -> model_server_config_pb2.ModelServerConfig:
    """The configuration of --model_name and --model_base_path, with `version_labels` and so on."""
    model = {"name": name, "base_path": str(base_path), "model_platform": "tensorflow", **options}
    return model_server_config_pb2.ModelServerConfig(model_config_list={"config": [model]})


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(url, seconds=120):
    """Waits until `url` answers."""
    for _ in range(seconds * 10):
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(url)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8500)
    parser.add_argument("--rest_api_port", type=int, default=8501)
    parser.add_argument("--model_name", default="default")
    parser.add_argument("--model_base_path")
    parser.add_argument("--model_config_file")
    parser.add_argument("--model_config_file_poll_wait_seconds", type=float, default=0)
    parser.add_argument("--allow_version_labels_for_unavailable_models", choices=("true", "false"), default="false")
    flags = parser.parse_args()
    path = flags.model_config_file

    def read():
        config = read_config(path)
        if flags.model_base_path:  # stands for what a container would mount
            config.model_config_list.config[0].base_path = flags.model_base_path
        return config

    config = read() if path else one_model(flags.model_name, flags.model_base_path)
    models = Models(config, flags.allow_version_labels_for_unavailable_models == "true")
    server = Server(models, flags.port, flags.rest_api_port)
    print(f"conformance server: gRPC on {server.port}, REST on {server.rest_api_port}", flush=True)
    stop = threading.Event()
    while not stop.wait(flags.model_config_file_poll_wait_seconds or None):
        try:
            models.reload(read())
        except (Refusal, text_format.ParseError, OSError) as error:
            print(f"configuration not taken: {error}", flush=True)


if __name__ == "__main__":
    main()

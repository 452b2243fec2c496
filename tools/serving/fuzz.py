"""Sends a model server on this machine broken images and requests: each gets an answer or a reason, none harms it.

    python tools/serving/fuzz.py --saved_model=runs/digits/export/1 --grpc=localhost:8500 --rest=http://localhost:8501 \
      --requests=10000 --out=fuzz.json

Three kinds by turns: mutated files (bytes changed, cut, repeated, spliced, headers of other sizes), gRPC requests
with tensors of other types, shapes and contents, and REST requests of other JSON. Allowed are an answer (scores of the
right shape that sum to 1), INVALID_ARGUMENT and NOT_FOUND, both with a message. After every broken request a good one
is sent, whose answer must be the SavedModel's. Needs the extra `serving`. Exit status: 0 passed; 1 not; 2 wrong flags.
"""

from __future__ import annotations

import argparse
import base64
import collections
import io
import json
import os
import pathlib
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import PIL.Image
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

ALLOWED = {"INVALID_ARGUMENT", "NOT_FOUND", "400", "404"}
SIGNATURES = {"serving_default": "images", "encoded": "encoded", "classify": "inputs", "logits": "images"}


def seeds(random) -> list[bytes]:
    """Good files of many makes."""
    files = []
    for size in ((16, 16), (31, 47), (1, 9)):
        pixels = random.integers(0, 256, [*size, 4], np.uint8)
        made = [(pixels[..., :3], "PNG", {}), (pixels, "PNG", {}), (pixels[..., 0], "PNG", {})]
        made += [(pixels[..., :3], "JPEG", options) for options in ({}, {"progressive": True}, {"quality": 5})]
        made += [(pixels[..., 0], "JPEG", {}), (pixels[..., 0], "GIF", {}), (pixels[..., :3], "BMP", {})]
        for array, form, options in made:
            file = io.BytesIO()
            PIL.Image.fromarray(array).save(file, form, **options)
            files.append(file.getvalue())
        file = io.BytesIO()
        PIL.Image.fromarray(pixels[..., :3]).quantize(7).save(file, "PNG")
        files.append(file.getvalue())
    return files


def mutate(random, files) -> bytes:
    """A broken file, or one that is whole by chance."""
    file = bytearray(files[random.integers(len(files))])
    for _ in range(random.integers(1, 4)):
        kind, place = random.integers(7), random.integers(len(file) + 1)
        if kind == 0:
            for position in random.integers(0, len(file) + 1, random.integers(1, 9)):
                file[position : position + 1] = random.bytes(1)
        elif kind == 1:
            del file[place:]
        elif kind == 2:
            file[place:place] = random.bytes(int(random.integers(1, 60)))
        elif kind == 3:
            del file[place : place + int(random.integers(1, 60))]
        elif kind == 4:
            file[place:] = files[random.integers(len(files))][place:]
        elif kind == 5:
            file += file[place:]
        elif bytes(file[:4]) == b"\x89PNG" and len(file) > 33:  # another size, with a right checksum
            sides = random.choice([0, 1, 16, 4000, 2**16, 2**31, 2**32 - 1], 2)
            file[16:24] = struct.pack(">II", *map(int, sides))
            file[24:26] = bytes([int(random.choice([1, 8, 16, 3])), int(random.choice([0, 2, 3, 4, 6, 9]))])
            file[29:33] = struct.pack(">I", zlib.crc32(bytes(file[12:29])))
    return bytes(file)


def example(encoded: bytes, feature: str) -> bytes:
    values = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    return tf.train.Example(features=tf.train.Features(feature={feature: values})).SerializeToString()


def broken_tensor(random, image_shape, files):
    """A TensorProto of any type, shape and content."""
    dtype = random.choice(["uint8", "float32", "int64", "bool", "string"])
    sides = [int(side) for side in random.choice([0, 1, 2, 3, 5, *image_shape], random.integers(0, 6))]
    shape = [int(random.integers(0, 3)), *image_shape] if random.random() < 0.5 else sides
    if dtype == "string":
        values = np.array([mutate(random, files) for _ in range(int(np.prod(shape[:1])))], object).reshape(shape[:1])
    else:
        values = random.uniform(-3, 300, shape).astype(dtype)
        if dtype == "float32" and values.size and random.random() < 0.5:
            values.flat[random.integers(values.size)] = random.choice([np.nan, np.inf, 0])
    proto = tf.make_tensor_proto(values, dtype=dtype)
    if random.random() < 0.2:  # a shape that is not that of the content, up to petabytes
        side = random.choice([-7, 0, 1, 2, 2**50])
        proto.tensor_shape.dim.add(size=int(side))
    if random.random() < 0.1:
        proto.tensor_content = random.bytes(int(random.integers(0, 40)))
    return proto


def grpc_request(random, model, image_shape, files) -> predict_pb2.PredictRequest:
    signature = str(random.choice([*SIGNATURES, "", "other"]))
    request = predict_pb2.PredictRequest(model_spec={"name": model, "signature_name": signature})
    if random.random() < 0.05:
        request.model_spec.name = "nobody"
    name = SIGNATURES.get(signature, "images") if random.random() < 0.9 else str(random.choice(["", "x", "encoded"]))
    if signature == "classify" and random.random() < 0.7:
        feature = str(random.choice(["image/encoded", "image", ""]))
        content = example(mutate(random, files), feature)
        content = content[: random.integers(len(content) + 1)] if random.random() < 0.3 else content
        request.inputs[name].CopyFrom(tf.make_tensor_proto([content]))
    else:
        request.inputs[name].CopyFrom(broken_tensor(random, image_shape, files))
    if random.random() < 0.1:
        request.inputs["more"].CopyFrom(tf.make_tensor_proto(1))
    return request


def rest_request(random, files) -> bytes:
    """The text of a POST, JSON or nearly."""
    odd = [None, True, 3, -1, 256, 0.5, float("nan"), "", "text", [], {}, [[1, 2], [3]], {"b64": "%%"}, {"b64": 7}]
    odd += [{"b64": base64.b64encode(mutate(random, files)).decode()}, {"images": [1]}, [[[[300]]]], "é" * 50]
    pick = lambda: odd[random.integers(len(odd))]  # noqa: E731
    body = {str(random.choice(["instances", "inputs", "examples"])): [pick() for _ in range(random.integers(0, 4))]}
    if random.random() < 0.3:
        body = {"inputs": pick()} if random.random() < 0.5 else {"instances": pick()}
    if random.random() < 0.8:
        body["signature_name"] = str(random.choice([*SIGNATURES, "other"]))
    text = bytearray(json.dumps(body).encode())
    if random.random() < 0.3:
        text[random.integers(len(text))] = int(random.integers(256))
    return bytes(text)


class Target:
    """The server under test. A result is the name of a status, and what is wrong with it or None."""

    def __init__(self, address: str, rest: str, model: str, classes: int):
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address))
        self.rest, self.model, self.classes = rest.rstrip("/"), model, classes

    def ask(self, request) -> tuple[str, str | None]:
        try:
            outputs = self.stub.Predict(request, timeout=60).outputs
        except grpc.RpcError as error:
            return _judged(error.code().name, error.details())
        return "answered", self._wrong({name: tf.make_ndarray(proto) for name, proto in outputs.items()})

    def post(self, text: bytes, verb: str) -> tuple[str, str | None]:
        request = urllib.request.Request(f"{self.rest}/v1/models/{self.model}:{verb}", text)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                json.load(response)
                return "answered", None
        except urllib.error.HTTPError as error:
            try:
                message = json.load(error)["error"]
            except (ValueError, KeyError):
                message = ""
            return _judged(str(error.code), message)
        except OSError as error:
            return "no answer", str(error)

    def _wrong(self, outputs) -> str | None:
        if "scores" in outputs:
            scores = outputs["scores"]
            if scores.shape[1:] != (self.classes,) or not np.allclose(scores.sum(axis=1), 1, atol=1e-4):
                return f"scores {scores.shape} that sum to {scores.sum(axis=-1)}"
        elif not np.all(np.isfinite(outputs["logits"])):
            return "logits that are not finite"
        return None

    def scores(self, file: bytes) -> np.ndarray:
        request = predict_pb2.PredictRequest(model_spec={"name": self.model, "signature_name": "encoded"})
        request.inputs["encoded"].CopyFrom(tf.make_tensor_proto([file]))
        return tf.make_ndarray(self.stub.Predict(request, timeout=60).outputs["scores"])


def _judged(code: str, message: str | None) -> tuple[str, str | None]:
    if code not in ALLOWED:
        return code, message or "without a message"
    return code, None if message else "refused without a message"


def fuzz(target: Target, loaded, requests: int, seed: int, progress=lambda line: None) -> dict:
    """Sends `requests` broken requests; returns counts of what came back, and all that was wrong."""
    random = np.random.default_rng(seed)
    image_shape = [int(side) for side in loaded.image_shape().numpy()]
    good_pixels = random.integers(0, 256, image_shape, np.uint8)
    good = tf.io.encode_png(good_pixels).numpy()
    expected = loaded.signatures["encoded"](encoded=tf.constant([good]))["scores"].numpy()
    files, counts, wrong = seeds(random), collections.Counter(), []
    for number in range(requests):
        kind = ("file", "grpc", "rest")[number % 3]
        if kind == "file":
            request = predict_pb2.PredictRequest(model_spec={"name": target.model, "signature_name": "encoded"})
            request.inputs["encoded"].CopyFrom(tf.make_tensor_proto([mutate(random, files)]))
            code, fault = target.ask(request)
        elif kind == "grpc":
            code, fault = target.ask(grpc_request(random, target.model, image_shape, files))
        else:
            code, fault = target.post(rest_request(random, files), str(random.choice(["predict", "classify"])))
        counts[f"{kind}: {code}"] += 1
        if fault:
            wrong.append({"request": number, "kind": kind, "status": code, "fault": fault[:300]})
        difference = float(np.abs(target.scores(good) - expected).max())
        if not difference <= 1e-5:
            wrong.append(
                {"request": number, "kind": kind, "fault": f"the good request after it is off by {difference}"}
            )
        if (number + 1) % 1000 == 0:
            progress(f"{number + 1} requests, {len(wrong)} faults")
    return {"requests": requests, "seed": seed, "outcomes": dict(sorted(counts.items())), "faults": wrong}


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saved_model", required=True, help="folder of the version that is served")
    parser.add_argument("--grpc", default="localhost:8500")
    parser.add_argument("--rest", default="http://localhost:8501")
    parser.add_argument("--model", default="robgan")
    parser.add_argument("--server_is", default="unknown", help="what the server is, for the report")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file of the result")
    flags = parser.parse_args(arguments)
    for name in ("grpc", "rest"):
        address = getattr(flags, name)
        host = urllib.parse.urlsplit(address if "://" in address else f"grpc://{address}").hostname
        if host not in ("localhost", "127.0.0.1", "::1"):
            parser.error(f"--{name} must be on this machine (localhost), got {address}")
    if not os.path.exists(os.path.join(flags.saved_model, "saved_model.pb")):
        parser.error(f"--saved_model={flags.saved_model} has no saved_model.pb")
    loaded = tf.saved_model.load(flags.saved_model)
    target = Target(flags.grpc, flags.rest, flags.model, len(loaded.class_names().numpy()))
    start = time.monotonic()
    result = fuzz(target, loaded, flags.requests, flags.seed, lambda line: print(line, flush=True))
    seconds = round(time.monotonic() - start, 1)
    result = {"server_is": flags.server_is, "tensorflow": tf.__version__, "seconds": seconds, **result}
    if flags.out:
        pathlib.Path(flags.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["outcomes"], indent=1))
    print("passed" if not result["faults"] else f"FAILED: {result['faults'][:5]}")
    return int(bool(result["faults"]))


if __name__ == "__main__":
    sys.exit(main())

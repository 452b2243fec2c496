"""Classifies images by a model server, over REST or gRPC.

    python tools/serving/classify.py photo.jpg folder/ --server=http://localhost:8501
    python tools/serving/classify.py folder/ --server=grpc://localhost:8500 --label=canary --format=json
    curl -s https://example.com/photo.jpg | python tools/serving/classify.py -

A folder stands for all its .jpg, .jpeg and .png files, `-` for the bytes of one image on standard input. REST needs
Python alone, gRPC also grpcio and protobuf; TensorFlow is not needed. Exit status: 0 every image was classified; 1 some
could not be read or were refused, the others are classified; 2 wrong flags or no images; 3 the server can't be reached,
or doesn't have the model.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import pathlib
import random
import socket
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

SUFFIXES = (".jpg", ".jpeg", ".png")
# Seconds before the first repetition; doubled for each further one, with up to as much again at random, so that clients
# which failed together do not come back together.
FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0


class Refused(Exception):
    """The server understood and said no: INVALID_ARGUMENT. To ask again would not help."""


class Unavailable(Exception):
    """No answer, or one that may be different later."""


class NotServed(Exception):
    """The server has no such model, version, label or signature."""


def rest(server: str, model: str, version: int | None, label: str | None, timeout: float):
    """A function from encoded images to [(class names, scores)], over TF Serving's REST API."""
    part = f"/versions/{version}" if version is not None else f"/labels/{label}" if label else ""
    url = f"{server.rstrip('/')}/v1/models/{urllib.parse.quote(model)}{part}:predict"

    def predict(images: list[bytes]):
        instances = [{"b64": base64.b64encode(image).decode()} for image in images]
        body = json.dumps({"signature_name": "encoded", "instances": instances}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                predictions = json.load(response)["predictions"]
        except urllib.error.HTTPError as error:
            raise _of_status(error.code, _message(error)) from error
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            late = isinstance(reason, (TimeoutError, socket.timeout))
            raise Unavailable(f"no answer within {timeout:g} s" if late else str(reason)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"the answer is not TF Serving's: {error!r}") from error
        return [(one["classes"], one["scores"]) for one in predictions]

    return predict


def _message(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code} {error.reason}"


def _of_status(code: int, message: str) -> Exception:
    if code == 404 or _names_nothing(message):
        return NotServed(message)
    if code == 429 or code >= 500:
        return Unavailable(f"HTTP {code}: {message}")
    return Refused(message)


def _names_nothing(message: str) -> bool:
    """TF Serving answers INVALID_ARGUMENT also to a label or a signature that it doesn't have."""
    return message.startswith(("Unrecognized servable version label", "No signature was found", "Serving signature"))


def grpc(server: str, model: str, version: int | None, label: str | None, timeout: float):
    """As `rest`, over gRPC: host:port, with TLS if `server` begins with grpcs://."""
    import grpc as library

    request_class, response_class = _messages()
    scheme, address = server.split("://")
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if scheme == "grpcs":
        channel = library.secure_channel(address, library.ssl_channel_credentials(), options)
    else:
        channel = library.insecure_channel(address, options)
    call = channel.unary_unary(
        "/tensorflow.serving.PredictionService/Predict",
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )

    def predict(images: list[bytes]):
        request = request_class()
        request.model_spec.name, request.model_spec.signature_name = model, "encoded"
        if version is not None:
            request.model_spec.version.value = version
        elif label:
            request.model_spec.version_label = label
        tensor = request.inputs["encoded"]
        tensor.dtype = 7  # DT_STRING
        tensor.tensor_shape.dim.add(size=len(images))
        tensor.string_val.extend(images)
        try:
            outputs = call(request, timeout=timeout).outputs
        except library.RpcError as error:
            raise _of_rpc(error.code().name, error.details() or "") from error
        scores, classes = outputs["scores"], [one.decode() for one in outputs["classes"].string_val]
        # A server may send numbers as a list or as their bytes.
        scores = list(scores.float_val) or [one for (one,) in struct.iter_unpack("<f", scores.tensor_content)]
        count = len(scores) // len(images)
        rows = [slice(row * count, (row + 1) * count) for row in range(len(images))]
        return [(classes[row], scores[row]) for row in rows]

    return predict


def _of_rpc(code: str, message: str) -> Exception:
    if code == "NOT_FOUND" or _names_nothing(message):
        return NotServed(message)
    if code in ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"):
        return Refused(message)
    return Unavailable(f"{code}: {message}")


def _messages():
    """The classes of Predict's request and response, made from their fields.

    Those of tensorflow-serving-api import TensorFlow, which takes seconds and gigabytes; a client needs a few fields of
    predict.proto, model.proto and tensor.proto.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="predict_for_clients.proto", package="client", syntax="proto3")

    def message(name, *fields, inside=None, entry=False):
        made = (inside.nested_type if inside else file.message_type).add(name=name)
        made.options.map_entry = entry
        for number, field, kind in fields:
            repeated = field.endswith("*")
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added = made.field.add(name=field.rstrip("*"), number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".client.{kind}"
            else:
                added.type = kind
        return made

    message("Int64Value", (1, "value", kinds.TYPE_INT64))
    spec = [(1, "name", kinds.TYPE_STRING), (2, "version", "Int64Value"), (3, "signature_name", kinds.TYPE_STRING)]
    message("ModelSpec", *spec, (4, "version_label", kinds.TYPE_STRING))
    message("Dim", (1, "size", kinds.TYPE_INT64))
    message("Shape", (2, "dim*", "Dim"))
    content = (4, "tensor_content", kinds.TYPE_BYTES)
    values = [(5, "float_val*", kinds.TYPE_FLOAT), (8, "string_val*", kinds.TYPE_BYTES)]
    message("Tensor", (1, "dtype", kinds.TYPE_INT32), (2, "tensor_shape", "Shape"), content, *values)
    entry = [(1, "key", kinds.TYPE_STRING), (2, "value", "Tensor")]
    request = message("Request", (1, "model_spec", "ModelSpec"), (2, "inputs*", "Request.InputsEntry"))
    message("InputsEntry", *entry, inside=request, entry=True)
    response = message("Response", (1, "outputs*", "Response.OutputsEntry"))
    message("OutputsEntry", *entry, inside=response, entry=True)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"client.{name}"))
        for name in ("Request", "Response")
    ]


def with_retries(predict, retries: int):
    """`predict`, asked up to `retries` times again where the server is unavailable."""

    def persistent(images):
        wait = FIRST_WAIT
        for attempt in range(retries + 1):
            try:
                return predict(images)
            except Unavailable as error:
                if attempt == retries:
                    raise
                print(f"{error}; asking again ({attempt + 1} of {retries})", file=sys.stderr)
                time.sleep(wait * (1 + random.random()))
                wait = min(2 * wait, LONGEST_WAIT)

    return persistent


def classify(predict, names: list[str], images: list[bytes]):
    """Yields (name, answer or None, error or None) for each image of a batch.

    One bad image fails its whole request, so after a refusal they are sent one by one: the others get their answer.
    """
    try:
        for name, answer in zip(names, predict(images)):
            yield name, answer, None
    except Refused as error:
        if len(images) == 1:
            yield names[0], None, readable(str(error))
            return
        for name, image in zip(names, images):
            yield from classify(predict, [name], [image])


def readable(message: str) -> str:
    """The server's message without the names of graph nodes."""
    first = message.strip().split("\n")[0].split(" [[{{")[0].strip()
    return (
        first.removeprefix("assertion failed: [").removesuffix("]") if first.startswith("assertion failed") else first
    )


def find(paths: list[str]) -> list[str]:
    """Files, those of folders included, in order.

    Raises:
        FileNotFoundError: for a path that isn't there or a folder without images.
    """
    found = []
    for path in paths:
        if path == "-" or os.path.isfile(path):
            found.append(path)
            continue
        if not os.path.isdir(path):
            raise FileNotFoundError(f"{path}: there is no such file or folder")
        inside = sorted(str(file) for file in pathlib.Path(path).rglob("*") if file.suffix.lower() in SUFFIXES)
        if not inside:
            raise FileNotFoundError(f"{path}: the folder has no {', '.join(SUFFIXES)} files")
        found += inside
    return found


def read(path: str) -> bytes:
    return sys.stdin.buffer.read() if path == "-" else pathlib.Path(path).read_bytes()


def batches(paths: list[str], size: int):
    """Yields (names, images, errors) of up to `size` files; what can't be read is in errors, as (name, message)."""
    for start in range(0, len(paths), size):
        names, images, errors = [], [], []
        for path in paths[start : start + size]:
            try:
                image = read(path)
                names.append(path)
                images.append(image)
            except OSError as error:
                errors.append((path, error.strerror or str(error)))
        yield names, images, errors


def report(form: str, name: str, answer, error: str | None, top: int, width: int):
    """Prints a line for an image: on standard output, but errors of the table on standard error."""
    if error is not None:
        if form == "json":
            print(json.dumps({"image": name, "error": error}), flush=True)
        print(f"{name}: {error}", file=sys.stderr)
        return
    ranked = sorted(zip(*answer), key=lambda pair: -pair[1])[:top]
    if form == "json":
        print(json.dumps({"image": name, "top": [{"class": c, "score": round(s, 6)} for c, s in ranked]}), flush=True)
    else:
        print(f"{name:{width}}  " + "  ".join(f"{label} {score:.4f}" for label, score in ranked), flush=True)


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Classifies images by a model server.", epilog="Exit status: 0 all, 1 some, 2 usage, 3 no server."
    )
    parser.add_argument("images", nargs="+", help="files, folders, or - for one image on standard input")
    parser.add_argument("--server", default="http://localhost:8501", help="http(s)://host:port or grpc(s)://host:port")
    parser.add_argument("--model", default="robgan", help="name of the model on the server")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="version; the newest if neither this nor --label is given")
    which.add_argument("--label", help="label of a version, such as stable or canary")
    parser.add_argument("--batch_size", type=int, default=16, help="images of a request")
    parser.add_argument("--timeout", type=float, default=30, help="seconds for a request")
    parser.add_argument("--retries", type=int, default=4, help="repetitions of a request where there is no answer")
    parser.add_argument("--top", type=int, default=3, help="classes to show")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one object a line")
    flags = parser.parse_args(arguments)
    if flags.server.partition("://")[0] not in ("http", "https", "grpc", "grpcs"):
        parser.error(f"--server must begin with http://, https://, grpc:// or grpcs://, got {flags.server}")
    for name, least in (("batch_size", 1), ("retries", 0), ("top", 1)):
        if getattr(flags, name) < least:
            parser.error(f"--{name} must be {least} or more, got {getattr(flags, name)}")
    if flags.timeout <= 0:
        parser.error(f"--timeout must be above 0, got {flags.timeout:g}")
    return flags


def main(arguments=None) -> int:
    flags = parse(arguments)
    try:
        paths = find(flags.images)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    protocol = grpc if flags.server.startswith("grpc") else rest
    try:
        predict = protocol(flags.server, flags.model, flags.version, flags.label, flags.timeout)
    except ImportError as error:
        print(f"error: grpc:// needs grpcio and protobuf (pip install grpcio protobuf): {error}", file=sys.stderr)
        return 2
    predict = with_retries(predict, flags.retries)
    width, failed = max(map(len, paths)), False
    try:
        for names, images, unread in batches(paths, flags.batch_size):
            for name, message in unread:
                report(flags.format, name, None, message, flags.top, width)
            for name, answer, message in classify(predict, names, images) if images else ():
                report(flags.format, name, answer, message, flags.top, width)
                failed |= message is not None
            failed |= bool(unread)
    except NotServed as error:
        which = f"version {flags.version}" if flags.version is not None else f"label {flags.label}"
        which = f" ({which})" if flags.version is not None or flags.label else ""
        print(f"error: {flags.server} does not serve {flags.model}{which}: {readable(str(error))}", file=sys.stderr)
        return 3
    except Unavailable as error:
        print(f"error: {flags.server} gives no answer: {error}", file=sys.stderr)
        return 3
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Shows that an exported classifier answers the same in another TensorFlow, and as ONNX.

    python -m venv ~/venv-newest && ~/venv-newest/bin/pip install 'tensorflow==2.21.*'
    python tools/serving/portability.py --saved_model=runs/digits/export/1 --newest=~/venv-newest/bin/python \
      --files=photos --out=portability.json

Answers of this environment are the reference. The other TensorFlow has to agree in all signatures; as ONNX, made by
tf2onnx and run by onnxruntime, `serving_default` and `logits` have to (ONNX has no JPEG or PNG decoder). ONNX needs the
extra `onnx` here, or in the environment whose interpreter --onnx names. Exit status: 0 all agree to 1e-4; 1 not; 2
wrong flags.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle  # only of what this script writes itself, in a folder of its own
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

# Largest accepted difference of a score; of a logit as a share of the largest logit, where that is above 1.
TOLERANCE = 1e-4
# The newest opset that tf2onnx makes of all operations that are used.
OPSET = 15
BATCHES = (1, 8)


def make_inputs(loaded, files: list[bytes]) -> dict[str, list]:
    """Requests of each signature, lists of arrays [N, ...]; `encoded` and `classify` also get `files`."""
    import tensorflow as tf

    shape = tuple(loaded.image_shape().numpy())
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, [max(BATCHES), *shape], np.uint8)
    larger = random.integers(0, 256, [4, 3 * shape[0], 2 * shape[1], shape[2]], np.uint8)
    made = [tf.io.encode_png(image).numpy() for image in (*pixels[:4], *larger)]
    encoded = [np.array(made, object)] + ([np.array(files, object)] if files else [])
    return {
        "serving_default": [pixels[:size] for size in BATCHES],
        "logits": [(pixels[:size] / 127.5 - 1).astype(np.float32) for size in BATCHES],
        "encoded": encoded,
        "classify": [np.array([example(file) for file in batch], object) for batch in encoded],
    }


def example(encoded: bytes) -> bytes:
    import tensorflow as tf

    values = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    return tf.train.Example(features=tf.train.Features(feature={"image/encoded": values})).SerializeToString()


def tensorflow_answers(saved_model: str, inputs: dict) -> dict:
    """{signature: [{output: array} for each request]} by this interpreter's TensorFlow, and its version."""
    import tensorflow as tf

    loaded = tf.saved_model.load(saved_model)
    answers = {}
    for name, requests in inputs.items():
        signature = loaded.signatures[name]
        (argument,) = signature.structured_input_signature[1]
        results = [
            signature(**{argument: tf.constant(request.tolist() if request.dtype == object else request)})
            for request in requests
        ]
        answers[name] = [{key: value.numpy() for key, value in result.items()} for result in results]
    return {"versions": {"tensorflow": tf.__version__, "numpy": np.__version__}, "answers": answers}


def onnx_answers(saved_model: str, inputs: dict) -> dict:
    """The same by onnxruntime, for the signatures that ONNX can hold."""
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    answers = {}
    for name in ("serving_default", "logits"):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.onnx")
            command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", saved_model, "--signature_def", name]
            converted = subprocess.run(
                [*command, "--opset", str(OPSET), "--output", path], capture_output=True, text=True, check=False
            )
            if converted.returncode:
                raise SystemExit(f"error: tf2onnx can't convert `{name}`:\n{converted.stderr[-2000:]}")
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]
        (argument,) = [entry.name for entry in session.get_inputs()]
        answers[name] = [dict(zip(outputs, session.run(outputs, {argument: request}))) for request in inputs[name]]
    versions = {"onnxruntime": onnxruntime.__version__, "tf2onnx": tf2onnx.__version__, "opset": OPSET}
    return {"versions": {**versions, "tensorflow": tf.__version__}, "answers": answers}


def elsewhere(python: str, what: str, saved_model: str, inputs: dict) -> dict:
    """Runs `tensorflow_answers` or `onnx_answers` in the environment of another interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = os.path.join(folder, "inputs"), os.path.join(folder, "answers")
        pathlib.Path(given).write_bytes(pickle.dumps(plain(inputs)))
        command = [os.path.expanduser(python), __file__, "--answer", what, given, made, f"--saved_model={saved_model}"]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise SystemExit(f"error: {python} can't answer:\n{finished.stderr[-2000:]}")
        result = pickle.loads(pathlib.Path(made).read_bytes())
    return {**result, "answers": arrays(result["answers"])}


def plain(tree):
    """Arrays as (type, shape, list): NumPy's own pickles differ between its versions 1 and 2."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    return (tree.dtype.str, tree.shape, tree.ravel().tolist()) if isinstance(tree, np.ndarray) else tree


def arrays(tree):
    """The inverse of `plain`."""
    if isinstance(tree, dict):
        return {key: arrays(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [arrays(value) for value in tree]
    if isinstance(tree, tuple):
        return np.array(tree[2], object if tree[0] == "|O" else tree[0]).reshape(tree[1])
    return tree


def compare(reference: dict, other: dict) -> dict:
    """Largest differences by signature and output, and whether they are small enough."""
    signatures = {}
    for name, results in other["answers"].items():
        largest = {"scores": 0.0, "logits": 0.0}
        same_names, images = True, 0
        for expected, given in zip(reference["answers"][name], results):
            images += len(next(iter(expected.values())))
            for key in set(largest) & set(expected):
                scale = max(1.0, float(np.abs(expected[key]).max())) if key == "logits" else 1.0
                largest[key] = max(largest[key], float(np.abs(expected[key] - given[key]).max()) / scale)
            if "classes" in expected:
                names = [one if isinstance(one, str) else one.decode() for one in given["classes"].ravel()]
                same_names &= names == [one.decode() for one in expected["classes"].ravel()]
        kept = {key: value for key, value in largest.items() if key in reference["answers"][name][0]}
        agrees = same_names and max(kept.values()) <= TOLERANCE
        signatures[name] = {"images": images, "largest_difference": kept, "same_names": same_names, "agrees": agrees}
    return {"versions": other["versions"], "signatures": signatures}


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saved_model", required=True, help="folder of an exported version")
    parser.add_argument("--newest", help="interpreter of an environment with another TensorFlow")
    parser.add_argument("--onnx", default=sys.executable, help="interpreter of an environment with the extra `onnx`")
    parser.add_argument("--files", help="folder of JPEG and PNG files, for `encoded` and `classify`")
    parser.add_argument("--out", help="JSON file of the result")
    parser.add_argument("--answer", nargs=3, help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    if not os.path.isfile(os.path.join(flags.saved_model, "saved_model.pb")):
        parser.error(f"--saved_model={flags.saved_model} has no saved_model.pb")
    if flags.answer:
        what, given, made = flags.answer
        inputs = arrays(pickle.loads(pathlib.Path(given).read_bytes()))
        result = {"tensorflow": tensorflow_answers, "onnx": onnx_answers}[what](flags.saved_model, inputs)
        pathlib.Path(made).write_bytes(pickle.dumps(plain(result)))
        return 0
    import tensorflow as tf

    suffixes = (".jpg", ".jpeg", ".png")
    paths = (
        sorted(p for p in pathlib.Path(flags.files).rglob("*") if p.suffix.lower() in suffixes) if flags.files else []
    )
    inputs = make_inputs(tf.saved_model.load(flags.saved_model), [path.read_bytes() for path in paths])
    reference = tensorflow_answers(flags.saved_model, inputs)
    result = {"reference": reference["versions"], "tolerance": TOLERANCE, "files": len(paths)}
    if flags.newest:
        result["newest"] = compare(reference, elsewhere(flags.newest, "tensorflow", flags.saved_model, inputs))
    result["onnx"] = compare(reference, elsewhere(flags.onnx, "onnx", flags.saved_model, inputs))
    compared = [result[key] for key in ("newest", "onnx") if key in result]
    for one in compared:
        print(one["versions"])
        for name, signature in one["signatures"].items():
            agrees = "agrees" if signature["agrees"] else "DIFFERS"
            print(f"  {name}: {agrees} on {signature['images']} images, {signature['largest_difference']}")
    result["passed"] = all(signature["agrees"] for one in compared for signature in one["signatures"].values())
    if flags.out:
        pathlib.Path(flags.out).write_text(json.dumps(result, indent=1) + "\n")
    print("passed" if result["passed"] else "FAILED")
    return int(not result["passed"])


if __name__ == "__main__":
    sys.exit(main())

"""The warm-up file is what TF Serving reads, for every signature."""

import collections
import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from robgan_tf.serving import warm_up


def read(directory):
    """The records as PredictionLogs, by the real protos."""
    protos = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="needs the extra `serving`")
    records = tf.data.TFRecordDataset(str(directory / warm_up.FILE)).as_numpy_iterator()
    return [protos.PredictionLog.FromString(record) for record in records]


@pytest.mark.parametrize(("sizes", "image_shape"), [((1,), (16, 16, 1)), ((1, 8), (64, 48, 3))])
def test_the_real_protos_read_a_request_for_each_signature_and_batch_size(tmp_path, sizes, image_shape):
    made = warm_up.requests(image_shape, sizes, 2**24)
    warm_up.write(str(tmp_path), made)
    logs, counts = read(tmp_path), collections.Counter()
    for log, (signature, inputs) in zip(logs, made):
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        counts[request.model_spec.signature_name] += 1
        assert request.model_spec.signature_name == signature
        if signature == "classify":
            assert kind == "classify_log"
            examples = request.input.example_list.examples
            assert [one.SerializeToString() for one in examples] == inputs["inputs"].numpy().tolist()
            assert set(examples[0].features.feature) == {"image/encoded"}
        else:
            assert kind == "predict_log"
            ((name, proto),) = request.inputs.items()
            np.testing.assert_array_equal(tf.make_ndarray(proto), inputs[name].numpy())
    assert counts == dict.fromkeys(("serving_default", "encoded", "classify", "logits"), len(sizes))
    assert len(logs) == len(made)


def test_files_are_jpeg_and_png_of_another_size_than_the_network():
    encoded = dict(warm_up.requests((16, 24, 3), (2,), 4 * 16 * 24))["encoded"]["encoded"].numpy()
    images = [PIL.Image.open(io.BytesIO(file)) for file in encoded]
    assert [(image.format, image.size) for image in images] == [("JPEG", (48, 32)), ("PNG", (48, 32))]


def test_files_are_no_larger_than_is_accepted():
    encoded = dict(warm_up.requests((16, 24, 3), (1,), 4 * 16 * 24 - 1))["encoded"]["encoded"].numpy()
    assert PIL.Image.open(io.BytesIO(encoded[0])).size == (24, 16)


@pytest.mark.parametrize("sizes", [(), (0,), (1, -1), (1,) * 251])
def test_batch_sizes_that_no_server_accepts_are_refused(sizes):
    with pytest.raises(ValueError, match="warm_up_batch_sizes must be 1 to 250 numbers of images"):
        warm_up.check_batch_sizes(sizes)

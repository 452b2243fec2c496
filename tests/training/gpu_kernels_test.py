"""Each operation of a training step has a kernel for GPUs; where one had none, TensorFlow would go to the CPU and back.

No GPU is needed: TensorFlow's wheels for Linux on x86-64 bring all kernels, and tell of them through the C API.
"""

import ctypes
import functools
import pathlib

import pytest
import tensorflow as tf
from google.protobuf import descriptor_pool, message_factory
from small_stages import batches, make_attacker, make_cotraining, make_finetuning, make_generator

from robgan_tf.data.augmentation import random_operation
from robgan_tf.data.preprocessing import pad_and_crop, random_flip
from robgan_tf.keras2 import keras
from robgan_tf.training.diff_augment import DiffAugment
from robgan_tf.training.generated import Augmented, FromGenerator
from robgan_tf.training.penalties import R1
from robgan_tf.training.top_k import TopK

# They call a function, and are as a GPU has its operations.
CALLS = {"PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf", "Case"}
# "DEFAULT" is what every kind of device has.
ON_GPUS = {"GPU", "DEFAULT"}
# Their kernels for GPUs work in the host's memory where their types are these: shapes, seeds, counters, and the class
# labels, which are joined and divided. All are a few bytes.
OF_THE_HOST = {
    *("AddV2 int32", "ConcatOffset", "ConcatV2 int32", "Const", "ExpandDims int32", "FloorDiv int32", "FloorMod int32"),
    *("Identity int32", "InvertPermutation int32", "Less int32", "Maximum int32", "Mul int32", "Pack int32"),
    *("Range", "Reshape int32", "Slice int32", "SplitV int32", "StatelessRandomGetKeyCounter", "StopGradient int32"),
    *("StridedSlice int32", "Sub int32", "Unpack int32", "Unpack int64"),
}


def message(name: str):
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(f"tensorflow.{name}"))()


class Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("free", ctypes.c_void_p)]


@functools.cache
def library():
    """TensorFlow's C API; skips the test where its build knows no GPU."""
    path = pathlib.Path(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2")
    if not (path.exists() and tf.sysconfig.get_build_info().get("is_cuda_build")):
        pytest.skip("this TensorFlow was built without CUDA")
    opened = ctypes.CDLL(str(path))
    opened.TF_NewStatus.restype = ctypes.c_void_p
    opened.TF_GetRegisteredKernelsForOp.restype = ctypes.POINTER(Buffer)
    opened.TF_GetRegisteredKernelsForOp.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    opened.TF_GetAllOpList.restype = ctypes.POINTER(Buffer)
    return opened


def parsed(name: str, found):
    return message(name).FromString(ctypes.string_at(found.contents.data, found.contents.length))


@functools.cache
def arguments() -> dict[str, set]:
    """The names of what each operation takes and gives."""
    operations = parsed("OpList", library().TF_GetAllOpList()).op
    return {one.name: {argument.name for argument in [*one.input_arg, *one.output_arg]} for one in operations}


@functools.cache
def gpu_kernels(operation: str) -> list:
    """The kernels of an operation: the types that each takes by attribute, and whether it works on the GPU itself."""
    found = library().TF_GetRegisteredKernelsForOp(operation.encode(), library().TF_NewStatus())
    everything = arguments().get(operation, set())
    return [
        (
            {one.name: set(one.allowed_values.list.type) for one in kernel.constraint},
            not (everything and everything <= set(kernel.host_memory_arg)),
        )
        for kernel in parsed("KernelList", found).kernel
        if kernel.device_type in ON_GPUS
    ]


def types_of(attribute) -> set:
    return set(attribute.list.type) or {attribute.type}


def without_gpu_kernel(function) -> set:
    """The operations of a concrete function and of all that it calls which have no kernel on GPUs for their types.

    Nor is one that works in the host's memory alone, but for those of `OF_THE_HOST`.
    """
    graph = function.graph.as_graph_def()
    called = {one.signature.name for one in graph.library.function}
    missing = set()
    for node in [*graph.node, *(node for one in graph.library.function for node in one.node_def)]:
        if node.op in CALLS | called or "CPU" in node.device:
            continue
        types = sorted({tf.as_dtype(one).name for one in types_of(node.attr["T"]) if one})
        name = f"{node.op} {' '.join(types)}".strip()
        if name not in OF_THE_HOST and not any(
            # An attribute that is missing has its default, which is among what a kernel takes.
            on_gpu and all(types_of(node.attr[name]) <= types for name, types in kernel.items() if name in node.attr)
            for kernel, on_gpu in gpu_kernels(node.op)
        ):
            missing.add(name)
    return missing


def step_of(stage):
    return stage.step_function().get_concrete_function(iter(batches(1)))


def test_an_operation_without_a_gpu_kernel_is_found():
    def function(image, text):
        strings = tf.strings.join([text, text])
        return tf.io.decode_png(strings), tf.reverse(image, [0]), tf.nn.relu(image)

    specs = tf.TensorSpec([2, 2], tf.float32), tf.TensorSpec([], tf.string)
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    assert without_gpu_kernel(concrete) == {"DecodePng", "StringJoin"}
    # GPUs compare float32; classes are compared in the host's memory.
    for dtype, missing in ((tf.float32, set()), (tf.int32, {"Equal int32"})):
        spec = tf.TensorSpec([2], dtype)
        compared = tf.function(tf.equal, autograph=False).get_concrete_function(spec, spec)
        assert without_gpu_kernel(compared) == missing
    # GPUs multiply matrices, and none of int32.
    for dtype, missing in ((tf.float32, set()), (tf.int32, {"MatMul int32"})):
        spec = tf.TensorSpec([2, 2], dtype)
        product = tf.function(tf.linalg.matmul, autograph=False).get_concrete_function(spec, spec)
        assert without_gpu_kernel(product) == missing


@pytest.mark.parametrize(
    "precision",
    ["mixed_bfloat16", *(pytest.param(one, marks=pytest.mark.slow) for one in ("float32", "mixed_float16"))],
)
def test_each_operation_of_both_stages_has_a_gpu_kernel(precision):
    keras.mixed_precision.set_global_policy(precision)
    attacker = make_attacker(random_start=True)
    assert without_gpu_kernel(step_of(make_cotraining(attacker))) == set()
    assert without_gpu_kernel(step_of(make_finetuning(make_generator(), attacker, fake_weight=0.5))) == set()


def test_generated_images_are_augmented_on_the_processor_where_all_operations_on_uint8_have_kernels():
    source = Augmented(FromGenerator(make_generator()), (pad_and_crop, random_flip, random_operation))
    sample = tf.function(lambda seed: source.sample(seed, 4), autograph=False)
    assert without_gpu_kernel(sample.get_concrete_function(tf.TensorSpec([2], tf.int64))) == set()


@pytest.mark.slow
def test_each_operation_of_what_cotraining_can_do_besides_has_a_gpu_kernel():
    options = {"augmentation": DiffAugment(), "top_k": TopK(), "penalty": R1(), "balanced_labels": True}
    assert without_gpu_kernel(step_of(make_cotraining(accumulation=2, **options))) == set()

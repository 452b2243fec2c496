"""How much memory and arithmetic a traced function needs, read off its graph: nothing is run or allocated.

Memory: the operations are walked in the order they were traced in, which is the order of the program. An operation's
outputs live from there to their last consumer. What only renames a buffer costs nothing, and an elementwise operation
writes over an input that nobody needs any more, as TensorFlow's kernels do. Left out is what the kernels take for
themselves (cuDNN's workspace, oneDNN's reordered weights) and what an executor that runs ahead of the program adds.

Arithmetic: that of convolutions and matrix products, two operations for each multiply-add.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import tensorflow as tf

# Hand their input's buffer on.
_RENAMES = frozenset(
    "CheckNumerics EnsureShape ExpandDims Identity IdentityN PlaceholderWithDefault PreventGradient Reshape Snapshot "
    "Squeeze StopGradient".split()
)
# Can write their output over an input of the same size.
_ELEMENTWISE = frozenset(
    "Abs Add AddN AddV2 BiasAdd ClipByValue Div Exp LeakyRelu Log Maximum Minimum Mul Neg Pow RealDiv Reciprocal Relu "
    "ReluGrad Rsqrt RsqrtGrad Select SelectV2 Sigmoid SigmoidGrad Sign Softmax Softplus SoftplusGrad Sqrt SqrtGrad "
    "Square SquaredDifference Sub Tanh TanhGrad".split()
)
# Where their size depends on the data, it is that of all inputs together at most. These handle the gradients of the
# rows that were looked up in a table; under several replicas they are gathered, and padded to the longest.
_NO_LARGER = _ELEMENTWISE | frozenset(
    "Cast CollectiveGatherV2 ConcatV2 If Pad StatelessIf StridedSlice Unique UnsortedSegmentSum".split()
)
# What they hand to their gradients in a size that only the kernel knows: a little workspace, which is not counted.
_WORKSPACE = frozenset(["FusedBatchNormV3"])
# Their outputs are memory that lives anyway: variables and arguments. Constants are small.
_ELSEWHERE = frozenset("Const Placeholder ReadVariableOp VarHandleOp".split())
# The attribute that names the function, for operations that call one.
_CALLS = {
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), ("f",)),
    **dict.fromkeys(("If", "StatelessIf"), ("then_branch", "else_branch")),
    **dict.fromkeys(("Case", "StatelessCase"), ("branches",)),
    **dict.fromkeys(("While", "StatelessWhile"), ("body",)),
}


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What one call of a traced function needs on its device.

    Attributes:
        peak: bytes of the intermediate results and outputs that live at the same time, at most. The arguments and the
            variables come on top.
        flops: floating-point operations of convolutions and matrix products.
        unknown: what could not be counted, in words; empty if everything was.
    """

    peak: int
    flops: int
    unknown: tuple[str, ...] = ()


def footprint(function, device: str | None = None) -> Footprint:
    """Returns what one call of a concrete function needs.

    Args:
        function: a concrete function (`tf.function(...).get_concrete_function(...)`) with static shapes.
        device: counts what is placed on this device, or on none; None counts everything. For a function of several
            replicas: the device of one of them.
    """
    graph = function.graph
    library = {body.signature.name: body for body in graph.as_graph_def(add_shapes=True).library.function}
    device = device and tf.DeviceSpec.from_string(device)
    return _Walker(library, device).walk(graph, graph.inputs, graph.outputs, [0] * len(graph.inputs))


def size_in_bytes(tensor) -> int | None:
    """Returns the bytes of a tensor or variable; None where its shape is not static."""
    if tensor.dtype in (tf.resource, tf.variant, tf.string):
        return 0
    elements = tensor.shape.num_elements()
    return None if elements is None else elements * tensor.dtype.size


class _Buffer:
    """Memory behind one or more tensors."""

    def __init__(self, size: int, uses: int):
        self.size = size
        self.uses = uses


class _Memory:
    """The buffers that live while a graph is walked.

    Args:
        uses: for each tensor's reference, how often it will be consumed.
    """

    def __init__(self, uses: collections.Counter):
        self.uses = uses
        self.live = self.peak = 0
        self.buffers = {}

    def allocate(self, tensors: Sequence, sizes: Sequence[int]):
        """New buffers, all at the same time; one that nobody will use is freed at once."""
        new = [_Buffer(size, self.uses[tensor.ref()]) for tensor, size in zip(tensors, sizes)]
        self.buffers.update((tensor.ref(), buffer) for tensor, buffer in zip(tensors, new))
        self.live += sum(sizes)
        self.peak = max(self.peak, self.live)
        self.live -= sum(buffer.size for buffer in new if not buffer.uses)

    def share(self, source, result):
        """`result` is another name of the buffer of `source`."""
        buffer = self.buffers[result.ref()] = self.buffers[source.ref()]
        buffer.uses += self.uses[result.ref()]

    def release(self, tensors: Sequence):
        """One use of each is over; frees the buffers without another."""
        for tensor in tensors:
            buffer = self.buffers[tensor.ref()]
            buffer.uses -= 1
            if not buffer.uses:
                self.live -= buffer.size

    def dying(self, tensors: Sequence) -> dict:
        """Returns, of the inputs `tensors` of an operation, those that nothing else will use, buffer -> tensor."""
        count = collections.Counter(self.buffers[tensor.ref()] for tensor in tensors)
        return {
            self.buffers[tensor.ref()]: tensor
            for tensor in reversed(tensors)
            if self.buffers[tensor.ref()].uses == count[self.buffers[tensor.ref()]]
        }


class _Walker:
    """Walks graphs that call functions of one library."""

    def __init__(self, library: dict, device: tf.DeviceSpec | None):
        self._library = library
        self._device = device
        self._bodies = {}

    def walk(self, graph: tf.Graph, inputs: Sequence, outputs: Sequence, owned: Sequence[int]) -> Footprint:
        """Returns the needs of one graph; `owned` are the bytes of each input that it may free after the last use."""
        operations = _that_run(graph, outputs)
        consumed = [tensor for operation in operations for tensor in operation.inputs] + list(outputs)
        memory = _Memory(collections.Counter(tensor.ref() for tensor in consumed))
        memory.allocate(inputs, owned)
        flops, unknown = 0, {}
        for operation in operations:
            results = [result for result in operation.outputs if result.ref() not in memory.buffers]
            sources = list(operation.inputs)
            elsewhere = operation.type in _ELSEWHERE or not self._is_here(operation)
            sizes = [0 if elsewhere else _size(result) for result in results]
            if None in sizes and operation.type in _NO_LARGER:
                bound = sum(size_in_bytes(source) or memory.buffers[source.ref()].size for source in sources)
                sizes = [bound if size is None else size for size in sizes]
            used = [size for result, size in zip(results, sizes) if memory.uses[result.ref()]]
            if None in used and operation.type not in _RENAMES | _WORKSPACE:
                unknown[f"the size of what {operation.type} gives"] = None
            sizes = [size or 0 for size in sizes]
            overwritten = None
            if not elsewhere and operation.type in _ELEMENTWISE:
                dying = memory.dying(sources)
                overwritten = next((source for buffer, source in dying.items() if buffer.size == sizes[0] > 0), None)
            if elsewhere:
                memory.allocate(results, sizes)
            elif operation.type in _RENAMES:
                for source, result in zip(sources, results):
                    memory.share(source, result)
            elif overwritten is not None:
                memory.share(overwritten, results[0])
            elif operation.type in _CALLS:
                inner = self._call(operation, memory, results, sizes)
                flops += inner.flops
                unknown.update(dict.fromkeys(inner.unknown))
                continue
            else:
                memory.allocate(results, sizes)
                flops += _flops(operation)
            memory.release(sources)
        return Footprint(memory.peak, flops, tuple(unknown))

    def _call(self, operation, memory: _Memory, results: Sequence, sizes: Sequence[int]) -> Footprint:
        """Accounts for an operation that calls functions; returns what these need, in all rounds."""
        is_loop = _CALLS[operation.type] == ("body",)
        sources = list(operation.inputs)
        arguments = sources[1:] if _CALLS[operation.type][0] in ("then_branch", "branches") else sources
        dying = {tensor.ref(): buffer.size for buffer, tensor in memory.dying(sources).items()}
        needs, through = [], {}
        for name in self._names(operation):
            body, inputs, outputs = self._body(name)
            # Outputs that are an input handed through, output -> input: in a loop, what does not change.
            through = _handed_through(inputs, outputs)
            if is_loop:
                through = {output: index for output, index in through.items() if output == index}
            # A round of a loop frees the last round's results; what is called once, what nobody else will need.
            handed = set(through.values())
            owned = [
                0 if index in handed else (size_in_bytes(tensor) or 0) if is_loop else dying.get(tensor.ref(), 0)
                for index, tensor in enumerate(arguments)
            ]
            freed = sum(dying.get(tensor.ref(), 0) for index, tensor in enumerate(arguments) if index not in handed)
            need = self.walk(body, inputs, outputs, owned)
            needs.append(need)
            memory.peak = max(memory.peak, memory.live - freed + need.peak)
        for output, index in through.items():
            memory.share(arguments[index], results[output])
        memory.release(sources)
        fresh = [index for index in range(len(results)) if index not in through]
        memory.allocate([results[index] for index in fresh], [sizes[index] for index in fresh])
        rounds, unknown = _rounds(operation) if is_loop else 1, [text for need in needs for text in need.unknown]
        if rounds is None:
            rounds, unknown = 1, [*unknown, f"the number of rounds of {operation.name}"]
        return Footprint(0, rounds * max(need.flops for need in needs), tuple(unknown))

    def _names(self, operation) -> list[str]:
        attributes = [operation.get_attr(name) for name in _CALLS[operation.type]]
        functions = attributes[0] if isinstance(attributes[0], list) else attributes
        return [function.name for function in functions]

    def _body(self, name: str) -> tuple[tf.Graph, list, list]:
        """Returns a function of the library as a graph, with its inputs and outputs."""
        if name not in self._bodies:
            self._bodies[name] = _rebuild(self._library[name], self._library.values())
        return self._bodies[name]

    def _is_here(self, operation) -> bool:
        if self._device is None or not operation.device:
            return True
        placed = tf.DeviceSpec.from_string(operation.device)
        return (placed.device_type, placed.device_index) == (self._device.device_type, self._device.device_index)


def _size(tensor) -> int | None:
    """Returns the bytes of a result; None where neither its shape nor that of another name for it is static."""
    size = size_in_bytes(tensor)
    if size is not None:
        return size
    names = [operation.outputs[0] for operation in tensor.consumers() if operation.type in _RENAMES - {"IdentityN"}]
    return next((size for size in map(_size, names) if size is not None), None)


def _that_run(graph: tf.Graph, outputs: Sequence) -> list:
    """Returns the operations that the outputs or a change of state need; TensorFlow leaves out the others.

    (A convolution's gradient is traced for its kernel, too, where only that of its input is asked for.)
    """
    needed = set()
    waiting = [tensor.op for tensor in outputs]
    waiting += [operation for operation in graph.get_operations() if operation.op_def.is_stateful]
    while waiting:
        operation = waiting.pop()
        if operation not in needed:
            needed.add(operation)
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return [operation for operation in graph.get_operations() if operation in needed]


def _rebuild(definition, library) -> tuple[tf.Graph, list, list]:
    """Makes a graph of a function's definition, with the shapes that were known when it was traced."""
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef(library={"function": library}), name="")
        shapes = [tf.TensorShape(shape) for shape in definition.attr["_input_shapes"].list.shape]
        arguments = definition.signature.input_arg
        inputs = [
            tf.compat.v1.placeholder(tf.as_dtype(argument.type), shape, argument.name)
            for argument, shape in zip(arguments, shapes)
        ]
        tensors = {argument.name: [tensor] for argument, tensor in zip(arguments, inputs)}

        def tensor(name):  # of an argument `name`, or the result `node:output:index`
            source, _, index = name.rpartition(":")
            return tensors[source][int(index)] if source else tensors[name][0]

        waiting = list(definition.node_def)
        while waiting:  # they need not be in order
            later = []
            for node in waiting:
                names = [name for name in node.input if not name.startswith("^")]
                if any((name.rpartition(":")[0] or name) not in tensors for name in names):
                    later.append(node)
                    continue
                with graph.device(node.device or None):
                    operation = graph.create_op(
                        node.op, list(map(tensor, names)), name=node.name, attrs=dict(node.attr)
                    )
                for result, shape in zip(operation.outputs, node.attr["_output_shapes"].list.shape):
                    result.set_shape(tf.TensorShape(shape))
                tensors.update(_named_outputs(node, operation))
            if len(later) == len(waiting):
                raise ValueError(f"{definition.signature.name}: nodes wait for each other.")
            waiting = later
        return graph, inputs, [tensor(definition.ret[output.name]) for output in definition.signature.output_arg]


def _named_outputs(node, operation) -> dict[str, list]:
    """Returns the outputs by the names that a function's definition has for them, `node:output`."""
    named, results = {}, list(operation.outputs)
    for argument in operation.op_def.output_arg:
        if argument.number_attr:
            count = node.attr[argument.number_attr].i
        elif argument.type_list_attr:
            count = len(node.attr[argument.type_list_attr].list.type)
        else:
            count = 1
        named[f"{node.name}:{argument.name}"] = results[:count]
        results = results[count:]
    return named


def _handed_through(inputs: Sequence, outputs: Sequence) -> dict[int, int]:
    """Returns which outputs are inputs under another name, index -> index."""
    indices = {tensor.ref(): index for index, tensor in enumerate(inputs)}
    through = {}
    for index, tensor in enumerate(outputs):
        while tensor.op.type in _RENAMES:
            tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
        if tensor.ref() in indices:
            through[index] = indices[tensor.ref()]
    return through


def _rounds(loop) -> int | None:
    """Returns the number of rounds of a loop that was made with `maximum_iterations`, else None."""
    # tf.while_loop puts its own counter and the limit before the loop's variables.
    limit = loop.inputs[1] if len(loop.inputs) > 1 else None
    if limit is None or "maximum_iterations" not in limit.op.name:
        return None
    value = tf.get_static_value(limit)
    return None if value is None or value < 0 else int(value)  # -1 is no limit


def _flops(operation) -> int:
    """Returns the arithmetic of a convolution or matrix product, 0 for anything else."""
    inputs, kind = [tensor.shape for tensor in operation.inputs], operation.type
    if kind == "Conv2D":
        kernel, result = inputs[1], operation.outputs[0].shape
    elif kind == "Conv2DBackpropInput":
        kernel, result = inputs[1], inputs[2]
    elif kind == "Conv2DBackpropFilter":
        kernel, result = operation.outputs[0].shape, inputs[2]
    elif kind in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
        transposed = operation.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
        return 2 * (operation.outputs[0].shape.num_elements() or 0) * (inputs[0][-2 if transposed else -1] or 0)
    else:
        return 0
    # Each element of the result is a sum over the kernel's window and input channels.
    return 2 * (result.num_elements() or 0) * (kernel[:3].num_elements() or 0)

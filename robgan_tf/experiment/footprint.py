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

from robgan_tf.experiment import graphs

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


def variables_of(owner) -> list[tf.Variable]:
    """Returns the variables of what a checkpoint keeps under one name, which may be a variable itself."""
    return [owner] if isinstance(owner, tf.Variable) else list(owner.variables)


def bytes_of(variables: Sequence[tf.Variable]) -> int:
    """Returns the bytes of variables, each counted once."""
    return sum(map(size_in_bytes, {id(variable): variable for variable in variables}.values()))


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
        operations = graphs.operations_that_run(graph, outputs)
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
            if None in used and operation.type not in graphs.RENAMES | _WORKSPACE:
                unknown[f"the size of what {operation.type} gives"] = None
            sizes = [size or 0 for size in sizes]
            overwritten = None
            if not elsewhere and operation.type in _ELEMENTWISE:
                dying = memory.dying(sources)
                overwritten = next((source for buffer, source in dying.items() if buffer.size == sizes[0] > 0), None)
            if elsewhere:
                memory.allocate(results, sizes)
            elif operation.type in graphs.RENAMES:
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
                flops += graphs.flops(operation)
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
            through = graphs.handed_through(inputs, outputs)
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
        rounds, unknown = graphs.rounds(operation) if is_loop else 1, [text for need in needs for text in need.unknown]
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
            self._bodies[name] = graphs.rebuild(self._library[name], self._library.values())
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
    renamed = [operation for operation in tensor.consumers() if operation.type in graphs.RENAMES - {"IdentityN"}]
    names = [operation.outputs[0] for operation in renamed]
    return next((size for size in map(_size, names) if size is not None), None)

"""TensorFlow's graphs, as `footprint` walks them: what of one runs, the functions it calls, the arithmetic of each."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# Hand their input's buffer on.
RENAMES = frozenset(
    "CheckNumerics EnsureShape ExpandDims Identity IdentityN PlaceholderWithDefault PreventGradient Reshape Snapshot "
    "Squeeze StopGradient".split()
)


def operations_that_run(graph: tf.Graph, outputs: Sequence) -> list:
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


def rebuild(definition, library) -> tuple[tf.Graph, list, list]:
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


def handed_through(inputs: Sequence, outputs: Sequence) -> dict[int, int]:
    """Returns which outputs are inputs under another name, index -> index."""
    indices = {tensor.ref(): index for index, tensor in enumerate(inputs)}
    through = {}
    for index, tensor in enumerate(outputs):
        while tensor.op.type in RENAMES:
            tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
        if tensor.ref() in indices:
            through[index] = indices[tensor.ref()]
    return through


def rounds(loop) -> int | None:
    """Returns the number of rounds of a loop that was made with `maximum_iterations`, else None."""
    # tf.while_loop puts its own counter and the limit before the loop's variables.
    limit = loop.inputs[1] if len(loop.inputs) > 1 else None
    if limit is None or "maximum_iterations" not in limit.op.name:
        return None
    value = tf.get_static_value(limit)
    return None if value is None or value < 0 else int(value)  # -1 is no limit


def flops(operation) -> int:
    """Returns the arithmetic of a convolution or matrix product, 0 for anything else."""
    inputs, kind = [tensor.shape for tensor in operation.inputs], operation.type
    if kind == "Conv2D":
        kernel, result = inputs[1], operation.outputs[0].shape
    elif kind == "Conv2DBackpropInput":
        kernel, result = inputs[1], inputs[2]
    elif kind == "Conv2DBackpropFilter":
        kernel, result = operation.outputs[0].shape, inputs[2]
    elif kind.startswith("DepthwiseConv2dNative"):
        # A sum over the window alone: the kernel is [height, width, in, multiplier].
        kernel = operation.outputs[0].shape if kind.endswith("Filter") else inputs[1]
        result = inputs[2] if "Backprop" in kind else operation.outputs[0].shape
        return 2 * (result.num_elements() or 0) * (kernel[:2].num_elements() or 0)
    elif kind in ("MatMul", "BatchMatMul", "BatchMatMulV2"):
        transposed = operation.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
        return 2 * (operation.outputs[0].shape.num_elements() or 0) * (inputs[0][-2 if transposed else -1] or 0)
    else:
        return 0
    # Each element of the result is a sum over the kernel's window and input channels.
    return 2 * (result.num_elements() or 0) * (kernel[:3].num_elements() or 0)

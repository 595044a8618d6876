#!/usr/bin/env python3
"""One inverted residual block with squeeze-excite, batch norms folded, evaluated by onnxruntime.

    block_onnxruntime.py --ch 40 --hw 28 --kernel 5 --expand 6 --batch 16 [--threads 1] [--json]

The block of `monopath bench block`, as an exporter would write it: convolutions with biases, hard-swish,
a hard-sigmoid gate. Weights are random. Prints `eval_forward_ms` and `eval_cpu_ms`.
"""
import argparse, json, statistics, time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def divisible(value, by=8):
    n = max(by, int(value + by / 2) // by * by)
    return n + by if n < 0.9 * value else n


def block(ch, hw, kernel, expand):
    """The model's bytes: input and output `x`, `y` of [n, ch, hw, hw]."""
    draw = np.random.default_rng(0)
    nodes, weights = [], []

    def tensor(*shape):
        fan = int(np.prod(shape[1:])) or 1
        name = f"w{len(weights)}"
        weights.append(numpy_helper.from_array((draw.standard_normal(shape) / fan ** 0.5).astype(np.float32), name))
        return name

    def op(kind, *inputs, **settings):
        name = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **settings))
        return name

    def conv(x, out, into, k=1, group=1):
        return op("Conv", x, tensor(out, into // group, k, k), tensor(out), kernel_shape=[k, k],
                  pads=[k // 2] * 4, group=group)

    wide, hidden = ch * expand, divisible(ch * 0.25)
    h = op("HardSwish", conv("x", wide, ch))
    h = op("HardSwish", conv(h, wide, wide, kernel, wide))
    gate = conv(op("Relu", conv(op("GlobalAveragePool", h), hidden, wide)), wide, hidden)
    h = op("Mul", h, op("HardSigmoid", gate, alpha=1 / 6, beta=0.5))
    y = op("Add", "x", conv(h, ch, wide))
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", ch, hw, hw])
    graph = helper.make_graph(nodes, "block", [value("x")], [value(y)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("ch", 40), ("hw", 28), ("kernel", 5), ("expand", 6), ("batch", 16), ("threads", 1),
                          ("steps", 30), ("warmup", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = a.threads, 1
    session = onnxruntime.InferenceSession(block(a.ch, a.hw, a.kernel, a.expand), options,
                                           providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((a.batch, a.ch, a.hw, a.hw), dtype=np.float32)
    wall, used = [], []
    for i in range(a.warmup + a.steps):
        t, c = time.perf_counter(), time.process_time()
        session.run(None, {"x": x})
        if i >= a.warmup:
            wall.append(1e3 * (time.perf_counter() - t))
            used.append(1e3 * (time.process_time() - c))
    result = {"peer": "onnxruntime " + onnxruntime.__version__, "threads": a.threads,
              "eval_forward_ms": {"median_ms": statistics.median(wall)},
              "eval_cpu_ms": {"median_ms": statistics.median(used)}}
    print(json.dumps(result) if a.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

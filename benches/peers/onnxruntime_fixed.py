#!/usr/bin/env python3
"""onnxruntime on the fixed child of torch_supernet.py, to put beside `monopath bench fixed`.

    onnxruntime_fixed.py --preset imagenet224 --batch 16 --threads 1 [--json]

The child is built in PyTorch, written to ONNX with its batch norms folded, checked against
PyTorch's output and timed. Keys are those of `bench fixed`. onnxruntime cannot be held to AVX2 from
outside: it picks its kernels by CPUID, so its figures are native ones.
"""
import argparse
import json
import os
import statistics
import tempfile
import time

import numpy as np
import onnxruntime as ort
import torch

import torch_supernet as peer


def summary(values):
    values = sorted(values)
    return dict(median_ms=round(statistics.median(values), 4), min_ms=round(values[0], 4),
                max_ms=round(values[-1], 4), samples=len(values))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--preset", choices=peer.PRESETS, default="imagenet224")
    args.add_argument("--batch", type=int)
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--steps", type=int, default=16)
    args.add_argument("--warmup", type=int, default=3)
    args.add_argument("--json", action="store_true")
    args = args.parse_args()

    preset = peer.PRESETS[args.preset]
    size, batch = preset["res"], args.batch or preset["batch"]
    torch.set_num_threads(args.threads)
    net, _ = peer.build(args.preset)
    child = net.fixed(peer.FIXED_PATH).train()
    draws = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        for _ in range(2):  # running statistics other than 0 and 1
            child(torch.randn(8, 3, size, size, generator=draws))
    child.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "child.onnx")
        export = peer.export_onnx(child, path, size)
        assert export["max_abs_diff_vs_torch"] <= 1e-3 * max(1.0, export["out_scale"]), export
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    x = np.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=np.float32)
    wall, used = [], []
    for i in range(args.warmup + args.steps):
        t, c = time.perf_counter(), time.process_time()
        session.run(None, {"x": x})
        if i >= args.warmup:
            wall.append(1e3 * (time.perf_counter() - t))
            used.append(1e3 * (time.process_time() - c))
    result = dict(mode="fixed", peer="onnxruntime " + ort.__version__, preset=args.preset, batch=batch,
                  resolution=size, threads=args.threads, forward_ms=summary(wall), cpu_ms=summary(used),
                  images_per_s=batch / statistics.median(wall) * 1e3)
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

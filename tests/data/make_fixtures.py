#!/usr/bin/env python3
"""Writes reference.safetensors: values and gradients of every op, from PyTorch.

    python3 -m venv VENV && VENV/bin/pip install torch==2.15.0 numpy safetensors
    VENV/bin/python tests/data/make_fixtures.py

Inputs are rounded to f32, everything is computed in f64, and results are rounded to f32 again, so
the file says what PyTorch defines and not how one of its kernels rounds. Tensors of a case are
called `case/x0`, `case/x1`, ... (inputs), `case/y` (output), `case/dy` (gradient of the output),
`case/g0`, ... (gradients of the inputs), `case/mean0`, `case/var0` (batch statistics, biased).

Layouts are the engine's: activations [n, h, w, c], dense filters [o, kh, kw, i], depthwise filters
[k, k, c], pointwise filters [o, i]. The script converts, so PyTorch sees its own.
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(0)
OUT = {}

# Layout of an input or output: how to get from the engine's to PyTorch's, and back.
TO_TORCH = {
    "plain": lambda t: t,
    "image": lambda t: t.permute(0, 3, 1, 2),
    "dense": lambda t: t.permute(0, 3, 1, 2),
    "depthwise": lambda t: t.permute(2, 0, 1).unsqueeze(1),
    "pointwise": lambda t: t[:, :, None, None],
}


def normal(layout, *shape, scale=1.0, shift=0.0):
    """An input in the engine's shape."""
    data = torch.randn(*shape, dtype=torch.float64) * scale + shift
    return layout, data.float().double()


def labels(n, classes):
    return "labels", torch.randint(0, classes, (n,))


def case(name, inputs, f, out="image", moments=()):
    """Runs `f` on the inputs in PyTorch's layouts and stores everything in the engine's.

    `f` returns the output, and may append (mean, biased var) pairs to `moments` by `norm`.
    """
    leaves, seen = [], []
    for i, (layout, data) in enumerate(inputs):
        if layout == "labels":
            OUT[f"{name}/x{i}"] = data.int()
            leaves.append(data)
        else:
            OUT[f"{name}/x{i}"] = data
            leaves.append(data.clone().requires_grad_())
    seen = [t if l == "labels" else TO_TORCH[l](t) for (l, _), t in zip(inputs, leaves)]
    MOMENTS.clear()
    y = f(*seen)
    y = y.permute(0, 2, 3, 1) if out == "image" else y
    dy = torch.randn(y.shape, dtype=torch.float64).float().double()
    y.backward(dy)
    OUT[f"{name}/y"], OUT[f"{name}/dy"] = y.detach(), dy
    for i, (layout, _) in enumerate(inputs):
        if layout != "labels":
            OUT[f"{name}/g{i}"] = leaves[i].grad
    for i, (mean, var) in enumerate(MOMENTS):
        OUT[f"{name}/mean{i}"], OUT[f"{name}/var{i}"] = mean, var


MOMENTS = []


def norm(x, scale=None, shift=None, eps=1e-5):
    """Batch norm with batch statistics, as nn.BatchNorm2d in training."""
    MOMENTS.append((x.detach().mean((0, 2, 3)), x.detach().var((0, 2, 3), unbiased=False)))
    return F.batch_norm(x, None, None, scale, shift, training=True, eps=eps)


def depthwise(x, w, stride=1, dilation=1):
    pad = dilation * (w.shape[-1] - 1) // 2
    return F.conv2d(x, w, stride=stride, padding=pad, dilation=dilation, groups=x.shape[1])


def primitives():
    x = normal("image", 2, 7, 6, 6)
    case("conv2d_3x3_s1", [x, normal("dense", 5, 3, 3, 6)], lambda x, w: F.conv2d(x, w, padding=1))
    case("conv2d_3x3_s2", [x, normal("dense", 5, 3, 3, 6)], lambda x, w: F.conv2d(x, w, stride=2, padding=1))
    case("conv2d_1x7", [x, normal("dense", 4, 1, 5, 6)], lambda x, w: F.conv2d(x, w, padding=(0, 2)))
    case("conv2d_groups", [x, normal("dense", 4, 3, 3, 3)], lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=1, groups=2))
    case("depthwise_k3_s1", [x, normal("depthwise", 3, 3, 6)], lambda x, w: depthwise(x, w))
    case("depthwise_k5_s2", [x, normal("depthwise", 5, 5, 6)], lambda x, w: depthwise(x, w, 2))
    case("depthwise_k7_s1", [x, normal("depthwise", 7, 7, 6)], lambda x, w: depthwise(x, w))
    case("depthwise_k3_d2", [x, normal("depthwise", 3, 3, 6)], lambda x, w: depthwise(x, w, 1, 2))
    case("pointwise", [x, normal("pointwise", 9, 6)], lambda x, w: F.conv2d(x, w))
    case("pointwise_bias", [x, normal("pointwise", 9, 6), normal("plain", 9)], lambda x, w, b: F.conv2d(x, w, b))
    case("linear", [normal("plain", 4, 7), normal("plain", 5, 7)], F.linear, out="plain")
    case("linear_bias", [normal("plain", 4, 7), normal("plain", 5, 7), normal("plain", 5)], F.linear, out="plain")

    wide = normal("image", 3, 4, 5, 6, scale=2.0, shift=0.5)
    c = [normal("plain", 6), normal("plain", 6)]
    case("batch_norm", [wide], lambda x: norm(x, eps=1e-3))
    case("batch_norm_affine", [wide, *c], lambda x, s, b: norm(x, s, b))
    mean, var = normal("plain", 6), ("plain", torch.rand(6, dtype=torch.float64).float().double() + 0.5)
    frozen = lambda x, s, b, m, v: (x - m[:, None, None]) / (v[:, None, None] + 1e-5).sqrt() * s[:, None, None] + b[:, None, None]
    with torch.no_grad():
        chain = frozen(*(TO_TORCH[l](t) for l, t in [wide, *c, mean, var]))
        own = F.batch_norm(TO_TORCH["image"](wide[1]), mean[1], var[1], c[0][1], c[1][1], training=False)
        assert torch.allclose(chain, own, atol=1e-12)
    case("batch_norm_frozen", [wide, *c, mean, var], frozen)

    ramp = "plain", torch.linspace(-7, 7, 57, dtype=torch.float64).float().double()
    kinks = "plain", torch.tensor([-3.0, 0.0, 3.0, 6.0], dtype=torch.float64)
    for name, f in {
        "relu": F.relu,
        "relu6": F.relu6,
        "h_swish": F.hardswish,
        "swish": F.silu,
        "sigmoid": torch.sigmoid,
        "hard_sigmoid": F.hardsigmoid,
    }.items():
        case(name, [ramp], f, out="plain")
        case(f"{name}_kinks", [kinks], f, out="plain")

    case("global_avg_pool", [x], lambda x: x.mean((2, 3)), out="plain")
    case("avg_pool", [x], lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    case("avg_pool_s2", [x], lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False))
    case("max_pool", [x], lambda x: F.max_pool2d(x, 3, 2, 1))
    case("add", [x, normal("image", 2, 7, 6, 6)], lambda a, b: a + b)
    case("concat", [x, normal("image", 2, 7, 6, 3)], lambda a, b: torch.cat([a, b], 1))
    case("channel_slice", [x], lambda x: x[:, 1::2])
    case("channel_shuffle", [x], lambda x: F.channel_shuffle(x, 3))
    case("flatten", [normal("plain", 3, 2, 4)], lambda x: x.flatten(1), out="plain")
    for gate, f in {"hard_sigmoid": F.hardsigmoid, "sigmoid": torch.sigmoid}.items():
        weights = [normal("pointwise", 3, 6), normal("plain", 3), normal("pointwise", 6, 3), normal("plain", 6)]
        case(f"squeeze_excite_{gate}", [x, *weights], lambda x, *w: excite(x, *w, f))
    for smoothing in [0.0, 0.1]:
        cross = lambda x, t: F.cross_entropy(x, t, label_smoothing=smoothing).reshape(1)
        case(f"cross_entropy_{smoothing}", [normal("plain", 6, 10, scale=3.0), labels(6, 10)], cross, out="plain")


def excite(x, w1, b1, w2, b2, gate):
    return x * gate(F.conv2d(F.relu(F.conv2d(x.mean((2, 3), keepdim=True), w1, b1)), w2, b2))


def inverted_residual(name, stride):
    """MobileNetV3's block: expand, h-swish, depthwise, h-swish, squeeze-excite, project."""
    c, e, r, o = 6, 16, 4, 6 if stride == 1 else 8
    inputs = [
        normal("image", 2, 6, 7, c),
        normal("pointwise", e, c, scale=0.5),
        normal("plain", e, scale=0.2, shift=1.0),
        normal("plain", e, scale=0.2),
        normal("depthwise", 5, 5, e, scale=0.3),
        normal("plain", e, scale=0.2, shift=1.0),
        normal("plain", e, scale=0.2),
        normal("pointwise", r, e, scale=0.5),
        normal("plain", r),
        normal("pointwise", e, r, scale=0.5),
        normal("plain", e),
        normal("pointwise", o, e, scale=0.3),
        normal("plain", o, scale=0.2, shift=1.0),
        normal("plain", o, scale=0.2),
    ]

    def f(x, w1, s1, b1, w2, s2, b2, r1, rb1, r2, rb2, w3, s3, b3):
        y = F.hardswish(norm(F.conv2d(x, w1), s1, b1))
        y = F.hardswish(norm(depthwise(y, w2, stride), s2, b2))
        y = norm(F.conv2d(excite(y, r1, rb1, r2, rb2, F.hardsigmoid), w3), s3, b3)
        return x + y if stride == 1 else y

    case(name, inputs, f)


def spos_split(x):
    """As `channel_shuffle` of megvii-model/SinglePathOneShot, src/Supernet/blocks.py."""
    n, c, h, w = x.shape
    x = x.reshape(n * c // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, c // 2, h, w)
    return x[0], x[1]


def spos(name, kind, k, stride):
    """SPOS section 2 (paper) and blocks.py: batch norms without scale and shift."""
    inp, mid, oup = (4, 6, 8) if stride == 1 else (4, 6, 12)
    out = oup - inp
    x = normal("image", 2, 6, 6, 2 * inp if stride == 1 else inp)
    if kind == "shuffle":
        main = [
            normal("pointwise", mid, inp),
            normal("depthwise", k, k, mid),
            normal("pointwise", out, mid),
        ]
    else:
        main = [
            normal("depthwise", k, k, inp),
            normal("pointwise", mid, inp),
            normal("depthwise", k, k, mid),
            normal("pointwise", mid, mid),
            normal("depthwise", k, k, mid),
            normal("pointwise", out, mid),
        ]
    proj = [normal("depthwise", k, k, inp), normal("pointwise", inp, inp)] if stride == 2 else []

    def f(x, *w):
        if stride == 1:
            rest, x = spos_split(x)
        else:
            p = norm(depthwise(x, w[len(main)], 2))
            rest = F.relu(norm(F.conv2d(p, w[len(main) + 1])))
        if kind == "shuffle":
            x = F.relu(norm(F.conv2d(x, w[0])))
            x = norm(depthwise(x, w[1], stride))
            x = F.relu(norm(F.conv2d(x, w[2])))
        else:
            for at in range(3):
                x = norm(depthwise(x, w[2 * at], stride if at == 0 else 1))
                x = F.relu(norm(F.conv2d(x, w[2 * at + 1])))
        return torch.cat([rest, x], 1)

    case(name, [x, *main, *proj], f)


def sgd(name, **config):
    """Three steps of torch.optim.SGD on one parameter: start, gradients, end."""
    p = torch.nn.Parameter(torch.randn(5, 3, dtype=torch.float64).float().double())
    optimiser = torch.optim.SGD([p], lr=0.1, **config)
    OUT[f"{name}/start"] = p.detach().clone()
    for step in range(3):
        p.grad = torch.randn(5, 3, dtype=torch.float64).float().double()
        OUT[f"{name}/grad{step}"] = p.grad.clone()
        optimiser.step()
        OUT[f"{name}/after{step}"] = p.detach().clone()


def main():
    primitives()
    inverted_residual("inverted_residual_s1", 1)
    inverted_residual("inverted_residual_s2", 2)
    spos("spos_shuffle_k3_s1", "shuffle", 3, 1)
    spos("spos_shuffle_k5_s2", "shuffle", 5, 2)
    spos("spos_xception_s1", "xception", 3, 1)
    spos("spos_xception_s2", "xception", 3, 2)
    sgd("sgd")
    sgd("sgd_momentum", momentum=0.9, weight_decay=4e-5)
    sgd("sgd_nesterov", momentum=0.9, weight_decay=1e-2, nesterov=True)
    tensors = {k: (v if v.dtype == torch.int32 else v.float()).contiguous() for k, v in OUT.items()}
    path = pathlib.Path(__file__).with_name("reference.safetensors")
    save_file(tensors, path, metadata={"torch": torch.__version__.split("+")[0]})
    print(f"{len(tensors)} tensors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

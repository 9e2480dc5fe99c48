"""Nets of other programs, and what they compute, without tinynet.

A net is a dict in PyTorch's layout, conv1.weight ... fc8.bias.
"""
import numpy as np

LAYERS = "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"
# Kernels and neurons of a small net: two towers as Caffe's, or one as torchvision's.
TWO, ONE = (8, 12, 12, 8, 8, 16, 16, 5), (6, 8, 10, 8, 8, 16, 16, 5)
CAFFE_MEAN = np.array([104.0070, 116.6688, 122.6789])            # blue, green, red


def layers(sizes, towers, seed=0):
    """A net of random numbers, which carry a signal from one end to the other."""
    draw, found = np.random.default_rng(seed), {}
    c1, c2, c3, c4, c5, f6, f7, _ = sizes
    seen = 3, c1 // towers, c2, c3 // towers, c4 // towers, 36 * c5, f6, f7
    for name, outputs, inputs, side in zip(LAYERS, sizes, seen, (11, 5, 3, 3, 3, 0, 0, 0),
                                           strict=True):
        shape = (outputs, inputs, side, side) if side else (outputs, inputs)
        scale = (2 / np.prod(shape[1:])) ** 0.5 / (60 if name == "conv1" else 1)
        found[f"{name}.weight"] = draw.normal(0, scale, shape).astype("f4")
        found[f"{name}.bias"] = draw.normal(0, 0.1, outputs).astype("f4")
    return found


# --- what they compute, in float64 ------------------------------------------------------------


def convolved(x, W, b, stride=1, pad=(0, 0), groups=1):
    """x (N, C, H, W), W (O, C / groups, K, K) -> (N, O, OH, OW)"""
    x = np.pad(x, ((0, 0), (0, 0), pad, pad))
    windows = np.lib.stride_tricks.sliding_window_view(x, W.shape[2:], (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    parts = [np.einsum("nchwij,ocij->nohw", seen, kernels, optimize=True) for seen, kernels in zip(
        np.split(windows, groups, axis=1), np.split(W, groups), strict=True)]
    return np.concatenate(parts, axis=1) + b[:, None, None]


def pooled(x):
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].max((4, 5))


def normalized(x):
    """Caffe's LRN: alpha 1e-4 times the mean over five maps of all, k 1."""
    square = np.pad(x ** 2, ((0, 0), (2, 2), (0, 0), (0, 0)))
    energy = sum(square[:, i:i + x.shape[1]] for i in range(5))
    return x / (1 + 1e-4 / 5 * energy) ** 0.75


def logits(net, x, order=("relu", "lrn", "pool"), groups=2, pad=(0, 0)):
    """What the net says of x (N, 3, H, W), in the order of colours that it was trained with."""
    w = {name: array.astype("f8") for name, array in net.items()}
    step = {"relu": lambda x: np.maximum(x, 0), "lrn": normalized, "pool": pooled}
    for name, how, then in (
            ("conv1", dict(stride=4, pad=pad), order), ("conv2", dict(pad=(2, 2), groups=groups),
                                                        order),
            ("conv3", dict(pad=(1, 1)), ["relu"]), ("conv4", dict(pad=(1, 1), groups=groups),
                                                    ["relu"]),
            ("conv5", dict(pad=(1, 1), groups=groups), ["relu", "pool"])):
        x = convolved(x, w[f"{name}.weight"], w[f"{name}.bias"], **how)
        for one in then:
            x = step[one](x)
    x = x.reshape(len(x), -1)
    for name in "fc6", "fc7":
        x = np.maximum(x @ w[f"{name}.weight"].T + w[f"{name}.bias"], 0)
    return x @ w["fc8.weight"].T + w["fc8.bias"]


def torch_logits(torch, net, x, order=("relu", "lrn", "pool"), groups=2, pad=0):
    """The same by PyTorch, in float32."""
    F = torch.nn.functional
    w = {name: torch.tensor(array) for name, array in net.items()}
    step = {"relu": F.relu, "pool": lambda x: F.max_pool2d(x, 3, 2),
            "lrn": lambda x: F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)}
    x = torch.tensor(np.float32(x))
    for name, how, then in (
            ("conv1", dict(stride=4, padding=pad), order),
            ("conv2", dict(padding=2, groups=groups), order), ("conv3", dict(padding=1), ["relu"]),
            ("conv4", dict(padding=1, groups=groups), ["relu"]),
            ("conv5", dict(padding=1, groups=groups), ["relu", "pool"])):
        x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **how)
        for one in then:
            x = step[one](x)
    x = x.flatten(1)
    for name in "fc6", "fc7":
        x = F.relu(F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"]))
    return F.linear(x, w["fc8.weight"], w["fc8.bias"]).numpy()


def as_torchvision(net):
    """The same with torchvision's names."""
    features, dense = (0, 3, 6, 8, 10), (1, 4, 6)
    theirs = [f"features.{n}" for n in features] + [f"classifier.{n}" for n in dense]
    names = dict(zip(LAYERS, theirs, strict=True))
    return {f"{names[layer]}.{what}": net[f"{layer}.{what}"] for layer in LAYERS
            for what in ("weight", "bias")}

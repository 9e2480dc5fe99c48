"""What several files of tests need: numbers, a net, pictures, and plain loops to compare with."""
import ast
import io
import os
import tokenize
from pathlib import Path

import numpy as np
import pytest

from alexnet import AlexNet
from tinynet import device, ops
from tinynet.conv import conv2d
from tinynet.pictures import images
from tinynet.training.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tinynet"
GPUS = device.gpu_count()
NO_GPU = pytest.mark.skipif(GPUS < 1, reason="no GPU answers here (CuPy and a driver needed)")


def environment(**variables):
    """Of a process that is to find this project from whatever folder, installed or not."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def distinct(*shape, seed=0):
    """Different numbers in random order, at least 0.001 apart and none near zero, so that no
    kink of relu or max_pool is within reach of a gradient check's small step."""
    count = int(np.prod(shape))
    values = (np.arange(count) - count / 2 + 0.25) * max(2 / count, 0.001)
    return np.random.default_rng(seed).permutation(values).reshape(shape)


# --- what is to be read ---------------------------------------------------------------------


FREE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER}


def code_lines(text):
    """Lines that hold code: blank lines, comments and docstrings are free."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in FREE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        is_statement = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_statement and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


# --- a small net, and a batch for it ----------------------------------------------------


SMALL = RECIPES["paper"].changed(dict(
    kernels=(6, 8, 12, 12, 8), neurons=(16, 16), crop=67, std=("he",), bias=(0.1,)))
IMAGES = np.random.default_rng(0).standard_normal((9, 67, 67, 3)).astype(np.float32)
LABELS = np.arange(9) % 5


def net(places, recipe=SMALL):
    return AlexNet(5, places, recipe).initialize(seed=1)


# --- convolution, one window after the other --------------------------------------------


def naive_windows(x, KH, KW, stride):
    """(n, oh, ow, window) for every window of KH x KW pixels."""
    N, H, W, C = x.shape
    for n in range(N):
        for oh in range((H - KH) // stride + 1):
            for ow in range((W - KW) // stride + 1):
                top, left = oh * stride, ow * stride
                yield n, oh, ow, x[n, top:top + KH, left:left + KW]


def naive_conv2d(x, W, b, stride=1, pad=(0, 0), groups=1):
    KH, KW, C, O = W.shape
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    rows = (x.shape[1] - KH) // stride + 1, (x.shape[2] - KW) // stride + 1
    y = np.zeros((len(x), *rows, O))
    for n, oh, ow, window in naive_windows(x, KH, KW, stride):
        for o in range(O):
            group = o // (O // groups)
            seen = window[:, :, group * C:(group + 1) * C]
            y[n, oh, ow, o] = np.sum(seen * W[:, :, :, o]) + b[o]
    return y


def grouped_conv2d(x, W, b, groups, **how):
    """conv2d of which each group of kernels sees its own group of channels, as an oracle for
    towers: x (N, H, W, C), W (KH, KW, C / groups, O), b (O,) -> (N, OH, OW, O)."""
    def part(tensor, group):
        size = tensor.shape[-1] // groups
        return tensor[..., group * size:(group + 1) * size]

    return ops.concat(*[conv2d(part(x, g), part(W, g), part(b, g), **how)
                        for g in range(groups)])



# --- pictures, prepared in float64 ------------------------------------------------------


def smooth(width, height):
    """A picture without edges: three slow waves, (height, width, 3) float64."""
    y, x = np.mgrid[0:height, 0:width] / min(width, height)
    waves = np.sin(2 * x + y), np.cos(x - 3 * y), np.sin(3 * x * y)
    return 127.5 + 120 * np.stack(waves, axis=-1)


def shrinking(count, size, start):
    """256 rows of weights: pixel start + i of `size` is the mean of what it covers."""
    edges = (start + np.arange(images.SIDE + 1)[:, None]) * count / size
    pixel = np.arange(count)
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return np.maximum(covered, 0) * size / count


def enlarging(count, size, start):
    """256 rows of weights: cubic interpolation (Keys, 1981) at pixel start + i."""
    place = (start + np.arange(images.SIDE)[:, None] + 0.5) * count / size - 0.5
    x = np.abs(place - np.arange(count))
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def reference(pixels):
    """Shorter side to 256, the central square, in float64."""
    shorter = min(pixels.shape[:2])
    weights = shrinking if shorter > images.SIDE else enlarging
    for _ in range(2):
        size = round(len(pixels) * images.SIDE / shorter)
        rows = weights(len(pixels), size, (size - images.SIDE) // 2)
        pixels = np.tensordot(rows, pixels, axes=1).swapaxes(0, 1)
    return np.clip(pixels, 0, 255)

"""tinynet: the AlexNet of 2012 on a NumPy/CuPy engine small enough to be read.

    from tinynet import Tensor, Sequential, Dense, ReLU, SGD, ops

`ops` has the functions that keep no weights: relu, exp, sum, softmax_cross_entropy and so on. The
functions of pictures are conv.conv2d, pool.max_pool and norm.lrn; their layers are here.

The files, in the order in which they are read; each needs only those before it:
errors, cards, device, products, cores, kernels, rng, engine, gradcheck, ops, winograd, columns,
conv, pool, norm, schema, store, layers, split, optim, progress, ranks, mpi, replay. To begin with
engine is as good: device, cores and rng say how arrays are placed, cut and drawn. cards, products,
kernels, winograd, columns and replay are other forms of what stands plainly elsewhere. Then follow
alexnet.py and the wings, formats/, pictures/, training/, tools/ and pages/.
"""
from . import ops
from .device import Device
from .engine import Parameter, Tensor, no_grad, op
from .errors import UserError
from .gradcheck import gradcheck
from .layers import (
    LRN,
    AvgPool,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    ReLU,
    Sequential,
    Softmax,
    Tanh,
)
from .optim import SGD
from .split import copy_to

__all__ = ["LRN", "SGD", "AvgPool", "Conv2D", "Dense", "Device", "Dropout", "Flatten", "Layer",
           "MaxPool", "Parameter", "ReLU", "Sequential", "Softmax", "Tanh", "Tensor", "UserError",
           "copy_to", "gradcheck", "no_grad", "op", "ops"]
__version__ = "0.2.0"

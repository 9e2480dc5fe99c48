"""tinynet: the AlexNet of 2012 on a NumPy/CuPy engine small enough to be read.

Read it in this order: engine, ops, conv, layers, split, and then alexnet.py.
"""
from .device import Device
from .engine import Parameter, Tensor, copy_to, no_grad, op
from .errors import UserError
from .gradcheck import gradcheck

__all__ = ["Device", "Parameter", "Tensor", "UserError", "copy_to", "gradcheck", "no_grad",
           "op"]
__version__ = "0.2.0"

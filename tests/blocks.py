"""A net of layers wherever a newcomer puts them."""
import numpy as np

from tinynet.device import Device
from tinynet.engine import Parameter, Tensor
from tinynet.layers import Dense, Layer, ReLU, Sequential

CPU = Device("cpu")
ONES = Tensor(np.ones((2, 4), np.float32))


class Blocks(Layer):
    """Layers wherever a newcomer puts them."""

    def __init__(self):
        self.blocks = [Dense(4, 4), (ReLU(), Dense(4, 4))]
        self.heads = {"left": Dense(4, 2), "right": Dense(4, 3)}
        self.gains = [Parameter(np.ones(3, np.float32))]
        self.out = Sequential(Dense(2, 2))

    def forward(self, x):
        first, (relu, second) = self.blocks
        x = relu(second(first(x)))
        return self.out(self.heads["left"](x)), self.heads["right"](x) * self.gains[0]


NAMES = ["gains.0", "blocks.0.W", "blocks.0.b", "blocks.1.1.W", "blocks.1.1.b", "heads.left.W",
         "heads.left.b", "heads.right.W", "heads.right.b", "out.0.W", "out.0.b"]

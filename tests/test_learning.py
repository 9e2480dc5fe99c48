"""Does it learn? On real pictures, where they are there."""
import numpy as np

from data import cifar10
from tinynet import ops
from tinynet.device import devices
from tinynet.engine import Tensor, no_grad
from tinynet.layers import LRN, Conv2D, Dense, Flatten, Layer, MaxPool, ReLU, Sequential
from tinynet.optim import SGD
from tinynet.split import exchange, gather, send_to_both
from tinynet.training.evaluation import wrong


class SmallTower(Layer):
    """One row of Figure 2 for pictures of 32 x 32 pixels."""

    def __init__(self, device):
        self.conv1 = Sequential(Conv2D(3, 8, 5, pad=2), ReLU(), LRN(), MaxPool())
        self.conv2 = Sequential(Conv2D(8, 16, 3, pad=1), ReLU(), LRN(), MaxPool())
        self.conv3 = Sequential(Conv2D(32, 32, 3, pad=1), ReLU(), MaxPool())
        self.fc4 = Sequential(Flatten(), Dense(2 * 32 * 3 * 3, 64), ReLU())
        self.to(device)


class SmallNet(Layer):
    """Two towers that meet before conv3 and fc4, and in fc5."""

    def __init__(self, top, bottom):
        self.top, self.bottom = SmallTower(top), SmallTower(bottom)
        self.fc5 = Dense(128, 10, std=0.01).to(top)
        self.devices = top, bottom

    def forward(self, image):
        t, b = self.top, self.bottom
        top, bottom = send_to_both(image, *self.devices)
        top, bottom = t.conv1(top), b.conv1(bottom)
        top, bottom = t.conv2(top), b.conv2(bottom)
        top, bottom = exchange(top, bottom)
        top, bottom = t.conv3(top), b.conv3(bottom)
        top, bottom = exchange(top, bottom)
        top, bottom = t.fc4(top), b.fc4(bottom)
        return self.fc5(gather(top, bottom))


def pixels(path):
    images, labels = cifar10.decode(path.read_bytes(), str(path))
    return (images.astype(np.float32) - 120) / 64, labels


def test_a_two_tower_net_learns_cifar10_in_a_few_hundred_steps(real_pictures):
    folder = real_pictures / "cifar-10-batches-py"
    images, labels = pixels(folder / "data_batch_1")
    unseen, answers = pixels(folder / "test_batch")
    top, bottom = devices("cpu0,cpu1")
    model = SmallNet(top, bottom).initialize(seed=0)
    optimizer = SGD(model.parameters(), lr=0.02)
    for step in range(300):
        if step == 200:
            optimizer.lr = 0.004
        rows = slice(32 * step, 32 * (step + 1))
        loss = ops.softmax_cross_entropy(model(Tensor(images[rows], top)), labels=labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with no_grad():
        errors = sum(int(wrong(model.eval()(Tensor(unseen[i:i + 500], top)).data,
                                  answers[i:i + 500], 1)) for i in range(0, 2000, 500))
    assert errors / 2000 < 0.60         # chance: 0.90

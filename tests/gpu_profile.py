"""Where does a training step go on a GPU?

    python tests/gpu_profile.py [--device gpu0] [-b 128] [--precision tf32]

The paper's net, with its pictures on the card: how long a step takes alone and in a row, how long
the host needs for it, and every kernel by name, as PyTorch's profiler sees them (it sees those of
others too). Then what the card gives when it does one thing alone, often enough that waiting does
not count; how long a batch takes to get there; and what a call costs the host.
"""
import argparse
import statistics
import sys
import time

import numpy as np

import alexnet
from tinynet import SGD, Tensor, kernels, ops
from tinynet.device import PRECISIONS
from tinynet.replay import Replayed
from tinynet.tools import machine
from tinynet.training.options import two_devices
from tinynet.training.recipes import RECIPES

STEPS = 20
# Rows, sum and columns of one tower's products at batch 128.
PRODUCTS = {"conv1": (387200, 364, 48), "conv2": (93312, 1204, 128), "conv3": (21632, 2308, 192),
            "conv4": (21632, 1732, 192), "conv5": (21632, 1732, 128), "fc6": (128, 9216, 2048),
            "large": (8192, 8192, 8192)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="gpu0")
    parser.add_argument("-b", "--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=PRECISIONS, default="tf32")
    args = parser.parse_args()
    recipe = RECIPES["paper"].changed(dict(batch_size=args.batch_size, precision=args.precision))
    towers = two_devices(args.device, recipe)
    print(f"{args.device}, batches of {args.batch_size}, {args.precision}")
    for how in "every kernel asked for", "replayed":
        print(f"--- {how}")
        profile_step(step_of(towers, recipe, how == "replayed"), towers, args.batch_size)
    with towers[0]:
        ceilings(towers[0])
        uploads(towers[0], args.batch_size)
        calls(towers[0])


def step_of(towers, recipe, replayed):
    """A function that takes a training step with a batch of noise."""
    model = alexnet.build(1000, towers, recipe).initialize(0).train()
    optimizer = SGD(model.parameters(), 1e-4, recipe.momentum, recipe.wd)
    draw = np.random.default_rng(0)
    shape = recipe.batch_size, recipe.crop, recipe.crop, 3
    image = Tensor(draw.standard_normal(shape, np.float32), towers[0])
    labels = towers[0].put(draw.integers(0, 1000, recipe.batch_size))

    def learn(labels, image):
        loss = ops.softmax_cross_entropy(model(image), labels=labels)
        optimizer.zero_grad()
        loss.backward()
        return [loss]

    learn = Replayed(learn, model) if replayed else learn

    def step():
        learn(labels, image)
        optimizer.step()

    return step


def profile_step(step, towers, batch):
    def wait():
        for tower in towers:
            tower.synchronize()

    def seconds(f):
        start = time.perf_counter()
        f()
        return time.perf_counter() - start

    first, second = (seconds(lambda: (step(), wait())) for _ in range(2))
    print(f"first step {first:.2f} s, in which kernels are compiled; second {second:.2f}, in "
          "which a step is recorded, if it is to be replayed")
    for _ in range(3):
        step()
    wait()
    alone = [(seconds(step), seconds(wait)) for _ in range(STEPS)]
    row = seconds(lambda: [step() for _ in range(STEPS)] and wait()) / STEPS
    print(f"alone {1e3 * statistics.median(map(sum, alone)):.2f} ms, of which the host asks for "
          f"{1e3 * statistics.median(asked for asked, _ in alone):.2f}; in a row "
          f"{1e3 * row:.2f} ms, {batch / row:,.0f} images/s; "
          f"{machine.in_use(towers[0]) / 1e9:.2f} GB")
    try:
        import torch
    except ImportError:
        print("no PyTorch here, whose profiler would name the kernels")
        return
    torch.cuda.init()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(5):
            step()
        wait()
    rows = [row for row in profile.key_averages() if row.self_device_time_total]
    rows.sort(key=lambda row: -row.self_device_time_total)
    print(f"of a step: {sum(row.count for row in rows) / 5:.0f} launches, "
          f"{sum(row.self_device_time_total for row in rows) / 5000:.2f} ms of the card")
    for row in rows[:32]:
        print(f"{row.self_device_time_total / 5000:9.3f} ms {row.count / 5:6.1f}  "
              f"{row.key[:90]}")


def milliseconds(device, f, repeat=STEPS):
    """Of the card, for one f(), by events around many."""
    cuda = device.xp.cuda
    f()
    start, end = cuda.Event(), cuda.Event()
    start.record()
    for _ in range(repeat):
        f()
    end.record()
    end.synchronize()
    return cuda.get_elapsed_time(start, end) / repeat


def ceilings(device):
    xp = device.xp
    source = device.put(np.ones(1 << 28, np.float32))
    target = xp.empty_like(source)
    copied = milliseconds(device, lambda: xp.copyto(target, source))
    print(f"copy of 1 GB: {2e-6 * source.nbytes / copied:,.0f} GB/s read and written")
    draw = np.random.default_rng(0)
    for name, (rows, inner, columns) in PRODUCTS.items():
        a, b = (device.put(draw.standard_normal(shape, np.float32))
                for shape in ((rows, inner), (inner, columns)))
        out = xp.empty((rows, columns), np.float32)
        taken = milliseconds(device, lambda a=a, b=b, out=out: xp.dot(a, b, out=out))
        print(f"product {name:6}{taken:8.3f} ms{2e-9 * rows * inner * columns / taken:8.1f} "
              "TFLOP/s")


def uploads(device, batch):
    xp = device.xp
    numbers = np.random.default_rng(0).standard_normal((batch, 227, 227, 3), np.float32)
    pictures = np.zeros(batch * 256 * 256 * 3, np.uint8)
    pinned = np.frombuffer(xp.cuda.alloc_pinned_memory(pictures.nbytes), np.uint8, pictures.size)
    there = xp.empty(pictures.size, np.uint8)
    for name, f in (("numbers, ordinary memory", lambda: device.put(numbers)),
                    ("bytes, ordinary memory", lambda: device.put(pictures)),
                    ("bytes, page-locked", lambda: there.set(pinned))):
        print(f"a batch as {name}: {milliseconds(device, f):.2f} ms")


def calls(device):
    xp = device.xp
    a = device.put(np.ones((32, 32), np.float32))
    b = xp.empty_like(a)
    for name, f in (("a kernel of ours", lambda: kernels.relu(a)), ("a + b", lambda: a + b),
                    ("a.dot(b)", lambda: xp.dot(a, a, out=b)), ("a.sum", lambda: a.sum(axis=0)),
                    ("empty", lambda: xp.empty((32, 32), np.float32))):
        f()
        device.synchronize()
        start = time.perf_counter()
        for _ in range(1000):
            f()
        print(f"{name:17}{1e3 * (time.perf_counter() - start):7.1f} us of the host")
        device.synchronize()


if __name__ == "__main__":
    sys.exit(main())

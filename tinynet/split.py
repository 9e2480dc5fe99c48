"""Where do activations change device? Here, and nowhere else.

The paper's two GPUs talk to each other "only in certain layers" (section 3.2). A crossing of
lines in its Figure 2 is an `exchange` in the code; where both rows, the towers, end in one
layer (fc8) it is a `gather`. With both towers on one device the same calls copy nothing.
"""
from .device import as_device
from .engine import record
from .ops import concat


def copy_to(x, device):
    """Move a tensor to a device (a Device or its name), and its gradient back.

    It is the one op whose output lives elsewhere than its input. To the same device it is the
    tensor itself.
    """
    home, device = x.device, as_device(device)
    if device == home:
        return x
    return record("copy_to", device.put(x.data), device, (x,), (lambda dy: home.put(dy),))


def send_to_both(image, top, bottom):
    """The images, on both devices: each GPU of the paper sees all of them."""
    return copy_to(image, top), copy_to(image, bottom)


def exchange(top, bottom):
    """Both halves for each tower, top's channels first. (N, ..., C) twice -> (N, ..., 2C) twice"""
    return (concat(top, copy_to(bottom, top.device)),
            concat(copy_to(top, bottom.device), bottom))


def gather(top, bottom):
    """Both halves on the top tower's device. (N, ..., C) twice -> (N, ..., 2C)"""
    return concat(top, copy_to(bottom, top.device))


def layer_of(name):
    """The layer of the figure that a parameter belongs to: "top.conv3.0.W" -> "conv3"."""
    return name.removeprefix("top.").removeprefix("bottom.").partition(".")[0]

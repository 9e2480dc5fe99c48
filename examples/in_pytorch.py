"""A net that was trained here, in PyTorch: what the file of `alexnet.py export` needs there.

    python alexnet.py export runs/paper/best.npz net.pth
    python examples/in_pytorch.py net.pth cat.jpg

The file is a state dict, with the mean image as `mean`; what else a net needs, its recipe and its
classes, are texts in the dict's attribute `about`. Copy the class below, it is all there is to it.
(Only how pictures are read is tinynet's own.)
"""
import json
import pickle
import sys

import numpy as np

try:
    import torch
    from torch.nn import functional as F
except ImportError:
    sys.exit("in_pytorch.py needs PyTorch: pip install torch")


class AlexNet(torch.nn.Module):
    """Pictures (N, 3, 256, 256) of 0 ... 255, red first -> logits (N, classes).

    The net in test mode: it has no dropout, and the file's weights need none.
    """

    def __init__(self, weights):
        super().__init__()
        self.recipe, weights = json.loads(weights.about["recipe"]), dict(weights)
        self.register_buffer("mean", weights.pop("mean"))      # nothing to be learned
        for name, array in weights.items():            # conv1.weight becomes conv1_weight
            self.register_parameter(name.replace(".", "_"), torch.nn.Parameter(array.float()))
        if self.recipe["conv6"] or self.recipe["pool"] != 3 or (
                "same-map-lrn" in self.recipe["after_conv1"] + self.recipe["after_conv2"]):
            raise ValueError("this class has no conv6, no pool of 2 pixels, no LRN within a map")

    def forward(self, x):
        recipe, crop = self.recipe, self.recipe["crop"]
        edge, beyond = (256 - crop) // 2, -(crop - 11) % 4
        x = ((x - self.mean) * recipe["pixel_scale"])[..., edge:edge + crop, edge:edge + crop]
        before = -(-beyond // 2) if recipe["conv1_zeros"] == "around" else 0
        x = F.pad(x, (before, beyond - before) * 2)
        x = self.then(self.conv(x, 1, stride=4), recipe["after_conv1"])
        x = self.then(self.conv(x, 2, padding=2), recipe["after_conv2"])
        x = F.relu(self.conv(x, 3, padding=1))
        x = F.relu(self.conv(x, 4, padding=1))
        x = self.then(self.conv(x, 5, padding=1), ["relu", "pool"]).flatten(1)
        x = F.relu(F.linear(x, self.fc6_weight, self.fc6_bias))
        x = F.relu(F.linear(x, self.fc7_weight, self.fc7_bias))
        return F.linear(x, self.fc8_weight, self.fc8_bias)

    def conv(self, x, number, **how):
        """In two groups where the kernels see half of the maps: the towers."""
        W, b = getattr(self, f"conv{number}_weight"), getattr(self, f"conv{number}_bias")
        return F.conv2d(x, W, b, groups=x.shape[1] // W.shape[1], **how)

    def then(self, x, steps):
        for step in steps:
            x = {"relu": F.relu, "lrn": self.lrn,
                 "pool": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)}[step](x)
        return x

    def lrn(self, x):
        """PyTorch divides alpha by the five maps. A tower is a picture of its own."""
        recipe = self.recipe
        if recipe["lrn"] == "none":
            return x
        towers = recipe["towers"] if recipe["lrn_window"] == "tower" else 1
        alpha = recipe["lrn_alpha"] * (5 if recipe["lrn"] == "sum" else 1)
        parts = x.reshape(len(x) * towers, -1, *x.shape[2:])
        return F.local_response_norm(parts, 5, alpha, 0.75, recipe["lrn_k"]).reshape(x.shape)


def main(path, *pictures):
    from tinynet.pictures import images
    try:
        weights = torch.load(path, weights_only=True)
        texts = weights.about
    except (AttributeError, RuntimeError, pickle.UnpicklingError):
        raise ValueError(f"{path} is not what alexnet.py export writes") from None
    net = AlexNet(weights).eval()
    classes, words = (json.loads(texts[name]) for name in ("classes", "words"))
    names = [f"{name}  {words.get(name, '')}".rstrip() for name in classes]
    for name in pictures:
        pixels = np.array(images.read(name, fit=net.recipe["fit"]).transpose(2, 0, 1))
        with torch.no_grad():
            said = net(torch.tensor(pixels, dtype=torch.float32)[None]).softmax(1)[0]
        print(name, *[f"  {said[label]:6.1%}  {names[label]}" for label in said.argsort(
            descending=True)[:5]], sep="\n")


if __name__ == "__main__":
    if not sys.argv[2:]:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"in_pytorch.py: error: {error}")

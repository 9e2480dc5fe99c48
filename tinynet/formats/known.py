"""Which published nets are known by the checksum of their file, and what was said of them?

Errors are those of one central crop on the 50,000 validation pictures of ILSVRC-2012, as their
publishers give them: nobody has measured them here.
"""
import hashlib
from dataclasses import dataclass

import numpy as np

# What is subtracted from 0 ... 255 and what divides it, red, green, blue: the mean colour of
# Caffe's imagenet_mean, and torchvision's figures.
CAFFE = np.array([122.6789, 116.6688, 104.0070]), np.ones(3)
TORCHVISION = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])


@dataclass
class Known:
    """A published file. errors: top-1 and top-5. check: of a picture, what it is called, the
    class that the net sees in it, and with which probability, if somebody published that."""
    name: str
    errors: str
    check: tuple = None


# What OpenCV's tests hold: of the picture as it is, without a mean.
GRACE_HOPPER = ("grace_hopper_227.png of opencv_extra", 652, 0.641789)
BVLC = Known("bvlc_alexnet.caffemodel", "42.9 % and 19.8 %, with the mean image", GRACE_HOPPER)
OWT = "43.5 % and 20.9 %"
FILES = {
    "4bff209a9837298157915ef50a4831a59636a6ca1a6b8ebacd990c3a5f3053e0": BVLC,
    "9116a64c0fbe4459d18f4bb6b56d647b63920377": BVLC,
    "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46":
        Known("bvlc_reference_caffenet.caffemodel", "42.6 % and 19.6 %, with the mean image"),
    "1294ef51496c52f2e4879ee3b5e1da22c35d61f3240937491b4469403d5428cc":
        Known("bvlc_alexnet.npy, made of Caffe's", "top-5 20.2 %, with the mean colour"),
    "7be5be79": Known("alexnet-owt-7be5be79.pth of torchvision", OWT),
    "4df8aa71": Known("alexnet-owt-4df8aa71.pth of torchvision", OWT),
    "6b0da9510f27f234ee96a85dc3809dd210150fdefad87f6850f9788513216945":
        Known("bvlcalexnet-12.onnx, made of Caffe's", "45.2 % and 21.8 %, with 224 pixels"),
}


def look_up(data):
    """The Known file with these bytes, or None; and its SHA-256. Names of torchvision hold its
    first eight digits, older pages a SHA-1."""
    digest = hashlib.sha256(data).hexdigest()
    for key in digest, digest[:8], hashlib.sha1(data, usedforsecurity=False).hexdigest():
        if key in FILES:
            return FILES[key], digest
    return None, digest

"""Of which format is a file? Its first bytes tell, whatever it is called."""
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..progress import shown
from . import caffe, numpy_file, onnx, safetensors, torch_file
from .plan import Foreign, named_by_prefix

KINDS = (".caffemodel (Caffe), .pth (PyTorch, a state dict), .onnx, .npy (a dict of layers) and "
         ".safetensors")
CONVERT = "; write it as .safetensors there: one array a layer, <layer>.weight and <layer>.bias"
MOST = 1 << 31             # bytes, as of a protobuf: of AlexNet 244 MB are weights
# What people have instead, by its first bytes, and what to do next.
INSTEAD = {
    b"\x89HDF": "an HDF5 file (Keras)" + CONVERT, b"MATLAB 5.0": "a MATLAB file" + CONVERT,
    b"\x1f\x8b": "compressed; unpack it first", b"version https://git-lfs":
        "only the name of a large file in Git; fetch the file itself: git lfs pull",
    b"<": "a page of the Web, not the file; was it fetched in full?",
    b"\x80": "a pickle, and no state dict of PyTorch; to read it would be to run it" + CONVERT}


def read(path):
    """The net in a file: a plan.Foreign, and the file's bytes. Raises UserError if there is none,
    if it is damaged, or if it holds another net than AlexNet."""
    read = reader(path)
    data = content(path)
    return _read(path, data, read), data


def content(path):
    """The bytes of a file, as a memoryview. Raises UserError."""
    size = _size(path)
    if size > MOST:
        raise UserError(f"{shown(path)} has {size:,} bytes: it is larger than any AlexNet")
    return memoryview(Path(path).read_bytes())


def _size(path):
    """Bytes in a file. Raises UserError for what is none: a pipe would keep us waiting."""
    if not Path(path).exists():
        raise UserError(f"{shown(path)}: there is no such file")
    if not Path(path).is_file():
        raise UserError(f"{shown(path)} is a folder or a device: give the name of a file")
    return Path(path).stat().st_size


def reader(path):
    """The function that reads a file that begins as this one. Raises UserError for an unknown
    kind, of which no more than the beginning is read: it may be a film."""
    size = _size(path)
    with open(path, "rb") as file:
        start = file.read(264)
    if start[:4] == b"PK\3\4" or start[257:262] == b"ustar" or (
            start.startswith(torch_file.IN_A_ROW)):
        return torch_file.read
    if start[:6] == b"\x93NUMPY":
        return numpy_file.read
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return read_safetensors
    for beginning, what in INSTEAD.items():
        if start.startswith(beginning):
            raise UserError(f"{shown(path)} is {what}")
    if start[:1] == b"\x08":               # ir_version
        return onnx.read
    if start[:1] in (b"\x0a", b"\x12", b"\xa2"):       # name, or the first layer
        return caffe.read
    raise UserError(f"{shown(path)} is of no known kind; what is read: {KINDS}")


def arrays(path):
    """The arrays of a .safetensors file by name, of whatever net, and its metadata. Raises
    UserError, also for numbers that are not finite."""
    found, about = _read(path, content(path), safetensors.read)
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise UserError(f"{shown(path)}: {name} holds numbers that are not finite")
    return found, about


def read_safetensors(data):
    """The net in a .safetensors file: a Foreign."""
    arrays, about = safetensors.read(data)
    mean = arrays.pop("mean_image", None)
    return Foreign("safetensors", named_by_prefix(arrays), about=about, mean=mean)


def read_mean(path):
    """The mean image in a .binaryproto, blue first as Caffe has it, or in a .npy file: (3, 256,
    256). Raises UserError."""
    data = content(path)
    read = numpy_file.read_mean if bytes(data[:6]) == b"\x93NUMPY" else caffe.read_mean
    mean = _read(path, data, read, "no mean image")
    if mean.shape != (3, 256, 256) or not np.isfinite(mean).all():
        raise UserError(f"{shown(path)} holds {mean.shape}, and a mean image is (3, 256, 256), "
                        "blue before green before red, of finite numbers")
    return mean


def _read(path, data, read, otherwise="another net than AlexNet"):
    """read(data). The many ways in which a damaged file can fail become one line."""
    try:
        return read(data)
    except MemoryError:
        raise
    except Exception as error:             # struct, zipfile, NumPy and Python name a dozen kinds
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{shown(path)} is damaged, or holds {otherwise}: {why[:300]}"
                        ) from error

"""Whatever a file of weights holds: it is read, or refused in one line. Nothing of it runs."""
import os
import tracemalloc

import numpy as np
import pytest

import alexnet
from damaged_weights import KINDS, WORDS, harmful, spoilt
from other_files import field
from tinynet.errors import UserError
from tinynet.formats import reading
from tinynet.training import weights

COUNT = 80             # with --fuzz: 200


@pytest.fixture(scope="module")
def harm(tmp_path_factory):
    return harmful(tmp_path_factory.mktemp("canary") / "ran")


def imported(path):
    out = path.with_name("out.npz")
    out.unlink(missing_ok=True)
    with np.errstate(all="ignore"):        # as the program runs: numbers that are none are told
        weights.imported(alexnet.parser().parse_args(["import", str(path), str(out)]),
                         alexnet.build)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_of_each_kind_are_read_or_refused_in_a_line(kind, tmp_path, request):
    whole, path, refused = KINDS[kind](), tmp_path / "net", 0
    count = 200 if request.config.getoption("--fuzz") else COUNT
    for number in range(count):
        path.write_bytes(spoilt(kind, whole, np.random.default_rng(number)))
        try:
            reading.read(path)
            if number % 4 == 0:            # the rest of the way costs more
                imported(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 600, number
    assert count / 4 < refused


def test_what_means_harm_is_refused_and_runs_nothing(harm, tmp_path):
    path = tmp_path / "net"
    for name, content in harm.items():
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(UserError) as error:
                imported(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert "\n" not in str(error.value) and len(str(error.value)) < 600, name
        assert WORDS.get(name, "") in str(error.value), name
        # A list of instructions' results takes eight bytes where the file has one.
        assert peak < 2 * len(content) + (4 << 20), f"{name}: {peak:,} bytes"
    folder = tmp_path.parent
    assert not [found for _, _, found in os.walk(folder) if "ran" in found]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_takes_at_most_twice_its_size(kind, tmp_path):
    """Of a net whose dense layers are most of it, as AlexNet's are."""
    import damaged_weights
    import other_files as files
    sizes = (8, 12, 12, 8, 16, 512, 512, 5)
    two, one = damaged_weights.layers(sizes, 2), damaged_weights.as_torchvision(
        damaged_weights.layers(sizes, 1))
    path = tmp_path / "net"
    path.write_bytes({
        "caffemodel": lambda: files.caffemodel(two, pieces=1), "npy": lambda: files.npy(two, 0),
        "onnx": lambda: files.onnx_of_caffe(two), "zip": lambda: files.pth(one),
        "row": lambda: files.pth(one, "row"), "tar": lambda: files.pth(one, "tar"),
        "safetensors": lambda: files.safetensors(one)}[kind]())
    imported(path)                         # what Python imports is not the file's
    tracemalloc.start()
    try:
        imported(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = path.stat().st_size
    assert size > 2 << 20
    assert peak < 2 * size + (4 << 20)     # and a mean image, three times in passing


def test_a_file_of_no_known_kind_is_not_read_to_its_end(tmp_path):
    """It may be a film. A file with holes takes no place on the disk."""
    for start, words in ((b"", "of no known kind"), (b"\x1f\x8b", "unpack it first"),
                         (b"PK\3\4", "larger than any AlexNet")):
        with open(tmp_path / "net", "wb") as file:
            file.write(start)
            file.truncate(1 << 36)
        tracemalloc.start()
        try:
            with pytest.raises(UserError, match=words):
                reading.read(tmp_path / "net")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1 << 20


def test_a_checksum_is_reckoned_once_however_many_tensors_share_a_storage(monkeypatch):
    import zlib

    from damaged_weights import state, tensor, zipped
    from tinynet.formats import torch_file
    sums, crc32 = [], zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda part: sums.append(len(part)) or crc32(part))
    one = tensor(16, (2, 2), (2, 1))
    with pytest.raises(ValueError, match="axes"):
        torch_file.read(memoryview(zipped(state(*[one] * 8), **{"0": bytes(64)})))
    assert sums.count(64) == 1


def test_unpacked_numbers_of_a_protobuf_are_bounded():
    from tinynet.formats.protobuf import Message
    few = Message(memoryview(b"".join(field(5, float(n)) for n in range(9))))
    assert few.array(5, "<f4").tolist() == list(range(9))
    with pytest.raises(ValueError, match="more than 65,536 fields"):
        Message(memoryview(field(5, 1.0) * 70_000))


def test_a_flipped_bit_among_the_numbers_of_a_zip_is_seen(tmp_path):
    whole = bytearray(KINDS["zip"]())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "net").write_bytes(whole)
    with pytest.raises(UserError, match="has another checksum"):
        reading.read(tmp_path / "net")

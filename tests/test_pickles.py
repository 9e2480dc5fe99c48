"""A pickle that asks for more memory than it has bytes is refused, and takes none."""
import gc
import pickle
import subprocess
import sys

import pytest

from data import pickles
from helpers import environment
from tinynet.errors import UserError


def memory_of(content):
    """MB that reading a pickle takes in a process of its own, and what it says."""
    program = ("import resource, sys; from data import pickles\n"
               "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
               "try: pickles.unpickle(sys.stdin.buffer.read(), 'x')\n"
               "except ValueError as error: print(error)\n"
               "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)")
    done = subprocess.run([sys.executable, "-c", program], input=content, env=environment(),
                          capture_output=True, timeout=50, check=True)
    *said, peak = done.stdout.decode().splitlines()
    return int(peak), " ".join(said)


@pytest.mark.parametrize("content, words", [
    (bytes.fromhex("80024e72000000102e"), "it holds no dict"),
    (b"\x80\x02" + b"N" * (1 << 20) + b".", "more than 131,072 instructions"),
    (b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"abc.", "bytes are to follow, 4 do"),
    (b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"]", "bytes are to follow, 0 do"),
    (b"\x80\x02]\xff.", "no instruction")],
    ids=["note 268,435,456", "instructions", "bytes", "a frame", "what is unknown"])
def test_a_pickle_that_asks_for_memory_is_refused_and_takes_none(content, words):
    peak, said = memory_of(content)
    assert words in said and "damaged or not to be trusted" in said
    assert peak < 100


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_is_cut_anywhere_is_refused(protocol):
    """Whoever took an argument for an instruction would stop elsewhere, or nowhere."""
    numbers = [0, 255, 65_535, -1, 1 << 70, 0.5, None, True]
    texts = "\u0121.\n" * 99, b".", b"." * 300, ""
    whole = pickle.dumps({"labels": [1, 2], "numbers": numbers, "texts": texts}, protocol)
    assert pickles.unpickle(whole + b"\xff", "x")["numbers"] == numbers
    for size in range(len(whole)):
        with pytest.raises(UserError, match="x is damaged or not to be trusted"):
            pickles.unpickle(whole[:size], "x")


def test_nothing_is_kept_of_a_pickle_that_was_read():
    content = pickle.dumps({"data": b"a text, and a call"}, 2)
    gc.disable()
    try:
        gc.collect()
        pickles.unpickle(content, "x")
        assert gc.collect() == 0                       # no circle: it is free at once
    finally:
        gc.enable()


def doubled(times):
    """A list that holds itself before it was doubled twice, and so on: 2**times numbers."""
    made = [1]
    for _ in range(times):
        made = [made, made]
    return made


@pytest.mark.parametrize("labels, words", [
    (doubled(28), "its labels are no list of whole numbers"),
    ((doubled(28),), "its labels are a tuple"), ([1.0], "no list of whole numbers"),
    ({1: 2}, "its labels are a dict"), ("12", "its labels are a str")],
    ids=["doubled", "doubled in a tuple", "floating point", "a dict", "text"])
def test_labels_are_a_flat_list_of_whole_numbers(labels, words):
    peak, said = memory_of(pickle.dumps({"labels": labels}, 2))
    assert words in said and peak < 100


def test_one_text_is_not_turned_into_bytes_again_and_again():
    encode = b"c_codecs\nencode\nq\1(" + b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20)
    encode += b"q\2X\6\0\0\0latin1q\3tR" + b"h\1(h\2h\3tR" * 1000
    peak, said = memory_of(b"\x80\x02(" + encode + b"l.")
    assert "copies the same again and again" in said and peak < 200

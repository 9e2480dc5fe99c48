"""MATLAB's files are read without MATLAB, and the damaged ones told."""
import struct
import zlib

import numpy as np
import pytest

from data import matlab
from sources import as_matrix, element, mat_file, matrix, structures


@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "plain"])
@pytest.mark.parametrize("order", "<>", ids=["little-endian", "big-endian"])
def test_a_matlab_file_is_read(order, compressed):
    rows = [{"ID": 1, "words": "dog, Canis", "children": [2.5, -3.0], "none": []},
            {"ID": 1860, "words": "", "children": [7.0], "none": []}]
    data = mat_file(structures("synsets", rows, order), structures("more", rows[:1], order),
                    order=order, compressed=compressed)
    found = matlab.load(data)
    assert list(found) == ["synsets", "more"] and len(found["synsets"]) == 2
    for row, expected in zip(found["synsets"], rows, strict=True):
        assert list(row) == list(expected)
        assert row["ID"].tolist() == [expected["ID"]] and row["words"] == expected["words"]
        assert row["children"].tolist() == expected["children"] and row["none"].size == 0


def test_matlab_files_that_are_none_are_told():
    whole = mat_file(structures("synsets", [{"ID": 1}]))
    for damaged in b"", b"PK" * 100, whole[:-9], whole[:150], whole[:140] + b"xx" + whole[142:]:
        with pytest.raises(ValueError, match="MAT-file"):
            matlab.load(damaged)


def structure(shape, fields, *values):
    """An array of structures whose header may claim what it likes."""
    names = b"".join(field.ljust(32, b"\0") for field in fields)
    return matrix(2, shape, element(5, struct.pack("<i", 32)), element(1, names), *values)


def nested(depth):
    cell = as_matrix(1)
    for _ in range(depth):
        cell = matrix(1, (1, 1), cell)
    return cell


def dimensions(count):
    return element(14, b"".join([element(6, struct.pack("<II", 6, 0)),
                                 element(5, b"\xff\xff\xff\x7f" * count), element(1, b"x"),
                                 element(9, b"")]))


OVERLAPPING = struct.pack("<II", 0xFFF8 << 16 | 14, 0) * 9_000
DAMAGED = {
    "a billion rows without fields": (structure((2 ** 31 - 1, 1), []), "2,147,483,647 structures"),
    "more rows than values": (structure((5, 1), [b"ID"], as_matrix(1)), "5 structures of 1 field"),
    "fewer rows than values": (structure((1, 1), [b"ID"], as_matrix(1), as_matrix(2)), "in 2"),
    "rows below zero": (structure((-1, 1), [b"ID"], as_matrix(1)), "-1 structures"),
    "fields of no width": (matrix(2, (1, 1), element(5, bytes(4)), element(1, b"ID")), "zero"),
    "cells in cells in cells": (nested(2_000), "recursion"),
    "elements inside one another": (OVERLAPPING, "it ends too early"),
    "text of no known kind": (matrix(4, (1, 1), element(9, b"12345678")), "9"),
    "a name that is no text": (matrix(4, (1, 1), name="x").replace(b"x", b"\xff"), "utf-8"),
    "a matrix without a header": (element(14, element(6, bytes(8))), "not enough values")}


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_file_is_told_at_once(name, compressed):
    variable, words = DAMAGED[name]
    with pytest.raises(ValueError, match=f"^a damaged MAT-file: .*{words}"):
        matlab.load(mat_file(variable, compressed=compressed))


@pytest.mark.usefixtures("alarm")
def test_a_matrix_of_a_million_dimensions_does_not_hold_up_the_reader():
    assert matlab.load(mat_file(dimensions(1 << 20)))["x"].size == 0


@pytest.mark.parametrize("variables", [[bytes(40 << 20)], [element(9, bytes(3 << 20))] * 3],
                         ids=["at once", "little by little"])
def test_no_more_is_decompressed_than_fits(variables, monkeypatch):
    taken = []

    class Stream:
        def __init__(self):
            self.whole = unbounded()

        def decompress(self, content, most):
            taken.append(self.whole.decompress(content, most))
            self.eof = self.whole.eof
            return taken[-1]

    unbounded = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Stream)
    with pytest.raises(ValueError, match="ends too early, or holds more than 8,388,608 bytes"):
        matlab.load(mat_file(*variables))
    assert sum(map(len, taken)) == matlab.MOST + 1


def test_what_is_compressed_twice_is_not_decompressed_twice():
    once = mat_file(structures("synsets", [{"ID": 1}]))[128:]
    assert matlab.load(mat_file(once)) == {}


def test_random_damage_is_a_value_error_or_does_no_harm():
    whole = mat_file(structures("synsets", [{"ID": 1, "words": "dog"}] * 5), compressed=False)
    draw = np.random.default_rng(0)
    told = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for at in draw.integers(128, len(whole), 3):
            damaged[at] ^= 1 << draw.integers(8)
        try:
            matlab.load(bytes(damaged))
        except ValueError as error:
            told += 1
            assert str(error).startswith("a damaged MAT-file: ")
    assert told > 100

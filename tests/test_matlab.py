"""MATLAB's files are read without MATLAB, and the damaged ones told."""
import pytest

from data import matlab
from sources import mat_file, structures


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

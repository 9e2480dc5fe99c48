"""Data sets as they are downloaded: CIFAR-10, ImageNet's tars and devkit, lists and tables.

What must be refused: pickles that name a function, labels that are no classes, archives without
what belongs into them, rows that are too short. What is damaged otherwise may go either way.
"""
import gzip
import io
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np

from data import cifar10, layouts, matlab
from fuzzing import ACCEPTED, EITHER, REFUSED, damaged, one, truncated
from sources import VAL, WNIDS, file_of, lay_out, val_name
from tinynet.errors import UserError

# --- CIFAR-10 ---------------------------------------------------------------------------

ROWS = np.random.default_rng(0).integers(0, 256, (2, 3073)).astype(np.uint8)
ROWS[:, 0] %= 10
NAMES = [*cifar10.TRAIN, cifar10.TEST]


class Calls:
    """Whoever unpickles this calls a function."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


def evil(rng):
    """A pickle by hand that would run code, or fill the memory."""
    shell = b"touch ../canary/run"
    python = b"open('../canary/run', 'w')"
    return one(rng, [
        b"cos\nsystem\n(S'" + shell + b"'\ntR.",
        b"cposix\nsystem\n(S'" + shell + b"'\ntR.",
        b"c__builtin__\neval\n(S\"" + python + b"\"\ntR.",
        b"cbuiltins\nexec\n(S\"" + python + b"\"\ntR.",
        b"(ios\nsystem\n(S'" + shell + b"'\no.",
        b"(S'" + shell + b"'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(shell)]) + shell + b"\x85R.",
        b"\x80\x02csubprocess\ncall\n]X\x05\0\0\0touchaX\x0d\0\0\0../canary/runa\x85R.",
        b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR.", b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'/etc/passwd'\ntR.",
        b"c_codecs\nencode\n(X\1\0\0\0xX\6\0\0\0base64tR.", b"\x80\x02P1\n.", b"Pos.system\n.",
        b"\x82\x01.", b"\x80\x02c\n\n.", b"\x80\x04\x8c\x00\x8c\x00\x93.",
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(dS'x'\nI1\nsb.",
        b"cnumpy\nndarray\n(cnumpy\ndtype\nS'O'\ntR.",
        pickle.dumps(Calls(eval, python.decode())), pickle.dumps(Calls(print, "x"), 2)])


def memory(rng):
    """A few bytes that ask for much."""
    size = one(rng, [1 << 24, 1 << 28, (1 << 31) - 1])
    return one(rng, [
        b"\x80\x02}r" + struct.pack("<I", size) + b".", b"\x80\x02T" + struct.pack("<I", size),
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}.", b"\x80\x02I" + b"9" * 100_000
        + b"\n.", b"(" * 1_000_000 + b".", b"]" * 1_000_000 + b".", b"\x80\x02\x8b"
        + struct.pack("<i", size if size < 1 << 31 else -1) + b"\1.",
        b"\x80\x02" + b"]" + b"2" * 40 + b"e" * 40 + b".", b"]" + b"\x85" * 1_000_000 + b"."])


def cifar(base, rng, folder):
    pickled = rng.random() < 0.75
    names = NAMES if pickled else [f"{name}.bin" for name in NAMES]
    files = {name: pickle.dumps({b"labels": ROWS[:, 0].tolist(), b"data": ROWS[:, 1:].copy()}, 2)
             if pickled else ROWS.tobytes() for name in names}
    name = one(rng, names)
    kind = one(rng, ["evil", "evil", "evil", "memory", "damaged", "damaged", "values", "archive",
                     "missing", "whole"])
    what, expected = kind, {"evil": REFUSED, "memory": REFUSED, "missing": REFUSED,
                            "whole": ACCEPTED}.get(kind, EITHER)
    if kind in ("evil", "memory"):
        files[name] = (evil if kind == "evil" else memory)(rng)
        what, expected = f"{kind} {files[name][:60]!r}", REFUSED
        if not pickled:
            what += " as .bin"
    elif kind == "damaged":
        files[name] = damaged(files[name], rng)
    elif kind == "values":
        labels, pixels = one(rng, [
            ([0, 10], ROWS[:, 1:]), ([-1, 0], ROWS[:, 1:]), ([0], ROWS[:, 1:]),
            ([0, 1], ROWS), ([0, 1], ROWS[:, 1:].astype("i4")), ([0.5, 1], ROWS[:, 1:]),
            ([[0], [1]], ROWS[:, 1:]), ("ab", ROWS[:, 1:]), ([0, 1], ROWS[:, 1:].ravel()),
            (None, ROWS[:, 1:]), ([0, 1], None), ([0, 1], [1, 2]), ([], ROWS[:0, 1:]),
            ([10 ** 30, 0], ROWS[:, 1:]), ({}, {}), ([0, True], ROWS[:, 1:].astype("f4"))])
        content = one(rng, [{b"labels": labels, b"data": pixels}] * 3 + [[labels, pixels], 1])
        if pickled:
            files[name], expected = pickle.dumps(content, 2), REFUSED
            what = f"labels {labels!r:.40}"
    elif kind == "missing":
        del files[name]
    place = folder / "cifar"
    lay_out(place, files)
    if kind == "archive" or rng.random() < 0.3:
        place, expected, damage = in_archive(rng, files, folder, expected)
        what += f" in an archive, {damage}"
    return what, expected, base.calling(cifar10.load, place)


def in_archive(rng, files, folder, expected):
    damage = one(rng, ["whole", "whole", "damaged", "more", "bomb", "links", "no archive"])
    ending, mode = one(rng, [(".tar.gz", "w:gz"), (".tar", "w"), (".tar.xz", "w:xz")])
    path = folder / f"cifar{ending}"
    with tarfile.open(path, mode) as tar:
        if damage == "links":
            for name in files:
                add(tar, name, linkname="/etc/passwd", type=tarfile.SYMTYPE)
        for name, content in files.items():
            if damage == "bomb":
                content = bytes(50_000_000)
            if damage != "links":
                add(tar, f"../canary/{name}" if damage == "more" else f"c/{name}", content)
    if damage == "damaged":
        path.write_bytes(damaged(path.read_bytes(), rng))
        expected = REFUSED if expected == REFUSED else EITHER
    elif damage == "no archive":
        path.write_bytes(one(rng, [b"", b"x", bytes(99_999), b"\x1f\x8b" + bytes(99)]))
    if damage in ("bomb", "links", "no archive"):
        expected = REFUSED
    return path, expected, damage


def add(tar, name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


# --- the devkit's meta.mat --------------------------------------------------------------


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind, shape, *parts, name=""):
    return element(14, b"".join([
        element(6, struct.pack("<II", kind, 0)),
        element(5, struct.pack(f"<{len(shape)}i", *shape)), element(1, name.encode()), *parts]))


def as_matrix(value):
    if isinstance(value, str):
        return matrix(4, (1, len(value)), element(4, value.encode("utf-16-le")))
    return matrix(6, (1, 1), element(9, struct.pack("<d", value)))


def synsets(rows, count=None, width=32):
    fields = b"".join(field.encode().ljust(32, b"\0") for field in rows[0])
    return matrix(2, (len(rows) if count is None else count, 1),
                  element(5, struct.pack("<i", width)), element(1, fields),
                  *[as_matrix(value) for row in rows for value in row.values()], name="synsets")


def mat_file(variable, compressed=True):
    if compressed:
        variable = zlib.compress(variable)
        variable = struct.pack("<II", 15, len(variable)) + variable
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49) + variable


META = [{"ILSVRC2012_ID": number, "WNID": wnid, "words": wnid, "num_children": 0}
        for number, wnid in enumerate(WNIDS, 1)]


def meta_mat(rng):
    """meta.mat in some way: what it is, its bytes, what is expected."""
    kind = one(rng, ["whole", "damaged", "inside", "inside", "rows", "count", "fields", "bomb",
                     "deep", "values"])
    variable, rows = synsets(META), [dict(row) for row in META]
    if kind == "whole":
        return kind, mat_file(variable, rng.random() < 0.5), ACCEPTED
    if kind == "damaged":
        return kind, damaged(mat_file(variable), rng), EITHER
    if kind == "inside":                   # what is compressed is damaged, so that zlib sees none
        return kind, mat_file(damaged(variable, rng), rng.random() < 0.5), EITHER
    if kind == "rows":
        return kind, mat_file(synsets(META, one(rng, [-1, 0, 2, 4, 231, 1 << 30]))), EITHER
    if kind == "count":
        return kind, mat_file(matrix(2, (1, one(rng, [231, 1 << 30])), element(
            5, struct.pack("<i", 32)), element(1, b""), name="synsets")), REFUSED
    if kind == "fields":
        return kind, mat_file(synsets(META, None, one(rng, [-32, 0, 1, 31, 1 << 30]))), EITHER
    if kind == "bomb":
        return kind, mat_file(element(14, bytes(200_000_000))), REFUSED
    if kind == "deep":
        for _ in range(int(rng.integers(1, 3000))):
            variable = matrix(1, (1, 1), variable, name="synsets")
        return kind, mat_file(variable), REFUSED
    name = one(rng, list(rows[0]))
    rows[rng.integers(len(rows))][name] = value = one(rng, [
        -1, 0, 1e300, float("nan"), float("inf"), "", "\0", "x" * 9999, "\x1b[2J", 3, 0.5])
    return f"{name} = {value!r:.20}", mat_file(synsets(rows)), EITHER


def devkit(base, rng, folder):
    what, meta, expected = meta_mat(rng)
    truth = b"1\n2\n3\n1\n3\n"
    if rng.random() < 0.3:
        truth, expected = one(rng, [b"", b"x\n", b"1\n-1\n3\n4\n5\n", b"\xff", b"9" * 5000,
                                    b"1 2 3 1 3", b"0\n" * 5]), EITHER
        what += f", labels {truth!r:.20}"
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        add(tar, "kit/data/meta.mat", meta)
        add(tar, "kit/data/ILSVRC2012_validation_ground_truth.txt", truth)
        if rng.random() < 0.1:
            what, expected = f"{what}, beside a bomb", REFUSED         # more than is unpacked
            add(tar, "kit/data/more", bytes(1 << 28))
    if rng.random() < 0.3:
        return f"load: {what}", REFUSED if what == "bomb" else EITHER, base.calling(as_clean, meta)
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(VAL_FILES))
    return what, expected, base.calling(layouts.look, folder)


def as_clean(meta):
    """matlab.load's own error is a ValueError."""
    try:
        matlab.load(meta)
    except ValueError as error:
        raise UserError(str(error)) from error


# --- tars -------------------------------------------------------------------------------


def tar_of(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in files.items():
            add(tar, name, content)
    return file.getvalue()


VAL_FILES = {val_name(number): file_of(wnid) for number, wnid in enumerate(VAL, 1)}
TRAIN_FILES = {f"{wnid}.tar": tar_of({f"{wnid}_{n}.JPEG": file_of(wnid) for n in range(2)})
               for wnid in WNIDS}


def tars(base, rng, folder):
    files, kind = dict(TRAIN_FILES), one(rng, [
        "whole", "truncated", "damaged", "inner", "names", "kinds", "number", "again"])
    val, expected = dict(VAL_FILES), {"whole": ACCEPTED, "truncated": EITHER, "number": REFUSED}
    if kind == "inner":
        name = one(rng, files)
        files[name] = damaged(files[name], rng)
    elif kind == "names":
        files[one(rng, ["../canary/run.tar", "/etc/x.tar", "a\tb.tar", "é.tar", ".tar",
                        "x" * 300 + ".tar"])] = files.pop(WNIDS[0] + ".tar")
    elif kind == "number":
        val[one(rng, [val_name(0), val_name(-1), val_name(6), val_name(10 ** 9),
                      "ILSVRC2012_val_x.JPEG", "x.JPEG"])] = file_of(WNIDS[0])
    train = tar_of(files)
    if kind == "truncated":
        train = truncated(train, rng)
    elif kind == "damaged":
        at = 512 * int(rng.integers(len(train) // 512))
        train = train[:at] + damaged(train[at:at + 512], rng) + train[at + 512:]
    elif kind == "kinds":
        train += one(rng, [b"x" * 99, bytes(512) + b"x" * 512, gzip.compress(train)])
    elif kind == "again":
        train = tar_of({"x.tar": train, **files})
    (folder / "ILSVRC2012_img_train.tar").write_bytes(train)
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val))
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        add(tar, "kit/data/meta.mat", mat_file(synsets(META)))
        add(tar, "kit/data/ILSVRC2012_validation_ground_truth.txt", b"3\n1\n2\n1\n3\n")
    how = one(rng, ["look", "prepare"])
    job = base.prepare(folder) if how == "prepare" else base.calling(layouts.look, folder)
    return f"{how}: {kind}", expected.get(kind, EITHER), job


# --- lists and tables -------------------------------------------------------------------


def lists(base, rng, folder):
    kaggle, how = rng.random() < 0.4, one(rng, ["look", "prepare"])
    source = folder / "source"
    if kaggle:
        root = "ILSVRC/Data/CLS-LOC"
        lay_out(source, {f"{root}/train/{wnid}/{wnid}_1.JPEG": file_of(wnid) for wnid in WNIDS}
                | {f"{root}/val/{name}": data for name, data in VAL_FILES.items()})
        path, text = source / "LOC_val_solution.csv", "ImageId,PredictionString\n" + "".join(
            f"{Path(name).stem},{wnid} 1 2 3 4\n"
            for name, wnid in zip(VAL_FILES, VAL, strict=True))
        lines = ["", "x", ",", "\0", "x,", ",n01440764", f"x,{WNIDS[0]}", '"', "../x,n01440764 1",
                 f"{val_name(1)[:-5]},n09999999 1", "é,è", "a,b,c,d", '"' + "x" * 200_000]
    else:
        lay_out(source, {f"{wnid}/{n}.jpg": file_of(wnid) for wnid in WNIDS for n in (0, 1)})
        path, text = source / "train.txt", "".join(
            f"{wnid}/{n}.jpg {label}\n" for label, wnid in enumerate(WNIDS) for n in (0, 1))
        lines = ["x", "x.jpg -1", "x.jpg 1.5", "x.jpg 99999999999", "x.jpg 50000000", " 1",
                 "x.jpg 2147483647", "x.jpg 1 1", "\0 1", "../../canary/x 1", "/etc/passwd 0",
                 "é 1", "x.jpg ٣", "x.jpg ²", "x" * 100_000 + " 1", "/dev/zero 0", "nowhere.jpg 1"]
    kind = one(rng, ["encoding", "encoding", "line", "line", "line", "damaged", "empty",
                     "endings"])
    data, expected, what = text.encode(), EITHER, kind
    if kind == "encoding":
        what = one(rng, ["latin-1", "utf-16", "utf-32", "utf-8-sig"])
        data = text.replace("n01440764,", "né,").encode(what)
        expected = ACCEPTED if what in ("latin-1", "utf-8-sig") else REFUSED
    elif kind == "line":
        line = one(rng, lines)
        rows = text.splitlines()
        rows.insert(int(rng.integers(len(rows) + 1)), line)
        data, what = "\n".join(rows).encode(), f"line {line!r:.30}"
        expected = REFUSED if line in ("x", "x.jpg -1", "x.jpg 1.5", "x.jpg 99999999999",
                                       "x.jpg 2147483647") and not kaggle else EITHER
    elif kind == "damaged":
        data = damaged(data, rng)
    elif kind == "empty":
        data, expected = one(rng, [b"", b"\n\n", b"\xef\xbb\xbf"]), EITHER
    elif kind == "endings":
        data, expected = text.replace("\n", "\r\n").encode(), ACCEPTED
    path.write_bytes(data)
    what = f"{how}: {'table' if kaggle else 'list'}, {what}"
    job = base.prepare(source) if how == "prepare" else base.calling(layouts.look, source)
    return what, expected, job

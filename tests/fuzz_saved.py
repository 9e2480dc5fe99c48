"""Checkpoints, .safetensors and packed sets that are not as they were written.

What must be refused: weights, velocities and statistics that are missing, of another shape or
type, not finite or of another content than their checksum says, by whoever reads them; progress,
recipe and classes of another type; labels that are no classes; files shorter or longer than
their index says. Everything else may go either way, but in a clean one.
"""
import copy
import io
import json
import os
import shutil
import warnings
import zipfile

import numpy as np

from fuzzing import (
    ACCEPTED,
    EITHER,
    REFUSED,
    damaged,
    flipped,
    mutated,
    one,
    same_type,
    shuffled,
    truncated,
)
from tinynet.training.saved import Saved


class Evil:
    def __reduce__(self):
        return os.system, ("touch ../canary/run",)


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version, allow_pickle=True)
    return file.getvalue()


def npy_of(shape, descr, content=b"", order=False):
    """An entry whose header says whatever it says."""
    file = io.BytesIO()
    file.write(np.lib.format.magic(1, 0))
    header = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return file.getvalue() + len(header).to_bytes(2, "little") + header + content


def npz(path, entries, compression=zipfile.ZIP_STORED):
    """entries: [(name, array or bytes)]."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries:
            file.writestr(f"{name}.npy", content if isinstance(content, bytes) else npy(content))


# --- checkpoints ------------------------------------------------------------------------

READS = {"read": "", "test": ("weights/", "statistics/"), "predict": ("weights/", "statistics/"),
         "export": ("weights/", "statistics/"), "init": "weights/",
         "resume": ("weights/", "velocity/", "statistics/")}


def reader(base, how, path):
    """The job that reads a checkpoint in one of the ways that there are."""
    def read():
        saved = Saved.of_alexnet(path)
        saved.file.arrays("")

    return {"read": base.calling(read),
            "test": base.alexnet("test", path, "-j", 1, *base.CPU),
            "predict": base.alexnet("predict", path, base.picture, *base.CPU),
            "export": base.alexnet("export", path, "net.safetensors"),
            "resume": base.alexnet("train", "--resume", path, "--steps", 4, "-j", 1,
                                   "--output-dir", "run", *base.CPU),
            "init": base.train(base.pictures, "--init-from", path)}[how]


def checkpoints(base, rng, folder):
    path, how = folder / "net.npz", one(rng, READS)
    what, expected = one(rng, [_bytes, _bits, _array, _array, _array, _meta, _meta, _meta,
                               _entries])(base, rng, path, how)
    return f"{how}: {what}", expected, reader(base, how, path)


def _bytes(base, rng, path, how):
    whole = (base.run / "last.npz").read_bytes()
    kind = one(rng, [truncated, shuffled, flipped, damaged])
    changed = kind(whole, rng)
    if rng.random() < 0.5:                 # the directory of the archive, or the first headers
        start = one(rng, [0, len(whole) - 2000])
        changed = whole[:start] + kind(whole[start:start + 2000], rng) + whole[start + 2000:]
    path.write_bytes(changed)
    return kind.__name__, EITHER if changed else REFUSED


def _bits(base, rng, path, how):
    """In the numbers of an array: its checksum tells."""
    whole = (base.run / "last.npz").read_bytes()
    with zipfile.ZipFile(base.run / "last.npz") as file:
        entry = one(rng, [entry for entry in file.infolist() if entry.filename != "meta.npy"])
    at = entry.header_offset + 26
    data = at + 4 + sum(np.frombuffer(whole[at:at + 4], "<u2").tolist())     # name, extra field
    path.write_bytes(flipped(whole, rng, data + 128, data + entry.file_size))
    return (f"bits of {entry.filename}",
            REFUSED if entry.filename.startswith(READS[how]) else EITHER)


def _array(base, rng, path, how):
    name = one(rng, [name for name in base.arrays if name.startswith(
        one(rng, ["weights/", "velocity/", "statistics/"]))])
    array, entries = base.arrays[name], dict(base.arrays, meta=np.array(json.dumps(base.meta)))
    what, new, expected = odd(array, rng)
    entries[name] = new
    npz(path, entries.items())
    reads = name.startswith(READS[how])
    if expected == REFUSED and not reads or what == "shape" and how in ("init", "read"):
        expected = EITHER                  # init: layers of other sizes are drawn anew
    return f"{name}: {what} {new if isinstance(new, bytes) else new.dtype}"[:300], expected


def odd(array, rng):
    """One of the odd_arrays, of every kind as often."""
    kinds = list(odd_arrays(array, rng))
    what = one(rng, sorted({what for what, *_ in kinds}))
    return one(rng, [kind for kind in kinds if kind[0] == what])


def odd_arrays(array, rng):
    """What can stand in the place of an array of floats: what it is, it, what is expected."""
    spoilt = array.copy()
    spoilt[tuple(rng.integers(0, array.shape))] = one(rng, [np.nan, np.inf, -np.inf])
    yield "not finite", spoilt, REFUSED
    yield "order", np.asfortranarray(array), ACCEPTED
    kind = one(rng, ["i4", "u1", "?", "c8", "U4", "S3", "M8[s]", "V4", "f2", "g"])
    with np.errstate(all="ignore"):
        other = array.astype("f4").view("V4") if kind == "V4" else array.astype(kind)
    yield "type", other, REFUSED
    yield "type", array.astype(one(rng, [">f4", ">f8", "<f8"])), EITHER
    yield "type", array.astype([("a", "f4"), ("b", "O")]), REFUSED
    yield "pickle", np.array([Evil()], object), REFUSED
    yield "pickle", npy(np.array(Evil(), object)), REFUSED
    for shape in (array[..., :-1], array[:0], array[None], np.float32(1), array.ravel()[:5],
                  np.zeros((3, 3, 3), "f4")):
        if np.shape(shape) != array.shape:
            yield "shape", np.asarray(shape), REFUSED
    raw = array.tobytes()
    for shape in ((1 << 40,), (-1, 3), (1 << 62, 1 << 62), (2.5,), "x", (True,), (), (0,) * 70,
                  (len(raw) // 4 + 1,)):
        yield "header", npy_of(shape, "<f4", raw), REFUSED if shape != (True,) else EITHER
    for descr in ("O", "<f4)", "<U99999999", "<U2147483647", [("a", "<f4")] * 2, "<f0", 7, None,
                  ("<f4", (1 << 40,)), "m8[1000000000000s]", "|V0"):
        yield "header", npy_of(array.shape, descr, raw), REFUSED
    yield "header", npy_of(array.shape, "<f4", raw).replace(b"False", b"[9**9**9]"), REFUSED
    yield "header", flipped(npy(array), rng, 0, 128), EITHER
    yield "header", npy(array, one(rng, [(2, 0), (3, 0)])), EITHER
    yield "content", npy(array)[:-4], REFUSED
    yield "content", npy(array) + b"more", EITHER
    yield "content", b"", REFUSED


def _meta(base, rng, path, how):
    """The JSON of a checkpoint, changed in a place, or as a text."""
    if rng.random() < 0.2:
        text = json.dumps(base.meta)
        what, text = one(rng, [
            ("deep", "[" * 100_000), ("deep", '{"a":' * 100_000), ("not closed", text[:-1]),
            ("twice", text[:-1] + ", " + text[1:]), ("digits", text.replace("1", "1" * 5000)),
            ("null", "null"), ("list", f"[{text}]"), ("empty", ""),
            ("long", text[:-1] + ', "x": "' + "x" * 17_000_000 + '"}')])
        npz(path, dict(base.arrays, meta=np.array(text)).items())
        return f"meta {what}", EITHER
    if rng.random() < 0.1:
        meta = one(rng, [npy(np.array(Evil(), object)), npy_of((), "<U536870911"), np.zeros(3),
                         npy_of((), "<U40", b"\xff" * 160), np.array(["{}", "{}"]), b""])
        npz(path, dict(base.arrays, meta=meta).items())
        return "meta as an array", REFUSED
    meta, place, new, before = mutated(base.meta, rng)
    npz(path, dict(base.arrays, meta=np.array(json.dumps(meta))).items())
    strict = (place[:1] == ("recipe",) and len(place) > 1 and new is not ...
              and place[:2] != ("recipe", "std")       # a number is as good as "he" there
              or place in [("progress", name) for name in ("epoch", "step", "position")]
              or place[:1] == ("classes",) and len(place) > 1 or place == ("format",))
    wrong = strict and new is not None and how != "init" and (
        new is ... and place[0] == "progress" or not same_type(new, before))
    if new is ... and place[0] in ("classes",):
        wrong = how not in ("init", "read")            # fc8 has another size then
    return f"meta {place} = {new!r:.60}", REFUSED if wrong else EITHER


def _entries(base, rng, path, how):
    """The archive: what is in it, and how."""
    entries = list(dict(base.arrays, meta=np.array(json.dumps(base.meta))).items())
    kind = one(rng, ["deflated", "order", "more", "without", "twice", "overlapping", "bomb",
                     "path", "numpy's"])
    expected = {"order": ACCEPTED, "more": ACCEPTED if how != "read" else EITHER,
                "deflated": REFUSED, "twice": REFUSED, "bomb": REFUSED, "overlapping": REFUSED,
                "numpy's": ACCEPTED, "path": EITHER if how == "read" else ACCEPTED}.get(kind)
    compression = zipfile.ZIP_STORED
    if kind == "order":
        rng.shuffle(entries)
    elif kind == "more":
        entries.append(("other/thing", np.zeros(3, "f4")))
    elif kind == "without":
        name, _ = entries.pop(rng.integers(len(entries)))
        expected = REFUSED if name == "meta" or name.startswith(
            READS[how]) and how not in ("read", "init") else EITHER
    elif kind == "twice":
        entries.append((entries[0][0], entries[0][1] + 1))
    elif kind == "bomb":
        compression = zipfile.ZIP_DEFLATED
        entries.append((one(rng, ["meta", "weights/bomb", "other"]), bytes(200_000_000)))
    elif kind == "path":
        entries.append((one(rng, ["../canary/x", "/etc/x", "a\0b", "é" * 9000]), b"x"))
    elif kind == "deflated":
        compression = one(rng, [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                # of two entries with one name
        if kind == "numpy's":
            np.savez(path, **dict(entries))
        else:
            npz(path, entries, compression)
    if kind == "overlapping":
        _overlap(path)
    return kind, expected


def _overlap(path):
    """A thousand entries more that all have the bytes of the first."""
    with zipfile.ZipFile(path, "a") as file:
        first = file.infolist()[0]
        for number in range(1000):
            again = copy.copy(first)
            again.filename = f"weights/{number}.npy"
            file.filelist.append(again)
        file._didModify = True


# --- .safetensors -----------------------------------------------------------------------


def safetensors(base, rng, folder):
    path, whole = folder / "net.safetensors", base.net.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header, content = json.loads(whole[8:8 + size]), whole[8 + size:]
    kind, expected = one(rng, ["bytes", "header", "json", "json", "json", "offsets", "numbers",
                               "types", "length"]), REFUSED
    if kind == "bytes":
        new, expected = damaged(whole, rng), EITHER
    elif kind == "json":
        header, place, value, before = mutated(header, rng)
        new = joined(json.dumps(header), content)
        inside = place[0] != "__metadata__" and len(place) > 1
        expected = REFUSED if inside and not (value == before) else EITHER
        kind = f"{place} = {value!r:.60}"
    elif kind == "header":
        text = whole[8:8 + size].decode()
        kind, text = one(rng, [("deep", "[" * 200_000), ("twice", text.rstrip()[:-1] + ", "
                               + text[1:]), ("list", "[]"), ("null", "null"), ("open", text[:-9]),
                               ("not utf-8", text[:-9] + "\udcff"), ("digits", "1" * 5000)])
        new = joined(text, content)
    elif kind == "offsets":
        name = one(rng, sorted(set(header) - {"__metadata__"}))
        entry = header[name]
        start, end = entry["data_offsets"]
        entry["data_offsets"] = one(rng, [[0, end - start + 4], [end, start], [start - 4, end - 4],
                                          [start, 1 << 62], [-4, end - start - 4]])
        if one(rng, [True, False]):
            entry["shape"] = one(rng, [[-1], [1 << 40], [1 << 31, 1 << 31], [0], [-1, -1]])
        new = joined(json.dumps(header), content)
        if entry["data_offsets"] == [start, end]:
            expected = EITHER
    elif kind == "numbers":
        array = np.frombuffer(bytearray(content), "<f4")
        array[rng.integers(array.size)] = one(rng, [np.nan, np.inf, -np.inf])
        new = joined(json.dumps(header), array.tobytes())
    elif kind == "types":
        name = one(rng, sorted(set(header) - {"__metadata__"}))
        wrong = one(rng, ["F64", "F16", "BF16", "I32", "BOOL", "f32", "O", ""])
        if wrong == header[name]["dtype"]:     # what dropout has multiplied is F64
            expected = EITHER
        header[name]["dtype"] = wrong
        new = joined(json.dumps(header), content)
    else:
        length = one(rng, [0, 7, size + 8, 1 << 40, (1 << 64) - 1, len(whole)])
        new = length.to_bytes(8, "little") + whole[8:]
        new = one(rng, [new, whole[:8], b"", b"x", whole + b"\0" * 8])
    path.write_bytes(new)
    return f"init: {kind}", expected, reader(base, "init", path)


def joined(text, content):
    text = text.encode("utf-8", "surrogateescape")
    return len(text).to_bytes(8, "little") + text + content


# --- packed sets ------------------------------------------------------------------------


def packed_sets(base, rng, folder):
    how = one(rng, ["train", "test", "again"])
    whole = base.half if how == "again" else base.packed
    target = (base.out if how == "again" else folder) / "set"
    if how == "again":                     # is written to, so it is copied where one may write
        source, target = folder / "set", base.out / "set"
    else:
        source = target
    shutil.copytree(whole, source)
    what, expected = one(rng, [_about, _about, _index, _index, _pack, _statistics])(
        rng, source, how)
    job = {"train": base.train(target), "test": base.alexnet(
        "test", base.run, target, "-j", 1, *base.CPU), "again": base.prepare(
            base.pictures, target)}[how]

    def copied():
        if source != target:
            shutil.copytree(source, target)
        return job()

    return f"{how}: {what}", expected, copied


def _about(rng, folder, how):
    path = folder / ("preparing.json" if how == "again" else "prepared.json")
    if rng.random() < 0.3:
        path.write_bytes(damaged(path.read_bytes(), rng))
        return f"{path.name} damaged", EITHER
    about = json.loads(path.read_text())
    new, place, value, before = mutated(about, rng)
    path.write_text(json.dumps(new))
    read = place[0] in ("format", "classes") or place in [("splits",), ("words",)] or (
        place[-1] == "files" and (how, place[1]) != ("test", "train"))
    wrong = (new != about if how == "again" else read and value is not None
             and (value is ... or not same_type(value, before)))
    return f"{path.name} {place} = {value!r:.60}", REFUSED if wrong else EITHER


def _index(rng, folder, how):
    path = one(rng, sorted(folder.glob("*-*.npz")))
    read = path.name.startswith("val" if how == "test" else ("train", "val")) and how != "again"
    kind = rng.random()
    if kind < 0.3:
        path.write_bytes(damaged(path.read_bytes(), rng))
        return f"{path.name} damaged", EITHER
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    if kind < 0.45:
        meta = json.loads(str(arrays["meta"]))
        meta, place, value, _ = mutated(meta, rng)
        npz(path, dict(arrays, meta=np.array(json.dumps(meta))).items())
        return f"{path.name} meta {place} = {value!r:.60}", EITHER
    name = one(rng, ["index/labels", "index/lengths", "source/names", "sums/total",
                     "sums/products", "sums/count"])
    if rng.random() < 0.5 and name.startswith("index/"):
        spoilt = arrays[name].copy()
        spoilt[rng.integers(spoilt.size)] = one(rng, [-1, 3, 1 << 30, -(1 << 31), 1 << 20])
        what, expected = "a number", REFUSED
        arrays[name] = spoilt
    else:
        what, new, expected = odd(arrays[name].astype("f4"), rng) if (
            arrays[name].ndim) else ("shape", np.zeros(3, "i8"), REFUSED)
        arrays[name] = new
        expected = expected if what in ("shape", "pickle") else EITHER
    npz(path, arrays.items())
    return (f"{path.name} {name} {what}",
            expected if read and name.startswith("index/") else EITHER)


def _pack(rng, folder, how):
    path = one(rng, sorted(folder.glob("*.pack")))
    whole = path.read_bytes()
    new = one(rng, [flipped, truncated, lambda whole, rng: whole + b"x"])(whole, rng)
    path.write_bytes(new)
    read = how == "train" or how == "test" and path.name.startswith("val")
    return (f"{path.name}, {len(new)} bytes of {len(whole)}",
            REFUSED if read and len(new) != len(whole) else EITHER)


def _statistics(rng, folder, how):
    path = folder / "statistics.npz"
    if how == "again":                     # it comes last, and is made anew
        path.write_bytes(b"x")
        return "statistics.npz is there", EITHER
    if rng.random() < 0.3:
        path.write_bytes(damaged(path.read_bytes(), rng))
        return "statistics.npz damaged", EITHER
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    name = one(rng, ["mean", "variances", "components", "rgb_mean", "stdevs"])
    what, arrays[name], expected = odd(arrays[name], rng)
    if name == "variances" and rng.random() < 0.2:
        what, arrays[name], expected = "negative", -np.ones(3), REFUSED
    npz(path, arrays.items())
    return f"statistics.npz {name} {what}", expected

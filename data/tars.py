"""How are ImageNet's own tars read, and the devkit that says what is in them?

Nothing is unpacked: the headers say where in a tar the pictures begin. Whatever they claim, no
more is read than the file has, and no more is held than fits.
"""
import gzip
import io
import os
import tarfile
from pathlib import Path

from data import matlab
from tinynet.errors import UserError
from tinynet.progress import bar

HEADER, DEVKIT = 1 << 20, 256 << 20        # bytes at most: of a header, of a devkit unpacked


class Headers(io.BufferedReader):
    """A file of which a tar's headers are read: a header that claims to be long is refused."""

    def read(self, size=-1):
        if not 0 <= size <= HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return super().read(size)


class Archive(tarfile.TarFile):
    """A tar, compressed or not, of which no long header is read. Archive.open(fileobj=file)
    finds out how it is compressed."""

    def __init__(self, name, mode, fileobj, **how):
        headers = Headers(fileobj)
        try:
            super().__init__(name, mode, headers, **how)
        except tarfile.TarError:                     # it is tried as the next kind
            headers.detach()                         # who drops it would close the file
            raise


def members(path, inner=None):
    """Yield the files in a tar, or in one inside it (the open file `inner`), each with the open
    tar. Raises UserError if it ends too early, or is damaged in any other way."""
    try:
        with (Headers(inner or open(path, "rb", buffering=0)) as file,
              bar(0 if inner else path.stat().st_size >> 20,
                  f"reading the headers of {path.name} (MB)") as progress,
              tarfile.open(fileobj=file, mode="r:") as tar):
            end = file.seek(0, os.SEEK_END)
            for member in tar:
                if not member.offset < tar.offset <= end or not 0 <= member.size <= end:
                    raise tarfile.ReadError("a file in it reaches beyond its end")
                if member.isfile():
                    yield member, tar
                tar.members.clear()                  # else it remembers them all
                progress.update((member.offset >> 20) - progress.n)
            file.seek(tar.offset)
            if file.read(512) != bytes(512):         # tarfile takes any rubbish for the end
                raise tarfile.ReadError("it has no end mark")
    except (OSError, MemoryError):
        raise
    except Exception as error:                       # a damaged tar can fail in any way
        raise UserError(f"{path} is no whole tar ({error}): is the download complete? "
                        "--check compares its md5") from error


def base(member):
    """The name of a file in a tar, without folders."""
    return member.name.rpartition("/")[2]


def devkit(path):
    """Read ImageNet's devkit: number -> wnid, wnid -> what it is, and the val pictures' numbers.

    A number, 1 ... 1000, stands for a class; they are not in the order of the wnids. Raises
    UserError.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(DEVKIT + 1)
        if len(data) > DEVKIT:
            raise ValueError(f"it holds more than {DEVKIT:,} bytes")
        files = {base(member): data[member.offset_data:member.offset_data + member.size]
                 for member, _ in members(path, io.BytesIO(data))
                 if "/data/" in member.name and member.size <= matlab.MOST}
        truth = next(text for name, text in files.items()
                     if name.endswith("_validation_ground_truth.txt"))
        leaves = [synset for synset in matlab.load(files["meta.mat"])["synsets"]
                  if synset["num_children"][0] == 0]     # the others are no classes
        number = next(field for field in leaves[0] if field.endswith("_ID"))
        if not all(isinstance(synset[field], str) for synset in leaves
                   for field in ("WNID", "words")):
            raise ValueError("classes without names")
        return ({int(synset[number][0]): synset["WNID"] for synset in leaves},
                {synset["WNID"]: synset["words"] for synset in leaves},
                [int(line) for line in truth.split()])
    except UserError:                                # of a tar that is none
        raise
    except Exception as error:                       # a damaged one can fail in any way
        raise UserError(f"{path}: cannot read meta.mat and the validation labels in it "
                        f"({error!r}): is the download complete? --check compares its "
                        "md5") from error


def number_of(name, truth):
    """The devkit's number of the class of ILSVRC2012_val_00000001.JPEG."""
    try:
        number = int(Path(name).stem.split("_")[-1])
    except ValueError:
        number = 0
    if not 1 <= number <= len(truth):
        raise UserError(f"{name} in the val tar: the devkit has labels for {len(truth):,} "
                        "pictures and not for this one")
    return truth[number - 1]

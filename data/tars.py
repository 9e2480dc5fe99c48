"""How are ImageNet's own tars read, and the devkit that says what is in them?

Nothing is unpacked: the headers say where in a tar the pictures begin.
"""
import tarfile
import zlib
from pathlib import Path

from data import matlab
from tinynet.errors import UserError
from tinynet.progress import bar


def members(path, inner=None):
    """Yield the files in a tar, or in one inside it, each with the open tar. Raises UserError
    if it ends too early."""
    try:
        with (inner or open(path, "rb") as file,
              bar(0 if inner else path.stat().st_size >> 20,
                  f"reading the headers of {path.name} (MB)") as progress,
              tarfile.open(fileobj=file, mode="r:") as tar):
            for member in tar:
                if member.isfile():
                    yield member, tar
                tar.members.clear()                  # else it remembers them all
                progress.update((member.offset >> 20) - progress.n)
            file.seek(tar.offset)
            if file.read(512) != bytes(512):         # tarfile takes any rubbish for the end
                raise tarfile.ReadError("it has no end mark")
    except tarfile.TarError as error:
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
        with tarfile.open(path, "r:gz") as tar:
            files = {member.name.split("/")[-1]: tar.extractfile(member).read()
                     for member in tar if member.isfile() and "/data/" in member.name}
        truth = next(text for name, text in files.items()
                     if name.endswith("_validation_ground_truth.txt"))
        leaves = [synset for synset in matlab.load(files["meta.mat"])["synsets"]
                  if synset["num_children"][0] == 0]     # the others are no classes
        number = next(field for field in leaves[0] if field.endswith("_ID"))
        return ({int(synset[number][0]): synset["WNID"] for synset in leaves},
                {synset["WNID"]: synset["words"] for synset in leaves},
                [int(line) for line in truth.split()])
    except (tarfile.TarError, OSError, EOFError, ValueError, LookupError, StopIteration,
            zlib.error) as error:
        raise UserError(f"{path}: cannot read meta.mat and the validation labels in it "
                        f"({error!r}): is the download complete? --check compares its "
                        "md5") from error


def number_of(name, truth):
    """The devkit's number of the class of ILSVRC2012_val_00000001.JPEG."""
    try:
        return truth[int(Path(name).stem.split("_")[-1]) - 1]
    except (ValueError, IndexError) as error:
        raise UserError(f"{name} in the val tar: the devkit has labels for {len(truth):,} "
                        "pictures and not for this one") from error

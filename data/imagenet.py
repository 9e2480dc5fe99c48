"""How does ImageNet, as people have it, become what can be trained on?

Every picture is brought to 256 x 256 (shorter side to 256, the central square), stored as a
JPEG again, and packed into a few large files, see tinynet/pictures/packed.py. The source is only
read. Killed half-way, the same command goes on where it was.

    python data/imagenet.py SRC DST
    python alexnet.py train DST

Classes are in sorted order, as Caffe and PyTorch have them; the devkit numbers them otherwise.
Lists keep their own numbers. Photographs are turned upright, as EXIF says the camera was held.
Mean image and colours are those of the JPEGs that are stored, which is what the net sees.
"""
import hashlib
import io
import json
import os
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

try:
    import numpy as np
    from PIL import Image
    from threadpoolctl import threadpool_limits

    from data.layouts import TREES, check, look
    from tinynet import rng, store
    from tinynet.cores import cores
    from tinynet.errors import UserError
    from tinynet.pictures import batches, images, packed
    from tinynet.progress import bar, say, shown
    from tinynet.training.claim import Claim
    from tinynet.training.program import Parser, at_least, command, exit_status, os_error, typed
except ModuleNotFoundError as error:
    sys.exit(f"imagenet.py: error: {error}; start the environment first: . .venv/bin/activate "
             "(README's first command makes it)")

MODES = {"L": "grey", "LA": "grey", "1": "black-and-white", "P": "palette",
         "I;16": "16-bit grey", "I": "16-bit grey"}         # as newer and older Pillows have it


# --- from source to target -----------------------------------------------------------------


def prepare(source, target, *, quality=95, per_file=8192, workers=None, val_share=0.0,
            fit="crop"):
    """Pack the pictures of `source` into the folder `target`: what prepared.json says, a dict.

    quality: of the JPEGs, 1 ... 100. per_file: how many pictures go into one file. workers:
    threads (default: one for each core that they may use). val_share: of a source without val
    pictures, the fraction of its pictures that is held back to test with. fit: as images.read
    has it. Finished files are kept and not made again. Raises UserError: no layout that is
    known, or other settings than those `target` was begun with.
    """
    source, target = Path(source), Path(target)
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise UserError(f"{target} lies in {source}, where nothing is to be written: "
                        "choose another place")
    found = look(source, val_share)
    settings = dict(side=images.SIDE, quality=quality, per_file=per_file, val_share=val_share,
                    fit=fit, layout=found.layout, source={split: fingerprint(pictures)
                                                 for split, pictures in found.splits.items()},
                    classes=found.classes, words=found.words)
    settings = json.loads(json.dumps(settings))        # as they will be read
    with closing(Claim(target)) as claim:
        if begin(target, settings, claim.path.name):
            say(f"{shown(target)} is prepared already")
        else:
            with threadpool_limits(1):
                shards = {split: pack(target, split, pictures, (quality, fit), per_file,
                                      workers or cores())
                          for split, pictures in found.splits.items()}
            finish(target, settings, shards)
    return packed.read_about(target / packed.PREPARED, packed.ABOUT)


def begin(target, settings, lock):
    """Record the settings, or compare them with those recorded. Returns whether all is done.
    lock: the name of the file that may be in `target` at the start."""
    finished, begun = target / packed.PREPARED, target / packed.PREPARING
    if finished.exists() or begun.exists():
        recorded = packed.read_about(finished if finished.exists() else begun, {})
        recorded.setdefault("fit", "crop")             # of the time before it could be chosen
        other = [name for name in settings if settings[name] != recorded.get(name)]
        if other:
            differences = "; ".join(f"{name}: {brief(recorded.get(name))} then, "
                                    f"{brief(settings[name])} now" for name in other)
            raise UserError(f"{target} was begun otherwise ({differences}): prepare as before, "
                            "choose another folder, or delete this one")
        if finished.exists():
            begun.unlink(missing_ok=True)
        return finished.exists()
    if {entry.name for entry in target.iterdir()} - {lock}:
        raise UserError(f"{target} holds other files: choose a new or an empty folder")
    packed.write_about(begun, settings)
    return False


def brief(setting):
    """A setting as JSON, if that is short."""
    text = json.dumps(setting)
    return text if len(text) < 40 else "another list"


def fingerprint(pictures):
    """Which pictures with which labels these are, in short."""
    digest = hashlib.sha256(np.asarray(pictures.labels, "<i4").tobytes())
    for name in pictures.names:
        digest.update(os.fsencode(name) + b"\0")
    return dict(pictures=len(pictures.names), sha256=digest.hexdigest())


def pack(target, split, pictures, how, per_file, workers):
    """Write the files of one split that are not there yet. Returns all its shards."""
    order = np.arange(len(pictures.names))
    if split == "train":              # read in their stored order they come well mixed
        order = rng.permutation(len(order), seed=0, purpose=rng.PACKING)
    parts = {packed.Shard(target, split, number): order[first:first + per_file]
             for number, first in enumerate(range(0, len(order), per_file))}
    missing = [shard for shard in parts if not shard.is_whole()]
    todo = [index for shard in missing for index in parts[shard]]

    def job(index):
        return repacked(pictures, index, *how)

    with (bar(len(order), f"packing {split}", len(order) - len(todo)) as progress,
          closing(batches.in_order(job, todo, workers)) as results):
        for shard in missing:
            write(shard, parts[shard], results, pictures, progress)
    return list(parts)


def write(shard, indices, results, pictures, progress):
    """Write one shard from the results for these indices."""
    sums, notes = images.Sums(), {"skipped": [], "converted": []}

    def entries():
        for index, result in zip(indices, results, strict=False):      # more follow
            name = pictures.names[index]
            progress.update()
            if isinstance(result, images.BrokenPicture):
                notes["skipped"].append([name, str(result).removeprefix(f"{name}: ")])
                continue
            jpeg, stored, products, kind = result
            sums.add(stored, products)
            if kind != "RGB JPEG":
                notes["converted"].append([name, kind])
            yield jpeg, pictures.labels[index], name

    shard.write(entries(), sums, notes)


def repacked(pictures, index, quality, fit):
    """One picture as its new JPEG, the pixels that come out of this (it is those that a net
    sees), their colour products, and its kind before; or the BrokenPicture it is."""
    name = pictures.names[index]
    try:
        data = pictures.read(index)
        picture = images.read(io.BytesIO(data), name, fit)
    except images.BrokenPicture as error:
        return error
    except OSError as error:
        if error.errno in images.OF_ONE_PATH and os.path.exists(pictures.root):     # all is there
            return images.broken(name, error.strerror)
        raise UserError(f"cannot read {name} in {pictures.root}: {error.strerror or error}; "
                        "what is finished stays: run the same command again") from error
    with Image.open(io.BytesIO(data), formats=images.KINDS) as original:
        kind = f"{MODES.get(original.mode, original.mode)} {original.format}"
    jpeg = io.BytesIO()
    Image.fromarray(picture).save(jpeg, "JPEG", quality=quality)
    stored = images.read(jpeg)
    return jpeg.getvalue(), stored, images.colour_products(stored), kind


def finish(target, settings, shards):
    """Combine what the shards counted; prepared.json comes last."""
    sums, notes, splits = images.Sums(), {"skipped": [], "converted": []}, {}
    for split, parts in shards.items():
        counts = dict(pictures=0, files=len(parts), bytes=0, skipped=0, converted=Counter())
        for shard in parts:
            shard_sums, shard_notes = shard.sums_and_notes()
            if split == "train":
                sums.add(*shard_sums)
            counts["pictures"] += int(shard_sums[-1])
            counts["bytes"] += shard.pack.stat().st_size
            counts["skipped"] += len(shard_notes["skipped"])
            counts["converted"].update(kind for _, kind in shard_notes["converted"])
            for what in notes:
                notes[what] += [f"{name}\t{why}\n" for name, why in shard_notes[what]]
        if not counts["pictures"]:
            raise UserError(f"none of the {split} pictures can be read, the last because: "
                            + notes["skipped"][-1].replace("\t", ": ").strip())
        counts["converted"] = dict(sorted(counts["converted"].items()))
        splits[split] = counts
    for what, lines in notes.items():
        with store.replacing(target / f"{what}.txt") as file:
            file.write("".join(lines).encode(errors="surrogateescape"))
    if "train" in shards:
        packed.write_statistics(target / packed.STATISTICS, sums.statistics())
    packed.write_about(target / packed.PREPARED, dict(settings, splits=splits))
    (target / packed.PREPARING).unlink()


# --- the command line ------------------------------------------------------------------------


def report(target, about):
    """Say what was prepared."""
    for split, counts in about["splits"].items():
        say(f"{split}: {counts['pictures']:,} pictures, {counts['bytes'] / 1e6:,.1f} MB, "
            f"{counts['bytes'] / counts['pictures'] / 1e3:.1f} kB each; "
            f"{counts['skipped']:,} skipped, "
            f"{sum(counts['converted'].values()):,} converted")
        for kind, count in counts["converted"].items():
            say(f"  {count:,} {kind}")
    if any(counts["skipped"] or counts["converted"] for counts in about["splits"].values()):
        say(f"they are listed in {shown(target / 'skipped.txt')} and "
            f"{shown(target / 'converted.txt')}")
    if "train" in about["splits"]:
        found = packed.read_statistics(target / packed.STATISTICS)
        for what, numbers in (("mean of R, G, B", found.mean.mean(axis=(0, 1), dtype=float)),
                              ("variances along the components", found.variances),
                              ("standard deviations", np.sqrt(found.variances))):
            say(f"{what}: " + " ".join(f"{number:.2f}" for number in numbers))


def parser():
    main = Parser(description=f"{__doc__}\nSRC is one of\n\n{TREES}", prog="imagenet.py")
    add = main.add_argument
    add("source", metavar="SRC", type=Path, help="where the pictures are; it is only read")
    add("target", metavar="DST", type=Path, help="a new folder, or one that is half prepared")
    add("--quality", metavar="Q", type=at_least(1, 100), default=95,
        help="of the JPEGs, 1 ... 100 (%(default)s)")
    add("--fit", choices=images.FITS, default="crop",
        help="crop: shorter side to 256, the central square; squeeze: both sides (%(default)s)")
    add("--val-share", metavar="P", type=typed(share, "a number from 0 to 1"), default=0.0,
        help="without val pictures: hold this share back to test with, 0 ... 1 (%(default)s)")
    add("--per-file", metavar="N", type=at_least(1, 1 << 16), default=8192,
        help="pictures in a file (%(default)s)")
    add("-j", "--workers", metavar="N", type=at_least(1, 1024), default=cores(),
        help="threads (one a core: %(default)s)")
    add("--check", action="store_true", help="first compare the md5 of ImageNet's tars")
    return main


def share(text):
    """A number from 0 to 1. Raises ValueError for another, and for nan."""
    if not 0 <= float(text) <= 1:
        raise ValueError
    return float(text)


def start(args):
    try:
        if args.check:
            check(args.source)
        about = prepare(args.source, args.target, quality=args.quality, per_file=args.per_file,
                        workers=args.workers, val_share=args.val_share, fit=args.fit)
    except OSError as error:
        why = os_error(error) if error.filename else error.strerror or error
        raise UserError(f"{why}; what is finished stays in {shown(args.target)}: when that is "
                        "mended, run the same command again") from error
    report(args.target, about)
    if len(about["splits"]) == 2:
        say(f"train with\n  {command('train', Path(args.target))}")
    return 0


def main(argv=None):
    args = parser().parse_args(argv)
    return exit_status("imagenet.py", lambda: start(args),
                       go_on="finished files stay: run the same command again")


if __name__ == "__main__":
    sys.exit(main())

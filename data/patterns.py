"""Draw the data set of ten patterns that AlexNet learns when it is given no pictures.

    python data/patterns.py                        into data/patterns, next to this file
    python data/patterns.py --sheet patterns.png   a few of each class on one sheet
"""
import sys
from pathlib import Path

try:
    from tinynet.pictures.patterns import draw, sheet
    from tinynet.training import figures
    from tinynet.training.program import SEED, Parser, at_least, exit_status
    from tinynet.training.saved import output_file
except ModuleNotFoundError as error:
    sys.exit(f"patterns.py: error: {error}; start the environment first: . .venv/bin/activate "
             "(README's first command makes it)")

HERE = Path(__file__).resolve().parent
MOST = 1_000_000               # pictures of a class


def start(args):
    if args.sheet:
        output_file(args.sheet, ".png")
        figures.save(sheet(args.seed), args.sheet)
    else:
        draw(args.folder, args.train, args.val, args.seed, args.size)
    return 0


def main(argv=None):
    parser = Parser(description="Draw a data set of ten patterns.", prog="patterns.py")
    add = parser.add_argument
    add("folder", metavar="DIR", nargs="?", default=HERE / "patterns",
        help="where to draw it (default: patterns, next to this file)")
    add("--train", metavar="N", type=at_least(1, MOST), default=200,
        help="pictures per class (200)")
    add("--val", metavar="N", type=at_least(1, MOST), default=50, help="pictures per class (50)")
    add("--seed", metavar="S", type=SEED, default=0, help="another seed, other pictures (0)")
    add("--size", metavar="P", type=at_least(1, 8192), default=256,
        help="pixels per side (256)")
    add("--sheet", metavar="FILE", help="only draw a sheet of examples, into this PNG file")
    args = parser.parse_args(argv)
    return exit_status("patterns.py", lambda: start(args))


if __name__ == "__main__":
    sys.exit(main())

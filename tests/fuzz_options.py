"""Options with values that make no sense, through the parser and through the whole program.

What must be refused: words where numbers are wanted, nothing at all, numbers that are not finite,
negative ones where there is no meaning in them, another count of numbers than there are layers.
"""
import alexnet
from fuzzing import EITHER, REFUSED, one
from tinynet.training import options as command_line
from tinynet.training import recipes

WORDS = ["", "x", "nan", "inf", "-inf", "1e400", "-1e400", "-1", "-0.5", "0x10", "1_0_", "1;2",
         "--", "٣x", "1e", "\x00", "é", "None", "1,,2", ",", "9" * 5000]
NUMBERS = ["0", "1", "2", "0.5", "1e-300", "1e30", "1e308", "1048576", "1048577", "2147483648",
           "1e5", "9007199254740993", "99999999999999999999", "１２", "٣", "1_000", " 7", "+1",
           "-0", "he"]
COUNTS = ["steps", "seed", "print-freq", "save-freq", "stall-steps", "workers"]
NEGATIVE = {"bias"}                        # the only option that may be


def options(base, rng, folder):
    """One option of train with one value, or a tuple of which one number is odd."""
    field = one(rng, [*recipes.options(), *COUNTS, "weights"])
    if isinstance(field, str):
        name, value = field, one(rng, one(rng, [WORDS, NUMBERS]))
        wrong = value in WORDS
    else:
        name = field.name.replace("_", "-")
        if field.type is bool:
            return f"--{name}=1", REFUSED, parsed(base, "train", f"--{name}=1")
        value = one(rng, one(rng, [WORDS, NUMBERS]))
        wrong = value in WORDS and not (field.name in NEGATIVE and value in ("-1", "-0.5"))
        if field.type is tuple and rng.random() < 0.7:
            numbers = [str(number) for number in field.default]
            numbers[rng.integers(len(numbers))] = value
            value = ",".join(numbers + ["1"] * (rng.random() < 0.2))
        if field.name in recipes.LENGTHS:
            count = len(value.split(","))
            one_for_all = count == 1 and field.name in ("std", "bias")
            wrong = wrong or count != recipes.LENGTHS[field.name] and not one_for_all
    if name == "weights":
        words = "test", base.run, base.run, base.pictures, "--device", "cpu"
        return f"--weights={value!r:.60}", (
            REFUSED if wrong and value != "--" else EITHER), base.alexnet(
                *words, f"--weights={value}"), True
    given = f"--{name}={value}"
    expected = REFUSED if wrong else EITHER
    if rng.random() < 0.5:
        return f"{given:.80}", expected, parsed(base, "train", given), True
    return f"whole: {given:.80}", expected, base.alexnet(
        "train", base.pictures, *base.TRAIN, "--output-dir", "run", *(
            [] if name == "steps" else ["--steps", 1]), given), True


def parsed(base, *words):
    """The parser and what checks a recipe, and no more."""
    def parse():
        args = alexnet.parser().parse_args(words)
        command_line.chosen_recipe(args)

    return base.calling(parse)

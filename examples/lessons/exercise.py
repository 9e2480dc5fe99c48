"""What is an exercise? A reference, cases, and the mistakes that people really make.

The reader's function runs on the cases beside the reference. Where they differ, every known
mistake, a wrong function, runs on the same cases. If one of them gives what the reader's
function gave on *all* cases, then that is the mistake, and its sentence is the answer. So the
cases are chosen to tell the mistakes apart: no size equals another, p is not 0.5, and the
windows of a pool overlap.
"""
import inspect
import re
import traceback
from dataclasses import dataclass, field
from textwrap import fill

import numpy as np


@dataclass(frozen=True)
class Exercise:
    """A function for the reader to write.

    number: "5.1", the first exercise of lesson 5. name: that of the function. ask: what it
    does, in a sentence or two. reference: a right one. cases: tuples of arguments. mistakes:
    {sentence: wrong function}. tolerance: how far from the reference a right answer may be,
    relative to the largest number. hint: for whoever does not know how to begin.
    """

    number: str
    name: str
    ask: str
    reference: object
    cases: list
    mistakes: dict
    tolerance: float = 1e-7
    hint: str = ""

    def verdict(self, mine):
        """None if the function `mine` is right, else what to tell the reader."""
        answers = []
        for case in self.cases:
            given = copies(case)
            try:
                answers.append(mine(*given))
            except Exception as error:
                return where(error, mine)
            if answers[-1] is None:
                return f"{self.name} returns None: is there a return?"
            if not all(map(same, arrays(given), arrays(case))):
                return "it writes into one of its arguments, which the caller may still need"
        wanted = self.results(self.reference)
        if self.agree(answers, wanted):
            return self.remark(answers)
        for sentence, wrong in self.mistakes.items():
            if self.agree(answers, self.results(wrong)):
                return sentence
        return self.difference(answers, wanted)

    def remark(self, answers):
        """None, or what is still to be told of answers whose numbers are right."""
        return None

    def results(self, function):
        return [function(*copies(case)) for case in self.cases]

    def agree(self, answers, others):
        return all(same(one, other, self.tolerance)
                   for mine, theirs in zip(answers, others, strict=True)
                   for one, other in matched(mine, theirs))

    def difference(self, answers, wanted):
        """The first place at which the answers are not what is wanted."""
        for number, (case, mine, theirs) in enumerate(
                zip(self.cases, answers, wanted, strict=True), start=1):
            call = f"case {number}, {self.name}({', '.join(map(describe, case))})"
            pairs = matched(mine, theirs)
            for place, (got, want) in enumerate(pairs, start=1):
                at = f"{call}, result {place} of {len(pairs)}" if len(pairs) > 1 else call
                if callable(got):
                    return f"{at}: it is a function, not what the function gives"
                if isinstance(want, str) and not same(got, want):
                    return f"{at}: {got} instead of {want}"
                if np.asarray(got).dtype.kind not in "fiub":
                    return f"{at}: {got!r} came, and numbers are wanted"
                if np.shape(got) != np.shape(want):
                    return f"{at}: the shape is {np.shape(got)}, not {np.shape(want)}"
                if not same(got, want, self.tolerance):
                    return f"{at}: {first_difference(got, want, self.tolerance)}"
        raise AssertionError("there is no difference")

    def show(self):
        """What is asked, and the first case: what comes in, and what is to come out."""
        case = self.cases[0]
        names = inspect.signature(self.reference).parameters
        lines = [f"{self.name}({', '.join(names)})", fill(self.ask, 78), ""]
        lines += [f"{name} = {describe(value, all_of_it=True)}"
                  for name, value in zip(names, case, strict=False)]
        result = self.reference(*copies(case))
        lines.append(f"gives {describe(result, all_of_it=True)}")
        return "\n".join(lines + hinted(self.hint))


@dataclass(frozen=True)
class Question:
    """A question whose answer is a number or a word.

    right: it. mistakes: {sentence: wrong answer}; where the answer is a word, all other choices.
    tolerance: by which factor of itself a number may be off.
    """

    number: str
    ask: str
    right: object
    mistakes: dict = field(default_factory=dict)
    tolerance: float = 0.0
    hint: str = ""

    def verdict(self, mine):
        """None if the answer is right, else what to tell the reader. A number may come as text,
        with commas between thousands, letters with commas or spaces between them."""
        if self.is_answer(mine, self.right):
            return None
        for sentence, wrong in self.mistakes.items():
            if self.is_answer(mine, wrong):
                return sentence
        if isinstance(self.right, str):
            letter = len(self.right) == 1 < len(str(mine).strip())
            choices = ", ".join(sorted({self.right, *self.mistakes.values()}))
            return f"one {'letter' if letter else f'of {choices}'} is wanted, not {mine!r}"
        try:
            return f"{number_of(mine):,.10g} is not it"
        except ValueError:
            return f"a number is wanted, not {mine!r}"

    def is_answer(self, mine, value):
        if isinstance(value, str):
            between = r"[,\s]" if value.isalpha() else ""
            return re.sub(between, "", str(mine)).strip().lower() == value.lower()
        try:
            return abs(number_of(mine) - value) <= self.tolerance * abs(value) + 1e-12
        except ValueError:
            return False

    def show(self):
        return "\n".join([fill(self.ask, 78), *hinted(self.hint)])


def hinted(hint):
    return ["", fill(f"a hint: {hint}", 78)] if hint else []


def number_of(text):
    """1,234,567 is a number, 1,10 is none: commas stand between groups of three digits."""
    text = str(text).strip()
    grouped = re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", text)
    return float(text.replace(",", "") if grouped else text)


def same(one, other, tolerance=0.0):
    """Whether two values agree: arrays and numbers within the tolerance, the rest if equal."""
    if isinstance(one, (str, bool)) or isinstance(other, (str, bool)):
        return bool(np.ndim(one) == np.ndim(other) == 0 and one == other)
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return False
    if not tolerance or one.dtype.kind not in "fiub" or other.dtype.kind not in "fiub":
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    largest = np.abs(other[np.isfinite(other)]).max(initial=0.0)
    return np.allclose(one, other, rtol=0, atol=tolerance * largest + 1e-12, equal_nan=True)


def matched(mine, theirs):
    """Pairs of what two functions returned: of a tuple or list of arrays, one after the other."""
    several = isinstance(theirs, (tuple, list))
    if isinstance(mine, (tuple, list)) != several or several and len(mine) != len(theirs):
        return [(counted(mine), counted(theirs))]
    return list(zip(mine, theirs, strict=True)) if several else [(mine, theirs)]


def counted(result):
    return f"{len(result)} values" if isinstance(result, (tuple, list)) else "one value"


def arrays(case):
    return [value for value in case if isinstance(value, np.ndarray)]


def copies(case):
    return [value.copy() if isinstance(value, np.ndarray) else value for value in case]


def last_frame(error, home=None):
    """Where an error was raised; of the file `home` the last place on the way there, or None."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame for frame in reversed(frames) if home in (None, frame.filename)), None)


def where(error, mine):
    """An error in the reader's file: its line there, and not that of a library."""
    home = inspect.getsourcefile(mine) if inspect.isfunction(mine) else None
    frame = last_frame(error, home)
    if frame is None:                                  # it could not even be called
        return f"{type(error).__name__}: {error}"
    return f"line {frame.lineno}: {type(error).__name__}: {error}\n    {frame.line}"


def describe(value, all_of_it=False):
    """An argument, in few words or with all its numbers."""
    if callable(value):
        return getattr(value, "__name__", "a function")
    if isinstance(value, (tuple, list)):
        return f"({', '.join(describe(part, all_of_it) for part in value)})"
    if isinstance(value, np.ndarray) and not all_of_it:
        return f"{value.dtype} {value.shape}"
    if type(value) is np.ndarray:
        return np.array2string(value, precision=4, separator=", ", threshold=200)
    return repr(value)


def first_difference(got, want, tolerance):
    got, want = np.asarray(got, float), np.asarray(want, float)
    if got.ndim == 0:
        return f"{got:.6g}, not {want:.6g}"
    off = ~np.isclose(got, want, rtol=0, atol=tolerance * np.abs(want).max() + 1e-12)
    place = tuple(int(i) for i in np.argwhere(off)[0])
    return (f"{off.sum()} of {got.size} numbers differ, the first at {place}: "
            f"{got[place]:.6g}, not {want[place]:.6g}")

"""How is a pickle read without running any of it?

A pickle is a program for a machine with a stack. Here its instructions are stepped through, and
only those that arrays need are known. Where it names a function, a function of ours takes the
place, one of a few; any other name is refused. What it makes is None, numbers, text, bytes,
tuples, lists, dicts, and what these functions return.

Bytes are views of the file. A pickle may hold itself, or a tuple of tuples as wide as 2^40: so
nothing here walks through what was made, and a key of a dict is text or a number. It may hand the
same list or text to function after function, each of which copies it: all of these together may
be as long as the file is.
"""
import struct

MOST = 1 << 17             # instructions: a net takes some 500, 10,000 pictures up to 120,000
LONGEST = 200              # bytes of a name


class Called:
    """A name that a pickle may use, and the function that takes its place."""

    def __init__(self, function):
        self.function = function


def read(data, at, known, stored=None):
    """What the pickle makes that begins at data[at], and where it ends.

    data: a memoryview. known: "module name" -> the function that takes its place. stored: what
    makes a value of a persistent id. Raises ValueError, or what Python raises for a damaged one.
    """
    stack, marks, notes, left = [], [], {}, len(data)

    def take(count):
        nonlocal at
        if count > len(data) - at:
            raise ValueError(f"{count:,} bytes are to follow, {len(data) - at:,} do")
        at += count
        return data[at - count:at]

    def number(size, signed=False):
        return int.from_bytes(take(size), "little", signed=signed)

    def text(size):
        return str(take(size), "utf-8")

    def line():
        end = bytes(data[at:at + LONGEST]).index(b"\n")
        return str(take(end + 1)[:-1], "ascii")

    def pop():
        if len(stack) <= (marks[-1] if marks else 0):
            raise ValueError("it takes more than there is")
        return stack.pop()

    def last(count):
        return [pop() for _ in range(count)][::-1]

    def since_mark():
        made = stack[(mark := marks.pop()):]
        del stack[mark:]
        return made

    def name(module, own):
        if type(module) is not str or type(own) is not str:
            raise ValueError("a name that is no text")
        if f"{module} {own}" not in known:
            raise ValueError(f"it wants to use {module[:99]}.{own[:99]}, which may be a program: "
                             "save arrays alone, of PyTorch model.state_dict()")
        return Called(known[f"{module} {own}"])

    def spend(values):
        nonlocal left
        left -= sum(len(value) for value in values if isinstance(value, (str, list, tuple, dict)))
        if left < 0:
            raise ValueError("it copies the same again and again")

    def call(function, arguments):
        if type(function) is not Called or type(arguments) is not tuple:
            raise ValueError("it calls what is no function")
        spend(arguments)
        return function.function(*arguments)

    def set_items(items):
        for key, value in zip(items[::2], items[1::2], strict=True):
            key = str(key, "latin1") if type(key) is memoryview else key     # Python 2's text
            if type(key) not in (str, int) or type(stack[-1]) is not dict:
                raise ValueError("a key that is neither text nor a number")
            stack[-1][key] = value

    def append(items):
        if type(stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        stack[-1].extend(items)

    def build(state):
        if hasattr(stack[-1], "set_state"):            # else it says more of a dict: _metadata
            spend(state)
            stack[-1].set_state(state)
        elif type(stack[-1]) is dict and type(state) is dict and type(state.get("about")) is dict:
            stack[-1].setdefault("about", state["about"])

    def note(place):
        notes[place] = stack[-1]

    makes = {
        "N": lambda: None, "\x88": lambda: True, "\x89": lambda: False,
        ")": tuple, "]": list, "}": dict,
        "K": lambda: number(1), "M": lambda: number(2), "J": lambda: number(4, True),
        "\x8a": lambda: number(number(1), True), "G": lambda: struct.unpack(">d", take(8))[0],
        "X": lambda: text(number(4)), "\x8c": lambda: text(number(1)),
        "\x8d": lambda: text(number(8)), "U": lambda: str(take(number(1)), "latin1"),
        "T": lambda: take(number(4)), "C": lambda: take(number(1)), "B": lambda: take(number(4)),
        "\x8e": lambda: take(number(8)), "\x96": lambda: take(number(8)),
        "h": lambda: notes[number(1)], "j": lambda: notes[number(4)],
        "t": lambda: tuple(since_mark()), "\x85": lambda: tuple(last(1)),
        "\x86": lambda: tuple(last(2)), "\x87": lambda: tuple(last(3)),
        "c": lambda: name(line(), line()), "\x93": lambda: name(*last(2)),
        "R": lambda: call(*last(2)), "Q": lambda: stored(pop())}
    does = {
        "\x80": lambda: take(1), "\x95": lambda: take(8), "(": lambda: marks.append(len(stack)),
        "q": lambda: note(number(1)), "r": lambda: note(number(4)),
        "\x94": lambda: note(len(notes)),
        "s": lambda: set_items(last(2)), "u": lambda: set_items(since_mark()),
        "a": lambda: append(last(1)), "e": lambda: append(since_mark()),
        "b": lambda: build(pop())}
    for _ in range(MOST):
        code = chr(number(1))
        if code in makes:
            stack.append(makes[code]())
        elif code in does:
            does[code]()
        elif code == ".":
            return pop(), at
        else:
            raise ValueError(f"{code!r} is no instruction that arrays need")
    raise ValueError(f"it has more than {MOST:,} instructions")

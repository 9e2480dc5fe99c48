"""How does a protobuf hold its fields?

A message is a row of fields. Each is a key, which holds the field's number and what follows: a
whole number in pieces of seven bits; 4 or 8 bytes; or a length and as many bytes, which are
text, a list of numbers or another message. Which, only a schema tells. Caffe's and ONNX's nets
are messages of messages.
"""
import struct

import numpy as np

MOST = 1 << 16            # fields of a message: a net has some hundred
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5


def varint(data, at):
    """A whole number of 64 bits and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        number |= (data[at] & 127) << shift            # IndexError: the file ends here
        at += 1
        if data[at - 1] < 128:
            return number & (1 << 64) - 1, at
    raise ValueError("a number of more than ten bytes")


class Message:
    """The fields of a message, by their numbers. What a schema does not name is skipped.

    data: a memoryview, of which nothing is copied. Raises ValueError or IndexError for what is
    no message.
    """

    def __init__(self, data):
        self.fields, at, count = {}, 0, 0
        while at < len(data):
            key, at = varint(data, at)
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, at = varint(data, at)
            elif kind in (EIGHT, BYTES, FOUR):
                size = {EIGHT: 8, FOUR: 4}.get(kind)
                if size is None:
                    size, at = varint(data, at)
                if size > len(data) - at:
                    raise ValueError(f"{size:,} bytes are to follow, {len(data) - at:,} do")
                value, at = data[at:at + size], at + size
            else:
                raise ValueError(f"a field of kind {kind}")
            self.fields.setdefault(number, []).append(value)
            if (count := count + 1) > MOST:
                raise ValueError(f"a message of more than {MOST:,} fields")

    def all(self, number, kind=memoryview):
        """Every value of a field: whole numbers (kind int), or bytes."""
        values = self.fields.get(number, [])
        if not all(isinstance(value, kind) for value in values):
            raise ValueError(f"field {number} is of another kind")
        return values

    def messages(self, number):
        return [Message(value) for value in self.all(number)]

    def message(self, number):
        """The message in a field; one without fields if there is none."""
        return (self.messages(number) or [Message(b"")])[-1]

    def texts(self, number):
        return [str(value, "utf-8") for value in self.all(number)]

    def text(self, number):
        return (self.texts(number) or [""])[-1]

    def integer(self, number, default=0):
        return (self.all(number, int) or [default])[-1]

    def float(self, number, default=0.0):
        """A float32, as the number with the fewest digits that is rounded to it."""
        values = self.all(number)
        return float(str(np.frombuffer(values[-1], "<f4")[0])) if values else default

    def integers(self, number):
        """A list of whole numbers, in one piece or a field for each."""
        found = []
        for value in self.fields.get(number, []):
            if isinstance(value, int):
                found.append(value)
                continue
            at = 0
            while at < len(value):
                one, at = varint(value, at)
                found.append(one)
                if len(found) > MOST:
                    raise ValueError(f"a list of more than {MOST:,} numbers")
        return found

    def array(self, number, dtype):
        """A list of floating-point numbers, in one piece or several: (N,)."""
        pieces = self.all(number)
        return np.frombuffer(pieces[0] if len(pieces) == 1 else b"".join(pieces), dtype)


# --- writing ----------------------------------------------------------------------------------


def field(number, value):
    """A field as a list of pieces of bytes. value: a whole number from 0 on, a float, text,
    or the pieces of a message. Arrays are pieces that nobody copies."""
    if isinstance(value, int):
        return [_varint(number << 3 | VARINT) + _varint(value)]
    if isinstance(value, float):
        return [_varint(number << 3 | FOUR) + struct.pack("<f", value)]
    pieces = [value.encode()] if isinstance(value, str) else value
    return [_varint(number << 3 | BYTES) + _varint(sum(map(len, pieces))), *pieces]


def message(*fields):
    """The pieces of a message. fields: (number, value) pairs."""
    return [piece for number, value in fields for piece in field(number, value)]


def _varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])

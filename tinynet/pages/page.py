"""What is a page? One file of HTML that asks for no network, no script and no other file."""
import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..progress import say, shown
from ..store import replacing
from ..tools import svg

escape = html.escape


def document(title, body, *styles):
    """A page as text. body: HTML. styles: CSS, which comes after that of all pages."""
    own = Path(__file__).with_name("page.css").read_text("utf-8")
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'
            f'{escape(title)}</title><meta name="viewport" content="width=device-width, '
            f'initial-scale=1">\n<style>\n{"".join([own, *styles])}</style></head>\n'
            f"<body>{body}</body></html>\n")


def write(path, text):
    """Write a page, and say so.

    A page needs no name of a namespace, which would be its only address. Of names that are no
    text, as folders may have, it has what `printable` makes of them. Raises OSError.
    """
    content = text.replace(' xmlns="http://www.w3.org/2000/svg"', "").encode(
        "utf-8", "backslashreplace")
    with replacing(path) as file:
        file.write(content)
    say(f"saved: {shown(path)}, {len(content) / 1000:,.0f} KB")


def table(head, rows):
    """Rows of HTML as a table. What is in the first column names its row."""
    def row(kind, cells):
        return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"

    return (f'<div class="scroll"><table>{row("th", head)}'
            f'{"".join(row("td", cells) for cells in rows)}</table></div>')


def bars(shares):
    """(name, share, whether it is the right one) as bars with their numbers."""
    rows = []
    for name, share, right in shares:
        rows.append(f'<li{" class=right" * bool(right)}><i style="width:{share:.1%}"></i><span>'
                    f'{escape(name)}{" ✓" * bool(right)}</span> <b>{share:.1%}</b></li>')
    return f'<ol class="bars">{"".join(rows)}</ol>'


class Album:
    """The pictures of a page. Each is stored once, and shown as often as one likes, whole or in
    part. str(album) is what has to stand in the page."""

    def __init__(self):
        self.stored = {}                   # data: (number, width, height, style)

    def add(self, array, photograph=False):
        """Store uint8 (H, W) or (H, W, 3); returns what `show` wants.

        A photograph becomes a JPEG. Everything else stays as it is, but for greys: of these
        sixteen are left.
        """
        height, width = array.shape[:2]
        picture, file = Image.fromarray(np.ascontiguousarray(array)), io.BytesIO()
        if photograph:
            picture.save(file, "jpeg", quality=PHOTOGRAPH, optimize=True)
        elif array.ndim == 2:
            picture = Image.fromarray(np.uint8((array.astype(int) + 8) // 17))
            picture.putpalette([17 * grey for grey in range(16) for _ in range(3)])
            picture.save(file, "png", optimize=True, bits=4)
        else:
            picture.save(file, "png", optimize=True)
        data = (f"data:image/{'jpeg' if photograph else 'png'};base64,"
                + base64.b64encode(file.getvalue()).decode())
        style = "" if photograph else ' style="image-rendering:pixelated"'
        number, *_ = self.stored.setdefault(data, (len(self.stored), width, height, style))
        return number, width, height

    @staticmethod
    def show(picture, alt, part=None, over="", kind=""):
        """SVG of a picture that was added. alt: what it shows, in words. part: (left, top,
        width, height) of it, in its pixels. over: shapes to draw on it. kind: a class of CSS."""
        number, width, height = picture
        left, top, width, height = part or (0, 0, width, height)
        kind = f' class="{kind}"' if kind else ""
        return (f'<svg viewBox="{left} {top} {width} {height}" role="img"{kind} '
                f'aria-label="{escape(alt)}"><use href="#p{number}"/>{over}</svg>')

    def __str__(self):
        return ('<svg width="0" height="0" style="position:absolute" aria-hidden="true">'
                + "".join(f'<image id="p{number}" width="{width}" height="{height}"{style} '
                          f'href="{data}"/>'
                          for data, (number, width, height, style) in self.stored.items())
                + "</svg>")


PHOTOGRAPH = 50                            # the quality of its JPEG


BETWEEN = 110                              # the grey between tiles, on light and on dark paper


def kernel_tiles(W):
    """Kernels (K, K, channels, O) as tiles of one picture, each stretched to its own range.

    What sees other channels than colours is no picture: then a tile is how large the weights are
    at each place, over all channels.
    """
    if W.shape[2] != 3:
        W = np.sqrt(np.square(W).sum(axis=2, keepdims=True))
    tiles = [svg.stretched(W[..., i]).repeat(4, axis=0).repeat(4, axis=1)      # for thin gaps
             for i in range(W.shape[-1])]
    tiles = [tile if tile.shape[-1] == 3 else tile[..., 0] for tile in tiles]
    return svg.tiles(tiles, columns_for(len(tiles)), gap=2, between=BETWEEN)


def columns_for(count):
    """How many tiles are in a row of so many."""
    return 4 if count <= 16 else 8 if count <= 64 else 16


def place_of_tile(number, columns, height, width, gap=1):
    """(left, top, width, height) of a tile in what svg.tiles makes."""
    row, column = divmod(int(number), columns)
    return column * (width + gap), row * (height + gap), width, height

"""How is something drawn? As SVG text, which a page or a notebook holds as it is.

Every drawing has a text alternative, for whoever cannot see it. Lines and letters take the
colour of the text around them (`currentColor`), so that a drawing is right on light and on dark
paper. One colour means one thing everywhere: the constants below.
"""
import base64
import html
import io
import itertools
import math

import numpy as np
from PIL import Image

TOP, BOTTOM = "#3b82c4", "#2e9e6b"         # the towers
GRADIENT, KEPT = "#dd7a1e", "#8a8f98"      # what comes back; what is kept in memory for it
LINES = TOP, GRADIENT, BOTTOM, "#b0589c", KEPT


class Drawing(str):
    """SVG text. `_repr_html_` is what a notebook asks for."""

    def _repr_html_(self):
        return str(self)


def drawing(width, height, parts, alt):
    """Shapes of SVG as a Drawing of width x height pixels. alt: what it shows, in words."""
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" style="max-width:100%;height:auto" role="img" '
        f'aria-label="{html.escape(alt)}" font-family="sans-serif" font-size="11" '
        f'fill="currentColor">{"".join(parts)}</svg>')


def side_by_side(*drawings):
    """Several drawings in a row, which breaks where the page is narrow."""
    return Drawing('<div style="display:flex;flex-wrap:wrap;gap:1.2em;align-items:flex-start">'
                   + "".join(drawings) + "</div>")


def text(x, y, words, anchor="start", **style):
    style = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return (f'<text x="{x:.5g}" y="{y:.5g}" text-anchor="{anchor}"{style}>'
            f'{html.escape(str(words))}</text>')


def line(x1, y1, x2, y2, colour="currentColor", width=1, opacity=1, dashes="none"):
    return (f'<line x1="{x1:.5g}" y1="{y1:.5g}" x2="{x2:.5g}" y2="{y2:.5g}" stroke="{colour}" '
            f'stroke-width="{width}" opacity="{opacity}" stroke-dasharray="{dashes}"/>')


def box(x, y, width, height, fill="none", stroke="none", opacity=1):
    return (f'<rect x="{x:.5g}" y="{y:.5g}" width="{width:.5g}" height="{height:.5g}" rx="3" '
            f'fill="{fill}" fill-opacity="{opacity}" stroke="{stroke}"/>')


def arrow(x1, y1, x2, y2, colour="currentColor", **style):
    """A line with a head at (x2, y2)."""
    length = math.hypot(x2 - x1, y2 - y1) or 1
    dx, dy = 7 * (x2 - x1) / length, 7 * (y2 - y1) / length
    head = (f"{x2:.5g},{y2:.5g} {x2 - dx - dy / 2:.5g},{y2 - dy + dx / 2:.5g} "
            f"{x2 - dx + dy / 2:.5g},{y2 - dy - dx / 2:.5g}")
    return (line(x1, y1, x2 - dx, y2 - dy, colour, **style)
            + f'<polygon points="{head}" fill="{colour}"/>')


# --- numbers ----------------------------------------------------------------------------


def matrix(rows, alt, title="", mark=None, colour=None, cell=26):
    """Numbers in squares, darker where they are larger.

    rows: numbers, (height, width). mark(value): true of the numbers to be set in bold, with a
    frame. colour(value): a CSS colour, instead of the shade.
    """
    rows = np.asarray(rows)
    low, span = rows.min(), float(np.ptp(rows)) or 1
    top = 18 if title else 0
    parts = [text(0, 12, title)] if title else []
    for (i, j), value in np.ndenumerate(rows):
        x, y, marked = j * cell, i * cell + top, mark is not None and mark(value)
        shade = 0.45 if colour else round(0.06 + 0.5 * float(value - low) / span, 2)
        parts.append(box(x + 1, y + 1, cell - 2, cell - 2, colour(value) if colour else TOP,
                         GRADIENT if marked else "none", shade))
        parts.append(text(x + cell / 2, y + cell / 2 + 4, f"{value:.4g}", "middle",
                          font_weight=700 if marked else 400))
    return drawing(rows.shape[1] * cell, rows.shape[0] * cell + top, parts, alt)


def bars(values, alt, beside=None, titles=("", ""), form="{:,.4g}"):
    """Horizontal bars, one a row, labelled with name and number.

    values: {name: number}. beside: a second such dict, drawn to the right while the first one
    grows to the left.
    """
    both = [values] if beside is None else [values, beside]
    name_width, number_width = 12 + 7 * max(map(len, values)), 72
    length = 170 if beside is None else 90             # so that a phone shows all of both sides
    middle = name_width if beside is None else length + number_width + name_width / 2

    def lengths(values):
        numbers = np.array([float(value) for value in values.values()])
        return length * numbers / (numbers.max() or 1)

    parts = []
    for side, values_of_side in enumerate(both):
        sign = 1 if beside is None or side else -1
        start = middle + (sign * name_width / 2 if beside is not None else 0)
        anchor = "start" if sign > 0 else "end"
        parts.append(text(start, 12, titles[side], anchor))
        for row, (number, size) in enumerate(zip(values_of_side.values(), lengths(values_of_side),
                                                 strict=True)):
            y = 20 + 20 * row
            parts.append(box(start if sign > 0 else start - size, y, max(size, 1), 15,
                             KEPT if sign < 0 else TOP))
            parts.append(text(start + sign * (size + 5), y + 12, form.format(number), anchor))
    for row, name in enumerate(values):
        x, anchor = (middle - 8, "end") if beside is None else (middle, "middle")
        parts.append(text(x, 32 + 20 * row, name, anchor))
    width = middle + length + number_width + (name_width / 2 if beside is not None else 0)
    return drawing(width, 24 + 20 * len(values), parts, alt)


def curves(series, alt, x="", y="", log="", marks=False, width=460, thin=None):
    """Lines over two axes, labelled on the right, each at the height of its end.

    series: {name: points}, points (x, y). A name without points keeps its colour from the
    others, as on a second drawing beside this one; some must have points. x, y: the names of
    the axes. log: "x", "y" or "xy", whose axes count decades. marks: a dot at every point. thin:
    {name: points} of second lines, without a label, in the colours of the first.
    """
    height, thin = 230, thin or {}
    left, right, top, bottom = 52, max(96, 12 + 6 * max(map(len, series))), 18, 34
    lines = [points for points in (*series.values(), *thin.values()) if len(points)]
    points = np.concatenate([np.asarray(line, float) for line in lines])
    scales = [_scale(points[:, axis], name in log) for axis, name in enumerate("xy")]

    def at(point):
        (x, y), (low, high) = [float(f(v)) for (f, *_), v in zip(scales, point, strict=True)], (
            width - left - right, height - top - bottom)
        return left + x * low, height - bottom - y * high

    parts = [line(left, top, left, height - bottom, opacity=0.5),
             line(left, height - bottom, width - right, height - bottom, opacity=0.5),
             text(width - right, height - 4, x, "end"), text(4, 11, y)]
    low = [float(values.min()) for values in points.T]
    parts += [text(left - 5, at((low[0], tick))[1] + 4, words, "end")
              for tick, words in scales[1][1]]
    parts += [text(at((tick, low[1]))[0], height - bottom + 14, words, "middle")
              for tick, words in scales[0][1]]
    colours = dict(zip(series, itertools.cycle(LINES)))
    for stroke, drawn in (0.8, thin), (1.8, series):
        for name, line_of in drawn.items():
            places = [at(point) for point in line_of]
            path = " ".join(f"{a:.4g},{b:.4g}" for a, b in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" '
                         f'stroke-width="{stroke}"/>' * bool(places))
            parts += [f'<circle cx="{a:.4g}" cy="{b:.4g}" r="2.5" fill="{colours[name]}"/>'
                      for a, b in places if marks or len(places) == 1]
    ends = {name: at(points[-1])[1] + 4 for name, points in series.items() if len(points)}
    parts += [text(width - right + 5, y, name, fill=colours[name])
              for name, y in zip(ends, _apart(list(ends.values())), strict=True)]
    return drawing(width, height, parts, alt)


def _apart(heights):
    """The same heights, of which those that are too near to the one above go down."""
    moved = list(heights)
    for above, below in itertools.pairwise(sorted(range(len(moved)), key=moved.__getitem__)):
        moved[below] = max(moved[below], moved[above] + 12)
    return moved


def _scale(values, log):
    """A function from a value to 0 ... 1, and what is written at the axis: (value, words)."""
    change = np.log10 if log else np.asarray
    low, high = float(change(values.min())), float(change(values.max()))
    span = (high - low) or 1
    if log:
        step = max(1, round(span / 4))
    else:
        step = 10 ** math.floor(math.log10(span / 2))
        step *= next(m for m in (1, 2, 5, 10) if span / (m * step) <= 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [10.0 ** (i * step) if log else i * step for i in range(first, last + 1)]
    if len(ticks) < 2:                                 # less than two decades: its ends
        ticks = [float(values.min()), float(values.max())]
    digits = next(n for n in range(3, 18) if len({f"{t:.{n}g}" for t in ticks}) == len({*ticks}))
    return (lambda value: (change(value) - low) / span), [(t, f"{t:.{digits}g}") for t in ticks]


# --- things that hang together ----------------------------------------------------------


def graph(nodes, edges, alt, width=96, height=44, gap=34):
    """Boxes in columns, and arrows between them.

    nodes: {key: (column, row, words)}; a line break in the words begins a second line. A fourth
    entry is the colour of the box. edges: (from, to), or (from, to, words), or with a colour as
    (from, to, words, colour).
    """
    def corner(key):
        column, row, *_ = nodes[key]
        return column * (width + gap) + 2, row * (height + 16) + 2

    parts = []
    for edge in edges:
        start, end, words, colour = (*edge, *("", "currentColor")[len(edge) - 2:])
        (x1, y1), (x2, y2) = corner(start), corner(end)
        if x1 == x2:                                   # one above the other
            x1, x2 = x1 + width / 2, x2 + width / 2
            y1, y2 = (y1 + height, y2) if y1 < y2 else (y1, y2 + height)
        else:
            x1, x2 = (x1 + width, x2) if x1 < x2 else (x1, x2 + width)
            y1, y2 = y1 + height / 2, y2 + height / 2
        parts.append(arrow(x1, y1, x2, y2, colour))
        parts.append(text((x1 + x2) / 2, (y1 + y2) / 2 - 5, words, "middle", fill=colour))
    for key, (_, _, words, *colour) in nodes.items():
        x, y = corner(key)
        colour = colour[0] if colour else KEPT
        parts.append(box(x, y, width, height, colour, colour, 0.16))
        lines = str(words).split("\n")
        parts += [text(x + width / 2, y + height / 2 + 4 + 14 * (i - (len(lines) - 1) / 2), words,
                       "middle") for i, words in enumerate(lines)]
    right = max(corner(key)[0] for key in nodes) + width + 2
    below = max(corner(key)[1] for key in nodes) + height + 2
    return drawing(right, below, parts, alt)


# --- pictures ---------------------------------------------------------------------------


def pixels(array, alt, scale=1, squares=(), title=""):
    """A picture of pixels: uint8 (H, W) or (H, W, 3), enlarged without smoothing.

    scale: how large a pixel becomes. squares: (left, top, size, words), in pixels of the
    picture, drawn over it.
    """
    stored = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(stored, "png", optimize=True)
    data = base64.b64encode(stored.getvalue()).decode()
    height, width = array.shape[0] * scale, array.shape[1] * scale
    top = 16 if title else 0
    parts = [text(0, 11, title)] if title else []
    parts.append(f'<image y="{top}" width="{width}" height="{height}" '
                 f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>')
    for left, above, size, words in squares:
        x, y = left * scale, above * scale + top
        parts.append(box(x, y, size * scale, size * scale, stroke=GRADIENT))
        parts.append(text(x + 3, y + 11, words, fill=GRADIENT))
    return drawing(width, height + top, parts, alt)


def tiles(pictures, columns, gap=1, between=255):
    """Pictures (N, H, W) or (N, H, W, 3) of uint8 as one, at most `columns` in a row.

    between: the grey of the gaps.
    """
    pictures = np.asarray(pictures)
    N, H, W, *colours = pictures.shape
    columns = min(columns, N)
    rows = -(-N // columns)
    sheet = np.full((rows * (H + gap) - gap, columns * (W + gap) - gap, *colours), between,
                    np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (H + gap), i % columns * (W + gap)
        sheet[y:y + H, x:x + W] = picture
    return sheet


def stretched(array):
    """Numbers as uint8: the smallest 0, the largest 255."""
    array = np.asarray(array, np.float64)
    return np.uint8(np.round(255 * (array - array.min()) / (np.ptp(array) or 1)))

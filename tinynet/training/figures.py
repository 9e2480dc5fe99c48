"""What did the net learn to look for, and how did it learn? Drawn with Pillow alone."""
import csv
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..store import replacing


def kernel_sheet(*towers, zoom=5, columns=16):
    """The first layer's kernels as one picture (paper, figure 3): a PIL image.

    towers: weights (11, 11, 3, kernels) as NumPy arrays, drawn below each other, top tower
    first, with a wider gap between. Every kernel is stretched to the full range of grey.
    """
    gap = 2
    rows = []
    for W in towers:
        tiles = [_tile(W[..., i], zoom, gap) for i in range(W.shape[-1])]
        columns = min(columns, len(tiles))
        blank = np.full_like(tiles[0], 255)
        tiles += [blank] * (-len(tiles) % columns)
        rows += [np.concatenate(tiles[i:i + columns], axis=1)
                 for i in range(0, len(tiles), columns)]
        rows.append(np.full((2 * gap, rows[-1].shape[1], 3), 255, np.uint8))
    sheet = np.concatenate(rows[:-1])
    return Image.fromarray(np.pad(sheet, ((gap, gap), (gap, gap), (0, 0)),
                                  constant_values=255))


def save(picture, path):
    """Write a picture as a PNG that is whole or not there; returns the path."""
    with replacing(path) as file:
        picture.save(file, "PNG")
    return path


def draw_run(run):
    """Draw what a runs.Run has learned into its folder, as kernels.png and curves.png."""
    kernels = [tower.conv1[0].W.numpy() for tower in run.model.towers]
    drawn = [save(kernel_sheet(*kernels), run.folder / "kernels.png")]
    rows = run.log_file.rows()
    lines = [(kind, errors(rows, kind), style) for kind, style in (
        ("train", ("#8a8f98", "thin")), ("validation", ("#3b82c4", "solid")))]
    lines = [line for line in lines if line[1]]
    if lines:                                          # else somebody has removed the log
        drawn.append(draw_curves(run.folder / "curves.png", lines, run.folder.name,
                                 up="Top-1 error"))
    return drawn


def _tile(kernel, zoom, gap):
    low, high = kernel.min(), kernel.max()
    grey = (kernel - low) / max(high - low, 1e-12) * 255
    big = np.round(grey).astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1)
    return np.pad(big, ((gap, gap), (gap, gap), (0, 0)), constant_values=255)


# --- curves -----------------------------------------------------------------------------


COLUMNS = "run", "kind", "epochs", "loss", "top1_error", "seconds"


def errors(history, kind):
    """[(epochs, top-1 error), ...] of the rows of a kind, "train" or "validation"."""
    return [(row["epochs"], row["top1_error"]) for row in history if row["kind"] == kind]


def write_csv(path, histories):
    """A row for every row of {name: history}, histories as runs.Run has them."""
    write_table(path, COLUMNS, [dict(row, run=name)
                                for name, rows in histories.items() for row in rows])


def write_table(path, columns, rows):
    """A CSV file of dicts. What a row has beside the columns is left out."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(table.getvalue().encode("utf-8", "surrogateescape"))


def draw_curves(path, lines, title, up="Error"):
    """A PNG with (label, points, style) lines: points (x, share), style a colour and "solid",
    "dashed" or "thin". Lines without a label are not in the legend. Returns the path."""
    width, height, left, top, right, bottom = 1280, 860, 130, 90, 40, 110
    paper = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(paper)
    font = {size: ImageFont.load_default(size) for size in (22, 26, 30)}
    largest = [max(point[axis] for _, points, _ in lines for point in points) for axis in (0, 1)]
    steps = [nice_step(value) for value in largest]
    # At least a step: an error may be 0 everywhere, and so is what it would be divided by.
    most = [step * max(1, -(-value // step))
            for value, step in zip(largest, steps, strict=True)]

    def at(x, y):
        return (left + (width - left - right) * x / most[0],
                height - bottom - (height - top - bottom) * y / most[1])

    pen.text((width / 2, top / 2), title, "black", font[30], "mm")
    pen.text((width / 2, height - 30), "Epochs", "black", font[26], "mm")
    pen.text((14, top - 44), up, "black", font[26], "lm")
    for tick in np.arange(0, most[0] + steps[0] / 2, steps[0]):
        pen.line([at(tick, 0), at(tick, most[1])], "#e4e4e4")
        pen.text((at(tick, 0)[0], height - bottom + 26), f"{tick:g}", "black", font[22], "mm")
    for tick in np.arange(0, most[1] + steps[1] / 2, steps[1]):
        pen.line([at(0, tick), at(most[0], tick)], "#e4e4e4")
        words = f"{tick:.3g}" if most[1] > 1 else f"{100 * tick:.3g}%"
        pen.text((left - 14, at(0, tick)[1]), words, "black", font[22], "rm")
    pen.line([at(0, most[1]), at(0, 0), at(most[0], 0)], "black", 2)
    legend = top + 14
    for label, points, (colour, stroke) in lines:
        stretch(pen, [at(*point) for point in points], colour, stroke)
        if label:
            stretch(pen, [(width - 430, legend), (width - 370, legend)], colour, stroke)
            pen.text((width - 355, legend), label, "black", font[22], "lm")
            legend += 34
    return save(paper, path)


def nice_step(largest):
    """A distance of ticks, 1, 2 or 5 times a power of ten, of which 4 to 10 fit."""
    largest = largest or 1.0           # of a curve that is zero everywhere
    tens = 10.0 ** np.floor(np.log10(largest))
    return next(step * tens for step in (0.1, 0.2, 0.5, 1.0) if largest / (step * tens) <= 10)


def stretch(pen, corners, colour, stroke):
    """A line through corners, solid, thin or dashed. Of a single corner, a dot."""
    if len(corners) == 1:
        (x, y), = corners
        pen.ellipse([x - 6, y - 6, x + 6, y + 6], colour)
        return
    if stroke != "dashed":
        pen.line(corners, colour, 2 if stroke == "thin" else 5, "curve")
        return
    x, y = np.transpose(corners)
    far = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    for start in np.arange(0, far[-1], 24):
        steps = np.linspace(start, min(start + 14, far[-1]), 8)
        dash = np.stack([np.interp(steps, far, x), np.interp(steps, far, y)], axis=1)
        pen.line(dash.ravel().tolist(), colour, 5)

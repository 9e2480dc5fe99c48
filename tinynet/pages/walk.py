"""What happens to a picture on its way through Figure 2? A page to walk through it.

Links choose what is opened (:target), radio buttons the picture (:has(:checked)). Of a net that
has one tower there is one column, and nothing crosses.
"""
import math
from pathlib import Path

import numpy as np

from ..device import devices
from ..engine import Tensor, graph
from ..pictures import images
from ..pictures.batches import Loader
from ..tools import anatomy, memory, svg
from ..training import saved as checkpoints
from ..training.saved import Saved
from . import activations, page
from .activations import Chosen, evenly, held_out, name_of, recipe_of
from .page import Album, columns_for, escape, place_of_tile

PICTURES = 4                               # of the validation set, if nobody chose any
SEARCHED = 1000                            # of it for what each map likes best
STRONGEST = 3                              # maps of each tower that are looked at closely
FEW_MAPS = 500                             # in all: up to so many, their patches are large
COLUMNS = "largest number", "the map", "what is framed", "best picture", "second", "third"
TOWERS = ("top", svg.TOP), ("bottom", svg.BOTTOM)


def write(args, load, build):
    """Write the page that args (of `alexnet.py walk`) ask for. load, build: alexnet.py's."""
    saved = Saved.of_alexnet(args.checkpoint)
    checkpoints.output_file(args.page, ".html", saved.path, *args.images)
    recipe = recipe_of(saved)
    pictures = [images.read(path, fit=recipe.fit) for path in args.images]    # may be refused
    validation = held_out(saved, args.data)
    model, prepare = load(saved, args.device)
    if pictures:
        parents = [Path(path).resolve().parent.name for path in args.images]
        labels = [saved.classes.index(name) if name in saved.classes else -1 for name in parents]
        chosen = Chosen(pictures, labels, [Path(path).name for path in args.images], saved.classes)
    else:
        chosen = evenly(validation, PICTURES)
    walk = Walk(model, prepare, saved, chosen, evenly(validation, SEARCHED), args.workers)
    net = build(len(saved.classes), devices("cpu0,cpu1" if len(walk.towers) > 1 else "cpu"),
                recipe)
    walk.measure(memory.without_weights(net))
    page.write(args.page, walk.page())


class Walk:
    """All that the page shows, and the page."""

    def __init__(self, model, prepare, saved, chosen, searched, workers):
        self.prepare, self.saved, self.searched = prepare, saved, searched
        self.rows, self.fields = activations.rows_of(model), activations.fields(
            model.towers[0])
        self.towers = TOWERS if len(model.towers) > 1 else (("", svg.TOP),)
        self.convs, self.album = list(self.fields), Album()
        loader = Loader(chosen, prepare, 1, workers, model.devices)
        seen = list(activations.watching(model, loader, self.rows))
        self.labels = [int(batch.labels[0]) for batch, _, _ in seen]
        self.indices = [int(batch.indices[0]) for batch, _, _ in seen]
        self.made = [{name: [y[0] for y in arrays] for name, arrays in found.items()}
                     for _, _, found in seen]
        self.names = [name_of(saved, label) if label >= 0 else chosen.name(index)
                      for label, index in zip(self.labels, self.indices, strict=True)]
        self.offset, crop = prepare.centre.top, prepare.crop
        self.photos = [self.album.add(chosen.read(index)[
            self.offset:self.offset + crop, self.offset:self.offset + crop], photograph=True)
            for index in self.indices]
        self.best = activations.best_pictures(
            model, Loader(searched, prepare, 32, workers, model.devices))
        self.sheets = [{name: [self.sheet(maps) for maps in arrays]
                        for name, arrays in made.items() if name != "fc8"} for made in self.made]
        self.patches = {name: [self.patches_of(name, row) for row in range(len(self.towers))]
                        for name in self.convs}

    def measure(self, net):
        """Read off the same net without weights, on two devices, what it costs."""
        images = np.zeros((2, net.crop, net.crop, 3), np.float32)
        self.kept = dict.fromkeys(self.rows, 0)
        for sign, count in (-1, 1), (1, 2):            # so that what is kept once is left out
            loss = memory.loss(net.train(), images[:count], np.zeros(count, int))
            layer_of = anatomy.layers_of(loss)
            for node, size in memory.kept(graph(loss)):
                self.kept[layer_of[node]] += sign * size
        output = net.eval()(Tensor(images[:1], net.devices[0]))
        self.table, self.crossings, self.seams = anatomy.layer_table(output), {}, {}
        for crossing in anatomy.crossings(output):
            if crossing.seam:
                source = self.layer_before(crossing.layer)
                self.seams[source] = self.seams.get(source, 0) + crossing.bytes
            else:
                self.crossings.setdefault(crossing.layer, []).append(crossing)

    def layer_before(self, name):
        names = list(self.rows)
        return names[names.index(name) - 1]

    # pictures

    def sheet(self, array):
        """Maps (H, W, C), or neurons (C,) in rows, as a picture of the album. Every map has its
        own black, 0 or less, and its own white."""
        if array.ndim == 1:
            width = 1 << math.ceil(math.log2(len(array)) / 2)
            array = np.pad(array, (0, -len(array) % width)).reshape(-1, width, 1)
        maps = np.maximum(array.transpose(2, 0, 1), 0)
        white = np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)
        return self.album.add(svg.tiles(np.uint8(np.round(maps / white * 255)),
                                        columns_for(len(maps)), between=page.BETWEEN))

    def patches_of(self, name, row):
        """Of every map of a convolution what its best pictures have where it is largest, three
        in a square: two above, one below."""
        best, field = self.best[name][row], self.fields[name]
        width = self.made[0][name][row].shape[1]
        side = self.patch_side()
        tiles = np.full((best.values.shape[1], 2 * side, 2 * side, 3), 128, np.uint8)
        for (rank, number), index in np.ndenumerate(best.indices):
            square = field.square(best.places[rank, number], width)
            top, left = side * (rank // 2), side * (rank % 2)
            tiles[number, top:top + side, left:left + side] = activations.patch(
                self.searched.read(index), square, self.offset, side)
        return self.album.add(svg.tiles(tiles, columns_for(len(tiles)), gap=0), photograph=True)

    def patch_side(self):
        """Pixels of a patch, of as many as a JPEG has in a block, or of twice as many."""
        maps = sum(made.shape[-1] for name in self.convs for made in self.made[0][name])
        return 32 if maps <= FEW_MAPS else 16

    # the page

    def page(self):
        steps = [step for name in self.rows for step in self.before(name) + [name]]
        sections = [self.crossing(step[2:]) if step.startswith("x-") else self.layer(step)
                    for step in steps]
        body, around = [], ["", *steps, ""]
        for step, section, before, after in zip(steps, sections, around, around[2:], strict=False):
            links = "".join(f'<a href="#{to}">{arrow} {to.replace("x-", "before ")}</a>'
                            for arrow, to in (("←", before), ("→", after)) if to)
            body.append(f'<section id="{step}"><nav><a href="#figure">↑ the figure</a>{links}'
                        f"</nav>{section}</section>")
        css = "".join(f"@supports selector(:has(*)) {{ .of.p{n} {{ display: none }} }}\n"
                      f"body:has(#pic{n}:checked) .of.p{n} {{ display: block }}\n"
                      for n in range(len(self.photos)))
        own = Path(__file__).with_name("walk.css").read_text("utf-8")
        return page.document("A walk through Figure 2", (
            f"{self.album}<header><h1>A walk through Figure 2</h1>{self.about()}</header>"
            f'<fieldset class="pics"><legend>Choose a photograph</legend>{self.choices()}'
            f'</fieldset><main><div id="figure">{self.figure()}</div><div class="panel">'
            f'{"".join(body)}</div></main>'), own, css)

    def about(self):
        saved, error = self.saved, self.saved.progress.lowest_error
        known = f", lowest error of the run {error:.1%}" if math.isfinite(error) else ""
        towers = ("Each column is a tower, half of every layer. Dashed lines are where the towers "
                  "exchange what they have. " if len(self.towers) > 1 else "")
        return (f'<p class="promise">A photograph comes in at the top, and the names of '
                f"{len(saved.classes):,} classes come out at the bottom. {towers}Choose a "
                f'photograph, then open a layer.</p><p class="facts">{escape(saved.path.name)} of '
                f"recipe {escape(saved.recipe['name'])}, step {saved.progress.step:,}{known}</p>")

    def choices(self):
        return "".join(
            f'<label><input type="radio" name="picture" id="pic{n}"{" checked" * (n == 0)}>'
            f'{self.album.show(photo, f"a photograph: {name}")}<span>{escape(name)}</span></label>'
            for n, (photo, name) in enumerate(zip(self.photos, self.names, strict=True)))

    def before(self, name):
        return [f"x-{name}"] if name in self.crossings else []

    def figure(self):
        two = len(self.towers) > 1
        parts = [f"<i>{name} tower</i>" for name, _ in self.towers if name]
        for name, row in self.table.items():
            if name in self.crossings:
                size = sum(crossing.bytes for crossing in self.crossings[name])
                both = len(self.crossings[name]) > 1
                parts.append(f'<a class="cross" href="#x-{name}">{"⤨" if both else "↰"} '
                             f"{as_size(size)} a picture</a>")
            output = row["output"].removeprefix("2 x ").replace("x", "×")
            made = self.made[0][name][0].shape
            after = "×".join(map(str, made))
            pooled = name in self.convs and after != output
            wide = ' class="wide"' if name == "fc8" and two else ""
            for tower, _ in self.towers if not wide else [("", "")]:
                parts.append(f'<a href="#{name}"{wide or f" class={tower}" * bool(tower)}>'
                             f"<b>{name}</b> <small>{output}</small>"
                             + f"<small>pool: {after}</small>" * pooled + "</a>")
        return f'<div class="{"two" if two else "one"}">{"".join(parts)}</div>'

    # a layer

    def layer(self, name):
        row, total = self.table[name], {key: sum(row[key] for row in self.table.values())
                                        for key in ("parameters", "macs", "bytes")}
        kept = self.kept[name] / sum(self.kept.values())
        costs = [("parameters", f"{row['parameters']:,}", row["parameters"] / total["parameters"]),
                 ("multiply-adds", f"{row['macs']:,}", row["macs"] / total["macs"]),
                 ("its ops put out", as_size(row["bytes"]), row["bytes"] / total["bytes"]),
                 ("keeps for the backward pass", as_size(self.kept[name]), kept)]
        costs = "".join(f"<div><dt>{what}</dt><dd>{number} <small>{share:.1%} of the net</small>"
                        f"</dd></div>" for what, number, share in costs)
        *seen, count = row["weights"]
        each = f"{count:,} kernels of " if name in self.convs else f"{count:,} neurons, each with "
        each += "×".join(f"{size:,}" for size in seen) + " weights"
        parts = [f"<h2>{name}</h2><p class=facts>{'two towers, each with ' * (row['parts'] > 1)}"
                 f"{each}. The cost{' of both' * (row['parts'] > 1)} for one picture:</p>"
                 f"<dl>{costs}</dl>"]
        if name in self.seams:
            parts.append("<p>Its LRN reaches from the last maps of one tower into the first of "
                         f"the other: of these {as_size(self.seams[name])} a picture cross.</p>")
        for number in range(len(self.photos)):
            inner = (self.answer(number) if name == "fc8" else self.maps(name, number))
            parts.append(f'<div class="of p{number}">{inner}</div>')
        if name in self.convs:
            parts += [self.kernels(name), self.favourites(name)]
        return "".join(parts)

    def side_by_side(self, parts):
        """One part for each tower, under its name."""
        return '<div class="towers">' + "".join(
            f'<div class="{name}">{f"<h4>{name} tower</h4>" * bool(name)}{part}</div>'
            for (name, _), part in zip(self.towers, parts, strict=True)) + "</div>"

    def maps(self, name, number):
        what = "maps" if name in self.convs else "neurons"
        made, photo = self.made[number][name], self.names[number]
        sheets = [self.album.show(sheet, f"the {what} of {name}{of(tower)} for {photo}", kind=what)
                  for sheet, (tower, _) in zip(self.sheets[number][name], self.towers,
                                               strict=True)]
        quiet = sum(int((y == 0).sum()) for y in made) / sum(y.size for y in made)
        where = "each map" if name in self.convs else "a tower" if len(made) > 1 else "all"
        text = (f"<h3>What it makes of {escape(photo)}</h3>{self.side_by_side(sheets)}"
                f"<p class=facts>{sum(y.shape[-1] for y in made):,} {what}. Black is 0, white the "
                f"largest number of {where}. {quiet:.0%} of all numbers are 0.</p>")
        if name not in self.convs:
            return text
        field = self.fields[name]
        size = f"{field.size} × {field.size} pixels"
        if field.size >= self.prepare.crop:
            size += ", all there are"
        return (text + f"<h3>Its strongest maps</h3><p>A place of a map depends on {size}. Below "
                "are the maps with the largest numbers, a frame around what that place sees, and "
                "the three pictures of the validation set in which the map is largest. Maps are "
                "counted from 0, row by row.</p>"
                + self.side_by_side([self.strongest(name, number, row)
                                     for row in range(len(self.towers))]))

    def strongest(self, name, number, row):
        maps, field = self.made[number][name][row], self.fields[name]
        height, width, count = maps.shape
        values, places = activations.peaks(maps[None])
        order = np.argsort(-values[0], kind="stable")[:STRONGEST]
        colour, crop, album = self.towers[row][1], self.prepare.crop, self.album
        squares, lines = {}, [f"<li>{''.join(f'<span>{word}</span>' for word in COLUMNS)}</li>"]
        for rank, which in enumerate(order, 1):
            left, top, size = field.square(places[0, which], width)
            squares.setdefault((left, top, size), []).append(str(rank))
            what = f"map {which} of {name}{of(self.towers[row][0])}"
            cells = [album.show(self.sheets[number][name][row], what,
                                place_of_tile(which, columns_for(count), height, width)),
                     album.show(self.photos[number], "what its strongest place sees",
                                (left, top, size, size)), *self.best_of(name, row, which)]
            lines.append(f"<li><span>{rank}: map {which}<br>{values[0, which]:.3g}</span>"
                         f"{''.join(cells)}</li>")
        frames = []
        for (left, top, size), ranks in squares.items():       # several maps may see the same
            x, y = min(max(left, 0), crop - 14 * len(ranks) - 6), min(max(top, 0), crop - 20)
            frames.append(f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" '
                          f'stroke="#fff" stroke-width="4"/><rect x="{left}" y="{top}" '
                          f'width="{size}" height="{size}" fill="none" stroke="{colour}" '
                          f'stroke-width="2"/><text x="{x + 4}" y="{y + 16}" font-size="16" '
                          'font-weight="700" fill="#fff" stroke="#000" stroke-width="3" '
                          f'paint-order="stroke">{" ".join(ranks)}</text>')
        photo = album.show(self.photos[number], f"{self.names[number]}, with the receptive fields "
                           f"of the strongest places in {name}", over="".join(frames))
        return f'<div class="strong">{photo}<ol>{"".join(lines)}</ol></div>'

    def best_of(self, name, row, which):
        best, side = self.best[name][row], self.patch_side()
        left, top, *_ = place_of_tile(which, columns_for(best.values.shape[1]), 2 * side, 2 * side,
                                      gap=0)
        return [self.album.show(
            self.patches[name][row], f"its best picture {rank + 1}: "
            + name_of(self.saved, self.searched.labels[best.indices[rank, which]]),
            (left + side * (rank % 2), top + side * (rank // 2), side, side))
            for rank in range(len(best.values))]

    def kernels(self, name):
        parts = []
        for (tower, _), layer in zip(self.towers, self.rows[name], strict=True):
            sheet = self.album.add(page.kernel_tiles(layer[0].W.numpy()))
            parts.append(self.album.show(sheet, f"the kernels of {name}{of(tower)}"))
        if name == "conv1":
            return ("<h3>Its kernels</h3><p>The colours that excite each kernel most, stretched "
                    f"from black to white (Figure 3 of the paper).</p>{self.side_by_side(parts)}")
        return ("<details><summary>Its kernels</summary><p>They see maps, not colours, so they "
                "are no pictures. Bright is where in its window a kernel has large weights, over "
                f"all maps that it reads.</p>{self.side_by_side(parts)}</details>")

    def favourites(self, name):
        parts = [self.album.show(sheet, f"what each map of {name}{of(tower)} likes best, three "
                                 "pieces of pictures each")
                 for sheet, (tower, _) in zip(self.patches[name], self.towers, strict=True)]
        return (f"<details><summary>What each map likes best</summary><p>Of "
                f"{len(self.searched):,} pictures of the validation set the three in which a map "
                "is largest, cut to what that place sees: the best one and the second above, the "
                f"third below. The maps stand in the order of above.</p>{self.side_by_side(parts)}"
                "</details>")

    # a crossing, and the end

    def crossing(self, name):
        source, found = self.layer_before(name), self.crossings[name]
        ways = [(0, "bottom"), (1, "top")] if len(found) > 1 else [(1, "top")]
        what = "maps" if source in self.convs else "neurons"
        size = sum(crossing.bytes for crossing in found)
        title = "the towers exchange what they have" if len(found) > 1 else "both towers meet"
        parts = [f"<h2>Before {name} {title}</h2>"
                 f"<p>{as_size(size)} a picture, {as_size(128 * size)} a batch of 128, if the "
                 "towers are on two devices. In the backward pass gradients of the same size come "
                 "back.</p>"]
        for number, photo in enumerate(self.names):
            sheets = []
            for row, target in ways:
                tower = TOWERS[row][0]
                label = f"the {what} of {source}{of(tower)}, which travel to the {target} tower"
                count = self.made[number][source][row].shape[-1]
                sheets.append(f'<div class="{tower}"><h4>{count} {what}, {tower} → {target}</h4>'
                              + self.album.show(self.sheets[number][source][row],
                                                f"{label}, for {photo}", kind=what) + "</div>")
            parts.append(f'<div class="of p{number}"><h3>What travels of {escape(photo)}</h3>'
                         f'<div class="towers">{"".join(sheets)}</div></div>')
        return "".join(parts)

    def answer(self, number):
        logits = self.made[number]["fc8"][0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares, label = shares / shares.sum(), self.labels[number]
        order = list(np.argsort(-shares, kind="stable")[:10])
        if label >= 0 and label not in order:
            order.append(label)
        told = "The right answer has a mark." if label >= 0 else "Nobody said what it is."
        return (f"<h3>What the net says of {escape(self.names[number])}</h3>"
                + page.bars((name_of(self.saved, i), shares[i], i == label) for i in order)
                + f"<p class=facts>Probabilities after the softmax. {told}</p>")


def of(tower):
    return f", {tower} tower" if tower else ""


def as_size(count):
    """Bytes in words."""
    for unit, size in ("GB", 1e9), ("MB", 1e6), ("KB", 1e3):
        if count >= 0.9995 * size:
            return f"{count / size:,.3g} {unit}"
    return f"{count} bytes"

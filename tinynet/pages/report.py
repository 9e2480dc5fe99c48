"""What did a run learn, and what do several differ in? A page, and its numbers as CSV."""
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from ..progress import say, shown
from ..tools import svg
from ..training import figures, recipes
from ..training import saved as checkpoints
from . import page
from .activations import name_of, recipe_of
from .judged import NEAREST, judge
from .page import Album, escape, kernel_tiles

CARDS, QUERIES = 6, 5                      # pictures of Figure 4, left and right
SIDE = 112                                 # pixels of a small photograph
MANY = 20                                  # classes: of more, a table would be too large
POINTS, CURVE, LABEL = 150, 400, 20        # of a curve; how wide it is; letters of its name


def write(args, load):
    """Write the page that args (of `alexnet.py report`) ask for. load: alexnet.py's."""
    names = names_of(args.runs)
    checkpoints.output_file(args.page, ".html", *filter(Path.exists, map(Path, args.runs)))
    runs = [judge(path, name, args, load) for path, name in zip(args.runs, names, strict=True)]
    page.write(args.page, Report(runs).page())
    if Path(args.page).is_file():                      # else it is a pipe, or /dev/null
        for what, (columns, rows) in tables(runs).items():
            path = Path(args.page).with_suffix(f".{what}.csv")
            figures.write_table(path, columns, rows)
            say(f"  {shown(path)}")


def names_of(paths):
    """A name for every run: its folder's; if that is not enough to tell them apart, its path."""
    folders = [path.parent if path.suffix == ".npz" else path for path in map(Path, paths)]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(Path(path)) for path in paths]
    if len(set(names)) < len(names):
        raise UserError(f"{' '.join(map(str, paths))}: a run is given twice: give it once")
    return names


# --- numbers ----------------------------------------------------------------------------


def differences(runs):
    """[(field, [value of each run]), ...] where the runs differ; of one run alone, where it
    differs from the recipe it is called by."""
    found = [vars(recipe_of(run.saved)) | {"seed": run.saved.seed, "pictures": run.saved.data}
             for run in runs]
    if len(runs) == 1:
        found.append(vars(recipes.RECIPES[recipe_of(runs[0].saved).name]))
    return [(name, [values[name] for values in found]) for name in found[-1]
            if len({str(values[name]) for values in found}) > 1]


def tables(runs):
    """{what: (columns, rows)} of the CSV files."""
    pictures, classes, confusion = [], [], []
    for run in runs:
        errors, table = run.errors(), run.confusion()
        names = run.saved.classes
        for label, name in enumerate(names):
            classes.append(dict(run=run.name, label=name, what=name_of(run.saved, label),
                                pictures=int(table[label].sum()), error=float(errors[label])))
        confusion += [dict(run=run.name, label=names[label], said=names[said],
                           pictures=int(table[label, said])) for label, said in np.argwhere(table)]
        called = [run.pictures.name(index) for index in run.indices]
        for place, label in enumerate(run.labels):
            row = dict(run=run.name, picture=called[place], label=names[label],
                       said=names[run.said[place]],
                       probability_of_label=float(np.exp(run.logs[place, label])),
                       probability_of_said=float(np.exp(run.logs[place].max())))
            for what, near in ("fc7", run.by_code), ("pixels", run.by_pixels):
                row |= {f"nearest_{rank}_by_{what}": called[other]
                        for rank, other in enumerate(near[place], 1)}
            pictures.append(row)
    kernels = [dict(run=run.name, tower=tower, kernel=kernel, row=row, column=column,
                    channel="RGB"[channel], weight=float(weight))
               for run in runs for tower, W in enumerate(run.kernels)
               for (row, column, channel, kernel), weight in np.ndenumerate(W)]
    beside = [run.name for run in runs] if len(runs) > 1 else [
        runs[0].name, f"recipe {runs[0].saved.recipe['name']}"]
    recipe = [dict(run=name, field=field, value=value) for field, values in differences(runs)
              for name, value in zip(beside, values, strict=True)]
    curves = [dict(row, run=run.name) for run in runs for row in run.rows]
    found = dict(curves=curves, recipes=recipe, kernels=kernels, classes=classes,
                 confusion=confusion, pictures=pictures)
    columns = dict(curves=CURVES, recipes=RECIPES)       # of which there may be no rows
    return {what: (columns.get(what) or list(dict.fromkeys(key for row in rows for key in row)),
                   rows) for what, rows in found.items()}


CURVES = *figures.COLUMNS, "top5_error", "lr", "images_per_s", "waited"
RECIPES = "run", "field", "value"


# --- the page ---------------------------------------------------------------------------


class Report:
    """The page of some runs that were judged."""

    def __init__(self, runs):
        self.runs, self.album = runs, Album()

    def page(self):
        matrix = (self.each("What is taken for what", self.confusion)
                  + self.each("Error of each class", self.classes))
        if len(self.runs) == 1:
            matrix = f'<div class="runs">{matrix}</div>'
        parts = [self.summary(), self.curves(), self.recipes(),
                 self.each("What conv1 looks for (the paper’s Figure 3)", self.kernels), matrix,
                 self.each("Surest hits", lambda run: self.cards(run, 0),
                           "Where what is right is most probable"),
                 self.each("Worst mistakes", lambda run: self.cards(run, 1),
                           "Where what is right is least probable"),
                 self.each("Which pictures are alike", self.neighbours)]
        own = Path(__file__).with_name("report.css").read_text("utf-8")
        names = ", ".join(run.name for run in self.runs)
        return page.document(f"What was learned: {names}", f"{self.album}{''.join(parts)}", own)

    def each(self, title, show, which=""):
        """A section with a part for each run, beside each other where there is room. which: the
        cards it has, in words."""
        parts = []
        for number, run in enumerate(self.runs):
            colour = svg.LINES[number % len(svg.LINES)]
            head = f'<h3 style="color:{colour}">{escape(run.name)}</h3>' * (len(self.runs) > 1)
            parts.append(f"<div>{head}{show(run)}</div>")
        told = (f"<p class=facts>{which}, one picture of a class at most. Its class, and what the "
                "net says.</p>") * bool(which)
        return (f'<section><h2>{title}</h2>{told}<div class="runs">{"".join(parts)}</div>'
                "</section>")

    def summary(self):
        told = []
        for run in self.runs:
            at, rows = run.saved.progress, run.rows
            speed = [row["images_per_s"] for row in rows if row["kind"] == "train"]
            told.append({
                "": f"<b>{escape(run.name)}</b>", "recipe": escape(run.saved.recipe["name"]),
                "top-1 error": f"<b>{run.result['top1_error']:.1%}</b>",
                "top-5 error": (f"{run.result['top5_error']:.1%}" if len(run.saved.classes) > 5
                                else "–"),
                "loss": f"{run.result['loss']:.3f}", "pictures tested": f"{len(run.labels):,}",
                "classes": f"{len(run.saved.classes):,}", "this net’s step": f"{at.step:,}",
                "training took": as_time(rows[-1]["seconds"] if rows else at.seconds),
                "pictures/s while training": f"{np.median(speed):,.0f}" if speed else "–"})
        head, *rest = told[0]
        return ("<header><h1>What was learned</h1><p class=promise>The best net of each run, and "
                "pictures of the validation set, from which it has not learned.</p>"
                + page.table([head, *(one[head] for one in told)],
                             [[what, *(one[what] for one in told)] for what in rest])
                + "</header>")

    def curves(self):
        parts, names = [], short([run.name for run in self.runs])
        for field, words in ("top1_error", "top-1 error"), ("loss", "loss"):
            thick, thin = ({names[run.name]: means([
                (row["epochs"], row[field]) for row in run.rows if row["kind"] == kind])
                for run in self.runs} for kind in ("validation", "train"))
            series = {name: points or thin[name] for name, points in thick.items()}
            if any(series.values()):
                parts.append(svg.curves(series, f"{words} of {ends(series)}", "epochs", words,
                                        thin=thin, width=CURVE))
        rates = {names[run.name]: means([(row["epochs"], row["lr"]) for row in run.rows])
                 for run in self.runs}
        if any(rates.values()):
            all_rates = [rate for points in rates.values() for _, rate in points]
            log = "y" if 0 < 20 * min(all_rates) < max(all_rates) else ""
            parts.append(svg.curves(rates, f"rate of {ends(rates)}", "epochs", "rate", log,
                                    width=CURVE))
        return ("<section><h2>Curves</h2><p class=facts>Thick: the validation set. Thin: the "
                "batches that were learned from, with dropout and random crops.</p>"
                f'<div class="curves">{"".join(f"<figure>{part}</figure>" for part in parts)}'
                "</div></section>")

    def recipes(self):
        found = differences(self.runs)
        if len(self.runs) == 1:
            name = escape(recipe_of(self.runs[0].saved).name)
            head, title = ["field", "here", f"recipe {name}"], f"What differs from recipe {name}"
        else:
            head = ["field", *(escape(run.name) for run in self.runs)]
            title = "What differs between the recipes"
        rows = [[escape(field), *(escape(as_words(value)) for value in values)]
                for field, values in found]
        return f"<section><h2>{title}</h2>" + (page.table(head, rows) if rows else
                                               "<p>Nothing.</p>") + "</section>"

    def kernels(self, run):
        names = ("top tower", "bottom tower") if len(run.kernels) > 1 else ("one tower",)
        parts = []
        for name, W in zip(names, run.kernels, strict=True):
            sheet = self.album.show(self.album.add(kernel_tiles(W)), f"the kernels, {name}")
            parts.append(f"<figure>{sheet}<figcaption>{W.shape[-1]} kernels, {name}</figcaption>"
                         "</figure>")
        return f'<div class="kernels">{"".join(parts)}</div>'

    def confusion(self, run):
        table, names = run.confusion(), [name_of(run.saved, i)
                                         for i in range(len(run.saved.classes))]
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        if len(names) > MANY:
            picture = self.album.show(self.album.add(svg.stretched(np.sqrt(shares))),
                                      f"the confusion matrix of {len(names)} classes")
            text = (f"<figure>{picture}<figcaption>A row is a class, a column what its pictures "
                    "were called: the more, the brighter. Right are those on the line from the "
                    "upper left to the lower right.</figcaption></figure>")
        else:
            def cell(number, share, own):
                return (f'<td class="{"own" if own else ""}" style="--share:{share:.2f}">'
                        f'{number or ""}</td>')

            rows = "".join(
                f"<tr><th>{i + 1} {escape(name)}</th>" + "".join(
                    cell(table[i, j], shares[i, j], i == j) for j in range(len(names))) + "</tr>"
                for i, name in enumerate(names))
            head = "".join(f"<th>{j + 1}</th>" for j in range(len(names)))
            text = (f'<div class="scroll"><table class="confusion"><tr><th>is, was called</th>'
                    f"{head}</tr>{rows}</table></div>")
        wrong = Counter({(i, j): int(table[i, j]) for i, j in np.argwhere(table) if i != j})
        most = "".join(f"<li>{count} of {table[i].sum()} {escape(names[i])}: called "
                       f"{escape(names[j])}</li>" for (i, j), count in wrong.most_common(5))
        return text + f"<p class=facts>The most frequent mistakes:</p><ul>{most}</ul>" * bool(most)

    def classes(self, run):
        errors = run.errors()
        order = [i for i in np.argsort(-errors, kind="stable") if np.isfinite(errors[i])]
        cut = order if len(order) <= MANY else order[:MANY // 2] + order[-MANY // 2:]
        told = "" if cut == order else (f"<p class=facts>The {MANY // 2} worst and the "
                                        f"{MANY // 2} best of {len(order):,}.</p>")
        return told + page.bars((name_of(run.saved, i), errors[i], False) for i in cut)

    def photo(self, run, place, alt, kind=""):
        whole = run.pictures.read(run.indices[place])
        small = Image.fromarray(whole).resize((SIDE, SIDE), Image.Resampling.BOX)
        return self.album.show(self.album.add(np.asarray(small), photograph=True), alt, kind=kind)

    def cards(self, run, which):
        cards = []
        for place in run.surest(CARDS)[which]:
            name = name_of(run.saved, run.labels[place])
            cards.append(f'<figure class="card">{self.photo(run, place, f"a photograph: {name}")}'
                         f"<figcaption>{escape(name)}</figcaption>"
                         f"{page.bars(run.five_best(place))}</figure>")
        return f'<div class="cards">{"".join(cards)}</div>' if cards else "<p>None.</p>"

    def neighbours(self, run):
        places = ((np.arange(QUERIES) + 0.5) * len(run.labels) / QUERIES).astype(int)
        rows = []
        for place in dict.fromkeys(places.tolist()):
            name = name_of(run.saved, run.labels[place])
            lines = []
            for words, near in ("fc7", run.by_code), ("pixels", run.by_pixels):
                found = []
                for other in near[place]:
                    same = run.labels[other] == run.labels[place]
                    label = name_of(run.saved, run.labels[other])
                    found.append(self.photo(run, other, label + ", the same class" * bool(same),
                                            "same" if same else ""))
                lines.append(f"<div><span>by {words}</span>{''.join(found)}</div>")
            rows.append(f'<div class="near"><div>{self.photo(run, place, name)}'
                        f"<span>{escape(name)}</span></div>{''.join(lines)}</div>")
        return (f"<p>The nearest other picture, by what fc7 puts out, is of the same class for "
                f"<b>{run.same_class(run.by_code):.0%}</b> of the pictures, by pixels for "
                f"<b>{run.same_class(run.by_pixels):.0%}</b>, by lot for {run.chance():.0%}. The "
                f"same class has a green frame.</p>{''.join(rows)}"
                f"<p class=facts>The {NEAREST} nearest of the other pictures, none of which the "
                "net has learned from, by the sum of squared differences (the paper's Figure 4, "
                "right, looks among the training pictures). Pixels: crops shrunk to an eighth."
                "</p>")


def means(points):
    """A curve of at most POINTS points, each the mean of some that follow each other."""
    parts = np.array_split(np.array(points, float), min(len(points), POINTS)) if points else ()
    return [tuple(part.mean(axis=0).tolist()) for part in parts]


def short(names):
    """{name: at most LABEL letters of it}, numbered where these are not enough to tell them apart:
    names of runs often begin alike, with a date or a recipe."""
    cut = [name if len(name) <= LABEL else f"{name[:9]}…{name[-10:]}" for name in names]
    if len(set(cut)) < len(cut):
        cut = [f"{number} {name}"[:LABEL] for number, name in enumerate(names, 1)]
    return dict(zip(names, cut, strict=True))


def ends(series):
    """Where each curve begins and ends, in words."""
    return "; ".join(f"{name}: from {points[0][1]:.3g} to {points[-1][1]:.3g}"
                     for name, points in series.items() if points)


def as_time(seconds):
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else (f"{minutes} min" if seconds >= 90
                                                     else f"{seconds:.0f} s")


def as_words(value):
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

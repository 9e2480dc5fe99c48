"""How does a run of alexnet.py begin?"""
from ..device import precision_of
from ..progress import say, shown
from . import options, weights
from .program import command
from .runs import Run
from .schedules import Plateau
from .stall import StallWatch

FEW = 100_000          # pictures: from so many on the paper's recipe has steps enough


def new_run(args, claim, saved, recipe, about, model, optimizer, loader):
    """The Run of these options: its folder, what it keeps, and where it starts."""
    ranks, folder = model.ranks, getattr(claim, "folder", claim)
    run = Run(claim, model, optimizer, loader, epochs=recipe.epochs, stop_at=args.steps,
              saved=about, plateau=Plateau.of(recipe),
              watch=StallWatch(len(about.classes), args.stall_steps),
              arrays={f"statistics/{name}": array
                      for name, array in vars(loader.prepare.statistics).items()},
              print_freq=args.print_freq, save_freq=args.save_freq,
              how_to_go_on="go on with\n  " + command("train", "--resume", folder / "last.npz"),
              if_slow="; --recipe quickstart is for trying" * (recipe.name != "quickstart"),
              if_waiting=": give more --workers, or prepare the pictures with data/imagenet.py",
              rate="--lr", ranks=ranks)
    precision = precision_of(model.devices, recipe.precision)
    products = f"; products in {precision}" * model.devices[0].is_gpu
    say("\n".join([f"recipe {recipe.name}; seed {about.seed}; towers on {model.devices[0]} and "
                   f"{model.devices[1]}{products}; output in {shown(folder)}",
                   *recipe.lines(args.verbose)]))
    if not args.recipe and not saved and recipe.name == "paper" and len(loader.pictures) < FEW:
        say("the paper's recipe is made for a million pictures; for fewer there is  "
            "--recipe small")
    if saved:
        run.restore(saved, lr=options.rate_to_go_on_with(args, saved))
        if saved.data != about.data:
            say(f"its errors until here are of the pictures in {saved.data}: do they compare?")
    elif args.init_from:
        say("\n".join(weights.copy_weights(args.init_from, model, about.classes, recipe)))
    return run

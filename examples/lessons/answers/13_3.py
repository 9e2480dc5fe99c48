"""Why the wrong ones tempt: on errors that fall smoothly and then stay, all of these rules drop
at the same validation. Real errors swing, and improve by a hair."""


def drops(errors, patience):
    best, bad, found = float("inf"), 0, []
    for number, error in enumerate(errors, start=1):
        if error < best - 0.001:
            best, bad = error, 0
        else:
            bad += 1
        if bad >= patience and len(found) < 3:
            found.append(number)
            bad = 0
    return found

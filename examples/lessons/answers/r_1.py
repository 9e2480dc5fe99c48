"""Why the wrong ones tempt: all of them add up the same numbers, and on paper the order of a sum
means nothing. Neighbours that meet first are on the same rank, however many ranks there are."""


def tree(parts):
    while len(parts) > 1:
        parts = [parts[i] + parts[i + 1] for i in range(0, len(parts), 2)]
    return parts[0]

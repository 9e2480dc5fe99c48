"""Why the wrong ones tempt: they are the orders that a depth-first and a breadth-first search
give, and that of the forward pass. Several orders are right; newest first is one of them."""
users = {"p": "qr", "q": "s", "r": "s", "s": ""}


def is_right(order):
    return all(order.index(user) < order.index(node) for node in order for user in users[node])


orders = dict(a="sqpr", b="sqrp", c="spqr", d="pqrs")
answer, = [letter for letter, order in orders.items() if is_right(order)]

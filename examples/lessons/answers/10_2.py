"""Why the wrong ones tempt: in all three runs the loss is too high, and one looks at its last
value alone. How it came there says more: which classes are wrong, and how it began."""
faults = {
    # A logit below zero is cut off, and gets no gradient. So a class whose logit is below zero
    # for all pictures never comes back. Those that are left are learned.
    "run 1": "b",
    # Each step goes along the sum of all gradients so far. While they agree this is faster; but
    # there is no way to slow down, and soon the steps are far too long.
    "run 2": "a",
    # A label says nothing of its picture. So the best answer is a quarter for each class, whose
    # loss is ln 4. Later the net learns single pictures by heart, which is no help with new ones.
    "run 3": "c",
}
answer = "".join(faults[run] for run in sorted(faults))

"""Why the wrong ones tempt: 1e-4 is the number that the paper prints, and 2e-5 the one that
programs of 2012 have on the sum. PyTorch wants a number that is still to be divided."""
on_the_sum, size = 1e-4, 5
answer = on_the_sum * size

"""Why the wrong ones tempt: with as many pictures on every rank the mean of the means is right, so
the mistake shows in the last batch of an epoch only."""
answer = (3 * 1 + 1 * 3) / (3 + 1)

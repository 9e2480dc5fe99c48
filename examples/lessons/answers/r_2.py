"""Why the wrong ones tempt: it is easy to forget the way back, or that nobody sends to himself.
Both ways take (N - 1) / N of the gradient; a rank never sends more than twice its size."""
ranks, size = 4, 100
answer = 2 * (ranks - 1) * size / ranks

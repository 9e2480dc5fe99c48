"""Why the wrong ones tempt: the parameters come to mind, and what learning adds to them is easy to
forget. Before the first step there are neither gradients nor velocities."""
parameters, kept, passing = 60_965_224, 6_155_160, 1_161_600
left = 3_000_000_000 - 3 * 4 * parameters              # bytes for pictures
answer = left // (kept + passing)

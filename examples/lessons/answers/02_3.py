"""Why the wrong ones tempt: a product of a number with itself looks like one arrow in the graph,
and is two. Here this happens twice, in b * b and in a * a."""
a = 3
b = a * a
y_along_b = b + b + 1                                  # left factor, right factor, the sum
b_along_a = a + a
answer = y_along_b * b_along_a

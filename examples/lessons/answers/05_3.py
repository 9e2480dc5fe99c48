"""Why the wrong ones tempt: each is a number that also has a meaning here. Say what one row is and
how many rows there are, and only one number is left."""

places = 13 * 13               # stride 1 and a zero on every side keep the size
row = 3 * 3 * 256              # a patch, of every pixel all channels
answer = places * row

"""Why the wrong ones tempt: each is a number that also has a meaning here. Say what one row is and
how many rows there are, and only one number is left."""

places = 27 * 27               # stride 1 and two zeros keep the size
row = 5 * 5 * 48               # a patch, of every pixel all channels
answer = places * row

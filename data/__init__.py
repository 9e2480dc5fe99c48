"""Data sets, one small script each. What they make is kept out of git."""

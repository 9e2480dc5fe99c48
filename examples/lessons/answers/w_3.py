"""Why the wrong ones tempt: a plain output sees three pixels, so 3 is right for im2col. A tile
makes all of its outputs of all of its pixels, and tiles share the pixels at their ends."""
tiles = [start for start in range(0, 40, 4) if start <= 9 < start + 6]     # those at 4 and at 8
answer = 4 * len(tiles)

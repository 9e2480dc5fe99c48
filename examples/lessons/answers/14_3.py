"""Why the wrong ones tempt: a deviation grows with the scale of the pixels, a variance with its
square. Whoever computes in one scale and thinks in the other is wrong by a factor of 255."""
deviation = 121.78 / 255                # of pixels of 0 to 1
shift = 0.1 * deviation ** 2            # the eigenvalue is the variance
answer = 255 * shift                    # in grey levels

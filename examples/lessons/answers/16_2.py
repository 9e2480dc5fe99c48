"""Why the wrong ones tempt: to us moved stripes are the same thing. Pixel by pixel they are the
opposite, and plain grey lies half-way between."""
import numpy as np

u = np.arange(64) * 2 * np.pi / 16                     # four periods
stripes, moved, plain = np.sin(u), np.sin(u + np.pi), np.zeros(64)
answer = ((stripes - moved) ** 2).sum() / ((stripes - plain) ** 2).sum()

"""Why the wrong ones tempt: there are 27 windows in a row, and 28 even rows. But two neighbours
share one row, so there are as many shared rows as there are gaps between 27 windows."""
import numpy as np

windows_of_row = np.zeros(55, int)
for start in range(0, 55 - 3 + 1, 2):
    windows_of_row[start:start + 3] += 1

windows_of_pixel = windows_of_row[:, None] * windows_of_row
answer = (windows_of_pixel == 4).sum()                 # 26 * 26

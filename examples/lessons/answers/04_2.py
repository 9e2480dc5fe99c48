"""Why the wrong ones tempt: one counts op by op, and both ops mention y. But memory holds arrays,
not mentions of them; and x is mentioned by nobody."""
import numpy as np

y = np.zeros((128, 2048), np.float32)
answer = y.nbytes

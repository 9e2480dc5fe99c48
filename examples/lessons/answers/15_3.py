"""Why the wrong ones tempt: ln(2) is what one learns to look for, and it holds for equally
frequent classes. A net that sits at 0.325 has learned something: how frequent the classes are."""
import math

shares = 0.9, 0.1
answer = -sum(share * math.log(share) for share in shares)

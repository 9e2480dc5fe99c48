"""`python -m tinynet` is the program in alexnet.py, wherever tinynet is installed."""
import sys

import alexnet

if __name__ == "__main__":
    sys.exit(alexnet.main())

"""`python -m gramlm`: fits real terrain by a trained RBF network, beside SciPy's interpolant."""

import sys

from ._demo.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m flowyml` is the command `flowyml`."""

import sys

from flowyml.cli import main

if __name__ == "__main__":
    sys.exit(main())

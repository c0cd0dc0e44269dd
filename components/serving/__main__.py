"""`make serve`: the champion over HTTP on this machine."""

import sys

from components.serving.run import main

if __name__ == "__main__":
    sys.exit(main())

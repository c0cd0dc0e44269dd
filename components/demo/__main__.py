"""`make demo`: the page and the champion behind it."""

import sys

from components.demo.app import create_demo
from components.serving.run import main

if __name__ == "__main__":
    sys.exit(main(build=create_demo))

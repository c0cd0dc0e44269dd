"""Processes that stand still, each in a way of its own, under a watchdog that ends them.

    python -m tests.training.stalls WAY FOLDER SECONDS

lock     a thread waits for a lock that is never released, as a collective waits for a peer that died
regex    an expression that holds the interpreter for longer than anybody waits
report   the lock that is never released is the one that logging needs
steady   progress, slower than it might be, and then the end
"""

import logging
import re
import sys
import threading
import time
from pathlib import Path

from components.training.watchdog import Watchdog


def wait_for_a_lock() -> None:
    """Never returns."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def main() -> None:
    way, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    with Watchdog("the test", seconds, folder) as watchdog:
        watchdog.progress("step 1")
        watchdog.progress("step 2")
        if way == "lock":
            wait_for_a_lock()
        elif way == "regex":
            re.match(r"(a+)+$", "a" * 60 + "b")
        elif way == "report":
            handler = logging.StreamHandler()
            logging.getLogger().addHandler(handler)
            handler.acquire()
            wait_for_a_lock()
        else:
            for step in range(8):
                time.sleep(seconds / 4)
                watchdog.progress(f"step {step}")
    print("finished")


if __name__ == "__main__":
    main()

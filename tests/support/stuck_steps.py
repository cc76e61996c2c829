"""Ways of a step to be stuck, none of which can be asked to end; a light module, since workers import it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

LONG = 60


def ignores_signals() -> None:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(LONG)


def blocks_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set(signal.Signals))
    time.sleep(LONG)


def searches_in_c() -> None:
    """Hold the interpreter: no other thread of the worker runs meanwhile."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def stops_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def waits_for_a_child() -> None:
    subprocess.run([sys.executable, "-c", f"import time; time.sleep({LONG})"], check=False)


def swallows_everything() -> None:
    while True:
        try:
            time.sleep(LONG)
        except BaseException:
            continue


WAYS = [ignores_signals, blocks_signals, searches_in_c, stops_itself, waits_for_a_child, swallows_everything]

"""How long this process has been running: a prediction of a whole command includes its own start-up."""

import os
import time


def process_age() -> float:
    """Seconds since this process was started, the interpreter's start and all imports included.

    Linux says when a process began (in hundredths of a second). Elsewhere the processor time used so far
    stands in for it: starting up is computing, so it comes near and is never too large.
    """
    try:
        return _age_on_linux()
    except (OSError, ValueError, IndexError, AttributeError):
        return time.process_time()


ENDING = 0.1
"""What follows the last second of a run that is stored, over its process's start: entering the run, learning
from it, printing, leaving. Measured from outside over whole fits on a busy machine: 0.03 to 0.28."""


def ending(startup: float) -> float:
    """Seconds to expect from the saved run to the end of a process that took so long to start.

    No process can time its own end, so predictions, budgets and their calibration all take this for it.
    """
    return ENDING * startup


def _age_on_linux() -> float:
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()  # the command's name may contain anything but this
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5): ticks since boot
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    if age < 0:
        raise ValueError(f"a process cannot be {age} s old")
    return age

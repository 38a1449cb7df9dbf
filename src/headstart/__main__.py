"""The command: `headstart …` and `python -m headstart`.

Ctrl-C is minded before anything that takes time is imported. Once the last line is written the process leaves
without taking the interpreter down: after PyTorch that costs up to 2.4 s, and what is to stay is on the disk.
"""

import atexit
import gc
import os
import signal
import sys
from collections.abc import MutableMapping

from headstart.errors import stopped

_OBJECTS_BETWEEN_COLLECTIONS = 20_000
"""With Python's 700 they take 5 % of a prediction's processor time, and find nothing: modules stay."""

STOPPED_CODE = 130
"""What a shell expects of a command that Ctrl-C ended: 128 and the signal's number."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    ending = _Ending()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    open_missing_streams()
    wait_asleep_where_busy(os.environ)
    try:
        from headstart.cli import main as command

        command()
        ending.code = 0
    except SystemExit as end:
        ending.code = _number(end.code)
        raise
    except BaseException:
        if not ending.stopped:
            raise  # a defect: its traceback is what is needed to mend it
        ending.code = STOPPED_CODE
        _say_stopped()
        sys.exit(STOPPED_CODE)


def open_missing_streams() -> None:
    """Where stdin, stdout or stderr is closed, as under daemons and ``pythonw``, put a null device.

    Else the next file that is opened, a database say, takes the number and whatever is printed goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (until the end)


def wait_asleep_where_busy(environment: MutableMapping[str, str]) -> None:
    """Where other programs keep the cores busy, let threads of linear algebra sleep while they wait.

    GNU's OpenMP, which PyTorch brings along, spins some 300,000 times before a thread sleeps: best on a quiet
    machine, but on a busy one the thread that is waited for does not get the core. Measured beside programs
    that wanted two cores five times over: a training step of a small tail 0.1 s instead of 1.4 to 5.4. It
    reads this once, when it is loaded; what the user set stays.
    """
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"} & environment.keys()
    if chosen or not hasattr(os, "getloadavg"):
        return
    try:
        busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    except OSError:  # not to be had
        return
    if busy:
        environment["GOMP_SPINCOUNT"] = "1000"


class _Ending:
    """Minds Ctrl-C and the end of the process; ``code`` is None until the command is over."""

    def __init__(self) -> None:
        self.stopped = False
        self.code: int | None = None
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a caller wants it ignored
            signal.signal(signal.SIGINT, self._interrupted)
        sys.unraisablehook = self._unraisable
        sys.excepthook = self._uncaught
        # What is registered first is called last: after threads were waited for, temporary files removed.
        atexit.register(self._leave, os.getpid())

    def _interrupted(self, _number: int, _frame: object) -> None:
        """Ctrl-C unwinds what is going on; pressed again, or with all of it done, it leaves at once."""
        if self.code is not None:
            _leave_at_once(self.code)
        if self.stopped:
            _stop_at_once()
        self.stopped = True
        raise KeyboardInterrupt

    def _unraisable(self, problem: "sys.UnraisableHookArgs") -> None:
        """Ctrl-C while an object was deleted: Python would print that it was ignored, and go on."""
        if issubclass(problem.exc_type, KeyboardInterrupt):
            _stop_at_once()
        sys.__unraisablehook__(problem)

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: object) -> None:
        """Some extension modules print what stopped them and raise something else in its place."""
        if self.stopped:
            _stop_at_once()
        sys.__excepthook__(kind, error, trace)  # type: ignore[arg-type]

    def _leave(self, process: int) -> None:
        """The last thing to happen, unless an error that nobody caught or a measuring tool wants more."""
        if self.code is not None and os.getpid() == process and "coverage" not in sys.modules:
            _leave_at_once(self.code)


def _number(code: object) -> int | None:
    """The exit code of what `sys.exit` was told; None for a message, which Python prints."""
    return 0 if code is None else code if isinstance(code, int) else None


def _say_stopped() -> None:
    """After an empty line, as click has it: a terminal stands behind its ^C.

    Straight to the file: a signal may have come in the middle of writing to the stream.
    """
    from contextlib import suppress

    with suppress(OSError):  # nobody listens any more
        os.write(2, f"\n{stopped(sys.argv)}\n".encode())


def _stop_at_once() -> None:
    _say_stopped()
    _leave_at_once(STOPPED_CODE)


def _leave_at_once(code: int) -> None:
    """Flush what was said and end the process here; that its reader has had enough is no failure."""
    from contextlib import suppress

    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError, RuntimeError):  # gone, closed, never there, busy
            stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main()

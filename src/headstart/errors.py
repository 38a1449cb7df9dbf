"""Every error that Headstart raises on purpose.

    HeadstartError
    ├── UserError                 the input or the request is wrong; exit code 2
    │   ├── ImageError            a file is no usable image (truncated, empty, bomb-sized, not an image)
    │   ├── DatasetError          the labelled images do not form a data set
    │   ├── BackboneError         unknown backbone, unknown architecture, unusable weights file
    │   │   └── MissingWeights    the weights are not on this machine and there is no network
    │   ├── OptionError           an option or argument has a value that cannot work
    │   ├── MissingExtra          the feature needs an optional dependency; names the extra to install
    │   ├── RunError              no such run, or a run's folder is incomplete
    │   ├── ServerError           a prediction server cannot be reached, or refuses
    │   └── LessonError           a lesson's pack, an answer, a badge or an imported file is not usable
    └── InternalError             our fault; exit code 1
        ├── CacheError            the feature cache could not be read or written
        └── ParityError           a reloaded or exported model disagrees with the one in memory

A message is one line: what, where, expected and got, the way out. `printable` makes text
from outside fit for it.
"""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""A newline would break a line of output in two, an escape would change a terminal's colours or title, and a
direction mark would show a name backwards."""


def printable(name: object) -> str:
    """Text from outside as it can be shown on a line: control characters and what is no UTF-8 are escaped."""
    text = str(name)
    if text.isascii() and text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def reason_of(error: BaseException) -> str:
    """Why something failed, on one line: the system's reason, else the first line that the error says."""
    text = getattr(error, "strerror", None) or str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return printable(line[:200])


_STORING = ("fit", "compare", "evaluate", "experiment")
"""Commands that compute features and store them."""


def stopped(arguments: "list[str]") -> str:
    """The line after Ctrl-C, by the command line that it ended."""
    kept = "; every feature computed so far is kept: the same command goes on from here"
    return f"headstart: stopped{kept if set(_STORING).intersection(arguments[1:2]) else ''}"


class HeadstartError(Exception):
    """Root of every error raised on purpose."""

    exit_code = 1


class UserError(HeadstartError):
    """The input or the request is wrong; the message says how to mend it."""

    exit_code = 2


class ImageError(UserError):
    """A file is no usable image."""


class DatasetError(UserError):
    """The labelled images do not form a data set."""


class BackboneError(UserError):
    """Unknown backbone or architecture, or an unusable weights file."""


class MissingWeights(BackboneError):
    """The weights are not on this machine and cannot be fetched."""


class OptionError(UserError):
    """An option or argument has a value that cannot work."""


class MissingExtra(UserError):
    """The feature needs an optional dependency."""

    def __init__(self, feature: str, *, extra: str) -> None:
        super().__init__(f"{feature} needs an optional part: pip install 'headstart[{extra}]'")
        self.extra = extra


class RunError(UserError):
    """No such run, or a run's folder is incomplete."""


class ServerError(UserError):
    """A prediction server cannot be reached, or refuses."""

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class LessonError(UserError):
    """A lesson's pack, an answer, a badge or an imported file is not usable."""


class InternalError(HeadstartError):
    """A failure of ours."""


class CacheError(InternalError):
    """The feature cache could not be read or written."""


class ParityError(InternalError):
    """A reloaded or exported model disagrees with the one in memory."""

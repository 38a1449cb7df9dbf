"""Fuzzes the reading of lesson packs, question banks and badges: every input is read or a `LessonError`.

python fuzz/pack.py [SECONDS]
"""

import tempfile
from pathlib import Path

from run import fuzz

_FOLDER = Path(tempfile.mkdtemp())


def seeds() -> list[bytes]:
    """A pack's main file, a Moodle quiz, GIFT, the beginning of a PNG; a first byte says which."""
    return [
        b"0title: A\nsubject: b\ntrack: c\nsummary: d\nmodes: [watch, read]\nexperiments: {}\n",
        b"0a: &x [1, 2]\nb: *x\n",
        b"1<quiz><question type='multichoice'><name><text>a</text></name><answer fraction='100'>"
        b"<text>b</text></answer></question></quiz>",
        b"2::t:: What? {=a ~b ~c}\n",
        b"3\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    ]


def target(data: bytes) -> None:
    """Read by the first byte's kind."""
    from headstart.errors import LessonError
    from headstart.lesson.engine import badge_images as pictures
    from headstart.lesson.engine import gift, moodle
    from headstart.lesson.engine import pack_loading as library

    text = data[1:].decode("utf-8", "replace")
    try:
        if data[:1] == b"0":
            (_FOLDER / "pack.yaml").write_bytes(data[1:])
            library.check_pack(_FOLDER)
        elif data[:1] == b"1":
            moodle.from_moodle_xml(text)
        elif data[:1] == b"2":
            gift.from_gift(text)
        else:
            pictures.extract(data[1:])
    except LessonError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error!r}") from error


if __name__ == "__main__":
    fuzz(
        target,
        seeds(),
        modules=[
            "headstart.lesson.engine.sources",
            "headstart.lesson.engine.moodle",
            "headstart.lesson.engine.gift",
            "headstart.lesson.engine.badge_images",
        ],
    )

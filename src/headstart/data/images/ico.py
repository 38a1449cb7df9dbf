"""ICO: the largest picture of a Windows icon, itself a PNG or a bitmap."""

from __future__ import annotations

import struct

from PIL.IcoImagePlugin import IcoFile, IcoImageFile

from headstart.errors import ImageError

_LONGEST_SIDE = 4096
"""Pixels. An icon's directory cannot say more than 256; the picture inside can."""


class IconFile(IcoImageFile):
    """Pillow's reader, which loads the picture while it opens the file: its size is looked at before."""

    def _open(self) -> None:
        assert self.fp is not None
        largest = IcoFile(self.fp).entry[0]
        self.fp.seek(largest.offset)
        head = self.fp.read(24)
        if head.startswith(b"\x89PNG"):
            sides = struct.unpack(">II", head[16:24])
        else:
            sides = struct.unpack("<ii", head[4:12])
        if not all(0 < side <= 2 * _LONGEST_SIDE for side in sides):
            raise ImageError(f"too large: an icon of {sides[0]} x {sides[1]} pixels")
        self.fp.seek(0)
        super()._open()

"""TIFF as Pillow reads it, and what its table of layouts leaves out.

Pillow knows a picture by byte order, photometric interpretation, sample format, bits and so on. What is not
in its table it refuses, and some 16-bit pictures whose zero is white it reads as if it were black.
"""

from __future__ import annotations

from typing import Any

from PIL import TiffImagePlugin

from headstart.data.images.colour import Grey

_WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _PLANES = 256, 258, 259, 262, 266, 284
_COLOURS, _SAMPLE_FORMAT = 320, 339
_LZW = 5
_UNSIGNED, _SIGNED = 1, 2
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""What libtiff has decoded is in the machine's byte order, which Pillow forgets for these."""


class TiffFile(TiffImagePlugin.TiffImageFile):
    """Pillow's reader; `grey` says what the values of deep grey mean."""

    grey = Grey()

    def _setup(self) -> None:
        tags = self.tag_v2
        bits, kind = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))
        photometric = tags.get(_PHOTOMETRIC, 0)
        if max(bits) > 8 and photometric in (0, 1):
            white = 2 ** bits[0] - 1 if bits[0] < 16 else 65_535
            unsigned = bits == (32,) and kind == (_UNSIGNED,)
            self.grey = Grey(white, photometric == 0, unsigned)
            if unsigned:
                tags[_SAMPLE_FORMAT] = (_SIGNED,)  # the same bits; not in Pillow's table for every byte order
            tags[_PHOTOMETRIC] = 1  # turned round when it is scaled
        if max(bits) > 8 and (tags.get(_PLANES, 1) == 2 or tags.get(_FILL_ORDER, 1) == 2):
            # Pillow takes planes of 16 bits for planes of 8. libtiff, which decodes whatever is compressed,
            # does not, and sees for itself that nothing is.
            if tags.get(_COMPRESSION, 1) == 1:
                tags[_COMPRESSION] = _LZW
            tags[_FILL_ORDER] = 1
        colours = tags.get(_COLOURS)
        if colours and max(colours) < 256:  # old writers put 8-bit values where 16-bit ones belong
            tags[_COLOURS] = tuple(value * 257 for value in colours)
        super()._setup()
        if self.use_load_libtiff:
            arguments: Any = self.tile[0].args
            rawmode = _NATIVE.get(arguments[0], arguments[0])
            self.tile = [self.tile[0]._replace(args=(rawmode, *arguments[1:]))]

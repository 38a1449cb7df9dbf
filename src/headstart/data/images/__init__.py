"""Images: bytes become an oriented RGB picture, a picture becomes the pixels that a backbone wants.

Two steps, so that one decoding serves several renderings:

1. `decode` reads every format of `formats`, applies the EXIF orientation and tells `ImageFacts`. A JPEG is
   decoded at a half, a quarter or an eighth of its size where the caller says how few pixels it needs
   (libjpeg's DCT scaling). `open_image` gives the same as Pillow's picture.
2. `render` resizes and crops in one step, on the sampling grid of timm's evaluation transform.

Everything here is safe to call from many threads, and Pillow releases the interpreter lock while it works.
"""

from headstart.data.images.bounds import MAX_PIXELS
from headstart.data.images.decoding import Decoded, decode, load_pixels, open_image
from headstart.data.images.facts import NO_HASH, ImageFacts
from headstart.data.images.formats import IMAGE_SUFFIXES, looks_like_an_image
from headstart.data.images.rendering import render
from headstart.data.images.resampling import pixels_version
from headstart.data.preprocess import CENTRE, FLIP, Preprocess, View, parse_views, shortest_side_needed

__all__ = [
    "CENTRE",
    "FLIP",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "NO_HASH",
    "Decoded",
    "ImageFacts",
    "Preprocess",
    "View",
    "decode",
    "load_pixels",
    "looks_like_an_image",
    "open_image",
    "parse_views",
    "pixels_version",
    "render",
    "shortest_side_needed",
]

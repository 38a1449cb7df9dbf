"""Pictures as files of any format."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def encoded(image: Any, file_format: str, **options: Any) -> bytes:
    """A picture, or an array of its pixels, as the bytes of a file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()

"""Recognises what is no data set of labelled images: boxes, arrays, records and tables of other programs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from headstart.errors import printable

_ONE_LABEL = (
    "a classifier needs one label for each image: a folder for each class, or a table of files and labels"
)
_AS_ARRAYS = "load them in Python and give headstart.fit the pair of arrays (X, y)"

_OF_LABELS = "(label|annotation|class|target|train|metadata)"

_KINDS = (
    (r"(.*/)?(_annotations\.coco|instances_[^/]+|annotations)\.json", "boxes in COCO's form", _ONE_LABEL),
    (r".*\.xml", "boxes in Pascal VOC's form", _ONE_LABEL),
    (r"(.*/)?(labels/([^/]+/)*[^/]+\.txt|data\.yaml)", "boxes in YOLO's form", _ONE_LABEL),
    (r"(.*/)?(data_batch_\d|test_batch|batches\.meta)(\.bin|\.txt)?", "CIFAR's batches", _AS_ARRAYS),
    (r"(.*/)?[^/]+-(idx\d-)?ubyte(\.gz)?", "files in MNIST's form", _AS_ARRAYS),
    (r".*\.(npy|npz|h5|hdf5|mat|pkl|pickle|pt)", "arrays in files", _AS_ARRAYS),
    (r".*\.tfrecords?(-\d+-of-\d+)?|.*\.rec", "records of another program", "unpack them into image files"),
    (r".*\.(xlsx?|xlsm|ods|numbers)", "a workbook", "save its sheet of labels as CSV UTF-8"),
    (rf"(.*/)?[^/]*{_OF_LABELS}[^/]*\.json", "labels in JSON", "write them as a table of path and label"),
)  # fmt: skip


def foreign(paths: Sequence[str]) -> str | None:
    """What files of these names are instead of labelled images, and the way out; None where nothing tells."""
    for pattern, what, way_out in _KINDS:
        known = re.compile(pattern, re.IGNORECASE)
        if example := next((path for path in paths if known.fullmatch(path)), None):
            return f"{printable(os.path.basename(example))} looks like {what}; {way_out}"
    return None

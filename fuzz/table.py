"""Fuzzes the reading of CSV tables: every input is a data set or a `DatasetError`.

python fuzz/table.py [SECONDS]
"""

import tempfile
from pathlib import Path

from run import fuzz

_FOLDER = Path(tempfile.mkdtemp())
(_FOLDER / "1.jpg").write_bytes(b"\xff\xd8\xff")


def seeds() -> list[bytes]:
    """Tables as people and programs write them."""
    return [
        b"path,label\n1.jpg,a\n",
        b"\xef\xbb\xbfPath, Label ,split\r\n1.jpg,b,train\r\n",
        b'path,label,other\n"1.jpg","a ""b""",x\n\n1.jpg,"a\nb",y\n',
        b"path;label\n1.jpg;a\n",
        b'sep=;\r\nimage_id; species\r1; "a" \r\n#2;b\n',
        b"1.jpg\ta\n",
        b"image,MEL,NV,is_valid\n1,1.0,0.0,True\n",
        b"TRAIN,gs://bucket/x/1.jpg,a\nUNASSIGNED,https://x/1.jpg?y#z,a|b\n",
        b"path,label\n/etc/passwd,a\n../../x,b\n\x00,c\n",
        "path,label\n1.jpg,ä\n".encode("utf-16"),
        b"path,label\n\xff\xfe.jpg,\xe4\n",
    ]


def target(data: bytes) -> None:
    """Read the table."""
    from headstart.data.dataset import read_dataset
    from headstart.errors import DatasetError

    file = _FOLDER / "table.csv"
    file.write_bytes(data)
    try:
        read_dataset(file, for_training=False)
    except DatasetError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error!r}") from error


if __name__ == "__main__":
    rooms = ("reading", "delimited", "lookup", "tables")
    fuzz(target, seeds(), modules=[f"headstart.data.dataset.{room}" for room in rooms])

"""Images for other processes and machines."""

import os
import socket
from collections.abc import Sequence
from dataclasses import replace

from headstart.data.dataset import Sample
from headstart.data.sources import FileSource, MemberAt, MemberSource, Source, is_address
from headstart.errors import DatasetError, printable


def portable(sample: Sample) -> Sample:
    """The same for another process: with whole paths, and members of archives by their names."""
    source: Source = sample.source
    if isinstance(source, FileSource):
        source = replace(source, path=os.path.abspath(source.path))
    elif isinstance(source, MemberSource) and source.place[0]:
        file, member = source.place
        source = MemberAt(file if is_address(file) else os.path.abspath(file), member)
    return replace(sample, source=source)


def refuse_unseen(samples: Sequence[Sample]) -> None:
    """One file may vanish; where none of several is there, the folder is not on this machine.

    Raises:
        DatasetError: it is not.
    """
    sources = [each.source for each in samples]
    files = {each.path for each in sources if isinstance(each, FileSource)}
    files |= {each.file for each in sources if isinstance(each, MemberAt) and not is_address(each.file)}
    if files and not any(map(os.path.exists, files)):
        raise DatasetError(
            f"{printable(min(files))}: not there on {socket.gethostname()}; put images in a folder that all "
            "nodes see under the same path, or give an address such as s3://"
        )

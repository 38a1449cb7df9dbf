"""Where images come from: files, members of archives and arrays, and the listing of folders, zips and tars.

    reading     one image's content, wherever it lies
    names       what a name says: an image, a table, an archive; the litter of systems
    listing     what a folder or archive holds; what is passed over, and why
    folders     listing a folder
    zips, tars  listing an archive
    parquet     a Parquet file, bounded, and the images that lie inside
    remote      the same in object stores and on web servers
    archives    which of them a file is; a member found again by its name

Nothing is extracted or opened while listing (but for files without an extension, whose first bytes decide);
`Source.read` may be called from many threads. Nothing vanishes: what is listed and what is left out, with its
reason, is all that is there.
"""

from pathlib import Path

from headstart.data.sources.archives import MemberAt, is_archive, list_archive, source_at
from headstart.data.sources.folders import list_folder
from headstart.data.sources.listing import Listing, Skipped
from headstart.data.sources.names import ARCHIVE_SUFFIXES, TABLE_SUFFIXES, why_not_an_image
from headstart.data.sources.reading import (
    MAX_FILE_BYTES,
    ArraySource,
    BytesSource,
    FileSource,
    LostSource,
    MemberSource,
    Source,
)
from headstart.data.sources.remote import (
    Place,
    RemotePlace,
    RemoteSource,
    is_address,
    list_remote,
    reads,
    remote,
)


def list_files(place: Place) -> Listing:
    """List everything below a folder, on disk or at an address; see `list_folder` and `list_remote`."""
    return list_folder(place) if isinstance(place, Path) else list_remote(place)


__all__ = [
    "ARCHIVE_SUFFIXES",
    "MAX_FILE_BYTES",
    "TABLE_SUFFIXES",
    "ArraySource",
    "BytesSource",
    "FileSource",
    "Listing",
    "LostSource",
    "MemberAt",
    "MemberSource",
    "Place",
    "RemotePlace",
    "RemoteSource",
    "Skipped",
    "Source",
    "is_address",
    "is_archive",
    "list_archive",
    "list_files",
    "list_folder",
    "list_remote",
    "reads",
    "remote",
    "source_at",
    "why_not_an_image",
]

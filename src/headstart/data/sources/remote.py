"""Folders, tables, archives and images in object stores and on web servers, through fsspec.

    place = remote("s3://photos/flowers")     # None for what is a path of this machine
    place.is_dir(), list_remote(place).files
    place / "rose/1.jpg"                      # another place

fsspec and the packages behind it are imported when an address is met. They find credentials where their own
users keep them (`~/.aws`, `AWS_…`, `GOOGLE_APPLICATION_CREDENTIALS` and the like); an address is shown
without what it may hold of them.
"""

from __future__ import annotations

import io
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

from headstart.data.sources.listing import MAX_DEPTH, Listing, Member, arrange
from headstart.data.sources.reading import MAX_FILE_BYTES, Source
from headstart.errors import DatasetError, ImageError, MissingExtra, printable
from headstart.files import held_roots

SCHEMES = {
    "s3": ("s3fs", "remote"),
    "gs": ("gcsfs", None),
    "gcs": ("gcsfs", None),
    "az": ("adlfs", None),
    "abfs": ("adlfs", None),
    "abfss": ("adlfs", None),
    "hf": ("huggingface_hub", "hub"),
    "http": ("aiohttp", "remote"),
    "https": ("aiohttp", "remote"),
    "memory": ("fsspec", "remote"),
}
"""The addresses that are read; the package that does it, and the extra that brings it, if one does."""

TRIES = 5
"""How often a request is made; s3fs and its like repeat some of them by themselves besides."""

FIRST_PAUSE = 0.2
"""Seconds before the second try, on average; each later pause is twice as long."""

MOST_LISTED = 10_000_000
"""Files and folders below one address."""

_CONNECT_SECONDS, _SILENT_SECONDS = 10, 30
"""How long a web server may take to accept a connection, and then between two bytes."""

_AHEAD = 16
"""Images on their way at once: a request takes tens of milliseconds, in which nothing is computed."""

_PIECE = 2**20
"""Bytes of a web server's answer that are taken at once."""

_LARGEST_PAGE = MAX_FILE_BYTES + 1
"""Bytes of a page that lists a folder; as many as make a request without `Range`."""

_BLOCK = 2**18
"""Bytes that are fetched at once from an archive."""

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*):/+", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>)\]]+", re.IGNORECASE)

_PLAIN_NAMES = ("s3", "hf", "memory")
"""In whose addresses `?` and `#` are letters of a name."""

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)
"""What no second try mends."""

T = TypeVar("T")


def is_address(text: str | Path) -> bool:
    """Whether a text begins as an address does, whatever its scheme."""
    return _ADDRESS.match(str(text)) is not None


def shown(address: str) -> str:
    """An address without its account and what follows its path, any of which may be a secret."""
    scheme, colon, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    host = f"***@{host.rpartition('@')[2]}" if "@" in host else host
    place = f"{host}{slash}{path}"
    if scheme.lower() not in _PLAIN_NAMES:
        place, mark, _ = place.partition("#")[0].partition("?")
        place += "?…" if mark else ""
    return printable(f"{scheme}{colon}{place}")


@dataclass(frozen=True)
class RemotePlace:
    """A folder or file at an address; takes the part of a `Path` that reading data sets needs.

    Attributes:
        address: whole, with whatever secret it holds; `str` has none.
        system: fsspec's file system.
        path: as that file system has it.
        kind: "directory" or "file".
        size: bytes, where the server tells.
    """

    address: str = field(repr=False)
    system: Any = field(repr=False, compare=False)
    path: str = field(repr=False)
    kind: str = "file"
    size: int | None = None

    def __str__(self) -> str:
        return shown(self.address)

    def __truediv__(self, name: str) -> RemotePlace:
        address, mark, query = self._plain
        name = quote(name) if self.is_web else name
        return RemotePlace(
            f"{address.rstrip('/')}/{name}{mark}{query}", self.system, f"{self.path.rstrip('/')}/{name}"
        )

    @property
    def _plain(self) -> tuple[str, str, str]:
        return self.address.partition("?") if self.is_web else (self.address, "", "")

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, where nobody says what is a folder."""
        return self.address.lower().startswith("http")

    @property
    def name(self) -> str:
        """Its last part."""
        return unquote(self._plain[0].rstrip("/").rpartition("/")[2])

    @property
    def stem(self) -> str:
        """Its last part without its ending."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """Its ending."""
        return Path(self.name).suffix

    @property
    def parent(self) -> RemotePlace:
        """The folder that it lies in."""
        address, path = (each.rstrip("/").rpartition("/")[0] for each in (self._plain[0], self.path))
        return RemotePlace(address, self.system, path, "directory")

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.kind == "directory"

    def is_file(self) -> bool:
        """Whether it is a file."""
        return not self.is_dir()

    def source(self) -> RemoteSource:
        """Its content."""
        return RemoteSource(self.path, self.system, self.size)

    def head(self, size: int) -> bytes:
        """Its first bytes; DatasetError where they cannot be had."""
        try:
            return _tried(lambda: _stretch(self.system, self.path, 0, size)[:size])
        except _Failed as error:
            raise DatasetError(f"{self}: cannot be read: {error}") from None

    def open(self) -> io.BufferedReader:
        """A file of it that is fetched in stretches, for archives; DatasetError where that fails."""
        size = self.size
        try:
            if size is None:
                size = _tried(lambda: self.system.info(self.path)).get("size")
            if size is None:
                raise _Failed("its server does not tell its size")
            if size > 1 and len(_tried(lambda: _stretch(self.system, self.path, 0, 1))) > 1:
                raise _Failed("its server sends whole files alone (no Range); fetch it and give its path")
        except _Failed as error:
            raise DatasetError(f"{self}: cannot be read: {error}") from None
        return io.BufferedReader(_Stretches(self, size), _BLOCK)


Place = Path | RemotePlace


def remote(text: str | Path) -> RemotePlace | None:
    """The place at an address; None for a path of this machine.

    Raises:
        DatasetError: nothing is there, it cannot be reached, or addresses of this kind are not read.
        MissingExtra: the packages that read it are not installed.
    """
    found = _ADDRESS.match(str(text))
    if isinstance(text, Path) or found is None or "://" not in text:
        return None
    place = _unseen(text, found[1].lower())
    try:
        return _seen(place)
    except _Failed as error:
        raise DatasetError(f"{place}: {error}") from None


def _unseen(address: str, scheme: str) -> RemotePlace:
    """A place, before anybody is asked what is there."""
    if held_roots() is not None:
        raise DatasetError(f"{shown(address)}: is an address; only files of this machine are read here")
    host, _, path = address.partition("://")[2].partition("/")
    if scheme not in SCHEMES or "::" in path or ("::" in host and "[" not in host):
        kinds = ", ".join(f"{each}://" for each in ("s3", "gs", "az", "hf", "https"))
        raise DatasetError(
            f"{shown(address)}: addresses of this kind are not read ({kinds} are); fetch it and give its path"
        )
    if "@" in host and not scheme.startswith("http"):
        raise DatasetError(
            f"{shown(address)}: an account does not belong into it; the store's own settings are used"
        )
    address = f"{scheme}{address[len(scheme) :]}"
    return RemotePlace(address, *_system(address, scheme))


def _seen(place: RemotePlace) -> RemotePlace:
    """What is there. A web address with a slash at its end, or no ending, is a page that lists a folder."""
    if place.is_web and place.address.partition("?")[0].endswith("/"):
        return replace(place, kind="directory")
    known = _tried(lambda: place.system.info(place.path))
    kind = known["type"]
    if place.is_web:
        listed = not place.suffix and str(known.get("mimetype", "")).startswith("text/html")
        kind = "directory" if listed else "file"
    return replace(place, kind=kind, size=known.get("size"))


def _system(address: str, scheme: str) -> tuple[Any, str]:
    package, extra = SCHEMES[scheme]
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(address, **_patience(scheme))
    except ImportError as error:
        if extra is None and "fsspec" not in str(error):
            raise DatasetError(f"{shown(address)}: needs {package}: pip install {package}") from None
        raise MissingExtra(f"reading {scheme}:// addresses", extra=extra or "remote") from error
    except Exception as error:  # each file system raises its own kinds
        raise DatasetError(f"{shown(address)}: {_said(error)}") from None
    system.invalidate_cache()  # what is there now, and not what was there when it was last asked
    return system, str(path)


def _patience(scheme: str) -> dict[str, Any]:
    """How long a web server is waited for: by the time without a byte, not by that of the whole answer."""
    if not scheme.startswith("http"):
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
    return {"client_kwargs": {"timeout": timeout}}


def list_remote(place: RemotePlace) -> Listing:
    """List everything below an address, page by page, as a folder on disk is listed.

    Raises:
        DatasetError: it cannot be listed whole, or holds too much.
    """
    try:
        found = sorted(_on_pages(place) if place.is_web else _in_store(place), key=lambda each: each.name)
    except _Failed as error:
        raise DatasetError(f"{place}: cannot be listed: {error}") from None
    return arrange(found, unwrapped=False)


def _in_store(place: RemotePlace) -> Iterator[Member]:
    """A store's objects, which it lists in pages."""
    root = place.path.rstrip("/") + "/"
    found = _tried(lambda: place.system.find(place.path, detail=True))
    if len(found) > MOST_LISTED:
        raise _Failed(f"more than {MOST_LISTED:,} files")
    for path, known in found.items():
        if path.startswith(root) and known["type"] == "file" and not path.endswith("/"):
            yield Member(path[len(root) :], RemoteSource(path, place.system, known.get("size")))


def _on_pages(place: RemotePlace) -> Iterator[Member]:
    """A web server's files, by the links on the pages of its folders to what lies below them, each once.

    A folder whose page cannot be had fails all of it: its images would be missed by nobody.
    """
    address, mark, query = place.path.partition("?")
    root = address.rstrip("/") + "/"
    known, folders = {root}, deque([root])
    while folders:
        folder = folders.popleft()
        for link in _links(_page(place.system, f"{folder}{mark}{query}"), folder):
            if not link.startswith(root) or link in known:
                continue
            known.add(link)
            if len(known) > MOST_LISTED:
                raise _Failed(f"more than {MOST_LISTED:,} files and folders")
            name = unquote(link[len(root) :])
            if link.endswith("/") and name.count("/") <= MAX_DEPTH:
                folders.append(link)
            else:
                yield Member(name, RemoteSource(f"{link}{mark}{query}", place.system))


def _page(system: Any, address: str) -> bytes:
    try:
        return _tried(lambda: _stretch(system, address, 0, _LARGEST_PAGE))
    except _Failed as error:
        raise _Failed(f"{shown(address)}: {error}") from None


def _links(page: bytes, address: str) -> Iterator[str]:
    """Where a page leads, without what follows a path; on its own server, as the address has it."""
    read = _Links()
    read.feed(page.decode("utf-8", "replace"))
    here = urlsplit(address)
    for each in read.found:
        try:
            link = urlsplit(urldefrag(urljoin(address, each.strip())).url)
            same = (link.scheme, link.hostname, link.port) == (here.scheme, here.hostname, here.port)
        except ValueError:  # no address at all
            continue
        if same and not link.query:
            yield link._replace(netloc=here.netloc).geturl()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def around(
    place: RemotePlace,
) -> tuple[Callable[[str], Source | None], Callable[[], list[tuple[str, Source]]]]:
    """The files that a table at an address may name: of its folder, and whole addresses of the same kind."""
    folder = place.parent

    @cache
    def listed() -> dict[str, Source]:
        try:
            return dict(list_remote(folder).files)
        except DatasetError:
            if folder.is_web:  # whose server lists no folders: each file is asked for
                return {}
            raise

    def opened(name: str) -> Source | None:
        if is_address(name):
            if not _of_one_kind(name, folder):
                return None
            prefix = f"{folder.address.rstrip('/')}/"
            if name.startswith(prefix) and (source := listed().get(name.removeprefix(prefix))):
                return source
            return _existing(name)
        if source := listed().get(name.removeprefix("./")):
            return source
        if folder.is_web and not listed() and not name.startswith("/") and ".." not in name.split("/"):
            return _existing(f"{folder.address.rstrip('/')}/{quote(name)}")
        return None

    return opened, lambda: list(listed().items())


def _of_one_kind(address: str, folder: RemotePlace) -> bool:
    """Whether a table may name it: in the same kind of store, or on the same web server."""
    one, other = urlsplit(address), urlsplit(folder.address)
    return one.scheme == other.scheme and (not folder.is_web or one.netloc == other.netloc)


def _existing(address: str) -> Source | None:
    """The file at an address, or nothing; where nobody can say, reading it will tell why."""
    scheme = address.partition(":")[0].lower()
    try:
        place = _seen(_unseen(address, scheme))
    except _Absent:
        return None
    except _Failed:
        return _unseen(address, scheme).source()
    except DatasetError:  # no address of a kind that is read
        return None
    return None if place.is_dir() else place.source()


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """An image file in a store or on a web server."""

    path: str
    system: Any = field(repr=False, compare=False)
    size: int | None = None  # bytes, where the listing tells

    @property
    def address(self) -> str:
        """Where it is, without a secret."""
        return shown(str(self.system.unstrip_protocol(self.path)))

    def read(self) -> bytes:
        """The file's bytes."""
        try:
            if self.size is not None and self.size > MAX_FILE_BYTES:
                raise _Failed(f"it is larger than {MAX_FILE_BYTES // 2**20} MiB")
            return _tried(lambda: _whole(self.system, self.path, self.size))
        except _Failed as error:
            raise ImageError(f"cannot be read: {error}") from None


def _whole(system: Any, path: str, size: int | None) -> bytes:
    if size == 0:
        return b""
    # Within bounds: it may have grown since it was listed; without them s3fs asks for its size first.
    data = _stretch(system, path, 0, MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise _Failed(f"it is larger than {MAX_FILE_BYTES // 2**20} MiB")
    if size is not None and len(data) < size:
        raise OSError(f"it breaks off after {len(data):,} of {size:,} bytes")
    return data


def _stretch(system: Any, path: str, start: int, end: int) -> bytes:
    """The bytes from one place to before another, as far as there are any.

    A store is asked for a stretch and sends no more. A web server may know no stretches, and may send without
    end: its answer is read as it comes, and one byte beyond the end is enough to know.
    """
    if "https" not in system.protocol:
        return bytes(system.cat_file(path, start=start, end=end))
    stretch = {"Range": f"bytes={start}-{end - 1}"} if start or end <= MAX_FILE_BYTES else {}
    kept, most = bytearray(), end - start
    with system.open(path, "rb", block_size=0, size=-1, headers=stretch) as file:
        while len(kept) <= most and (piece := file.read(min(_PIECE, most + 1 - len(kept)))):
            kept += piece
    return bytes(kept)


def reads(sources: Sequence[Source]) -> list[Callable[[], Any]]:
    """``read`` of each source; those far away are on their way at once, before the first is asked for."""
    return [
        _pool().submit(each.read).result if isinstance(each, RemoteSource) else each.read for each in sources
    ]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_AHEAD, thread_name_prefix="remote")


class _Stretches(io.RawIOBase):
    """A file of which stretches are fetched, as archives want them."""

    def __init__(self, place: RemotePlace, size: int) -> None:
        super().__init__()
        self.name, self._place, self._size, self._at = str(place), place, size, 0

    def read_at(self, size: int, offset: int) -> bytes:
        """Up to so many bytes from a place, from any thread; OSError where they cannot be had."""
        end = min(offset + size, self._size)
        if offset >= end:
            return b""
        system, path = self._place.system, self._place.path
        try:
            data = _tried(lambda: _stretch(system, path, offset, end))
        except _Failed as error:
            raise OSError(str(error)) from None
        if len(data) != end - offset:
            raise OSError("the server sends other bytes than those that it is asked for")
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read_at(len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        if self._at < 0:
            raise ValueError("before its beginning")
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class _Failed(Exception):
    """Why something could not be had, for people and without a secret."""


class _Absent(_Failed):
    """Nothing is there."""


def _tried(work: Callable[[], T]) -> T:
    """What ``work`` gives; what may pass is tried again, a little later each time and never all at once."""
    for number in range(1, TRIES + 1):
        try:
            return work()
        except _Failed:
            raise
        except Exception as error:  # each file system raises its own kinds
            cause = _cause(error)
            if number == TRIES or _is_final(cause):
                tries = f" ({number} tries)" if number > 1 else ""
                kind = _Absent if _is_absence(cause) else _Failed
                raise kind(f"{_said(cause)}{tries}") from None
        time.sleep(FIRST_PAUSE * 2 ** (number - 1) * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")


def _cause(error: BaseException) -> BaseException:
    """What a server answered, where a file system hides it behind an error of its own."""
    each: BaseException | None = error
    while each is not None:
        if _status(each) is not None:
            return each
        each = each.__cause__
    return (error.__cause__ or error) if isinstance(error, FileNotFoundError) else error


def _status(error: BaseException) -> int | None:
    """The status of an answer, as aiohttp and botocore keep it."""
    found = getattr(error, "status", None)
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return found if isinstance(found, int) else None


def _is_final(error: BaseException) -> bool:
    """Whether no second try mends it: nothing is there, or access is refused."""
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in (408, 425, 429)
    return isinstance(error, _FINAL) or "Credential" in type(error).__name__


def _is_absence(error: BaseException) -> bool:
    return isinstance(error, FileNotFoundError) or _status(error) in (404, 410)


def _said(error: BaseException) -> str:
    """An error's own words, without what an address in them may hold."""
    status = _status(error)
    if _is_absence(error):
        return "nothing is there"
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in type(error).__name__:
        return "access is refused; see that credentials are where the store's own tools look for them"
    if status is not None:
        return f"the server answers {status}"
    text = _URL.sub(lambda found: shown(found[0]), str(error))
    line = next((each.strip() for each in text.splitlines() if each.strip()), type(error).__name__)
    return printable(line[:200])

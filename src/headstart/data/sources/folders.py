"""Listing a folder."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.sources.listing import MAX_DEPTH, Listing, Skipped, without_output
from headstart.data.sources.names import litter
from headstart.data.sources.reading import FileSource, Source
from headstart.errors import DatasetError, printable, reason_of
from headstart.files import held_roots, is_there

MOST_VISITS = 16
"""Links may show one folder in several places; links to folders of links would double at every level."""

MOST_COUNTED = 100_000
"""Files counted in a folder that is passed over: snapshots of a network drive hold everything many times."""

_LISTED_DEEP = 4
"""Levels of folders that are listed, as classes and splits may lie below folders around everything."""

_OUTSIDE = "a link to what is not there, or not where images may be read"

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def list_folder(root: Path) -> Listing:
    """List everything below a folder, following links; DatasetError where the folder itself is refused.

    What cannot be looked into, leads nowhere or back up, or is no regular file is left out by name.
    """
    walk = _Walk()
    try:
        status = os.stat(root)
        entries = _entries(str(root))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{printable(root)}: cannot be listed: {reason_of(error)}") from error
    walk.look_into(entries, "", ((status.st_dev, status.st_ino),))
    return without_output(walk.files, walk.folders, walk.left_out)


@dataclass
class _Walk:
    files: list[tuple[str, Source]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: list[Skipped] = field(default_factory=list)
    visits: Counter[tuple[int, int]] = field(default_factory=Counter)  # by device and inode

    def look_into(
        self, entries: list[os.DirEntry[str]], prefix: str, above: tuple[tuple[int, int], ...]
    ) -> None:
        """Take up the entries of one folder; ``above`` are the folders that it lies in, itself the last."""
        for entry in entries:
            path = prefix + entry.name
            try:
                folder = entry.is_dir(follow_symlinks=False)
                regular = not folder and entry.is_file(follow_symlinks=False)
                mode = 0
                if entry.is_symlink() and held_roots() is not None and not is_there(entry.path):
                    self._leave_out(path, _OUTSIDE, hidden=litter(entry.name, folder=False))
                    continue
                if not folder and not regular:  # a link, or something else: the others cost no call
                    mode = os.stat(entry.path).st_mode
                    folder, regular = stat.S_ISDIR(mode), stat.S_ISREG(mode)
            except (OSError, ValueError) as error:  # dangling, in circles, or not allowed
                self._leave_out(path, _why_no_target(entry, error), hidden=litter(entry.name, folder=False))
                continue
            reason = litter(entry.name, folder=folder)
            if folder and reason:
                if count := 1 if entry.is_symlink() else _count(entry.path):
                    self.left_out.append(Skipped(f"{path}/", reason, count, litter=True))
            elif folder:
                self._enter(entry, path, above)
            elif regular and not reason:
                self.files.append((path, FileSource(entry.path)))
            else:
                kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
                self._leave_out(path, f"{kind}, not a file", hidden=reason)

    def _leave_out(self, path: str, reason: str, *, hidden: str | None) -> None:
        self.left_out.append(Skipped(path, hidden or reason, litter=hidden is not None))

    def _enter(self, entry: os.DirEntry[str], path: str, above: tuple[tuple[int, int], ...]) -> None:
        if path.count("/") < _LISTED_DEEP:
            self.folders.append(path)
        try:
            status = os.stat(entry.path)
            place = (status.st_dev, status.st_ino)
            if place in above:
                self._leave_out(path, "a link back to a folder that it lies in", hidden=None)
                return
            if len(above) > MAX_DEPTH:
                self._leave_out(f"{path}/", f"at most {MAX_DEPTH} folders deep is read", hidden=None)
                return
            self.visits[place] += 1
            if self.visits[place] > MOST_VISITS:
                self._leave_out(path, f"the same folder as in {MOST_VISITS} other places", hidden=None)
                return
            if not is_there(entry.path):  # swapped for a link meanwhile
                self._leave_out(path, _OUTSIDE, hidden=None)
                return
            entries = _entries(entry.path)
        except OSError as error:
            self._leave_out(f"{path}/", f"the folder cannot be listed: {reason_of(error)}", hidden=None)
            return
        self.look_into(entries, f"{path}/", (*above, place))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)


def _why_no_target(entry: os.DirEntry[str], error: Exception) -> str:
    if not os.path.islink(entry.path):
        return f"cannot be read: {reason_of(error)}"
    try:
        target = printable(os.readlink(entry.path))
    except OSError:
        target = "what cannot be read"
    return f"a link to {target}, which cannot be reached"


def _count(folder: str) -> int:
    """Files below a folder, links not followed; what cannot be looked into counts nothing."""
    count, left = 0, [folder]
    while left and count < MOST_COUNTED:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    else:
                        count += 1
        except OSError:
            continue
    return count

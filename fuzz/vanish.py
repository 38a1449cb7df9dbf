"""Nothing vanishes: of a made-up tree or archive, what is used and what is left out is all there is.

python fuzz/vanish.py [COUNT]

The trees come from names that people and systems use, in every order, with links, pipes, litter, our own
output and sidecars between them; a counter that knows nothing of the reading counts what is there. Where a
tree is refused, the refusal is one line, and its images can be listed to predict all the same.
"""

import contextlib
import io
import os
import random
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headstart.errors import printable

FOLDERS = (
    *("ants", "bees", "Bees", "train", "val", "test", "dev", "seg_train", "holdout", "2019", "sub", "day 1"),
    *("images", "masks", "thumbs", "train_masks", "images_part_1", "images_part_2", "unlabeled"),
    *(
        "a, b",
        "Käfer",
        "runs",
        "explanations",
        "@eaDir",
        "#recycle",
        ".git",
        "__MACOSX",
        "lost+found",
        "x\ny",
    ),
)
FILES = (
    *("1.jpg", "2.JPG", "3.png", "4.heic", "5.webp", "photograph", "README", "notes.txt", "1.cls", "2.txt"),
    *(".hidden.jpg", "._1.jpg", "Thumbs.db", ".DS_Store", "desktop.ini", "raw.cr2", "more.zip", "old.tar"),
    *(
        "1_mask.png",
        "thumb_1.jpg",
        "3-seg.png",
        "run.json",
        "comparison.json",
        ".headstart-output",
        "a\nb.jpg",
        "1.jpg.jpg",
        "x.json",
    ),
)
CONTENTS = (b"\xff\xd8\xff words", b"plain words", b"")


def tree(rng: random.Random) -> list[str]:
    """Paths of up to 24 files, at most four folders deep."""
    tops = rng.sample(FOLDERS, rng.randint(1, 4))
    found = []
    for _ in range(rng.randint(1, 24)):
        folders = [rng.choice(tops), *rng.choices(FOLDERS, k=rng.choice((0, 0, 0, 1, 1, 2, 3)))]
        found.append("/".join([*folders[: rng.choice((0, 1, 9, 9, 9))], rng.choice(FILES)]))
    return found


def as_folder(rng: random.Random, root: Path) -> int:
    """A tree on disk, with what is no file; how many things there are that are no folder."""
    root.mkdir()
    for path in tree(rng):
        with contextlib.suppress(OSError):  # a folder of the same name
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(root / path):
                continue
            kind = rng.random()
            if kind < 0.85:
                (root / path).write_bytes(rng.choice(CONTENTS))
            elif kind < 0.95:
                (root / path).symlink_to(rng.choice(("/nonexistent/x.jpg", "1.jpg", os.path.basename(path))))
            else:
                os.mkfifo(root / path)
    return sum(len(files) for _, _, files in os.walk(root))


def as_zip(rng: random.Random, path: Path) -> int:
    """A zip; how many of its members are files."""
    members = members_of(rng)
    with zipfile.ZipFile(path, "w") as archive:
        for name in members:
            if name.endswith("/"):
                archive.writestr(zipfile.ZipInfo(name), b"")
                continue
            info = zipfile.ZipInfo(name)
            if rng.random() < 0.05:
                info.create_system, info.external_attr = 3, 0o120777 << 16
            archive.writestr(info, rng.choice(CONTENTS))
    return sum(not name.endswith("/") for name in members)


def as_tar(rng: random.Random, path: Path, mode: str) -> int:
    """A tar; how many of its members are no folders."""
    members = members_of(rng)
    with tarfile.open(path, mode) as archive:
        for name in members:
            info = tarfile.TarInfo(name)
            content = b"" if name.endswith("/") else rng.choice(CONTENTS)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif rng.random() < 0.1:
                info.type = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE))
                info.linkname = rng.choice((*members, "nowhere.jpg"))
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return sum(not name.endswith("/") for name in members)


def members_of(rng: random.Random) -> list[str]:
    """Names as zippers write them: wrapped, with a dot, absolute, doubled, with backslashes, climbing."""
    prefix = rng.choice(("", "", "./", "photos/", "data/photos/", "/abs/", "C:\\x\\", "../up/"))
    names = [prefix + name for name in tree(rng)]
    names += rng.choices(names, k=rng.choice((0, 0, 1, 3)))
    odd = ("README.txt", "ghost/", "a/" * 40 + "1.jpg", "n" * 1100 + ".jpg")
    names += rng.choices(odd, k=rng.choice((0, 1)))
    if rng.random() < 0.1:
        names = [name.replace("/", "\\") if not name.endswith("/") else name for name in names]
    rng.shuffle(names)
    return names


def as_table(rng: random.Random, root: Path) -> int:
    """A table and its images; how many rows it has."""
    root.mkdir()
    names = [f"{number}.jpg" for number in range(rng.randint(2, 12))]
    for name in names:
        if rng.random() < 0.9:
            (root / name).write_bytes(CONTENTS[0])
    rows = [(rng.choice(names), "ab"[number % 2]) for number in range(rng.randint(2, 20))]
    text = "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
    (root / "table.csv").write_text(text)
    return len(rows)


def account(source: Path, there: int, *, table: bool = False) -> bool:
    """Whether the data set was read; AssertionError where its files do not add up."""
    from headstart.data.dataset import list_unlabelled, read_dataset
    from headstart.errors import DatasetError

    readings: list[tuple[str, Callable[[], Any]]] = [
        ("asked", lambda: read_dataset(source, for_training=False)),
        ("top folders", lambda: read_dataset(source, for_training=False, split_by_folder=False)),
    ]
    if not table:
        readings.append(("to predict", lambda: list_unlabelled([source])))
    read = 0
    for what, reading in readings:
        try:
            found = reading()
        except DatasetError as error:
            if "\n" in str(error) or len(str(error)) > 1500:
                raise AssertionError(f"not one line: {error!r}") from error
            continue
        used, left_out = len(found.samples), sum(item.files for item in found.skipped)
        labels = _labels_read(source, found.samples) if what != "to predict" and not table else 0
        if used + left_out + labels != there:
            raise AssertionError(
                f"{what}: {used} used + {left_out} left out + {labels} labels is not {there}"
            )
        named = {item.name for item in found.skipped} | {each.name for each in found.samples}
        if any("\n" in name or not name for name in named):
            raise AssertionError(f"{what}: a name that is no line")
        read += 1
    return read == len(readings)


def _labels_read(source: Path, samples: Sequence[Any]) -> int:
    """Files beside the images of a shard, which were read as their labels."""
    from headstart.data.dataset.shards import is_shard
    from headstart.data.sources import list_archive
    from headstart.data.sources.names import LABEL_SUFFIXES

    if source.is_dir() or not is_shard(listing := list_archive(source)):
        return 0
    keys = {_key(sample.name)[0] for sample in samples}
    shown = [_key(printable(name)) for name, _ in listing.files]
    return sum(key in keys and suffix in LABEL_SUFFIXES for key, suffix in shown)


def _key(path: str) -> tuple[str, str]:
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.partition(".")
    return folder + slash + stem, (dot + suffix).lower()


def once(seed: int, folder: Path) -> bool:
    """One made-up source of the kind that the seed says."""
    rng = random.Random(seed)
    place = folder / "d"
    kind = seed % 5
    if kind == 0:
        return account(place, as_folder(rng, place))
    if kind == 1:
        return account(zip_ := folder / "d.zip", as_zip(rng, zip_))
    if kind == 2:
        return account(tar := folder / "d.tar", as_tar(rng, tar, "w"))
    if kind == 3:
        return account(tar := folder / "d.tar.gz", as_tar(rng, tar, "w:gz"))
    return account(place / "table.csv", as_table(rng, place), table=True)


def main() -> None:
    """As many sources as the command line says."""
    import warnings

    warnings.simplefilter("ignore", UserWarning)  # zipfile's about doubled names
    count, read = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, 0
    with tempfile.TemporaryDirectory() as name:
        for seed in range(count):
            folder = Path(name) / "case"
            folder.mkdir()
            try:
                read += once(seed, folder)
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            shutil.rmtree(folder)
    print(f"vanish: {count:,} trees, tables and archives, nothing vanished; {read:,} were data sets")


if __name__ == "__main__":
    main()

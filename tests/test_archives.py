"""Zips, tars and WebDataset shards as strangers bring them; hostile ones are refused, in little memory."""

import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from headstart.curation.corrections import Correction
from headstart.data.dataset import content_hash, list_unlabelled, place_of, read_dataset
from headstart.data.sources import list_archive, source_at, tars
from headstart.errors import DatasetError, ImageError
from listed_files import PIXEL, described, zipped


def tarred(path, members, *, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            if isinstance(name, tarfile.TarInfo):
                info = name
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def reasons(dataset):
    return {item.name: item.reason for item in dataset.skipped}


TWO = [("ants/1.jpg", PIXEL + b"1"), ("bees/2.jpg", PIXEL + b"2")]
AS_THEY_ARE = [("ants/1.jpg", "ants", None), ("bees/2.jpg", "bees", None)]


def packed(tmp_path, kind, members):
    if kind == "zip":
        return zipped(tmp_path / "d.zip", members)
    return tarred(tmp_path / f"d.{kind}", members, mode=f"w:{kind.partition('.')[2]}")


KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "./", "photos/", "data/photos/", "/home/me/photos/"])
def test_the_folders_around_everything_are_taken_off(tmp_path, kind, prefix):
    members = [(prefix + name, content) for name, content in TWO]
    members += [("README.txt", b"words"), (f"{prefix}ants/._1.jpg", b"notes of macOS")]
    members += [(f"{prefix}__MACOSX/x.jpg", PIXEL)]
    dataset = read_dataset(packed(tmp_path, kind, members))
    assert described(dataset) == AS_THEY_ARE
    assert [sample.source.read() for sample in dataset.samples] == [content for _, content in TWO]
    assert sorted(item.litter for item in dataset.skipped) == [False, True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_is_found_again_by_its_place(tmp_path, kind):
    dataset = read_dataset(packed(tmp_path, kind, [(f"./{name}", content) for name, content in TWO]))
    place = place_of(dataset.samples[1])
    assert place["member"] == "./bees/2.jpg"
    assert source_at(place["file"], place["member"]).read() == TWO[1][1]
    with pytest.raises(ImageError, match=r"no longer in d\."):
        source_at(place["file"], "bees/3.jpg").read()
    with pytest.raises(ImageError, match="not there"):
        source_at(str(tmp_path / "gone.zip"), "bees/3.jpg").read()


def test_an_archive_is_open_once_for_all_of_its_members(tmp_path):
    members = [(f"{'ab'[k % 2]}/{k}.jpg", PIXEL + bytes([k])) for k in range(100)]
    path = zipped(tmp_path / "d.zip", members)
    before = len(os.listdir("/proc/self/fd"))
    sources = [source_at(str(path), name) for name, _ in members]
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert [source.read() for source in sources] == [content for _, content in members]


def test_a_correction_of_a_lost_image_reads_as_an_error_and_never_as_pixels(tmp_path):
    gone, content = str(tmp_path / "gone.zip"), content_hash(PIXEL).hex()
    source = Correction("1.jpg", content, "a", None, "now", gone, "1.jpg").source()
    assert source is not None
    with pytest.raises(ImageError):
        source.read()


def test_backslashes_and_utf8_without_the_flag(tmp_path):
    path = zipped(tmp_path / "d.zip", [("Käfer\\1.jpg", PIXEL), ("bees\\2.jpg", PIXEL)])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            flags = struct.unpack_from("<H", data, at + offset)[0]
            struct.pack_into("<H", data, at + offset, flags & ~0x800)
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    dataset = read_dataset(path)
    assert dataset.classes == ("Käfer", "bees")
    assert dataset.samples[0].source.read() == PIXEL
    place = place_of(dataset.samples[0])
    assert source_at(place["file"], place["member"]).read() == PIXEL


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_doubled_members_the_last_counts_and_the_others_are_named(tmp_path, kind):
    members = [("ants/1.jpg", b"older"), *TWO, ("./bees/2.jpg", PIXEL + b"newer")]
    with pytest.warns(UserWarning, match="Duplicate") if kind == "zip" else _nothing():
        path = packed(tmp_path, kind, members)
    dataset = read_dataset(path)
    assert [sample.source.read() for sample in dataset.samples] == [PIXEL + b"1", PIXEL + b"newer"]
    assert [(item.name, item.files) for item in dataset.skipped] == [("ants/1.jpg", 1), ("bees/2.jpg", 1)]
    assert all("more than once" in item.reason for item in dataset.skipped)


def _nothing():
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../up.jpg", "leads out of the archive"),
        ("ants/../../up.jpg", "leads out of the archive"),
        ("ants/" + "x" * 2000 + ".jpg", "its name has 2,009 characters"),
        ("d/" * 40 + "1.jpg", "lies 41 folders deep"),
    ],
)
def test_names_that_climb_or_have_no_end_are_left_out_by_name(tmp_path, kind, name, reason):
    dataset = read_dataset(packed(tmp_path, kind, [*TWO, (name, PIXEL)]))
    assert described(dataset) == AS_THEY_ARE
    assert len(dataset.skipped) == 1 and reason in dataset.skipped[0].reason
    assert len(dataset.skipped[0].name) <= 101


def test_an_encrypted_zip_says_so(tmp_path):
    path = zipped(tmp_path / "d.zip", [("ants/0.jpg", PIXEL), *TWO])
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    assert reasons(read_dataset(path)) == {"ants/0.jpg": "is encrypted"}
    while (at := data.find(b"PK\x01\x02", at + 4)) >= 0:
        data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"d\.zip: the zip is encrypted; unpack it"):
        read_dataset(path)


@pytest.mark.parametrize(
    ("name", "head"), [("d.rar", b"Rar!"), ("d.7z", b"7z\xbc\xaf"), ("d.zip", b"Rar!\x1a")]
)
def test_archives_of_other_kinds_are_to_be_unpacked(tmp_path, name, head):
    (tmp_path / name).write_bytes(head + bytes(50))
    with pytest.raises(DatasetError, match=r"archives are not read here; unpack it"):
        read_dataset(tmp_path / name)
    with pytest.raises(DatasetError, match=r"archives are not read here; unpack it"):
        list_unlabelled([tmp_path / name])


def test_a_zip_with_a_comment_and_members_of_unknown_length(tmp_path):
    class OneWay(io.RawIOBase):
        def __init__(self):
            self.parts = []

        def writable(self):
            return True

        def write(self, data):
            self.parts.append(bytes(data))
            return len(data)

    out = OneWay()
    with zipfile.ZipFile(out, "w", allowZip64=True) as archive:
        for name, content in TWO:
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(content)
        archive.comment = b"made by hand"
    (tmp_path / "d.zip").write_bytes(b"".join(out.parts))
    assert described(read_dataset(tmp_path / "d.zip")) == AS_THEY_ARE


# --- tars -------------------------------------------------------------------------------------------------


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_in_a_tar_lead_to_its_files_or_are_left_out(tmp_path):
    members = [
        (special("ants/before.jpg", tarfile.SYMTYPE, "../bees/2.jpg"), b""),
        *TWO,
        (special("bees/hard.jpg", tarfile.LNKTYPE, "ants/1.jpg"), b""),
        (special("bees/out.jpg", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (special("bees/pipe.jpg", tarfile.FIFOTYPE), b""),
    ]
    dataset = read_dataset(tarred(tmp_path / "d.tar", members))
    contents = {sample.name: sample.source.read()[-1:] for sample in dataset.samples}
    assert contents == {
        "ants/1.jpg": b"1",
        "ants/before.jpg": b"2",
        "bees/2.jpg": b"2",
        "bees/hard.jpg": b"1",
    }
    assert reasons(dataset) == {
        "bees/out.jpg": "a link to what is no file of the archive",
        "bees/pipe.jpg": "no regular file",
    }


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_tar_that_breaks_off_or_is_damaged_is_refused(tmp_path, kind):
    whole = packed(
        tmp_path, kind, [(f"{'ab'[k % 2]}/{k}.jpg", os.urandom(3000)) for k in range(9)]
    ).read_bytes()
    (tmp_path / f"cut.{kind}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="not a readable tar"):
        read_dataset(tmp_path / f"cut.{kind}")
    (tmp_path / f"no.{kind}").write_bytes(b"not at all" * 100)
    with pytest.raises(DatasetError, match="not a readable tar"):
        read_dataset(tmp_path / f"no.{kind}")


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path):
    path = tarred(tmp_path / "d.tar", TWO)
    data = bytearray(path.read_bytes())
    data[1024 + 150] ^= 0xFF  # in the second header's checksum
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="damaged after 1 members"):
        read_dataset(path)


def test_a_compressed_tar_that_expands_absurdly_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "SMALLEST_EXPANSION", 2**20)
    path = packed(tmp_path, "tar.gz", [*TWO, ("bees/bomb.bmp", bytes(4 * 2**20))])
    with pytest.raises(DatasetError, match="expands to more than 1 MiB; refused as a bomb"):
        read_dataset(path)


def test_a_tar_header_without_end_is_refused(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**30
    (tmp_path / "d.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 2048)
    with pytest.raises(DatasetError, match="a header of 1,073,741,824 bytes"):
        read_dataset(tmp_path / "d.tar")


# --- memory -----------------------------------------------------------------------------------------------


def nested_names(path, kind):
    """Small archives whose names are as long, as deep, or as many as they can be."""
    deep = [(f"{k}/" + "a/" * 32_000 + "1.jpg", b"") for k in range(4)]
    long = [(f"{k}/" + "a/" * 30 + "x" * 900 + ".jpg", b"") for k in range(200)]
    many = [(f"{k % 7}/{k}.jpg", b"") for k in range(1000)]
    for number, members in enumerate((deep, long, many)):
        yield packed(path / str(number), kind, members)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_names_that_are_long_deep_or_many_take_little_memory(tmp_path, kind):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    for path in nested_names(tmp_path, kind):
        tracemalloc.start()
        try:
            list_archive(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 * 2**20, path


# --- WebDataset -------------------------------------------------------------------------------------------


def shard(path, start, *, suffix="cls", kinds=("ants", "bees")):
    members = []
    for k in range(start, start + 4):
        label = kinds[k % 2]
        text = json.dumps({"label": label, "width": 8}) if suffix == "json" else f"{label}\n"
        members += [(f"{k:06}.jpg", PIXEL + bytes([k])), (f"{k:06}.{suffix}", text.encode())]
    return tarred(path, members)


@pytest.mark.parametrize("suffix", ["cls", "json", "txt"])
def test_a_shard_has_labels_beside_its_images(tmp_path, suffix):
    dataset = read_dataset(shard(tmp_path / "d.tar", 0, suffix=suffix))
    assert described(dataset)[:2] == [("000000.jpg", "ants", None), ("000001.jpg", "bees", None)]
    assert dataset.samples[1].source.read() == PIXEL + b"\x01"
    assert dataset.skipped == ()


@pytest.mark.parametrize("suffix", ["cls", "json", "txt"])
def test_the_keys_of_a_shard_may_lie_in_one_folder(tmp_path, suffix):
    members = []
    for number in range(4):
        label = json.dumps({"label": "ab"[number % 2]}) if suffix == "json" else "ab"[number % 2]
        members += [(f"s/{number}.jpg", PIXEL), (f"s/{number}.{suffix}", label.encode())]
    assert read_dataset(tarred(tmp_path / "d.tar", members)).classes == ("a", "b")


def test_shards_of_a_folder_or_a_list_in_braces_are_one_data_set_with_splits(tmp_path):
    for number in range(2):
        shard(tmp_path / f"pets-train-{number:04}.tar", 4 * number)
    shard(tmp_path / "pets-val-0000.tar", 8)
    whole = read_dataset(tmp_path)
    assert [sample.split for sample in whole.samples] == ["train"] * 8 + ["validation"] * 4
    assert whole.samples[0].name == "pets-train-0000.tar/000000.jpg"
    some = read_dataset(str(tmp_path / "pets-train-{0000..0001}.tar"))
    assert len(some) == 8
    with pytest.raises(DatasetError, match=r"no such shard: .*0002\.tar"):
        read_dataset(str(tmp_path / "pets-train-{0000..0002}.tar"))


def test_what_has_no_label_in_a_shard_is_left_out_by_name(tmp_path):
    members = [("1.jpg", PIXEL), ("1.cls", b"a"), ("2.jpg", PIXEL), ("3.jpg", PIXEL), ("3.json", b"{}")]
    members += [
        ("4.jpg", PIXEL),
        ("4.cls", b"b"),
        ("5.cls", b"b"),
        ("6.jpg", PIXEL),
        ("6.json", b"[" * 99_999),
    ]
    dataset = read_dataset(tarred(tmp_path / "d.tar", members))
    assert [sample.name for sample in dataset.samples] == ["1.jpg", "4.jpg"]
    found = reasons(dataset)
    assert found.keys() == {"2.jpg", "3.jpg", "3.json", "5.cls", "6.jpg", "6.json"}
    assert "names no label" in found["3.jpg"] and "cannot be read" in found["6.jpg"]


def test_a_spool_leaves_nothing_behind(tmp_path, private_folders):
    dataset = read_dataset(packed(tmp_path, "tar.gz", TWO))
    assert len(dataset) == 2
    assert list((Path(private_folders) / "cache/spool").iterdir()) == []

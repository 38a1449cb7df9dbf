"""Embeddings: a vector for each image, in the order of the images, from the cache, in files of others."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import headstart
from headstart.cli import cli
from headstart.errors import DatasetError, OptionError
from headstart.features import extraction

NETWORK = {"backbone": "builtin", "size": 64, "precision": "f32"}


def test_every_readable_image_has_a_vector_and_its_likes_are_near(photos: Path) -> None:
    (photos / "bars/broken.jpg").write_bytes(b"no image")
    found = headstart.embed(photos, **NETWORK)
    assert [each.name.endswith("broken.jpg") for each in found.skipped] == [True]
    assert len(found.paths) == len(found.vectors) == len(list(photos.rglob("*.jpg"))) - 1
    assert np.isfinite(found.vectors).all() and found.vectors.dtype == np.float32
    names = [Path(path).parent.name for path in found.paths]
    near = [[Path(path).parent.name for path, _ in found.nearest(i, k=3)] for i in range(len(names))]
    assert np.mean([each.count(name) for each, name in zip(near, names, strict=True)]) > 1.5  # chance: 1
    assert all(found.paths[i] not in dict(found.nearest(i, k=9)) for i in range(3))
    assert found.nearest(-1, k=9) == found.nearest(len(names) - 1, k=9) == found.nearest(np.int64(-1), k=9)
    with pytest.raises(OptionError, match="image 99: there are"):
        found.nearest(99)
    for option in ({"freeze": 2}, {"views": "flip"}, {"costs": "costs.csv"}):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            headstart.embed(found.paths[5], **option, **NETWORK)
    one = headstart.embed(found.paths[5], **NETWORK)
    assert found.nearest(one.vectors[0], k=2)[0] == (found.paths[5], 1.0)
    with pytest.raises(OptionError, match="a vector of 3 numbers: expected 1280"):
        found.nearest(np.ones(3, np.float32))
    np.testing.assert_allclose(one.vectors[0], found.vectors[5], rtol=1e-4, atol=1e-4)


def test_what_is_embedded_again_comes_from_the_cache(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = headstart.embed(photos / "bars", **NETWORK)
    asked: list[object] = []
    monkeypatch.setattr(extraction, "_compute", lambda rendered, *_, **__: asked.extend(rendered))
    again = headstart.embed(photos / "bars", **NETWORK)
    np.testing.assert_array_equal(again.vectors, found.vectors)
    assert not asked


def test_another_layer_is_another_vector_and_an_unknown_one_is_refused(photos: Path) -> None:
    backbone = headstart.load_backbone("builtin", size=64)
    first = backbone.feature_layers()[0]
    found = headstart.embed(photos / "bars", layer=first.name, **NETWORK)
    assert found.vectors.shape[1] == first.width(backbone) and found.layer == first.name
    with pytest.raises(OptionError, match=r"has .*features"):
        headstart.embed(photos / "bars", layer="no-such", **NETWORK)
    with pytest.raises(OptionError, match="needs labels"):
        headstart.embed(photos / "bars", backbone="auto")


def test_files_hold_the_vectors_and_the_names(photos: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs headstart[parquet]")
    found = headstart.embed(photos / "bars", **NETWORK)
    table = parquet.read_table(found.save(tmp_path / "features.parquet"))
    assert table["path"].to_pylist() == list(found.paths)
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), found.vectors)
    found.save(tmp_path / "features.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), found.vectors)
    with (tmp_path / "features.npy.paths.csv").open(encoding="utf-8-sig") as file:
        assert [row["path"] for row in csv.DictReader(file)] == list(found.paths)


def test_the_command_says_what_it_wrote_and_refuses_other_places_before_it_works(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "features.npy"
    command = ["embed", str(photos / "bars"), "--backbone", "builtin", "--size", "64", "--out"]
    facts = json.loads(CliRunner().invoke(cli, [*command, str(out), "--json"], catch_exceptions=False).stdout)
    assert np.load(out).shape == (facts["images"], facts["width"])
    for place, said in ((tmp_path / "x.txt", ".npy or .parquet"), (tmp_path / "none/x.npy", "that exists")):
        with pytest.raises(OptionError, match=said):
            CliRunner().invoke(cli, [*command, str(place)], catch_exceptions=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image in it"):
        headstart.embed(tmp_path / "empty", **NETWORK)

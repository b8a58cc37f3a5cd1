"""Manifests: every change to a sealed folder is noticed, and the message names the file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pipeline.storage.errors import CorruptFileError, MissingFileError
from pipeline.storage.manifest import read_manifest, seal, verify
from tests.storage.datasets import make_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "history.parquet").write_bytes(b"12345")
    seal(tmp_path, ["model/config.json", "history.parquet"], {"rows": 5})
    return tmp_path


def test_a_sealed_folder_verifies(folder: Path) -> None:
    manifest = verify(folder)
    assert manifest == read_manifest(folder)
    assert manifest["rows"] == 5
    assert manifest["files"]["history.parquet"]["bytes"] == 5
    assert list(manifest["files"]) == ["history.parquet", "model/config.json"]


def test_the_order_of_names_does_not_matter(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    seal(folder, ["history.parquet", "model/config.json"], {"rows": 5})
    assert (folder / "manifest.json").read_bytes() == before


def test_unlisted_files_are_ignored(folder: Path) -> None:
    (folder / "timing.parquet").write_text("differs from run to run")
    assert "timing.parquet" not in verify(folder)["files"]


def test_sealing_a_missing_file(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(MissingFileError, match=r"model\.safetensors: no such file"):
        seal(folder, ["model/model.safetensors"], {})
    assert not (folder / "manifest.json").exists()


def test_an_unfinished_folder(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingFileError, match=r"manifest\.json: no such file, so the folder is not finished; run again"):
            verify(place)


def test_a_missing_file(folder: Path) -> None:
    (folder / "history.parquet").unlink()
    with pytest.raises(MissingFileError, match=r"history\.parquet: no such file, but manifest\.json lists it; run again"):
        verify(folder)
    verify(folder, ["model/config.json"])


def test_verifying_a_file_that_is_not_listed(folder: Path) -> None:
    with pytest.raises(MissingFileError, match=r"best\.safetensors: not in .*manifest\.json; expected one of history\.parquet, model"):
        verify(folder, ["model/best.safetensors"])


def test_changed_and_swapped_files(folder: Path) -> None:
    (folder / "history.parquet").write_bytes(b"1234")
    with pytest.raises(CorruptFileError, match=r"history\.parquet: 4 bytes, expected 5; delete it and run again"):
        verify(folder)
    (folder / "history.parquet").write_bytes(b"54321")
    with pytest.raises(CorruptFileError, match=r"history\.parquet: SHA-256 .*…, expected .*…; delete it and run again"):
        verify(folder)


def test_invalid_manifests(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    surrogate = {**manifest, "note": "\ud800"}
    cases = {
        "invalid JSON": ["", "{", "[" * 100_000],
        "not a manifest": ["[]", "3", "{}", "\ufeff{}", '{"format": 1, "files": []}'],
        "format 2, expected 1": [json.dumps({**manifest, "format": 2})],
        "modified after it was written": [json.dumps({**manifest, "rows": 6}, indent=2, sort_keys=True) + "\n", json.dumps(manifest)],
    }
    cases["modified after it was written"].append(json.dumps(surrogate, indent=2, sort_keys=True) + "\n")
    for message, texts in cases.items():
        for text in texts:
            path.write_text(text)
            with pytest.raises(CorruptFileError, match=rf"manifest\.json: {message}; delete it and run again") as caught:
                verify(folder)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["00000.parquet", "00001.parquet", "manifest.json"])
def test_every_flipped_bit_and_every_truncation_is_noticed(tmp_path: Path, name: str) -> None:
    make_dataset(tmp_path, [12, 11])
    path, draw = tmp_path / name, random.Random(name)
    content = path.read_bytes()
    places = [draw.randrange(len(content)) for _ in range(60)] + [0, len(content) - 1]
    flipped = [content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :] for place in places]
    truncated = [content[: draw.randrange(len(content))] for _ in range(20)] + [content[:-1], content + b"\n"]
    for damaged in flipped + truncated:
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=rf"{name}: .*; delete it and run again"):
            verify(tmp_path)
    path.write_bytes(content)
    verify(tmp_path)


def test_swapped_shards_are_noticed(tmp_path: Path) -> None:
    make_dataset(tmp_path, [12, 12], fixed=True)
    first, second = tmp_path / "00000.parquet", tmp_path / "00001.parquet"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    with pytest.raises(CorruptFileError, match=r"00000\.parquet"):
        verify(tmp_path)

"""Records in compressed files: all kinds are read alike, and what is not read is named."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from experiments import event, report, write_jsonl
from lookalike_build.commands.cli import main
from lookalike_build.experiment.files import event_files
from lookalike_build.tables.error import TableError


def zipped(content: bytes, *names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


def zstandard(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def tarred(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("experiment.log")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": zstandard,
    "zip": lambda content: zipped(content, "var/log/experiment.log"),
}


def records(n: int) -> bytes:
    lines = [
        f'{{"time":"2026-01-02T03:04:05Z","status":"200","request_uri":"/related?category_id=1&visitor='
        f'{pattern}{visitor}","x_lookalike_pattern":"{pattern}","x_lookalike_method":"image"}}\n'
        for visitor in range(n)
        for pattern in "AB"
    ]
    return "".join(lines).encode()


@pytest.mark.parametrize("suffix", PACK)
def test_a_rotated_log_is_read_beside_the_one_that_is_written(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "experiment.log").write_bytes(records(30))
    (tmp_path / f"experiment.log.1.{suffix}").write_bytes(PACK[suffix](records(2000)))
    found = report(tmp_path / "experiment.log*")
    assert found["patterns"]["A"]["impressions"] == 2030
    assert found["patterns"]["A"]["visitors"] == 2000
    assert not [*tmp_path.glob("lookalike-*")]


@pytest.mark.parametrize("suffix", PACK)
def test_csv_may_be_packed_too_and_malformed_lines_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"records.{suffix}"
    text = "event,pattern,method,category_id\nimpression,A,image,1\nimpression,B,image,\n"
    path.write_bytes(PACK[suffix](f"{text}impression,B,image,1\n".encode()))
    assert report(path)["faults"] == [f"{path}: line 3: has no category_id"]


@pytest.mark.parametrize("suffix", PACK)
def test_what_is_cut_short_is_named_with_the_way_out(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment.log").write_bytes(records(30))
    path = tmp_path / f"experiment.log.1.{suffix}"
    whole = PACK[suffix](b"".join(b"%d%s" % (n, records(1)) for n in range(20_000)))
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert main(["report", str(tmp_path / "experiment.log*")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"lookalike-build: {path}: cannot be read as ")
    assert said.endswith("; leave it out, or repair it")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "log.1.lz4",
            b"\x04\x22\x4d\x18\x00\xff",
            "is compressed by lz4; unpack it, or leave it out",
        ),
        (
            "log.1.Z",
            b"\x1f\x9d\x90\x00\xff",
            "is compressed by compress; unpack it, or leave it out",
        ),
        ("log.1.7z", b"7z\xbc\xaf\x27\x1c\x00", "is a 7-Zip archive; unpack it, or leave it out"),
        ("log.1.rar", b"Rar!\x1a\x07\x00", "is a RAR archive; unpack it, or leave it out"),
        ("log.1.lz", b"LZIP\x01\x00", "is compressed by lzip; unpack it, or leave it out"),
        ("logs.tar", tarred(records(9)), "is a tar archive; unpack it, or leave it out"),
        ("logs.tar.gz", gzip.compress(tarred(records(9))), "is a tar archive; unpack it, or leave"),
        (
            "logs.zip",
            zipped(b"", "a.log", "b.log"),
            "holds 2 files (a.log, b.log), expected one; unpack",
        ),
        ("logs.zip", zipped(b""), "holds 0 files (), expected one; unpack it, or leave it out"),
        ("log.1.br", b"\x1b\x00\xfe\x9c\x00\x12", "is neither text nor Parquet; leave it out"),
        ("log.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is neither text nor Parquet; leave it out"),
    ],
)
def test_what_is_not_read_is_named_in_words(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TableError) as caught:
        event_files([str(path)])
    assert str(caught.value).startswith(f"{path}: {said}")
    assert str(caught.value).isprintable()


def test_an_archive_with_a_password_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    content = bytearray(zipped(records(3), "a.log"))
    for place in (6, content.index(b"PK\x01\x02") + 8):  # "encrypted", in both of its headers
        content[place] |= 1
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"log.zip: cannot be read as zip: .*password required"):
        event_files([str(path)])


def test_no_room_to_unpack_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.xz"
    path.write_bytes(lzma.compress(records(3)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    assert main(["report", str(path), "--temporary", str(tmp_path)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"log.xz: no room to unpack it in {tmp_path} (--temporary)")


def test_an_empty_one_is_left_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "1.jsonl", [event(), event(pattern="B")])
    for suffix, pack in PACK.items():
        (tmp_path / f"2.{suffix}").write_bytes(pack(b""))
    assert len(event_files([str(tmp_path / "*")])) == 1

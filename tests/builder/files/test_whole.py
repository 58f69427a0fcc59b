"""Files are written whole or not at all, and an error names the file that was asked for."""

import os
import threading
from pathlib import Path

import pytest

from lookalike_build.files.whole import whole_file


def test_an_error_while_writing_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as part, Path("/dev/full").open("w", buffering=1) as full:
            part.write_text("half")
            full.write("more\n")

    with pytest.raises(OSError, match="No space left") as error:
        write()
    assert error.value.filename == str(path)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"report.json": "old"}


def test_a_folder_that_is_not_there_is_named_by_the_file_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "none" / "report.json"
    with pytest.raises(FileNotFoundError) as error, whole_file(path) as part:
        part.write_text("x")
    assert error.value.filename == str(path)


def test_a_link_stays_and_leads_to_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "report.json", tmp_path / "elsewhere/report.json"
    link.symlink_to(target)
    for text in ("first", "second"):
        with whole_file(link) as part:
            part.write_text(text)
        assert link.is_symlink()
        assert target.read_text() == text


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with whole_file(pipe) as part:
        part.write_text("all of it")
    reader.join()
    assert read == ["all of it"]
    assert pipe.is_fifo()

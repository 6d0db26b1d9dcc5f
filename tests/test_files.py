"""Tests of `recurrent_rl.files`: files that are replaced whole, by one writer at a time."""

import errno
import multiprocessing
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from recurrent_rl import files
from recurrent_rl.files import Draft, open_locked, replacing


def write(path: Path, content: bytes = b"new") -> None:
    with replacing(path, "a test") as file:
        file.write(content)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0])
def test_new_file_has_the_usual_mode(umask: int, tmp_path: Path, monkeypatch: Any) -> None:
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", None)  # nobody sets it, not for a moment
            write(tmp_path / "file")
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == 0o666 & ~umask


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o444, 0o666])
def test_replaced_file_keeps_its_mode(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(kept)
    with replacing(path, "a test") as file:
        file.write(b"secret")
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == kept
    assert (path.read_bytes(), mode(path)) == (b"secret", kept)


@pytest.mark.parametrize("exists", [True, False])
def test_symbolic_links_are_written_through(exists: bool, tmp_path: Path) -> None:
    folder, link = tmp_path / "elsewhere", tmp_path / "link"
    folder.mkdir()
    if exists:
        (folder / "file").write_bytes(b"old")
    link.symlink_to("elsewhere/file")
    write(link)
    assert link.is_symlink()
    assert (folder / "file").read_bytes() == b"new"
    assert os.listdir(folder) == ["file"]


def test_drafts_names_cannot_be_foreseen_and_follow_no_links(
    tmp_path: Path, monkeypatch: Any
) -> None:
    names = []
    for _ in range(2):
        with replacing(tmp_path / "file", "a test"):
            names += [name for name in os.listdir(tmp_path) if name != "file"]
    assert len(set(names)) == 2
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "0" * 16)
    (tmp_path / f".file.{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write(tmp_path / "file", b"overwritten")
    assert victim.read_bytes() == b"precious"


def test_long_names(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 255))
    assert os.listdir(tmp_path) == ["x" * 255]


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="expected the path of a file, got a directory"):
        write(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="expected an ordinary file, got a device or a pipe"):
        write(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels of symbolic links, while writing a test"):
        write(tmp_path / "loop")


@pytest.mark.parametrize("exists", [True, False])
def test_no_space(exists: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if exists:
        path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path, "a test"):
            raise OSError(errno.ENOSPC, "No space left on device")

    kept = "what was there before, of 20.*, is untouched" if exists else "nothing was written"
    message = rf"^save: No space left on device, while writing a test to .*file; {kept}; make room"
    with pytest.raises(OSError, match=message) as error:
        fail()
    assert error.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == (["file"] if exists else [])


def test_drafts_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    path, living = tmp_path / "file", Draft(tmp_path / "file")
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def begin() -> None:
        draft = Draft(path)
        draft.file.write(b"x" * 100)
        ready.set()
        signal.pause()

    child = context.Process(target=begin)
    child.start()
    assert ready.wait(30)
    write(path)
    assert len(os.listdir(tmp_path)) == 3  # both live
    child.kill()
    child.join()
    (tmp_path / ".file.notours.tmp").write_text("")
    (tmp_path / ".files.0123456789abcdef.tmp").write_text("")
    write(path)
    names = [".file.notours.tmp", ".files.0123456789abcdef.tmp", "file"]
    assert [n for n in sorted(os.listdir(tmp_path)) if n != living._path.name] == names
    living.file.write(b"whole")
    living.put_in_place()
    living.file.close()
    assert path.read_bytes() == b"whole"


def test_draft_that_was_taken_for_abandoned_is_made_anew(tmp_path: Path, monkeypatch: Any) -> None:
    lock, calls = files.lock, []

    def late(file: Any, *, wait: bool = False) -> None:
        if not calls:  # another writer comes between creation and lock
            files._remove_abandoned(tmp_path, ".file.")
        calls.append(wait)
        lock(file, wait=wait)

    monkeypatch.setattr(files, "lock", late)
    write(tmp_path / "file")
    assert calls == [True, True]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first = open_locked(path)
    with pytest.raises(BlockingIOError, match=r"file: expected a file that nobody else is writing"):
        open_locked(path)
    files.unlock(first)
    open_locked(path).close()
    first.close()
    open_locked(path).close()

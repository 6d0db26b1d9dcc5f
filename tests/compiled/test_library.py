"""Tests of `recurrent_rl.compiled.library`: building, finding again, and doing without."""

import ctypes
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from support.compiled import needs_compiler
from support.helpers import make_policy
from support.updates import CONFIG, learned, rollout, weights

from recurrent_rl.compiled import kernels as module
from recurrent_rl.compiled import library


@pytest.fixture(autouse=True)
def nothing_found_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process of a user whose cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    for function in (library.load, module.kernels):
        function.cache_clear()
    yield
    for function in (library.load, module.kernels):
        function.cache_clear()


@needs_compiler
def test_built_once_and_found_again(tmp_path: Path) -> None:
    assert isinstance(library.load(), ctypes.CDLL)
    (built,) = (tmp_path / "cache" / "recurrent_rl").iterdir()  # and no draft
    assert stat.S_IMODE(built.stat().st_mode) == 0o644
    library.load.cache_clear()
    with mock.patch.object(subprocess, "run", side_effect=AssertionError):
        assert isinstance(library.load(), ctypes.CDLL)


@needs_compiler
def test_a_library_that_cannot_be_read_is_built_again() -> None:
    path = library._folder() / f"kernels-{library._fingerprint(library.find_compiler())}.so"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert isinstance(library.load(), ctypes.CDLL)
    assert path.stat().st_size


@needs_compiler
def test_a_compiler_may_lie_in_a_folder_with_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "the tools" / "cc"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nprintf 'erreur \\351trange' >&2\nexit 1\n")  # Latin-1
    tool.chmod(0o755)
    monkeypatch.setenv("CC", f"'{tool}' -O2")
    with pytest.warns(
        RuntimeWarning, match="the tools/cc -O2 to build its C files, got erreur .tra"
    ):
        assert library.load() is None


@needs_compiler
def test_another_processor_compiler_or_source_is_another_library() -> None:
    compiler = library.find_compiler()
    found = {library._fingerprint(compiler), library._fingerprint(["other", "-m32"])}
    with mock.patch.object(library.platform, "machine", return_value="abacus"):
        found.add(library._fingerprint(compiler))
    with mock.patch.object(library, "SOURCES", library.SOURCES[:1]):
        found.add(library._fingerprint(compiler))
    assert len(found) == 4


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def unknown_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")


def failing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, "", "error: out of paper")
    monkeypatch.setattr(library, "find_compiler", lambda: ["cc"])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)


def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_compiler", lambda: ["cc"])
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")


def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_compiler", lambda: ["cc"])
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError("no home")))


def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.sys, "platform", "win32")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (no_compiler, r"expected a C compiler \(cc, gcc, clang\), got none; install one"),
        (unknown_compiler, r"expected a C compiler \(no-such-compiler of \$CC\), got none"),
        (failing_compiler, "expected cc to build its C files, got error: out of paper"),
        (no_folder, "expected a library at /dev/null/recurrent_rl/kernels-.*Not a directory"),
        (no_home, r"expected a folder for it in \$XDG_CACHE_HOME, got none \(no home\)"),
        (on_windows, "expected Linux or macOS, got Windows"),
    ],
)
def test_without_a_library_a_warning_says_why(
    trouble: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble(monkeypatch)  # type: ignore[operator]
    with pytest.warns(RuntimeWarning, match=f"compiled=True: {said}.*PyTorch's operations go on"):
        assert module.kernels() is None
    assert module.kernels() is None  # and says no more


def test_without_a_library_learning_goes_on_as_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    no_compiler(monkeypatch)
    results = []
    for compiled in (False, True):
        policy = make_policy(compiled=compiled)
        buffer = rollout(policy)
        config = CONFIG.replace(compiled=compiled)
        if compiled:
            with pytest.warns(RuntimeWarning, match="learning takes longer"):
                diagnostics = learned(policy, buffer, config)
        else:
            diagnostics = learned(policy, buffer, config)
        results.append((diagnostics, weights(policy).tolist()))
    assert results[0] == results[1]

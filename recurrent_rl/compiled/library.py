"""The kernels' library: built once for each processor, compiler and version, then found again."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

SOURCES = sorted(Path(__file__).parent.glob("*.c"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
# Everything that leaves what is not finite as it is: -ffast-math does not, and, in a library, makes
# the whole program treat the smallest numbers as 0.
FLAGS = ("-std=c99", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
WIDE = "-mprefer-vector-width=512"  # which not all compilers know
COMPILERS = ("cc", "gcc", "clang")


class BuildError(RuntimeError):
    """There is no library; says why."""


@functools.cache
def load() -> ctypes.CDLL | None:
    """Return the library, built where it is not there yet; None, and a warning, if it cannot be.

    It is kept in a folder ``recurrent_rl`` of ``$XDG_CACHE_HOME``, or of ``~/.cache``. Compilers
    are those of ``$CC``, or ``cc``, ``gcc`` and ``clang``.
    """
    try:
        return _load()
    except BuildError as error:
        warnings.warn(
            f"compiled=True: {error}. PyTorch's operations go on in the kernels' place: learning "
            f"takes longer, and what is learned is the same up to rounding",
            RuntimeWarning,
            stacklevel=2,
        )
    return None


def _load() -> ctypes.CDLL:
    if sys.platform == "win32":
        raise BuildError("expected Linux or macOS, got Windows")
    compiler = find_compiler()
    path = _folder() / f"kernels-{_fingerprint(compiler)}.so"
    try:
        if path.exists():
            with contextlib.suppress(OSError):  # cut off when a disk was full, or power failed
                return ctypes.CDLL(str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        _build(compiler, path)
        return ctypes.CDLL(str(path))
    except OSError as error:  # a folder that cannot be written, or a library that cannot be read
        raise BuildError(f"expected a library at {path}, got {error}") from error


def find_compiler() -> list[str]:
    """Return the command that calls a C compiler.

    Raises:
        BuildError: there is none.

    """
    asked = shlex.split(os.environ.get("CC", ""))
    for command in [asked] if asked else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    raise BuildError(
        f"expected a C compiler ({asked[0] + ' of $CC' if asked else ', '.join(COMPILERS)}), got "
        f"none; install one, gcc for example, or leave the option out"
    )


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "recurrent_rl"
    except RuntimeError as error:  # a user without a home
        raise BuildError(
            f"expected a folder for it in $XDG_CACHE_HOME, got none ({error})"
        ) from None


def _fingerprint(compiler: list[str]) -> str:
    """Tell apart what makes a library another one: a home may be shared by several machines."""
    features = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):  # Linux only
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    texts = [path.read_text() for path in (*SOURCES, *HEADERS)]
    parts = (*texts, *FLAGS, WIDE, *compiler, features)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(compiler: list[str], path: Path) -> None:
    number, draft = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(number)
    try:
        said = ""
        for tuned in (["-march=native", WIDE], ["-march=native"], ["-mcpu=native"], []):
            command = [*compiler, *FLAGS, *tuned, "-fPIC", "-shared", *map(str, SOURCES)]
            # Compilers may say it in any encoding.
            done = subprocess.run(
                [*command, "-o", draft, "-lm"], capture_output=True, text=True, errors="replace"
            )
            if done.returncode == 0:
                os.chmod(draft, 0o644)
                os.replace(draft, path)  # whole or not at all, whoever else builds it
                return
            said = said or done.stderr
        raise BuildError(f"expected {' '.join(compiler)} to build its C files, got {said.strip()}")
    finally:
        Path(draft).unlink(missing_ok=True)

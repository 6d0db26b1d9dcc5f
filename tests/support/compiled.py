"""Whether there is a C compiler to build kernels with."""

import pytest

from recurrent_rl.compiled.library import BuildError, find_compiler


def _has_compiler() -> bool:
    try:
        return bool(find_compiler())
    except BuildError:
        return False


HAS_COMPILER = _has_compiler()
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="needs a C compiler")

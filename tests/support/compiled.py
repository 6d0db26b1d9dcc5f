"""Whether kernels can be built here."""

import pytest

from recurrent_rl.compiled.library import BuildError, _load


def _can_be_built() -> bool:
    try:
        return _load() is not None
    except BuildError:  # no compiler, or no folder to build into
        return False


HAS_COMPILER = _can_be_built()
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="needs a C compiler")

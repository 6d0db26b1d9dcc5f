"""What environments are called, in messages and beside logs."""

from collections.abc import Mapping
from typing import Any

from recurrent_rl.envs.usage import innermost


def env_name(env: Any) -> str:
    """Return a Gymnasium id, PettingZoo's name, or else the class.

    Args:
        env: an environment, or a vector of them, which are alike; vectors that keep theirs to
            themselves say by ``label`` what these are called.

    """
    inner = innermost(env)[0]
    if isinstance(label := getattr(inner, "label", None), str):
        return label
    if (spec := getattr(inner, "spec", None) or getattr(env, "spec", None)) is not None:
        return str(spec.id)
    metadata = getattr(inner, "metadata", None)
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return str(name or type(inner).__name__)

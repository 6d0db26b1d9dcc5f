"""The wrappers of ``recurrent_rl.wrappers`` under the name that the project began with.

Nothing in ``recurrent_rl`` imports it: many projects have a ``wrappers.py`` of their own, which
then goes before this one.
"""

from recurrent_rl.wrappers import (
    MESSAGE_INDICES,
    VELOCITY_INDICES,
    EarlyMessageWrapper,
    MaskVelocityVectorWrapper,
    MaskVelocityWrapper,
)

__all__ = [
    "MESSAGE_INDICES",
    "VELOCITY_INDICES",
    "EarlyMessageWrapper",
    "MaskVelocityVectorWrapper",
    "MaskVelocityWrapper",
]

"""Gymnasium and PettingZoo wrappers that turn environments into memory tasks.

A package of its own: it imports Gymnasium, PettingZoo and NumPy only, so it works without
``recurrent_rl``.

* ``MaskVelocityWrapper`` - Hides the velocities, so that they must be inferred from past positions
* ``EarlyMessageWrapper`` - Hides messages but the first, so that listeners must remember them
"""

from wrappers.early_message import MESSAGE_INDICES, EarlyMessageWrapper
from wrappers.mask_velocity import VELOCITY_INDICES, MaskVelocityWrapper

__all__ = ["MESSAGE_INDICES", "VELOCITY_INDICES", "EarlyMessageWrapper", "MaskVelocityWrapper"]

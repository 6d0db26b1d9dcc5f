"""Gymnasium and PettingZoo wrappers that turn environments into memory tasks.

They import Gymnasium, PettingZoo and NumPy only.

* ``MaskVelocityWrapper`` - Hides the velocities, so that they must be inferred from past positions
* ``EarlyMessageWrapper`` - Hides messages but the first, so that listeners must remember them
"""

from recurrent_rl.wrappers.early_message import MESSAGE_INDICES, EarlyMessageWrapper
from recurrent_rl.wrappers.mask_velocity import VELOCITY_INDICES, MaskVelocityWrapper

__all__ = ["MESSAGE_INDICES", "VELOCITY_INDICES", "EarlyMessageWrapper", "MaskVelocityWrapper"]

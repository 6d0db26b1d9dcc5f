"""Gymnasium wrappers that turn fully observed environments into memory tasks.

A package of its own: it imports Gymnasium and NumPy only, so it works without ``recurrent_rl``.

* ``MaskVelocityWrapper`` - Hides the velocities, so that they must be inferred from past positions
"""

from wrappers.mask_velocity import VELOCITY_INDICES, MaskVelocityWrapper

__all__ = ["VELOCITY_INDICES", "MaskVelocityWrapper"]

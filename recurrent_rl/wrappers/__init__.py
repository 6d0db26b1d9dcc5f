"""Gymnasium and PettingZoo wrappers: memory tasks, and agents in Tuples.

They import Gymnasium, PettingZoo and NumPy only.

* ``MaskVelocityWrapper`` - Hides the velocities, so that they must be inferred from past positions
* ``MaskVelocityVectorWrapper`` - The same in a vector that is not made of single environments
* ``EarlyMessageWrapper`` - Hides messages but the first, so that listeners must remember them
* ``TupleToParallelWrapper`` - Shows Gymnasium environments with Tuples of agents as PettingZoo's
"""

from recurrent_rl.wrappers.early_message import MESSAGE_INDICES, EarlyMessageWrapper
from recurrent_rl.wrappers.mask_velocity import VELOCITY_INDICES, MaskVelocityWrapper
from recurrent_rl.wrappers.mask_velocity_vector import MaskVelocityVectorWrapper
from recurrent_rl.wrappers.tuple_to_parallel import TupleToParallelWrapper, make_tuple_env

__all__ = [
    "MESSAGE_INDICES",
    "VELOCITY_INDICES",
    "EarlyMessageWrapper",
    "MaskVelocityVectorWrapper",
    "MaskVelocityWrapper",
    "TupleToParallelWrapper",
    "make_tuple_env",
]

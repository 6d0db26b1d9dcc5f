"""Memory: hidden state, cells, and sequences that contain no reset."""

from recurrent_rl.recurrent.core import RecurrentCore
from recurrent_rl.recurrent.sequences import Sequences, cut_sequences, state_times
from recurrent_rl.recurrent.state import HiddenState

__all__ = ["HiddenState", "RecurrentCore", "Sequences", "cut_sequences", "state_times"]

"""Looking on while episodes are played: for films, and for pictures of what is remembered."""

from recurrent_rl.acting.player import Turn
from recurrent_rl.envs.rows import Observed


class Spectator:
    """Sees the episodes of ``evaluate(..., watch=spectator)`` as they are played.

    It does nothing itself; subclasses override what they want to see. The environments may be
    looked at, but not stepped or reset.
    """

    def begin(self) -> None:
        """All environments have been reset: an episode begins in each."""

    def act(self, group: int, seen: Observed, turn: Turn) -> None:
        """A group has chosen its actions; the environments still show what it saw.

        Args:
            group: number of the group, in the order of the agent's ``groups``.
            seen: by its N rows.
            turn: how they acted upon it, with their memory before and after, on the policy's
                device. Rows whose episode is over act on, and it means nothing.

        """

    def stepped(self) -> None:
        """All environments have taken a step."""

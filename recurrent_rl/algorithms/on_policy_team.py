"""Teams that learn from the rollout that they have just collected."""

from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer, learn_all
from recurrent_rl.algorithms.on_policy_agent import OnPolicyAgent
from recurrent_rl.algorithms.ppo_update import Diagnostics


class OnPolicyTeam(OnPolicyAgent, MultiAgent):
    """What IPPO and MAPPO have in common: each group is trained on its own rollout."""

    @property
    def trainees(self) -> dict[str, OnPolicyTrainer]:
        """What trains each group, by name; rollouts are of N = E * A rows, row e * A + a."""
        return self.trainers

    def learn(self) -> dict[str, Diagnostics]:
        """Train each group on the rollout that ``collect_rollouts_recurrent`` has filled it with.

        Returns:
            losses and what else there is to know, by group; a group nobody of which acted, or
            whose policy is frozen, has ``updates`` 0.

        Raises:
            RuntimeError: nothing has been collected since the last call, everything is frozen, or
                a policy or an optimiser was changed beyond what learning can go on from; no group
                has learned then.
            FloatingPointError: a gradient was not finite.

        """
        return learn_all(self.trainers)

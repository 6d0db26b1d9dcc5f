"""DQN's update: double, dueling, of n steps, with memory R2D2's.

Letters: M decisions, n choices.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recurrent_rl.algorithms.decisions import LEAST_PRIORITY, Known, known_decisions, priorities
from recurrent_rl.algorithms.learner import Learner
from recurrent_rl.algorithms.network import Network
from recurrent_rl.algorithms.off_policy_configs import DQNConfig
from recurrent_rl.algorithms.replayed import Replayed, replayed
from recurrent_rl.algorithms.target import Target
from recurrent_rl.buffers.replay import Windows
from recurrent_rl.functional.targets import rescaled, unscaled
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.configs import HeadConfig
from recurrent_rl.networks.exploring import forbid
from recurrent_rl.networks.off_policy import QNetwork


class DQNLearner(Learner):
    """Learns the values of actions.

    Sources: Mnih et al. 2015, "Human-level control through deep reinforcement learning"; van
    Hasselt et al. 2016, "Deep Reinforcement Learning with Double Q-learning"; Kapturowski et al.
    2019, "Recurrent Experience Replay in Distributed Reinforcement Learning".

    Attributes:
        policy: its network.
        config: hyper-parameters.
        network: what is trained.
        target: its slowly moving copy.

    """

    def __init__(self, name: str, policy: QNetwork, config: DQNConfig) -> None:
        """Learn for group ``name``."""
        self.name, self.policy, self.config = name, policy, config
        self.device = policy.device
        policy.rescaled = config.rescale
        trunk = policy.trunk
        parts: dict[str, list[nn.Module]] = {"lr": [trunk, policy.q_head]}
        if config.lr_encoder is not None:
            parts = {"lr_encoder": [trunk], "lr": [policy.q_head]}
        self.network = Network(
            parts, self._step_sizes(), policy.device, config.adam_eps, compiled=config.compiled
        )
        both = nn.ModuleList([trunk, policy.q_head])
        self.target = Target(both, [policy.preprocessor])
        self.configure()

    def _step_sizes(self) -> dict[str, float]:
        config = self.config
        return {"lr": config.lr, "lr_encoder": config.lr_encoder or config.lr}

    def configure(self) -> None:
        self.network.set_step_sizes(self._step_sizes(), self.share)
        norm = self.config.max_grad_norm
        self.network.max_norm = float("inf") if norm is None else norm

    def acting(self) -> Iterator[Policy]:
        yield self.policy

    def reconfigure(self, group: str, config: DQNConfig) -> None:
        self.config = config
        self.configure()

    def successor(
        self, group: str, policy: Policy, heads: HeadConfig, generator: torch.Generator
    ) -> "DQNLearner":
        assert isinstance(policy, QNetwork)
        return DQNLearner(self.name, policy, self.config)

    def networks(self) -> Iterator[tuple[str, Network]]:
        yield "values", self.network

    def targets(self) -> Iterator[tuple[str, Target]]:
        yield "values", self.target

    @torch.enable_grad()  # whatever the caller has set
    def update(self, windows: Windows) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        config, policy = self.config, self.policy
        replay = replayed(windows, {self.name: policy}, self.device)[self.name]
        group = replay.windows
        nstep = replay.targets(config.gamma, config.n_step)
        known = known_decisions(
            nstep, windows.weight, group.agents, config.reward_scale, self.device
        )
        (share,) = self.shares(len(known.place))
        if not share:
            return {self.name: {}}, torch.full((len(windows),), LEAST_PRIORITY)
        online = self._online(replay)
        values = policy.q_head(known.pick(online[: replay.length]))
        action = known.pick(replay.part(group.action, 0, replay.length).to(self.device))
        chosen = values.gather(-1, action[:, None]).squeeze(-1)
        target = self._target(replay, known, online.detach())
        error = chosen - target
        if config.huber is None:
            each = error.square()
        else:
            each = F.huber_loss(chosen, target, reduction="none", delta=config.huber)
        loss = (known.weight * each).sum() / len(each)
        norm = self.network.step(loss * share, self.world)
        self.updates += 1  # only now: an update that fails is none
        if self.updates % config.target_update == 0:
            self.target.move(config.tau)
        record = {"loss": loss.detach(), "value": chosen.detach().mean(), "grad_norm": norm}
        batch = len(windows)
        order = priorities(error, known.row, group.agents, batch, config.priority_mix)
        return {self.name: record}, order

    def _online(self, replay: Replayed) -> Tensor:
        """Return features of the places that are trained on; with memory of all, at no cost."""
        trunk = self.policy.trunk
        return replay.features(trunk, 0, None if trunk.shapes else replay.length)

    @torch.no_grad()
    def _target(self, replay: Replayed, known: Known, online: Tensor) -> Tensor:
        """Return what the decisions' values are to become, [M].

        ``online`` has the features of all places, or of the first if there is no memory.
        """
        config, policy = self.config, self.policy
        trunk, head = self.target.module
        first, end = known.span(replay.rows)
        place = known.place - first * replay.rows

        def at(features: Tensor) -> Tensor:
            return features.flatten(0, 1).index_select(0, place)

        value = head(at(replay.features(trunk, first, end)))  # [M, n]
        judging = value
        if config.double:
            seen = online[first:end]
            if len(online) < end:
                seen = replay.features(policy.trunk, first, end)
            judging = policy.q_head(at(seen))
        if replay.windows.action_mask is not None:
            mask = replay.part(replay.windows.action_mask, first, end)
            judging = forbid(judging, at(mask.to(self.device)))
        best = value.gather(-1, judging.argmax(-1, keepdim=True)).squeeze(-1)
        if config.rescale:
            return rescaled(known.reward + known.discount * unscaled(best))
        target: Tensor = known.reward + known.discount * best
        return target

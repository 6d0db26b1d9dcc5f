"""Agents that learn from a replay of what they, or others, have gone through."""

import os
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl import checkpoint
from recurrent_rl.acting.exploration import OrnsteinUhlenbeck
from recurrent_rl.acting.player import Player
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.learner import Learner
from recurrent_rl.algorithms.off_policy import OffPolicyDiagnostics, OffPolicyTrainer
from recurrent_rl.algorithms.off_policy_configs import OffPolicyConfig
from recurrent_rl.algorithms.off_policy_recorder import Finals, OffPolicyRecorder
from recurrent_rl.algorithms.samples import check_sample, sampled
from recurrent_rl.algorithms.trainer import Trainer
from recurrent_rl.buffers.replay import SequenceReplayBuffer, Windows
from recurrent_rl.distributed import World
from recurrent_rl.envs.rows import Observed, RowSource
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.flat_parameters import align_parameters
from recurrent_rl.validation import shown


class OffPolicyAgent(Agent):
    """The off-policy half of an agent; ``SingleAgent`` or ``MultiAgent`` is the other.

    Attributes, beside those of ``Agent``:
        trainers: what is each group's own.
        learner: what learns, of all groups together.
        memory: the replay; agents may share one.
        training: ``get_action`` explores unless it is told otherwise.

    """

    trainers: dict[str, OffPolicyTrainer]
    memory: SequenceReplayBuffer
    learner: Learner
    _due: float  # environment steps of a rank that no update has been taken for yet
    _said: set[str]  # warnings given
    _refills: bool  # has lost its memory, and waits for a batch

    def _set_up(
        self, trainers: Mapping[str, Trainer], device: torch.device | str, seed: int | None
    ) -> None:
        super()._set_up(trainers, device, seed)
        self.memory = SequenceReplayBuffer(self.config.memory_size)
        self.training = True
        self._due, self._said, self._refills = 0.0, set(), False
        self.learner = self._make_learner()
        for name, trainer in self.trainers.items():
            trainer.name, trainer.learner = name, self.learner

    @abstractmethod
    def _make_learner(self) -> Learner:
        """Return what learns, with untrained critics."""

    @abstractmethod
    def networks_of(self, net_config: NetConfig | Mapping[str, Any] | None) -> dict[str, NetConfig]:
        """Return each group's network shapes, as ``net_config`` would give them to such an agent.

        Raises:
            TypeError, ValueError: it is not for such agents.

        """

    @property
    def config(self) -> OffPolicyConfig:
        """Hyper-parameters, of the first group; mutations may give each group its own."""
        return next(iter(self.trainers.values())).config

    @property
    def batch_size(self) -> int:
        """The hyper-parameter of that name."""
        return self.config.batch_size

    # --- collecting -------------------------------------------------------------------------

    def fit_memory(
        self, memory: SequenceReplayBuffer, num_envs: int, masked: Sequence[bool] = ()
    ) -> None:
        """Give a memory the shape of what this agent stores, or check that it has it.

        Args:
            memory: any.
            num_envs: E.
            masked: by group, whether there are action masks; room for them is made later, too.

        Raises:
            ValueError: it holds steps of other spaces, agents, environments or sequences.

        """
        masks = dict(zip(self.trainers, masked, strict=True)) if masked else {}
        memory.fit(
            {name: t.shapes(masks.get(name, False)) for name, t in self.trainers.items()},
            {name: trainer.group.size for name, trainer in self.trainers.items()},
            num_envs,
            next(iter(self.trainers.values())).layout,
            prioritised=self.config.sampling == "priority",
        )

    def rollout_steps(self, num_envs: int) -> int:
        return max(1, round(self.config.learn_step / num_envs))

    def start_rollout(
        self,
        steps: int,
        players: Sequence[Player],
        seen: Sequence[Observed],
        rows: RowSource,
        continued: bool,
    ) -> list[OffPolicyRecorder]:
        config, memory = self.config, self.memory
        self.fit_memory(memory, rows.num_envs, [one.action_mask is not None for one in seen])
        memory.begin(self.collection, continued)
        finals, recorders = Finals(memory), []
        for i, ((name, trainer), player) in enumerate(
            zip(self.trainers.items(), players, strict=True)
        ):
            align_parameters(trainer.policy.parameters())
            explorer = trainer.explorer_of(player.state.rows)
            explorer.at_first = trainer.env_steps < config.learning_starts
            player.explorer = explorer
            recorders.append(
                OffPolicyRecorder(
                    memory,
                    name,
                    player,
                    finals,
                    lambda row, i=i: rows.name(i, row),  # type: ignore[misc]
                    self.index,
                )
            )
        finals.recorders = recorders
        return recorders

    def end_rollout(self, steps: int) -> None:
        steps = self.on_all_ranks(steps)
        for name, trainer in self.trainers.items():
            self._update_statistics(name, trainer)
            trainer.end_rollout(steps)
        if self.env_steps > self.config.learning_starts:
            late = self.env_steps - self.config.learning_starts
            self._due += min(steps, late) / self.world.size

    def _update_statistics(self, name: str, trainer: OffPolicyTrainer) -> None:
        """Take what was seen into running statistics of observations, if there are any."""
        preprocessor = trainer.policy.preprocessor
        if preprocessor.norm is None and not preprocessor.image_norms:
            return
        obs, exists = self.memory.latest(name)
        trainer.policy.update_statistics(obs, exists, world=self.world)

    # --- other ranks ------------------------------------------------------------------------

    def follow_first(self, data: dict[str, Any]) -> None:
        memory = self.memory
        super().follow_first(data)
        self.memory = memory  # each rank has its own

    def _enter(self, world: World) -> None:
        super()._enter(world)
        self.learner.world = world

    def _shared(self) -> Iterator[Tensor]:
        yield from super()._shared()
        for _, network in self.learner.networks():
            for part in network.parts.values():
                yield from part.parameters()
        for _, target in self.learner.targets():
            yield from target.to_data()

    # --- learning ---------------------------------------------------------------------------

    def _learn(
        self, experiences: SequenceReplayBuffer | Windows | None
    ) -> dict[str, OffPolicyDiagnostics]:
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "learn: expected a call outside of torch.inference_mode, which gradients cannot "
                "be computed in; collect and learn outside of it"
            )
        if not isinstance(experiences, SequenceReplayBuffer | Windows | None):
            raise TypeError(
                f"learn: expected a SequenceReplayBuffer to sample from, what one has sampled, or "
                f"nothing for the agent's own memory, got {shown(experiences)}"
            )
        self._check_fits(experiences)
        self.join_world()
        self.check_ranks()
        if not self.learner.join():
            raise RuntimeError(
                "learn: expected parameters that require gradients, got none, as all are frozen; "
                "unfreeze some by agent.policy.requires_grad_(True)"
            )
        self._refills = self._refills and not self.can_learn()
        if any(waits for (waits,) in self.world.numbers(self._refills)) and experiences is None:
            self.skip_updates()
        self._schedule()
        records: list[dict[str, dict[str, Tensor]]] = []
        if isinstance(experiences, Windows):
            records.append(self.learner.update(experiences)[0])
        else:
            memory = self.memory if experiences is None else experiences
            rounds = int(self._due // self.config.learn_step)
            for _ in range(rounds * self.config.gradient_steps):
                windows = self._sample(memory)
                record, order = self.learner.update(windows)
                if self.config.sampling == "priority":
                    memory.set_priority(windows.slot, order.numpy())
                records.append(record)
            self._due -= rounds * self.config.learn_step  # only now, if nothing has failed
        learned = {}
        for name, trainer in self.trainers.items():
            sizes = {n: self.learner.share * x for n, x in trainer.config.step_sizes.items()}
            learned[name] = _summary([record[name] for record in records], sizes)
        return learned

    def _schedule(self) -> None:
        """Bring step sizes to what the schedule says; warn, once, where it is over."""
        config = self.config
        # What was collected is counted already; its share is still to come.
        done = self.env_steps - int(self._due * self.world.size)
        self.learner.schedule(config.factor("lr_schedule", done))
        message = config.end(done)
        if message is not None and message not in self._said:
            self._said.add(message)
            warnings.warn(message, stacklevel=4)

    def _check_fits(self, experiences: SequenceReplayBuffer | Windows | None) -> None:
        """Raise ValueError if these are of other agents or spaces."""
        if isinstance(experiences, SequenceReplayBuffer) and experiences.layout is not None:
            self.fit_memory(experiences, experiences.envs)
        elif isinstance(experiences, Windows):
            check_sample(experiences, self.trainers, self.config)

    def can_learn(self) -> bool:
        """Whether the memory has a batch to sample."""
        if self.config.batch_size > len(self.memory):
            return False
        return self.config.sampling != "episodes" or self.memory.has_episodes()

    def skip_updates(self) -> None:
        """Take no updates for the steps collected so far, whatever is due for them."""
        self._due = 0.0

    def _sample(self, memory: SequenceReplayBuffer) -> Windows:
        layout = next(iter(self.trainers.values())).layout
        owner = -1 if self.config.stored_state == "zero" else self.index
        return sampled(memory, self.config, layout.length, owner, self.groups[0].generator)

    # --- exploring --------------------------------------------------------------------------

    def set_training_mode(self, training: bool) -> None:
        """Let ``get_action`` explore, or take the most likely actions, unless it is told."""
        self.training = bool(training)

    def reset_action_noise(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> None:
        """Begin drifting exploration noise at zero again, in some environments.

        Collection does so by itself. Without drifting noise there is nothing to do.

        Args:
            indices: of the environments.

        """
        envs = [int(i) for i in indices]
        for trainer in self.trainers.values():
            each = (trainer.explorer, trainer.drifting)
            made = [x for x in each if isinstance(x, OrnsteinUhlenbeck)]
            # Collection and the caller's own loop may have different numbers of environments.
            fit = [x for x in made if max(envs, default=0) < x.rows // trainer.group.size]
            if made and not fit:
                most = max(x.rows for x in made) // trainer.group.size
                raise IndexError(f"indices: expected some of {most} environments, got {envs}")
            for explorer in fit:
                explorer.reset(envs)

    # --- saving -----------------------------------------------------------------------------

    def to_checkpoint(self, save_replay: bool = False) -> dict[str, Any]:
        return {
            **super().to_checkpoint(),
            "learner": self.learner.to_data(),
            "due": self._due,
            "refills": self._refills if save_replay else True,
            "training": self.training,
            "memory": self.memory.to_data() if save_replay else None,
            "writes": save_replay and self.memory.writer is self.collection,
        }

    @classmethod
    def from_checkpoint(
        cls, data: dict[str, Any], device: torch.device | str = "cpu", **parts: Any
    ) -> Any:
        agent = super().from_checkpoint(data, device, **parts)
        agent.learner.load(data["learner"])
        agent._due, agent.training = data["due"], data["training"]
        agent._refills = data["refills"]
        if data["memory"] is not None:
            agent.memory = SequenceReplayBuffer.from_data(data["memory"])
            agent.memory.writer = agent.collection if data["writes"] else None
        return agent

    def save_checkpoint(self, path: str | os.PathLike[str], *, save_replay: bool = False) -> None:
        """Save everything that training goes on from: atomically, readable in weights-only mode.

        Of several ranks, all of which must call it, rank 0 writes what it has.

        Args:
            path: of the file.
            save_replay: the replay as well, which exact resumption needs. Without it the loaded
                agent begins with an empty one, and its updates wait until that has a batch.

        Raises:
            FileNotFoundError: the directory does not exist.
            PermissionError: it cannot be written.

        """
        data = self.to_checkpoint(save_replay)
        if self.world.is_first:
            checkpoint.save(data, path)


def _summary(
    records: Sequence[Mapping[str, Tensor]], step_sizes: Mapping[str, float]
) -> OffPolicyDiagnostics:
    """Return means of what was noted of a group, each over the updates that have it.

    Beside them stand the step sizes of these updates, if there were any.
    """
    names = dict.fromkeys(name for record in records for name in record)
    values = {
        name: float(torch.stack([r[name].float() for r in records if name in r]).mean())
        for name in names
    }
    return OffPolicyDiagnostics(len(records), {**values, **(step_sizes if records else {})})

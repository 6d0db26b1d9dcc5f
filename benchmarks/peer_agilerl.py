"""Time AgileRL's feed-forward IPPO on simple_spread; run it in an environment of its own.

    python peer_agilerl.py --num-envs 8 --learn-step 128 --batch-size 256

Prints environment steps a second, collection and learning included, as one JSON line. A step of an
environment counts once, however many agents act in it.

What is timed is AgileRL's own train_multi_agent_on_policy, from the end of the warm-up's learning
to the end of the last. Its evaluation and reports come after that.
"""

import argparse
import json
import time
from typing import Any

import torch
from agilerl.algorithms import IPPO
from agilerl.training.train_multi_agent_on_policy import train_multi_agent_on_policy
from agilerl.vector import AsyncPettingZooVecEnv
from mpe2 import simple_spread_v3


class TimedIPPO(IPPO):
    """IPPO that notes when each call of learn begins and ends, and counts its optimizer steps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take IPPO's own arguments."""
        super().__init__(*args, **kwargs)
        self.moments: list[tuple[float, float]] = []
        self.samples = 0
        self.optimizer_steps = {"actor": 0, "critic": 0}
        for name, group in (("actor", self.actor_optimizers), ("critic", self.critic_optimizers)):
            for network in self.actors:
                group[network].register_step_post_hook(lambda *_, name=name: self.count(name))

    def count(self, name: str) -> None:
        """Count one step of the actor's or the critic's optimizer."""
        self.optimizer_steps[name] += 1

    def learn(self, experiences: tuple[Any, ...]) -> dict[str, float]:
        begin = time.perf_counter()
        losses = super().learn(experiences)
        self.moments.append((begin, time.perf_counter()))
        rewards = experiences[3]
        self.samples = sum(row.size for rows in rewards.values() for row in rows)
        return losses


def arguments() -> argparse.Namespace:
    """The work to time; learn_step is steps of each environment, which is not AgileRL's way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--num-envs", type=int, default=8, help="a worker process for each")
    parser.add_argument("--learn-step", type=int, default=128, help="rollout, per environment")
    parser.add_argument("--batch-size", type=int, default=256, help="agents' samples a minibatch")
    parser.add_argument("--update-epochs", type=int, default=4)
    parser.add_argument("--hidden-size", type=int, default=64, help="width of encoder and heads")
    parser.add_argument("--no-layer-norm", action="store_true", help="AgileRL's default has it")
    parser.add_argument("--rollouts", type=int, default=8, help="to time, after one to warm up")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of the learner")
    return parser.parse_args()


def main() -> None:
    """Warm up with one rollout, then time the rest."""
    work = arguments()
    torch.set_num_threads(work.threads)
    env = AsyncPettingZooVecEnv(
        [lambda: simple_spread_v3.parallel_env(max_cycles=25) for _ in range(work.num_envs)]
    )
    layers = {"hidden_size": [work.hidden_size], "layer_norm": not work.no_layer_norm}
    # AgileRL divides its learn_step by the number of environments.
    rollout = work.num_envs * work.learn_step
    agent = TimedIPPO(
        [env.single_observation_space(name) for name in env.possible_agents],
        [env.single_action_space(name) for name in env.possible_agents],
        agent_ids=env.possible_agents,
        net_config={
            "latent_dim": work.hidden_size,
            "encoder_config": dict(layers),
            "head_config": dict(layers),
        },
        learn_step=rollout,
        batch_size=work.batch_size,
        update_epochs=work.update_epochs,
    )
    steps = (1 + work.rollouts) * rollout
    train_multi_agent_on_policy(
        env, "simple_spread_v3", "IPPO", [agent], max_steps=steps, evo_steps=steps, verbose=False
    )
    (_, start), *timed = agent.moments
    assert len(timed) == work.rollouts
    seconds = timed[-1][1] - start
    learning = sum(end - begin for begin, end in timed)
    trained = work.rollouts * work.update_epochs * agent.samples
    counts = {name: n / len(agent.moments) for name, n in agent.optimizer_steps.items()}
    print(
        json.dumps(
            {
                "steps_per_second": work.rollouts * rollout / seconds,
                "collect_steps_per_second": work.rollouts * rollout / (seconds - learning),
                "learn_samples_per_second": trained / learning,
                "env_steps_per_rollout": rollout,
                "samples_per_rollout": agent.samples,
                "actor_steps_per_rollout": counts["actor"],
                "critic_steps_per_rollout": counts["critic"],
                "parameters": {
                    "actor": sum(p.numel() for p in agent.actors.parameters()),
                    "critic": sum(p.numel() for p in agent.critics.parameters()),
                },
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()

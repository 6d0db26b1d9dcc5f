"""Time sb3-contrib's RecurrentPPO; run by speed.py in an environment of its own.

    python peer_sb3.py '{"num_envs": 8, "learn_step": 128, ...}'

Prints environment steps a second, collection and learning included, as one JSON line.
"""

import json
import sys
import time

import gymnasium as gym
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env


class MaskPendulumVelocity(gym.ObservationWrapper):
    """What MaskVelocityWrapper does to Pendulum: this environment does not have our package."""

    def observation(self, observation):
        """Zero the last coordinate of a copy."""
        observation = observation.copy()
        observation[2] = 0
        return observation


def main() -> None:
    """Warm up with two rollouts, then time the rest."""
    work = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    env = make_vec_env("Pendulum-v1", n_envs=work["num_envs"], wrapper_class=MaskPendulumVelocity)
    model = RecurrentPPO(
        "MlpLstmPolicy",
        env,
        n_steps=work["learn_step"],
        batch_size=work["batch_size"],
        n_epochs=work["update_epochs"],
        gamma=0.9,
        policy_kwargs={
            "lstm_hidden_size": 64,
            "enable_critic_lstm": not work["share_encoders"],
            "shared_lstm": work["share_encoders"],
            "net_arch": {"pi": [64], "vf": [64]},
        },
    )
    rollout = work["num_envs"] * work["learn_step"]
    model.learn(work["warmup"] * rollout)
    begin = time.process_time()
    model.learn(work["rollouts"] * rollout, reset_num_timesteps=False)
    seconds = time.process_time() - begin
    print(json.dumps({"steps_per_second": work["rollouts"] * rollout / seconds}))


if __name__ == "__main__":
    main()

"""Time gradient steps of Stable-Baselines3's SAC; run by off_policy.py in its own venv.

    python peer_sac.py

Reads a number of gradient steps a line, takes them, and prints the seconds of the processor that
they took.
"""

import sys
import time

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger


def main() -> None:
    """Fill a replay, then take gradient steps whenever asked."""
    torch.set_num_threads(1)
    model = SAC("MlpPolicy", "Pendulum-v1", batch_size=256, learning_starts=100_000, seed=0)
    model.learn(5000)  # 256 x 256 with ReLU, for the actor and two critics each, is its default
    model.set_logger(Logger(None, []))
    for line in sys.stdin:
        begin = time.process_time()
        model.train(gradient_steps=int(line), batch_size=256)
        print(time.process_time() - begin, flush=True)


if __name__ == "__main__":
    main()

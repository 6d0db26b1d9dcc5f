"""Collecting and learning against a program that XLA compiles whole, on the same core.

    python benchmarks/xla.py        # JAX is installed into .venv-peer-xla at first

The peer has the environment inside the program; ours costs nothing beside it (its observations have
been computed beforehand). Both take the same numbers of steps and gradient steps, in turns; the
processor's time is counted, of processes that are bound to one core. The median of the ratios of
neighbouring turns: above 1, this package is faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import torch
from speed import make_agent
from speed_against import Free

from recurrent_rl import collect_rollouts_recurrent

HERE = Path(__file__).parent
PEER_PACKAGES = ["jax==0.10.2", "jaxlib==0.10.2", "optax==0.2.8", "numpy==2.4.6"]
SIZES = ((8, 128, 256), (64, 128, 2048), (256, 64, 4096))
EPOCHS, ROLLOUTS = 4, 8


def peer_python(folder: Path) -> Path:
    """The peer's own environment, made when it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {' '.join(PEER_PACKAGES)} into {folder}", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEER_PACKAGES], check=True)
    return python


def start_peer(folder: Path) -> "subprocess.Popen[str]":
    """Start the peer, which works when it is told to."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OMP_NUM_THREADS": "1"}
    command = [str(peer_python(folder)), str(HERE / "peer_xla.py")]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


def ask(peer: "subprocess.Popen[str]", work: dict[str, int]) -> float:
    """Let it work; the processor's seconds that it took."""
    assert peer.stdin is not None
    assert peer.stdout is not None
    peer.stdin.write(json.dumps(work) + "\n")
    peer.stdin.flush()
    seconds: float = json.loads(peer.stdout.readline())["seconds"]
    return seconds


def ours(agent: Any, env: Free, updates: int) -> float:
    """Do as much; the processor's seconds."""
    begin, taken = time.process_time(), 0
    for _ in range(ROLLOUTS):
        collect_rollouts_recurrent(agent, env)
        taken += agent.learn().updates
    seconds = time.process_time() - begin
    assert taken == ROLLOUTS * updates, f"{taken} gradient steps instead of {ROLLOUTS * updates}"
    return seconds


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compiled", action="store_true", help="learn by kernels in C")
    parser.add_argument("--peer-venv", type=Path, default=Path(".venv-peer-xla"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # Linux; the peer inherits it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one core")
    peer = start_peer(options.peer_venv)
    for num_envs, steps, batch_size in SIZES:
        env = Free(num_envs)
        work = {"learn_step": steps, "batch_size": batch_size, "update_epochs": EPOCHS}
        own = {"compiled": options.compiled, "gamma": 0.97, "gae_lambda": 0.9}
        agent = make_agent(env, steps, **own, **work)
        asked = {**work, "num_envs": num_envs, "rollouts": ROLLOUTS}
        updates = EPOCHS * num_envs * steps // batch_size
        ask(peer, asked), ours(agent, env, updates)
        pairs = [(ask(peer, asked), ours(agent, env, updates)) for _ in range(options.rounds)]
        rates = [
            ROLLOUTS * num_envs * steps / statistics.median(side)
            for side in zip(*pairs, strict=True)
        ]
        ratio = statistics.median(a / b for a, b in pairs)
        print(
            f"xla: {num_envs} x {steps}, batch {batch_size}: {rates[1]:,.0f} vs {rates[0]:,.0f} "
            f"steps/s: {ratio:.2f}x",
            flush=True,
        )
    peer.communicate()


if __name__ == "__main__":
    main()

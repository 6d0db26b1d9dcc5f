"""Several ranks train one agent: as one process would on all their data."""

import copy
import csv
import functools
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.contract import CASES, ON_POLICY, everything, train
from support.ranks import Ranks, rows_of_rollout, some_windows
from support.replaying import random_windows

from recurrent_rl import (
    PPO,
    MetricsLogger,
    collect_rollouts_recurrent,
    distributed,
    make_vect_envs,
    train_on_policy,
)
from recurrent_rl import train as train_agent
from recurrent_rl.cli.main import main
from recurrent_rl.distributed import ALONE, World
from recurrent_rl.shared_sum import open_shared

# What one process learns from at once. Not what replays sample with noise of each rank's own.
TOGETHER = {"batch_size": 10_000}
NOISELESS = ("dqn", "ddpg")
ROLLOUTS = ("ppo", "ppo-sde", "ippo-gru", "mappo", "mappo-state", "mappo-feed-forward")
# One of each algorithm, and of what draws in ways of its own.
EACH = ("ppo-sde", "ippo-feed-forward", "mappo", "dqn", "ddpg", "td3", "sac", "maddpg", "matd3")


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    return Ranks(monkeypatch)


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, x in one.items():
        assert torch.allclose(x, other[name], rtol=tolerance, atol=tolerance), name


def test_alone() -> None:
    x = torch.ones(2)
    assert ALONE.is_first
    assert ALONE.sum(x) is x
    assert ALONE.gather("x") == ["x"]
    assert ALONE.numbers(1, 2) == [(1, 2)]
    assert ALONE.from_first(3) == 3


@pytest.mark.parametrize("name", ROLLOUTS)
def test_rollouts_of_two_ranks_are_learned_from_as_one(name: str, ranks: Ranks) -> None:
    case = ON_POLICY[name]
    whole = case.agent(**TOGETHER)
    parts = [whole.clone() for _ in range(2)]
    rollouts = []
    for seed in range(5):
        player = case.agent(seed=seed, **TOGETHER)  # whose rollouts are off both policies alike
        env = case.vector()
        collect_rollouts_recurrent(player, env, reset=True)
        rollouts.append([trainer.buffer for trainer in player.trainers.values()])

    def learn(agent: Any, world: World) -> dict[str, torch.Tensor]:
        agent.join_world()
        for buffers in copy.deepcopy(rollouts):
            for trainer, buffer in zip(agent.trainers.values(), buffers, strict=True):
                mine = buffer
                if world.size > 1:
                    mine = rows_of_rollout(buffer, slice(world.rank, world.rank + 1))
                trainer.buffer, trainer.collected, trainer._prepared = mine, True, False
                trainer._new_steps = buffer.steps * buffer.rows // buffer.agents
                trainer.env_steps += trainer._new_steps
            agent.learn()
        return everything(agent)

    before = everything(whole)
    expected = learn(whole, ALONE)
    found = ranks.run(2, lambda world: learn(parts[world.rank], world))
    moved = sum(not torch.equal(x, before[key]) for key, x in expected.items() if key in before)
    assert moved > 3
    alike(found[0], expected, 1e-5)
    alike(found[1], found[0], 0)


@pytest.mark.parametrize("name", NOISELESS)
def test_samples_of_two_ranks_are_learned_from_as_one(name: str, ranks: Ranks) -> None:
    case = CASES[name]
    options = {"policy_noise": 0.0} if name == "ddpg" else {}
    whole = case.agent(**options)
    parts = [whole.clone() for _ in range(2)]
    masked = bool(case.env.get("masked"))
    samples = [random_windows(whole, seed, windows=5, masked=masked) for seed in range(5)]

    def learn(agent: Any, world: World) -> dict[str, torch.Tensor]:
        agent.join_world()
        for sample in samples:
            mine = sample
            if world.size > 1:  # of another number of windows on each
                mine = some_windows(sample, slice(0, 2) if world.is_first else slice(2, 5))
            agent.learner.join()
            agent.learner.update(mine)
        return everything(agent)

    expected = learn(whole, ALONE)
    found = ranks.run(2, lambda world: learn(parts[world.rank], world))
    alike(found[0], expected, 1e-5)
    alike(found[1], found[0], 0)


@pytest.mark.parametrize("name", EACH)
def test_ranks_stay_together_on_data_of_their_own(name: str, ranks: Ranks) -> None:
    case = CASES[name]
    agents = [case.agent(seed=seed) for seed in (0, 1)]  # the first one's weights count

    def work(world: World) -> Any:
        agent = train(agents[world.rank], case.vector(), 4)
        return everything(agent), agent.env_steps, agent.groups[0].generator.get_state()

    first, second = ranks.run(2, work)
    alike(second[0], first[0], 0)
    alone = train(case.agent(), case.vector(), 4)
    assert first[1] == second[1] == 2 * alone.env_steps
    assert not torch.equal(first[2], second[2])


def test_agents_that_were_built_differently_are_refused(ranks: Ranks) -> None:
    case = CASES["ppo"]
    agents = [case.agent(lr=lr) for lr in (1e-3, 2e-3)]
    with pytest.raises(ValueError, match=r"same lr on all ranks.*0\.001 on rank 0 and 0\.002 on"):
        ranks.run(2, lambda world: train(agents[world.rank], case.vector(), 1))


def test_weights_that_one_rank_has_changed_are_refused(ranks: Ranks) -> None:
    case = CASES["ippo"]
    agents = [case.agent() for _ in range(3)]

    def work(world: World) -> None:
        agent = train(agents[world.rank], case.vector(), 1)
        if world.rank == 2:
            next(iter(agent.groups[-1].policy.parameters())).data[0] += 1
        train(agent, case.vector(), 1)

    with pytest.raises(RuntimeError, match="others than rank 0's on rank 2"):
        ranks.run(3, work)


# --- training ---------------------------------------------------------------------------------


def cart_pole() -> Any:
    return make_vect_envs("CartPole-v1", num_envs=2, should_async_vector=False)


ONE_AT_A_TIME = threading.Lock()  # weights are drawn from the one generator of all threads


def small(env: Any, seed: int | None = 3) -> PPO:
    with ONE_AT_A_TIME:
        return PPO(
            env.single_observation_space,
            env.single_action_space,
            {"encoder_config": {"hidden_state_size": 8}, "head_config": {"hidden_size": []}},
            learn_step=16,
            batch_size=32,
            update_epochs=2,
            normalize_obs=True,
            seed=seed,
        )


def run(folder: Path, steps: int, **options: Any) -> Any:
    """Train as users do, with all that is written."""
    env, test = cart_pole(), gym.make("CartPole-v1")
    agent = small(env)
    result = train_agent(
        agent,
        env,
        steps,
        eval_env=test,
        eval_episodes=2,
        log_dir=folder / "log",
        best_path=folder / "best.pt",
        checkpoint_path=folder / "latest.pt",
        checkpoint_every=64,
        progress=False,
        **options,
    )
    return agent, result


def test_training_is_resumed_exactly_on_as_many_ranks(ranks: Ranks, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = ranks.run(2, lambda world: run(tmp_path / "whole", 256))
    for steps in (128, 256):
        parts = ranks.run(2, lambda world: run(tmp_path / "parts", steps, resume="auto"))  # noqa: B023
    for (agent, result), (other, resumed) in zip(whole, parts, strict=True):
        assert result.env_steps == resumed.env_steps == 256
        assert result.evaluations[-1] == resumed.evaluations[-1] == whole[0][1].evaluations[-1]
        alike(everything(agent), everything(other), 0)
    with (tmp_path / "whole/log/metrics.csv").open() as file:
        steps_logged = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps_logged == [64, 128, 192, 256]  # once each


def test_one_rank_that_stops_stops_all(ranks: Ranks, tmp_path: Path) -> None:
    def stop(rollout: Any) -> None:
        if rollout.agent.world.rank == 1:
            rollout.stop()

    results = ranks.run(2, lambda world: run(tmp_path, 256, on_rollout=stop))
    assert [result.stopped_by for _, result in results] == ["on_rollout"] * 2
    assert [result.env_steps for _, result in results] == [64, 64]


def test_ranks_without_a_seed_begin_as_the_first(ranks: Ranks) -> None:
    env = [cart_pole() for _ in range(2)]
    agents = [small(each, seed=None) for each in env]
    ranks.run(2, lambda world: train(agents[world.rank], env[world.rank], 1))
    alike(everything(agents[1]), everything(agents[0]), 0)


@pytest.mark.parametrize("name", ["ppo-sde", "dqn"])
def test_ranks_that_load_draw_apart_again(name: str, ranks: Ranks, tmp_path: Path) -> None:
    case = CASES[name]
    agents = [case.agent() for _ in range(2)]

    def work(world: World) -> Any:
        agent = train(agents[world.rank], case.vector(), 2)
        agent.save_checkpoint(tmp_path / "agent.pt")
        world.gather(None)  # the file is there
        agent.load_checkpoint(tmp_path / "agent.pt")
        train(agent, case.vector(), 2)
        return everything(agent), agent.groups[0].generator.get_state()

    first, second = ranks.run(2, work)
    alike(second[0], first[0], 0)
    assert not torch.equal(first[1], second[1])


def test_critics_that_one_rank_has_changed_are_refused(ranks: Ranks) -> None:
    case = CASES["sac"]
    agents = [case.agent() for _ in range(2)]

    def work(world: World) -> None:
        agent = train(agents[world.rank], case.vector(), 3)
        if world.rank == 1:
            next(iter(agent.learner.critic.heads.parameters())).data[0] += 1
        train(agent, case.vector(), 1)

    with pytest.raises(RuntimeError, match="others than rank 0's on rank 1"):
        ranks.run(2, work)


class Paid(gym.Env[Any, Any]):
    """Five steps of rewards that grow from an amount, whatever is done."""

    observation_space = gym.spaces.Box(0, 5, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def reset(self, **options: Any) -> Any:
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        seen = np.full(1, self.time, np.float32)
        return seen, self.amount * self.time, self.time == 5, False, {}


def statistics_of_rewards(*amounts: float) -> dict[str, torch.Tensor]:
    """What is known of rewards after three rollouts of environments that pay so much."""
    makers = [functools.partial(Paid, amount) for amount in amounts]
    env = gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    agent = train(small(env), env, 3)
    return agent.trainer.reward_norm.state_dict()  # type: ignore[no-any-return]


def test_statistics_of_rewards_are_of_all_ranks(ranks: Ranks) -> None:
    amounts = (1.0, 100.0)
    whole, alone = statistics_of_rewards(*amounts), statistics_of_rewards(amounts[0])
    found = ranks.run(2, lambda world: statistics_of_rewards(amounts[world.rank]))
    alike(found[0], whole, 1e-5)
    alike(found[1], found[0], 0)
    assert not torch.allclose(alone["mean"], whole["mean"], rtol=0.5)


def test_only_the_first_rank_writes_logs(ranks: Ranks, tmp_path: Path) -> None:
    def log(world: World) -> None:
        with MetricsLogger(tmp_path / "log", tensorboard=False) as logger:
            logger.log(1, {"rank": world.rank})
            logger.write_config({"rank": world.rank})

    ranks.run(2, log)
    assert (tmp_path / "log/metrics.csv").read_text().split() == ["step,rank", "1,0"]


# --- sums through shared memory -----------------------------------------------------------------


def together(size: int, work: Any, timeout: float = 20.0) -> list[Any]:
    """What some work gives on each of several threads that share a file."""
    met, held = threading.Barrier(size), [None] * size

    def on(rank: int) -> Any:
        def gather(x: Any) -> list[Any]:
            met.wait()
            held[rank] = x
            met.wait()
            return list(held)

        return work(open_shared(rank, size, 100, timeout, gather), rank)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(on, range(size)))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs the memory order of x86")
class TestSharedSum:
    def test_sums_are_the_same_bits_on_all(self) -> None:
        def work(shared: Any, rank: int) -> list[torch.Tensor]:
            found = []
            for i in range(200):
                kind = (torch.float32, torch.float64, torch.int64)[i % 3]
                shape = ((), (7,), (3, 5))[i % 3 - i % 2]
                x = (torch.full(shape, 1 / (rank + i + 1)) * 100).to(kind)
                shared.add_up(x)
                found.append(x)
            return found

        sums = together(3, work)
        for i, (first, *others) in enumerate(zip(*sums, strict=True)):
            expected = sum(torch.tensor(100 / (rank + i + 1)).to(first.dtype) for rank in range(3))
            assert torch.allclose(first, expected.expand_as(first)), i
            assert all(torch.equal(first, x) for x in others)

    def test_nothing_is_left_behind(self) -> None:
        before = set(Path("/dev/shm").glob("recurrent_rl_*"))
        together(2, lambda shared, rank: shared.add_up(torch.ones(3)))
        assert set(Path("/dev/shm").glob("recurrent_rl_*")) == before

    def test_other_numbers_are_refused(self) -> None:
        with pytest.raises(RuntimeError, match=r"expected \d+ bytes of rank \d.*got \d+"):
            together(2, lambda shared, rank: shared.add_up(torch.ones(1 + rank)))

    def test_who_never_comes_is_not_waited_for_for_ever(self) -> None:
        def work(shared: Any, rank: int) -> None:
            if rank == 0:
                shared.add_up(torch.ones(3))

        with pytest.raises(RuntimeError, match=r"expected rank 1 within 0\.2 s, got nothing"):
            together(2, work, timeout=0.2)

    def test_elsewhere_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "arm64")
        assert together(2, lambda shared, rank: shared) == [None, None]


# --- processes --------------------------------------------------------------------------------

SCRIPT = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("error")
sys.path.insert(0, {tests!r})
import torch
from recurrent_rl import distributed
from test_distributed import everything, run
world = distributed.init(timeout=60)
assert distributed.init() is world is distributed.current()
agent, result = run(Path(sys.argv[1]), 192, resume="auto")
torch.save(everything(agent), f"{{sys.argv[1]}}/rank{{world.rank}}.pt")
world.gather("saved")
if world.rank == 1:
    raise ZeroDivisionError("on purpose")
world.gather("never")
"""


def torchrun(folder: Path) -> "subprocess.CompletedProcess[str]":
    script = folder / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, str(script), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def train_and_die(folder: Path) -> None:
    """What a rank does, of which one is killed while it trains."""
    world = distributed.init(timeout=60)

    def die(rollout: Any) -> None:
        (folder / f"rank{world.rank}").touch()
        world.gather("both train")
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    run(folder, 192, on_rollout=die)


def launch(folder: Path, connection: Any) -> None:
    """Do what torchrun does, and tell what it says; but ranks have imported all that they need."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    where = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}  # as --standalone
    config = LaunchConfig(1, 1, 2, max_restarts=0, start_method="fork", run_id="test", **where)
    try:
        elastic_launch(config, train_and_die)(folder)
    except ChildFailedError as error:
        connection.send(str(error))


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
class TestProcesses:
    def test_resumed_on_other_numbers_of_ranks_until_one_raises(self, tmp_path: Path) -> None:
        run(tmp_path, 64)  # one
        done = torchrun(tmp_path)  # two
        assert done.returncode != 0
        assert "ZeroDivisionError: on purpose" in done.stderr
        first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
        alike(second, first, 0)
        agent, result = run(tmp_path, 224, resume=True)  # one again
        assert (agent.env_steps, result.env_steps) == (224, 224)
        with (tmp_path / "log/metrics.csv").open() as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        assert steps == [32, 64, 128, 192, 224]

    def test_a_rank_that_dies_ends_all(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        launcher = context.Process(target=launch, args=(tmp_path, theirs))
        launcher.start()
        theirs.close()
        assert ours.poll(60)
        assert "SIGKILL" in ours.recv()
        launcher.join(60)
        assert launcher.exitcode == 0
        assert {path.name for path in tmp_path.glob("rank*")} == {"rank0", "rank1"}


def test_a_script_that_forgets_to_begin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_warned", False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.warns(UserWarning, match=r"4 processes.*distributed\.init\(\)"):
        assert distributed.current() is ALONE
    assert distributed.current() is ALONE  # said once


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "long", True])
def test_timeouts_that_are_none(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout: expected a positive number of seconds"):
        distributed.init(timeout)


def test_what_several_ranks_cannot_do(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Two:
        rank, size, is_first = 0, 2, True

    monkeypatch.setattr(distributed, "_world", Two())
    with pytest.raises(RuntimeError, match="pop: expected one process, got 2 ranks"):
        train_on_policy(cart_pole(), "CartPole-v1", "PPO", [small(cart_pole())], max_steps=64)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert main(["train", "CartPole-v1"]) == 2
    assert "expected one process, got 4 from torchrun" in capsys.readouterr().err

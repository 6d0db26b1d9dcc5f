"""One call that trains one agent, of any algorithm: collect, learn, evaluate, log, save.

A loop of one's own is three lines; this is what most people write around them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from recurrent_rl import checkpoint
from recurrent_rl.training.report import Rollout, State, TrainingResult
from recurrent_rl.training.run import Run
from recurrent_rl.training.settings import FilePath, Settings


def train(
    agent: Any,
    env: Any,
    total_steps: int,
    *,
    eval_env: Any = None,
    eval_every: int | None = None,
    eval_episodes: int = 20,
    eval_seed: int = 0,
    stop_at: float | None = None,
    log_dir: FilePath | None = None,
    log_every: int | None = None,
    best_path: FilePath | None = None,
    checkpoint_path: FilePath | None = None,
    checkpoint_every: int | None = None,
    save_replay: bool = True,
    resume: bool | Literal["auto"] = False,
    on_rollout: Callable[[Rollout], object] | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train an agent until it has collected ``total_steps`` environment steps.

    Several processes train one agent together once they have called
    ``recurrent_rl.distributed.init()``: ``env`` is each one's own, ``total_steps`` counts those of
    all, and rank 0 tests, logs and saves.

    >>> import gymnasium as gym
    >>> from recurrent_rl import PPO, make_vect_envs, train
    >>> env = make_vect_envs("CartPole-v1", num_envs=2, should_async_vector=False)
    >>> agent = PPO(env.single_observation_space, env.single_action_space, learn_step=32, seed=0)
    >>> result = train(agent, env, 128, eval_env=gym.make("CartPole-v1"), progress=False)
    >>> result.env_steps, result.stopped_by, len(result.evaluations)
    (128, 'total_steps', 2)

    Args:
        agent: of any algorithm; it may have been trained before.
        env: a vector of environments, as ``collect_rollouts_recurrent`` takes it; left open.
        total_steps: of the agent's ``env_steps`` in the end, earlier training included.
        eval_env: an environment or a vector to test in, another than ``env``; None: no tests.
        eval_every: environment steps between tests; None: a twentieth of ``total_steps``. There is
            one at the end in any case.
        eval_episodes: in each test, at least; deterministic.
        eval_seed: of each test's episodes, which are always the same ones.
        stop_at: end training when a test's mean return has reached this.
        log_dir: for ``metrics.csv`` and TensorBoard (``rollout/ep_rew_mean``, ``rollout/
            ep_len_mean``, ``rollout/success_rate`` over the last 100 episodes; ``time/fps``;
            ``eval/mean_reward``; ``train/*``), and ``config.json``, which says what was run.
        log_every: environment steps between two rows; None: every rollout, but at most 1,000 rows
            in all.
        best_path: the agent is saved here whenever a test beats all before.
        checkpoint_path: the latest agent is saved here, and in the end; ``PPO.load`` (or that of
            the agent's class) reads it.
        checkpoint_every: environment steps between two; None: a tenth of ``total_steps``.
            Collection starts afresh after each, so that a resumed run is the same to the last bit
            (if the agent has a seed, and draws of environments follow from their resets').
        save_replay: checkpoints of agents that learn from a replay have it, which exactness needs.
        resume: go on from ``checkpoint_path``, where it must be; "auto": if it is there. The log
            goes on as well.
        on_rollout: called after each rollout has been learned from; may stop, log, or change
            hyper-parameters.
        progress: show a bar with steps a second and the time that is left.

    Returns:
        evaluations, the best of them, and why it ended. After Ctrl-C training ends with the
        running rollout, and saves; a second one interrupts at once.

    Raises:
        TypeError: an agent, environment or value of the wrong kind.
        ValueError: a value out of range, or options that make no sense without another.
        FileNotFoundError: nothing to resume from, or a directory that does not exist.
        CheckpointError: the checkpoint is damaged, or another agent's.

    """
    settings = Settings(**locals())
    state = _saved(settings)
    return Run(settings, State() if state is None else state, resumed=state is not None).go()


def _saved(settings: Settings) -> State | None:
    """Become the agent that is to go on; return how its run stood, None for a new one."""
    agent, path = settings.agent, settings.checkpoint_path
    if path is None or not settings.resume:
        return None
    if not Path(path).exists():
        if settings.resume == "auto":
            return None
        raise FileNotFoundError(
            f"resume: expected a checkpoint at {path}, got none; leave resume out to begin anew, "
            f"or say resume='auto'"
        )
    data = checkpoint.load(path)
    if "run" not in data:
        raise checkpoint.CheckpointError(
            f"{path}: expected what train() has saved, got an agent alone; load it with "
            f"{type(agent).__name__}.load and train it without resume"
        )
    agent.load_checkpoint(path)
    agent.collection.forget()
    return State.from_data(data["run"])

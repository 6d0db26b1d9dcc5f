"""Training functions: a population collects, learns, is tested, selected and mutated."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from recurrent_rl.algorithms.multi_agent_replay import MultiAgentReplayBuffer
from recurrent_rl.algorithms.scoring import Fitness
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.evolution.mutation import Mutations
from recurrent_rl.evolution.request import FilePath, Request
from recurrent_rl.evolution.tournament import TournamentSelection
from recurrent_rl.networks.configs import NetConfig


def train_on_policy(
    env: Any,
    env_name: str,
    algo: str,
    pop: Sequence[Any],
    INIT_HP: Mapping[str, Any] | None = None,  # noqa: N803 - what users know it as
    MUT_P: Mapping[str, Any] | None = None,  # noqa: N803
    max_steps: int = 1_000_000,
    evo_steps: int = 10_000,
    eval_steps: int | None = None,
    eval_loop: int = 1,
    target: float | None = None,
    tournament: TournamentSelection | None = None,
    mutation: Mutations | None = None,
    checkpoint: int | None = None,
    checkpoint_path: FilePath | None = None,
    save_elite: bool = False,
    elite_path: FilePath | None = None,
    wb: bool = False,
    verbose: bool = True,
    *,
    log_dir: FilePath | None = None,
    resume: FilePath | None = None,
    workers: int | Literal["ray"] = 1,
    make_env: Callable[[], Any] | None = None,
    threads: int = 1,
    wandb_kwargs: Mapping[str, Any] | None = None,
    fitness: Fitness = None,
    opponents: Literal["random"] | None = None,
) -> tuple[list[Any], list[list[float]]]:
    """Train a population: collect, learn, test, select, mutate, until ``max_steps`` or ``target``.

    ``train_multi_agent_on_policy`` is the same function, for IPPO and MAPPO. Each individual starts
    each generation from a reset of the environment, and all are tested on the same episodes.

    Source: Jaderberg et al. 2017, "Population Based Training of Neural Networks", with tournaments
    and architecture mutations as in Franke et al. 2021, "Sample-Efficient Automated Deep
    Reinforcement Learning".

    Args:
        env: the vector environment to train and test on; left open.
        env_name: the environment's name in logs.
        algo: "PPO", "IPPO" or "MAPPO", the agents' algorithm.
        pop: from ``create_population``. Without a tournament these agents themselves are trained;
            with one, their descendants.
        INIT_HP: kept with the logs; where it has "MAX_STEPS", "EVO_STEPS", "EVAL_STEPS",
            "EVAL_LOOP", "TARGET_SCORE", "POP_SIZE", "NUM_ENVS", "TOURN_SIZE", "ELITISM", "ENV_NAME"
            or "WANDB", these must be those given here.
        MUT_P: kept with the logs.
        max_steps: environment steps that each individual, ancestors included, is trained for.
        evo_steps: environment steps of an individual between two evaluations: there is one after
            the rollout in which another ``evo_steps`` are reached.
        eval_steps: most steps of a test episode; None plays it to its end.
        eval_loop: test episodes in each environment of the vector.
        target: stop once the best individual's fitness has reached this.
        tournament: selects the next generation; None keeps every individual.
        mutation: changes the individuals that were selected; needs a tournament.
        checkpoint: save the run every so many steps of an individual; None saves it after each
            generation, if there is a ``checkpoint_path``.
        checkpoint_path: file of the saved run; each checkpoint replaces the last, atomically.
        save_elite: save the best individual ever, as it was evaluated: that of a generation
            replaces it where its fitness is greater.
        elite_path: file of the best individual; None is "{env_name}-elite_{algo}.pt", with
            "-" for "/".
        wb: log to Weights & Biases as well (extra: wandb).
        verbose: show progress and a table of each generation.
        log_dir: directory for metrics.csv, population.csv, config.json and TensorBoard events; None
            writes none.
        resume: a checkpoint of the same run to go on from; its population takes the place of
            ``pop``, and the logs are continued.
        workers: processes that train individuals at the same time; the results are those of one.
            Scripts need the guard ``if __name__ == "__main__":`` then. "ray" (extra: ray) makes
            each individual a task of Ray, on as many machines as there are.
        make_env: builds each worker's vector environment; None builds it like ``env``, which must
            then be from ``make_vect_envs`` or ``make_multi_agent_vect_envs``.
        threads: torch's threads, for each individual.
        wandb_kwargs: options of ``wandb.init``.
        fitness: what test episodes are worth; None: their mean return. The name of a number in the
            episodes' last infos, such as "is_success", takes its mean; a function is given the
            returns, [episodes], and infos too if it has a parameter of that name, as ``evaluate``
            fills them. Of teams it is given a dictionary of arrays by agent; None sums all agents'
            returns, which says nothing where one wins what another loses, and names of agents those
            agents' returns.
        opponents: of teams, "random" tests against agents that act uniformly at random: all but
            those named in fitness; or else each agent plays its seat in turn.

    Returns:
        population: as last evaluated; after Ctrl-C, as far as each individual had come. A vector
            of environments in processes does not survive Ctrl-C; build it anew.
        fitnesses: the individuals' fitness in each generation, in the population's order.

    Raises:
        ImportError: ``wb`` without wandb, or workers="ray" without ray.
        TypeError, ValueError: arguments that do not fit together.
        FileNotFoundError: nothing to resume from, or a directory that does not exist.
        CheckpointError: a checkpoint of something else.
        RuntimeError: a worker failed; with its traceback.

    """
    return Request(**locals()).train(from_replay=False)


# One function serves both: what differs between one agent and teams, the agents know.
train_multi_agent_on_policy = train_on_policy


def train_off_policy(
    env: Any,
    env_name: str,
    algo: str,
    pop: Sequence[Any],
    memory: SequenceReplayBuffer | MultiAgentReplayBuffer | None = None,
    INIT_HP: Mapping[str, Any] | None = None,  # noqa: N803 - what users know it as
    MUT_P: Mapping[str, Any] | None = None,  # noqa: N803
    net_config: NetConfig | Mapping[str, Any] | None = None,
    swap_channels: bool = False,
    max_steps: int = 1_000_000,
    evo_steps: int = 10_000,
    eval_steps: int | None = None,
    eval_loop: int = 1,
    learning_delay: int = 0,
    target: float | None = None,
    tournament: TournamentSelection | None = None,
    mutation: Mutations | None = None,
    checkpoint: int | None = None,
    checkpoint_path: FilePath | None = None,
    save_elite: bool = False,
    elite_path: FilePath | None = None,
    wb: bool = False,
    verbose: bool = True,
    *,
    log_dir: FilePath | None = None,
    resume: FilePath | None = None,
    workers: int | Literal["ray"] = 1,
    make_env: Callable[[], Any] | None = None,
    threads: int = 1,
    wandb_kwargs: Mapping[str, Any] | None = None,
    fitness: Fitness = None,
    opponents: Literal["random"] | None = None,
) -> tuple[list[Any], list[list[float]]]:
    """Train a population that learns from a replay, which its individuals share.

    ``train_multi_agent_off_policy`` is the same function, for MADDPG and MATD3. All is as in
    ``train_on_policy``, but for the replay: in each generation an individual begins with a copy of
    the replay as it was at the generation's beginning, and adds to it what it goes through. At the
    generation's end what all have added is put into the shared replay, in the population's order.
    So results do not depend on the number of workers, and a run goes on exactly from its
    checkpoint, which has the replay in it. There should be room for three replays in memory, and
    for two more with each worker.

    Of priorities, if replays have them, new windows keep those that their collector has given them,
    and older ones get the mean over all individuals.

    An individual takes its ``learning_starts`` random steps once: its descendants do not take them
    again. Hidden states in the replay that others have stored are replaced by zeros.

    Source: as ``train_on_policy``; Franke et al. 2021 share one replay in this way.

    Args:
        env: the vector environment to train and test on; left open.
        env_name: as in ``train_on_policy``, like all that is not listed here.
        algo: "DQN", "DDPG", "TD3", "SAC", "MADDPG" or "MATD3", the agents' algorithm.
        pop: from ``create_population``. When the run has ended, their ``memory`` is the shared one.
        memory: the replay, which may have steps already, of these agents or others with the same
            spaces; it has all that was added when the run has ended. None goes on with the one that
            all of ``pop`` share, as after an earlier run; otherwise makes one of the agents'
            ``memory_size``.
        INIT_HP: as in ``train_on_policy``; also "LEARNING_DELAY" and "MEMORY_SIZE".
        MUT_P: kept with the logs.
        net_config: has no effect, as the agents are built already; there is a warning if it is not
            what they were built with.
        swap_channels: has no effect, as images are recognised; True warns of that.
        max_steps: environment steps that each individual, ancestors included, is trained for.
        evo_steps: environment steps of an individual between two evaluations.
        eval_steps: most steps of a test episode; None plays it to its end.
        eval_loop: test episodes in each environment of the vector.
        learning_delay: environment steps that the replay is to have seen, all individuals' that it
            has got together, before anybody learns from it; beside the agents' ``learning_starts``.
            Whatever happens, nobody learns before there is a batch in it.
        target: stop once the best individual's fitness has reached this.
        tournament: selects the next generation; None keeps every individual.
        mutation: changes the individuals that were selected; needs a tournament.
        checkpoint: save the run every so many steps of an individual; None after each generation.
        checkpoint_path: file of the saved run, the replay included.
        save_elite: save the best individual ever.
        elite_path: file of the best individual, without the replay.
        wb: log to Weights & Biases as well (extra: wandb).
        verbose: show progress and a table of each generation.
        log_dir: directory of the log files.
        resume: a checkpoint of the same run to go on from; its replay takes the place of what is in
            ``memory``.
        workers: processes that train individuals at the same time, or "ray"; the results are those
            of one.
        make_env: builds each worker's vector environment.
        threads: torch's threads, for each individual.
        wandb_kwargs: options of ``wandb.init``.
        fitness: what test episodes are worth; see ``train_on_policy``.
        opponents: likewise.

    Returns:
        population: as last evaluated; after Ctrl-C, as far as each individual had come.
        fitnesses: the individuals' fitness in each generation, in the population's order.

    Raises:
        ImportError: ``wb`` without wandb, or workers="ray" without ray.
        TypeError, ValueError: arguments that do not fit together, or a memory of other spaces.
        FileNotFoundError: nothing to resume from, or a directory that does not exist.
        CheckpointError: a checkpoint of something else.
        RuntimeError: a worker failed; with its traceback.

    """
    return Request(**locals()).train(from_replay=True)


train_multi_agent_off_policy = train_off_policy

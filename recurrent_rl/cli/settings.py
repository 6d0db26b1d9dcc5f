"""What a training run is: read from a command, found among tuned settings, kept in a file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.configs import sorted_options
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.cli.environments import EARLY, Environment, EnvironmentOptions
from recurrent_rl.cli.errors import UsageError, told_in_one_line
from recurrent_rl.cli.options import Group, Options
from recurrent_rl.evolution.registry import ALGORITHMS
from recurrent_rl.networks.configs import EncoderConfig, HeadConfig
from recurrent_rl.tuned import ON_POLICY, TUNED, TunedSettings
from recurrent_rl.validation import COUNT, ENVIRONMENTS, SEED, THREADS

Algorithm = Literal["PPO", "IPPO", "MAPPO", "DQN", "DDPG", "TD3", "SAC", "MADDPG", "MATD3"]
OBSERVED = "-observed"
TEAM_ALGORITHMS = [name for name, kind in ALGORITHMS.items() if issubclass(kind, MultiAgent)]
TEST_ENVS = 20  # at once
TESTS = 10  # in a training, unless options say otherwise
HIDDEN = ("total_steps",)  # hyper-parameters that are asked for by other options


@dataclass(frozen=True)
class TrainOptions(EnvironmentOptions):
    """What is trained, for how long, and where it goes.

    Attributes, beside those of ``EnvironmentOptions``:
        algo: the agent; None: PPO, or IPPO where there are several agents (MAPPO if only that is
            tuned). Options further down are this one's.
        tuned: begin with settings that were found by trying, where there are such; options that are
            given here go before them.
        total_steps: environment steps of the whole training, over all environments; None: as tuned,
            or 100,000.
        num_envs: environments that run at once; None: as tuned, or 8 (4 with a replay).
        async_envs: environments in processes of their own, which pays for slow ones only.
        backend: "envpool" trains in EnvPool's environments of that name, which threads step in
            compiled code, many at a time (extra: envpool); tests are played in Gymnasium's.
        seeds: an agent is trained for each of them, side by side, as many at a time as there are
            cores.
        eval_every: environment steps between two tests; None: a tenth of all.
        eval_episodes: of each test, deterministic and always the same ones.
        stop_at: end training when a test's mean return has reached this.
        checkpoint_every: environment steps between two checkpoints, which resume goes on from;
            None: a tenth of all.
        name: of the run's folder; None: the time.
        folder: where runs go, as folder/environment/algorithm/name/seed_N.
        device: "cpu", "cuda", or "auto".
        threads: of torch, for each seed; small networks gain nothing from more than one.

    """

    POSITIONAL = ("env_id",)

    algo: Algorithm | None = None
    tuned: bool = True
    total_steps: Annotated[int | None, COUNT] = None
    num_envs: Annotated[int | None, ENVIRONMENTS] = None
    async_envs: bool = False
    backend: Literal["gymnasium", "envpool"] = "gymnasium"
    seeds: tuple[Annotated[int, SEED], ...] = (0,)
    eval_every: Annotated[int | None, COUNT] = None
    eval_episodes: Annotated[int, COUNT] = 20
    stop_at: float | None = None
    checkpoint_every: Annotated[int | None, COUNT] = None
    name: str | None = None
    folder: str = "runs"
    device: str = "cpu"
    threads: Annotated[int, THREADS] = 1


@dataclass(frozen=True)
class TeamOptions(Options):
    """What agents of a team have beside hyper-parameters.

    Attributes:
        agent_id_input: show each policy which agent of its group it acts for.
        team_reward: train every agent on the sum or the mean of all living agents' rewards; None,
            on its own.

    """

    agent_id_input: bool = False
    team_reward: Literal["sum", "mean"] | None = None


@dataclass(frozen=True)
class CentralOptions(TeamOptions):
    """What agents of a team have whose critics are central.

    Attributes, beside those of ``TeamOptions``:
        reads_state: critics read the environment's state rather than all agents' observations.

    """

    reads_state: bool = False


def team_options(algo: str) -> type[TeamOptions]:
    """Return what agents of a team's algorithm have."""
    return CentralOptions if algo == "MAPPO" else TeamOptions


@dataclass(frozen=True)
class Run:
    """All that is to be known to train again what was trained.

    Attributes:
        environment: what it is trained in.
        algo: the name of the agent's class.
        team: whether there are several agents.
        agent: keyword arguments of the agent, but for spaces, seed and device.
        num_envs, async_envs, total_steps, eval_every, eval_episodes, stop_at, checkpoint_every,
            device, threads, backend: see ``TrainOptions``.
        seeds: likewise.

    """

    environment: Environment
    algo: str
    team: bool
    agent: Mapping[str, Any]
    num_envs: int
    async_envs: bool
    total_steps: int
    eval_every: int | None
    eval_episodes: int
    stop_at: float | None
    checkpoint_every: int | None
    device: str
    threads: int
    seeds: tuple[int, ...]
    backend: str = "gymnasium"  # runs from before there was a choice do not say

    @classmethod
    def names(cls) -> list[str]:
        """Names of its fields."""
        return [field.name for field in fields(cls)]

    def to_data(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Run":
        """Rebuild what ``to_data`` described."""
        given = data["environment"]
        environment = Environment(**{**given, "wrappers": tuple(given["wrappers"])})
        return cls(**{**data, "environment": environment, "seeds": tuple(data["seeds"])})

    def vector(self, num_envs: int | None = None) -> Any:
        """Build the environments that are trained in, or some other number of them."""
        return self.environment.vector(
            self.num_envs if num_envs is None else num_envs,
            team=self.team,
            in_workers=self.async_envs,
            in_envpool=self.backend == "envpool",
        )

    def test_vector(self, episodes: int) -> Any:
        """Build environments to test in, for a number of episodes."""
        return self.environment.vector(min(episodes, TEST_ENVS), team=self.team)

    def new_agent(self, env: Any, seed: int) -> Agent:
        """Build an untrained agent for a vector's spaces.

        Raises:
            UsageError: options that do not fit together, or spaces that the algorithm cannot have.

        """
        options = dict(self.agent)
        spaces: tuple[Any, ...] = ()
        if self.team:
            spaces = (env.observation_spaces, env.action_spaces, env.possible_agents)
            if options.pop("reads_state", False):
                options["state_space"] = env.state_space
        else:
            spaces = (env.single_observation_space, env.single_action_space)
        kind: Any = ALGORITHMS[self.algo]
        with told_in_one_line(str(self.environment)):
            return kind(*spaces, seed=seed, device=self.device, **options)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Start:
    """What a run begins with, before options change it.

    Attributes:
        environment: what is trained in, as the settings have it.
        algo: the agent.
        team: whether there are several agents.
        settings: what was found by trying; None: nothing, so that defaults count.
        note: says where settings are from.

    """

    environment: Environment
    algo: str
    team: bool
    settings: TunedSettings | None
    note: str

    def training(self) -> dict[str, Any]:
        """Defaults of ``TrainOptions``."""
        steps, envs = 100_000, 8 if self.algo in ON_POLICY else 4
        if self.settings is not None:
            steps, envs = self.settings.total_steps, self.settings.num_envs
        return {"algo": self.algo, "total_steps": steps, "num_envs": envs}

    def hyperparameters(self) -> dict[str, Any]:
        """Defaults of the algorithm's configuration and of ``team_options``."""
        return self._sorted()[1]

    def networks(self, name: str) -> dict[str, Any]:
        """Defaults of the network's ``encoder_config`` or ``head_config``."""
        found: dict[str, Any] = self._sorted()[0].to_dict()[name]
        return found

    def _sorted(self) -> tuple[Any, dict[str, Any]]:
        if self.settings is None:
            return sorted_options(None, {})
        own = {"reads_state": True} if self.settings.reads_state else {}
        return sorted_options(self.settings.net_config, {**self.settings.hyperparameters, **own})


def agent_groups(algo: str, start: Start | None = None) -> list[Group]:
    """Return an agent's options: hyper-parameters, encoder, head, and what only teams have.

    Args:
        algo: the agent's class.
        start: has their defaults; None: the classes' own.

    """
    hyper = {} if start is None else start.hyperparameters()
    encoder, head = (
        {} if start is None else start.networks(f"{name}_config") for name in ("encoder", "head")
    )
    groups = [
        Group(ALGORITHMS[algo].config_type, algo, defaults=hyper, hidden=HIDDEN),
        Group(EncoderConfig, "encoder", True, encoder, hidden=("max_seq_len",)),
        Group(HeadConfig, "head", True, head),
    ]
    if algo in TEAM_ALGORITHMS:
        groups.append(Group(team_options(algo), "team", defaults=hyper))
    return groups


def start_of(environment: Environment, algo: str | None, *, tuned: bool) -> Start:
    """Find out what agent an environment asks for, and its tuned settings.

    Args:
        environment: the one to be trained in.
        algo: the agent's class; None: PPO or IPPO, or else MAPPO where only that is tuned.
        tuned: whether to look for settings.

    Raises:
        UsageError: an agent for one where there are several, or the other way round.

    """
    team = environment.has_team()
    fitting = [name for name in ALGORITHMS if (name in TEAM_ALGORITHMS) == team]
    if algo is not None and algo not in fitting:
        raise UsageError(
            f"--algo: expected an algorithm for {'several agents' if team else 'one agent'}, as "
            f"{environment.env_id} has, got {algo}; take one of {', '.join(fitting)}"
        )
    if algo is None:
        usual = "IPPO" if team else "PPO"
        # As load_tuned chooses.
        with_settings = (n for n in ON_POLICY if n in fitting and (environment.env_id, n) in TUNED)
        algo = next(with_settings, usual) if tuned else usual
    if not tuned:
        return Start(environment, algo, team, None, f"{algo}'s defaults, as --no-tuned asks")
    settings, note = _tuned(environment, algo, team)
    if settings is not None and settings.env_kwargs:
        arguments = {**settings.env_kwargs, **environment.arguments}
        environment = replace(environment, arguments=arguments)
    return Start(environment, algo, team, settings, note)


def _tuned(environment: Environment, algo: str, team: bool) -> tuple[TunedSettings | None, str]:
    """Return tuned settings, and a note that says for what they were found."""
    env_id, masked = environment.env_id, environment.mask_velocity
    found, observed = (TUNED.get((name, algo)) for name in (env_id, env_id + OBSERVED))
    # Those of one agent are for environments without velocities, unless their name says otherwise.
    shows_velocities = not (team or masked or environment.is_wrapped_by_itself)
    if shows_velocities and observed is not None:
        return observed, f"tuned for {env_id} with {algo}"
    if found is None:
        others = {name for key, name in TUNED if key.removesuffix(OBSERVED) == env_id}
        hint = f" (there are some for --algo {' or '.join(sorted(others))})" if others else ""
        return None, f"{algo}'s defaults, as none are tuned for {environment}{hint}"
    if found.opponents is not None:
        return None, f"{algo}'s defaults, as the tuned ones are for play against a pool"
    if shows_velocities:
        return found, (
            f"tuned for {env_id} with --mask-velocity, which is harder, as there are none for "
            f"{algo} without it (--no-tuned: {algo}'s defaults)"
        )
    note = f"tuned for {env_id}{' with --mask-velocity' if masked else ''} with {algo}"
    if env_id.endswith(EARLY):
        note += (
            ", in trainings that began with speakers who are heard all the time, as this one does "
            "not (tutorials/speaker_listener.py does)"
        )
    return found, note

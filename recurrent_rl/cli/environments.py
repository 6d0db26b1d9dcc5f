"""Environments by name: Gymnasium's, PettingZoo's, mpe2's, grid worlds, and one's own."""

import difflib
import functools
import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import Any, Final

import gymnasium as gym
import numpy as np
from pettingzoo import AECEnv, ParallelEnv

from recurrent_rl.cli.errors import UsageError, told_in_one_line
from recurrent_rl.cli.options import Options
from recurrent_rl.cli.values import named_arguments
from recurrent_rl.envs.make_multi_agent import make_multi_agent_vect_envs
from recurrent_rl.envs.make_vector import make_vect_envs
from recurrent_rl.extras import extra_package
from recurrent_rl.validation import shown
from recurrent_rl.wrappers import (
    EarlyMessageWrapper,
    MaskVelocityVectorWrapper,
    MaskVelocityWrapper,
)
from recurrent_rl.wrappers.tuple_to_parallel import PACKAGES, has_agent_tuples, make_tuple_env

# Where PettingZoo's environments are, by name.
_ZOOS = ("mpe2", "pettingzoo.classic", "pettingzoo.butterfly", "pettingzoo.sisl")
# Packages of ids that begin so: what registers them, and the extra that has it.
_REGISTERING = {"MiniGrid-": ("minigrid", "minigrid"), "BabyAI-": ("minigrid", "minigrid")}
EARLY = "-early"
_HEARD_STEPS = 3  # of "-early": the speaker is heard in so many steps of an episode

WRAPPED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "MiniGrid-": (
            "minigrid.wrappers:OneHotPartialObsWrapper",
            "gymnasium.wrappers:FilterObservation(filter_keys=['image', 'direction'])",
        )
    }
)
"""How ids begin -> wrappers that they get unless others are given: a mission is a text."""


@dataclass(frozen=True)
class EnvironmentOptions(Options):
    """Which environment.

    Attributes:
        env_id: a Gymnasium id (Pendulum-v1), one of lbforaging or rware (Foraging-8x8-2p-2f-v3),
            the name of an environment of PettingZoo or mpe2 (simple_spread_v3; with -early behind
            simple_speaker_listener_v4 the message is heard in the first 3 steps only), or
            module:function, which builds one of your own.
        mask_velocity: hide velocities, so that they have to be remembered (MaskVelocityWrapper).
        wrapper: "module:Class" or "module:Class(name=value)", around the environment; may be given
            again, the innermost first. Without a module it is one of this package or of Gymnasium.
        env_args: "name=value, ...", for what builds the environment.

    """

    REPEATED = ("wrapper",)

    env_id: str | None = None
    mask_velocity: bool = False
    wrapper: tuple[str, ...] = ()
    env_args: str | None = None


@dataclass(frozen=True)
class Environment:
    """What an environment is built from.

    Attributes:
        env_id: see ``EnvironmentOptions``.
        mask_velocity: likewise.
        wrappers: likewise, with those that it gets by itself.
        arguments: for what builds it.

    """

    env_id: str
    mask_velocity: bool = False
    wrappers: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_options(cls, values: Mapping[str, Any], **arguments: Any) -> "Environment":
        """Build from the values of ``EnvironmentOptions``.

        Args:
            values: by name.
            arguments: for what builds it, unless the options say otherwise.

        Raises:
            UsageError: there is no id, or arguments that are none.

        """
        env_id = values["env_id"]
        if env_id is None:
            raise UsageError(
                "ENV_ID: expected an environment, such as Pendulum-v1, got none; recurrent_rl "
                "list environments shows those that there are settings for"
            )
        given = values["env_args"]
        arguments |= named_arguments("--env-args", given) if given is not None else {}
        wrappers = tuple(values["wrapper"]) or _usual_wrappers(env_id)
        return cls(env_id, values["mask_velocity"], wrappers, arguments)

    def __str__(self) -> str:
        """The id, and what is around it."""
        around = ["MaskVelocityWrapper"] * self.mask_velocity
        around += [re.sub(r"^[\w.]+:", "", text) for text in self.wrappers]
        given = "".join(f", {name}={value!r}" for name, value in self.arguments.items())
        return self.env_id + given + (f" in {', '.join(around)}" if around else "")

    @property
    def is_wrapped_by_itself(self) -> bool:
        """Whether it is in the wrappers that its kind gets unless others are given."""
        return bool(self.wrappers) and self.wrappers == _usual_wrappers(self.env_id)

    @property
    def folder(self) -> str:
        """A name for its folder, that tells it from the same one in other wrappers."""
        wrappers = () if self.is_wrapped_by_itself else self.wrappers
        around = [re.sub(r"^[\w.]+:|\(.*", "", text, flags=re.S) for text in wrappers]
        parts = [self.env_id, *["masked"] * self.mask_velocity, *around]
        parts += [f"{name}={value}" for name, value in self.arguments.items()]
        return re.sub(r"[^\w.=+-]", "_", "-".join(parts))

    def build(self, **more: Any) -> Any:
        """Build one, in its wrappers.

        Args:
            more: arguments beside its own, such as render_mode.

        """
        env = _found(self.env_id)(**{**self.arguments, **more})
        if self.mask_velocity:
            env = MaskVelocityWrapper(env)
        for text in self.wrappers:
            wrapper, arguments = _wrapper(text)
            env = wrapper(env, **arguments)
        return env

    def has_team(self) -> bool:
        """Whether it has several agents.

        Raises:
            UsageError: it cannot be built.

        """
        with told_in_one_line(str(self)):
            env = self.build()
            if not isinstance(env, gym.Env | AECEnv | ParallelEnv):
                raise TypeError(f"expected an environment, got {shown(env)}")
        env.close()
        return isinstance(env, AECEnv | ParallelEnv) or has_agent_tuples(env)

    def vector(
        self, num_envs: int, *, team: bool, in_workers: bool = False, in_envpool: bool = False
    ) -> Any:
        """Build a vector of them.

        Args:
            num_envs: how many.
            team: there are several agents in each.
            in_workers: each in a process of its own.
            in_envpool: EnvPool's of that name, rather than these themselves.

        Raises:
            UsageError: EnvPool's, and it has none like these.

        """
        if in_envpool:
            return self._pool(num_envs, team or in_workers)
        if team:
            return make_multi_agent_vect_envs(self.build, num_envs, should_async_vector=in_workers)
        return make_vect_envs(
            make_env=self.build, num_envs=num_envs, should_async_vector=in_workers
        )

    def _pool(self, num_envs: int, otherwise: bool) -> Any:
        """Build EnvPool's environments; ``otherwise``: in teams or processes, which it has not."""
        if otherwise or self.wrappers:
            what = (
                "several agents or --async-envs" if otherwise else f"--wrapper {self.wrappers[0]}"
            )
            raise UsageError(
                f"--backend: expected gymnasium with {what}, got envpool, whose environments are "
                f"one agent's, in compiled code that no wrapper but --mask-velocity goes around"
            )
        with told_in_one_line("--backend envpool"):
            pool = make_vect_envs(self.env_id, num_envs, backend="envpool", **self.arguments)
            return MaskVelocityVectorWrapper(pool) if self.mask_velocity else pool


def _usual_wrappers(env_id: str) -> tuple[str, ...]:
    return next((names for start, names in WRAPPED.items() if env_id.startswith(start)), ())


def import_users(name: str) -> ModuleType:
    """Import a module that may stand in the folder where the command is given.

    Raises:
        UsageError: there is none, or it cannot be imported.

    """
    if "" not in sys.path:  # where a console script looks for modules
        sys.path.insert(0, "")
    with told_in_one_line(f"{name}: expected a module that can be imported from here"):
        return importlib.import_module(name)


def _found(env_id: str) -> Callable[..., Any]:
    """Return what builds an environment of a name."""
    module, colon, name = env_id.partition(":")
    if colon and env_id not in gym.registry:
        own = getattr(import_users(module), name, None)
        if callable(own):
            return own  # type: ignore[no-any-return]
    if any(env_id.startswith(start) for start in PACKAGES):
        return functools.partial(make_tuple_env, env_id)
    for start, (package, extra) in _REGISTERING.items():
        if env_id.startswith(start):
            with told_in_one_line():
                extra_package(package, extra, env_id)
    if env_id.rpartition(":")[2] in gym.registry or colon:
        return functools.partial(gym.make, env_id)
    return _zoo(env_id.removesuffix(EARLY), early=env_id.endswith(EARLY))


def _zoo(name: str, *, early: bool) -> Callable[..., Any]:
    """Return what builds an environment of PettingZoo's or mpe2's."""
    for package in _ZOOS if re.fullmatch(r"\w+_v\d+", name) else ():
        try:
            module = importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name is not None and f"{package}.{name}".startswith(error.name):
                continue  # it is not there, rather than something that it needs
            raise
        make = getattr(module, "parallel_env", None) or module.env
        return functools.partial(_early, make) if early else make
    raise UsageError(_no_environment(name))


def _early(make: Callable[..., Any], **arguments: Any) -> Any:
    """Build an environment whose speaker is heard early in an episode only."""
    env = make(**arguments)
    space = env.action_space("speaker_0")
    silent = np.zeros(space.shape, space.dtype) if isinstance(space, gym.spaces.Box) else 0
    return EarlyMessageWrapper(env, _HEARD_STEPS, silent={"speaker_0": silent})


def _no_environment(env_id: str) -> str:
    """Return the message for a name that nobody has."""
    near = difflib.get_close_matches(env_id, gym.registry, n=1)
    if near:
        hint = f"did you mean {near[0]}?"
    elif env_id.startswith("simple_"):
        hint = "those of mpe2 take pip install 'recurrent_rl[mpe]'"
    else:
        hint = "for one of your own write module:function"
    return (
        f"ENV_ID: expected a Gymnasium id (Pendulum-v1), the name of an environment of PettingZoo "
        f"or mpe2 (simple_spread_v3), or module:function, got {env_id!r}; {hint}"
    )


def _wrapper(text: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the wrapper that a text names, and its arguments."""
    found = re.fullmatch(r"(?:([\w.]+):)?(\w+)(?:\((.*)\))?", text.strip(), re.S)
    if found is None:
        raise UsageError(
            f"--wrapper: expected module:Class or module:Class(name=value), got {text!r}"
        )
    module, name, arguments = found.groups()
    homes = [module] if module else ["recurrent_rl.wrappers", "gymnasium.wrappers"]
    for home in homes:
        own = getattr(import_users(home), name, None)
        if callable(own):
            return own, named_arguments("--wrapper", arguments or "")
    raise UsageError(f"--wrapper: expected a class in {' or '.join(homes)}, got {name!r}")

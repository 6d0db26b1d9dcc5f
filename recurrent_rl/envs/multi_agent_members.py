"""The environments of a vector with several agents: built, and told what to do one by one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from recurrent_rl.envs.env_rows import EnvRows
from recurrent_rl.envs.makers import check_maker
from recurrent_rl.envs.multi_agent_vector import FinalInfos
from recurrent_rl.randomness import seed_this_process
from recurrent_rl.wrappers.tuple_to_parallel import TupleToParallelWrapper, has_agent_tuples

MakeEnv = Callable[[], Any]


def checked_makers(env_fns: Iterable[MakeEnv]) -> list[MakeEnv]:
    """Return functions that build one environment each.

    Raises:
        TypeError: one of them is no function.
        ValueError: there are none.

    """
    makers = list(env_fns)
    if not makers:
        raise ValueError("env_fns: expected at least one function that builds one, got none")
    for e, make in enumerate(makers):
        check_maker(f"env_fns[{e}]", make)
    return makers


def build_member(make: MakeEnv, index: int) -> Any:
    """Return what ``built`` does; an error says which environment it is of."""
    try:
        return built(make)
    except Exception as error:
        error.add_note(f"in building of environment {index}")
        raise


def built(make: MakeEnv) -> Any:
    """Return an environment, those of Gymnasium with Tuples of agents as PettingZoo's."""
    env = make()
    return TupleToParallelWrapper(env) if has_agent_tuples(env) else env


def execute(
    command: tuple[Any, ...],
    rows: Sequence[EnvRows],
    note: Callable[[int], None] | None = None,
    *,
    own_generators: bool = False,
) -> None:
    """Reset or step some environments, one after the other.

    Args:
        command: ("reset", the environments' seeds, options), ("step",), ("wait", whether to) or
            ("state",).
        rows: the environments.
        note: called with the index of each environment before its turn.
        own_generators: the global generators are the environments' own: seed them too.

    """
    for k, row in enumerate(rows):
        if note is not None:
            note(row.index)
        try:
            if command[0] == "reset":
                _, seeds, options = command
                if own_generators and seeds[k] is not None:
                    seed_this_process(seeds[k])
                row.reset(seeds[k], options)
            elif command[0] == "wait":
                row.wait(command[1])
            elif command[0] == "state":
                row.read_state()
            else:
                row.step()
        except Exception as error:
            at = f", step {row.time} of its episode" if command[0] == "step" else ""
            error.add_note(f"in {command[0]} of environment {row.index}{at}")
            raise


def final_infos_of(rows: Sequence[EnvRows]) -> FinalInfos:
    """Return with what infos episodes have just ended."""
    return {row.index: row.final_infos for row in rows if row.final_infos}

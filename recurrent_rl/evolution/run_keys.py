"""Keys of INIT_HP that describe a run rather than an agent, and whether they say what is done."""

import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from recurrent_rl.aliases import PLACES
from recurrent_rl.evolution.registry import ALGORITHMS
from recurrent_rl.validation import COUNT, WHOLE, checked, shown, unknown_name

# What each takes. Training functions take the same things as arguments, or see them in their
# environment, population or tournament; there they must agree.
RUN_KEYS: dict[str, Any] = {
    "ALGO": str,
    "CHANNELS_LAST": bool,
    "ELITISM": bool,
    "ENV_NAME": str,
    "EVAL_LOOP": Annotated[int, COUNT],
    "EVAL_STEPS": Annotated[int | None, COUNT],
    "EVO_STEPS": Annotated[int, COUNT],
    "LEARNING_DELAY": Annotated[int, WHOLE],
    "MAX_STEPS": Annotated[int, COUNT],
    "NUM_ENVS": Annotated[int, COUNT],
    "POP_SIZE": Annotated[int, COUNT],
    "TARGET_SCORE": float | None,
    "TOURN_SIZE": Annotated[int, COUNT],
    "WANDB": bool,
}
# Keys with the only value that is possible here.
ALWAYS = {"USE_ROLLOUT_BUFFER": True}
# What other libraries' dictionaries have, and where it belongs here.
ELSEWHERE = {
    "ACT_MUT": "Mutations(activation=...)",
    "ARCH_MUT": "Mutations(architecture=...)",
    "DISCRETE_ACTIONS": "the action space, which says so",
    "HIDDEN_STATE_SIZE": "net_config={'encoder_config': {'hidden_state_size': ...}}",
    "MUT_SD": "Mutations(mutation_sd=...)",
    "NEW_LAYER": "Mutations(new_layer_prob=...)",
    "NO_MUT": "Mutations(no_mutation=...)",
    "PARAMS_MUT": "Mutations(parameters=...)",
    "RAND_SEED": "create_population(seed=...), Mutations(rand_seed=...) and "
    "TournamentSelection(rand_seed=...)",
    "RL_HP_MUT": "Mutations(rl_hp=...)",
    "SEED": "create_population(seed=...)",
}


def agent_keys(algo: str) -> list[str]:
    """Return the keys that describe an algorithm's agents."""
    return [name.upper() for name in ALGORITHMS[algo].option_names()]


def check_run_keys(algo: str, init_hp: Mapping[str, Any]) -> None:
    """Check the names of all keys, and the values of those that describe the run.

    Raises:
        TypeError: no dictionary, or a value of the wrong type.
        ValueError: a key that is not known, or a value out of range; the message names the key.

    """
    if not isinstance(init_hp, Mapping):
        raise TypeError(f"INIT_HP: expected a dictionary, got {shown(init_hp)}")
    known = [*agent_keys(algo), *ALWAYS, *RUN_KEYS]
    for key, value in init_hp.items():
        if isinstance(key, str) and key in RUN_KEYS:
            checked(f"INIT_HP[{key!r}]", value, RUN_KEYS[key])
        elif isinstance(key, str) and key in ELSEWHERE:
            raise ValueError(
                f"INIT_HP[{key!r}]: expected it in {ELSEWHERE[key]}, as nothing reads it here"
            )
        elif key not in known:
            raise ValueError(unknown_name("INIT_HP", key, known, PLACES))
        elif key in ALWAYS and value is not ALWAYS[key]:
            raise ValueError(
                f"INIT_HP[{key!r}]: expected {ALWAYS[key]}, as there is no other way here, got "
                f"{shown(value)}"
            )
    if init_hp.get("ALGO", algo) != algo:
        raise ValueError(f"INIT_HP['ALGO']: expected {algo!r} as in algo, got {init_hp['ALGO']!r}")


def warn_of_idle_keys(init_hp: Mapping[str, Any]) -> None:
    """Warn of what has no effect."""
    if init_hp.get("CHANNELS_LAST"):
        warnings.warn(
            "INIT_HP['CHANNELS_LAST'] has no effect: the observation space says where channels "
            "are, or else net_config={'encoder_config': {'cnn_config': {'channels_last': ...}}}",
            stacklevel=3,
        )


def check_agreement(init_hp: Mapping[str, Any], given: Mapping[str, tuple[str, Any]]) -> None:
    """Check that INIT_HP says what is done.

    Args:
        init_hp: it has been checked by ``check_run_keys``.
        given: by key of INIT_HP, what has the same value, and that value.

    Raises:
        ValueError: it has another value.

    """
    for key, (name, value) in given.items():
        expected = init_hp.get(key, value)
        if expected != value:
            raise ValueError(
                f"{name}: expected {expected!r}, as INIT_HP[{key!r}] says, got {value!r}; make it "
                f"INIT_HP[{key!r}], or leave that out"
            )

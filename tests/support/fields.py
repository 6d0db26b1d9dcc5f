"""What each field of each configuration takes, and what it refuses."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from recurrent_rl.algorithms.configs import PPOConfig, SequenceConfig
from recurrent_rl.networks.configs import (
    CnnConfig,
    EncoderConfig,
    HeadConfig,
    MlpConfig,
    NetConfig,
    PolicyConfig,
)
from recurrent_rl.recurrent.cells import CELLS

# What no field of a kind takes. A bool is no number, nor is a number a bool; text is neither.
NOT_INT = [True, False, 1.5, 2.0, "3", math.nan, math.inf, [1], (1,), {}, np.float64(3), np.True_]
NOT_FLOAT = [True, False, "0.1", [0.1], {}, 1j, np.True_]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400, -(10**400)]
NOT_BOOL = [0, 1, 1.0, "True", None, [True]]
TINY = 5e-324  # the smallest positive float

HUGE = 10**400  # beyond any float
COUNT = (NOT_INT, [0, -1, HUGE, -HUGE], [1, 2, 10**9])
WIDTH = (NOT_INT, [0, -1, 10**7, HUGE], [1, 2, 10**6])
LAYERS = (NOT_INT, [-1, 1001, HUGE], [1, 10])
POSITIVE = (NOT_FLOAT, [0, 0.0, -0.0, -TINY, -1, *NOT_FINITE], [TINY, 0.5, 1, 1e9])
NON_NEGATIVE = (NOT_FLOAT, [-TINY, -1, *NOT_FINITE], [0, 0.0, 0.5, 1e9])
UNIT = (NOT_FLOAT, [-TINY, -1, math.nextafter(1, 2), 2, *NOT_FINITE], [0, 1, 0.5])
BOOL = (NOT_BOOL, [], [True, False])
OPTIONAL_BOOL = ([x for x in NOT_BOOL if x is not None], [], [True, False, None])
ACTIVATIONS = ["Tanh", "ReLU", "ELU", "GELU", "SiLU", "LeakyReLU", "Identity"]
ACTIVATION = ([], ["tanh", "Softmax", "", None, 3, ["Tanh"], np.array(["Tanh"])], ACTIVATIONS)
WIDTHS = (
    [64, "64", 64.0, True, b"64", {64}, {64: 64}, [1.5], ["64"], [True], [None], [[64]]],
    [[0], [64, -1], [HUGE]],
    [[], [1], (64, 64), range(1, 3), np.array([3, 4])],
)


def below_zero(progress: float) -> float:
    """A schedule that gives what no factor may be."""
    return progress - 0.5


def of_nothing() -> float:
    """A function that takes no progress."""
    return 1.0


SCHEDULE = (
    [None, True, [1], 1j],
    ["cosin", "", -TINY, math.nextafter(1, 2), *NOT_FINITE, below_zero, of_nothing],
    ["constant"],  # others need a horizon
)


def optional(kind: tuple[list[Any], ...]) -> tuple[list[Any], ...]:
    return (*kind[:2], [*kind[2], None])


def required(kind: tuple[list[Any], ...]) -> tuple[list[Any], ...]:
    return ([*kind[0], None], *kind[1:])


# Each field: values of the wrong type, values out of range, values that are fine.
POLICY: dict[str, tuple[list[Any], ...]] = {
    "recurrent": BOOL,
    "share_encoders": BOOL,
    "previous_action": BOOL,
    "previous_reward": BOOL,
    "normalize_obs": BOOL,
    "normalize_images": BOOL,
    "action_std_init": required(POSITIVE),
    "squash_output": OPTIONAL_BOOL,
    "state_dependent_std": BOOL,
    "use_sde": BOOL,
    "sde_sample_freq": (required(COUNT)[0], [0, -1], [1, 4, 64, 65, 1000]),
    "ortho_init": BOOL,
    "compiled": BOOL,
}
SEQUENCE: dict[str, tuple[list[Any], ...]] = {
    "max_seq_len": required(COUNT),
    "burn_in": (required(COUNT)[0], [-1], [0, 1, 10]),
    "refresh_hidden_state": BOOL,
}
FIELDS: dict[type, dict[str, tuple[list[Any], ...]]] = {
    CnnConfig: {
        # One without the others is an error of its own; () flattens, whatever the others are.
        "channel_size": (*WIDTHS[:2], [[], None]),
        "kernel_size": (*WIDTHS[:2], [None]),
        "stride_size": (*WIDTHS[:2], [None]),
        "activation": ACTIVATION,
        "channels_last": OPTIONAL_BOOL,
    },
    MlpConfig: {
        "hidden_size": required(WIDTHS),
        "activation": ACTIVATION,
        "layer_norm": BOOL,
    },
    EncoderConfig: {
        "hidden_size": optional(WIDTHS),
        "activation": ACTIVATION,
        "layer_norm": BOOL,
        "latent_dim": required(WIDTH),
        "cnn_config": ([None, 3, "conv", [], MlpConfig()], [], [{}, CnnConfig(activation="ELU")]),
        "mlp_config": ([None, 3, "Tanh", [], CnnConfig()], [], [{}, MlpConfig((3,), "ReLU")]),
        "vector_space_mlp": BOOL,
        "cell": ([], ["LSTM", "rnn", "", None, 3], list(CELLS)),
        "hidden_state_size": required(WIDTH),
        "num_layers": (required(LAYERS)[0], [0, *LAYERS[1]], LAYERS[2]),
        "residual_layers": (*required(LAYERS)[:2], [0, *LAYERS[2]]),
        "core_residual": BOOL,
        "core_layer_norm": BOOL,
        "max_seq_len": optional(COUNT),
        "forget_bias": (NOT_FLOAT, [-10.5, 11, *NOT_FINITE], [-10, 0, 1.5, 10]),
    },
    HeadConfig: {
        "hidden_size": required(WIDTHS),
        "activation": ACTIVATION,
        "layer_norm": BOOL,
        "residual_layers": (*required(LAYERS)[:2], [0, *LAYERS[2]]),
    },
    NetConfig: {
        "encoder_config": ([None, 3, "lstm", [], HeadConfig()], [], [{}, EncoderConfig()]),
        "head_config": ([None, 3, "Tanh", [], EncoderConfig()], [], [{}, HeadConfig()]),
    },
    PolicyConfig: POLICY,
    SequenceConfig: SEQUENCE,
    PPOConfig: {
        **POLICY,
        **SEQUENCE,
        "learn_step": required(COUNT),
        "batch_size": required(COUNT),
        "update_epochs": required(COUNT),
        "lr": required(POSITIVE),
        "lr_schedule": SCHEDULE,
        "clip_schedule": SCHEDULE,
        "ent_schedule": SCHEDULE,
        "total_steps": optional(COUNT),
        "adam_eps": required(POSITIVE),
        "gamma": required(UNIT),
        "discount_by": ([], ["steps", "", None, 1], ["step", "decision"]),
        "gae_lambda": required(UNIT),
        "clip_coef": required(POSITIVE),
        "clip_vf_coef": optional(POSITIVE),
        "ent_coef": required(NON_NEGATIVE),
        "vf_coef": required(NON_NEGATIVE),
        "max_grad_norm": required(POSITIVE),
        "target_kl": optional(POSITIVE),
        "normalize_advantage": BOOL,
        "normalize_reward": BOOL,
        "reward_scale": required(POSITIVE),
        "value_norm": BOOL,
    },
}


def go_together(values: dict[str, Any]) -> bool:
    """Whether no two of them contradict each other."""
    length = values.get("max_seq_len") or SequenceConfig().max_seq_len
    if values.get("recurrent", True) and values.get("burn_in", 0) >= length:
        return False
    return not (values.get("use_sde") and values.get("state_dependent_std"))


def values_of(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    """Any choice of valid values for some of the fields, that go together."""
    fields = {name: st.sampled_from(kind[2]) for name, kind in FIELDS[cls].items()}
    return st.fixed_dictionaries({}, optional=fields).filter(go_together)

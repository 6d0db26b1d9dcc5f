"""What other libraries call what has another name here.

Error messages tell their users by it (``validation.unknown_name``), and the migration pages of the
documentation print it. Names that mean the same there and here are left out.
"""

from typing import NamedTuple


class Alias(NamedTuple):
    """Where to look for what another library has.

    Attributes:
        names: the same here; several where algorithms have different ones.
        note: in what its value differs; "" where in nothing.

    """

    names: tuple[str, ...]
    note: str = ""


_LEARNING_RATE = Alias(
    ("lr", "lr_actor", "lr_critic"), "a number; `lr_schedule` says what becomes of it"
)
_SHARED = Alias(("share_encoders",), "one memory for actor and critic, or one each")
_FRACTION = Alias(("epsilon_steps",), "environment steps rather than a share of all")
_TARGET = Alias(("target_update",), "counts updates rather than environment steps")

STABLE_BASELINES3 = {
    "learning_rate": _LEARNING_RATE,
    "n_steps": Alias(
        ("learn_step", "n_step"),
        "`learn_step` is of each environment, as there; `n_step` counts a target's rewards",
    ),
    "n_epochs": Alias(("update_epochs",)),
    "clip_range": Alias(("clip_coef",), "a number; `clip_schedule` says what becomes of it"),
    "clip_range_vf": Alias(("clip_vf_coef",), "a number, constant"),
    "lstm_hidden_size": Alias(("hidden_state_size",), "64 by default rather than 256"),
    "n_lstm_layers": Alias(("num_layers",)),
    "shared_lstm": _SHARED,
    "enable_critic_lstm": _SHARED,
    "share_features_extractor": _SHARED,
    "net_arch": Alias(
        ("hidden_size",), "of `head_config` behind the memory, of `encoder_config` in front of it"
    ),
    "activation_fn": Alias(("activation",), 'a name, such as `"ReLU"`'),
    "log_std_init": Alias(
        ("action_std_init",), "the deviation itself: `exp(log_std_init)`; -2 there is 0.135 here"
    ),
    "policy_kwargs": Alias(("net_config",), "shapes of networks; the rest is beside it"),
    "features_extractor_class": Alias(("actor_network",), "a module rather than a class"),
    "buffer_size": Alias(("memory_size",)),
    "train_freq": Alias(
        ("learn_step",), "environment steps over all environments: `train_freq * n_envs`"
    ),
    "target_update_interval": _TARGET,
    "exploration_initial_eps": Alias(("epsilon_start",)),
    "exploration_final_eps": Alias(("epsilon_end",)),
    "exploration_fraction": _FRACTION,
    "policy_delay": Alias(("policy_freq",)),
    "target_policy_noise": Alias(("policy_noise",)),
    "target_noise_clip": Alias(("noise_clip",)),
    "n_critics": Alias(("critics",)),
    "action_noise": Alias(
        ("expl_noise",), "its deviation; `o_u_noise=True` for an Ornstein-Uhlenbeck process"
    ),
    "n_envs": Alias(("num_envs",)),
    "total_timesteps": Alias(("total_steps",)),
    "tensorboard_log": Alias(("log_dir",)),
    "verbose": Alias(("progress",), "a bar, or none"),
    "eval_freq": Alias(("eval_every",), "environment steps over all environments"),
    "n_eval_episodes": Alias(("eval_episodes",)),
    "callback": Alias(("on_rollout",), "a function, called after each rollout"),
}

CLEANRL = {
    "learning_rate": _LEARNING_RATE,
    "num_steps": Alias(("learn_step",), "of each environment, as there"),
    "anneal_lr": Alias(("lr_schedule",), '`"linear"` rather than True, and `total_steps`'),
    "num_minibatches": Alias(
        ("batch_size",), "the size of one: `num_envs * num_steps / num_minibatches`"
    ),
    "minibatch_size": Alias(("batch_size",)),
    "norm_adv": Alias(("normalize_advantage",), "over the rollout rather than each minibatch"),
    "clip_vloss": Alias(("clip_vf_coef",), "the range, or None for none"),
    "total_timesteps": Alias(("total_steps",)),
    "buffer_size": Alias(("memory_size",)),
    "start_e": Alias(("epsilon_start",)),
    "end_e": Alias(("epsilon_end",)),
    "exploration_fraction": _FRACTION,
    "train_frequency": Alias(("learn_step",), "environment steps over all environments"),
    "target_network_frequency": _TARGET,
    "policy_frequency": Alias(("policy_freq",)),
    "exploration_noise": Alias(("expl_noise",)),
    "policy_lr": Alias(("lr_actor",)),
    "q_lr": Alias(("lr_critic",)),
    "alpha": Alias(("ent_coef",)),
    "autotune": Alias(("ent_coef",), "None learns it"),
}

AGILERL = {
    "eps_start": Alias(("epsilon_start",)),
    "eps_end": Alias(("epsilon_end",)),
    "eps_decay": Alias(("epsilon_steps",), "environment steps rather than a factor of each"),
    "per": Alias(("sampling",), '`"priority"` rather than True'),
    "num_envs": Alias(("num_envs",), "of the vector; agents fit any number of environments"),
}

ALIASES: dict[str, Alias] = {**AGILERL, **CLEANRL, **STABLE_BASELINES3}

# What algorithms with one step size call otherwise than those with several.
OWN = {"lr": Alias(("lr_actor", "lr_critic"), "each network has its own")}

# Methods of other libraries' agents.
METHODS = {
    "predict": "get_action",
    "save": "save_checkpoint",
    "set_env": "collect_rollouts_recurrent(agent, env)",
    "get_parameters": "policy.state_dict()",
    "set_parameters": "policy.load_state_dict(...)",
    "save_replay_buffer": "save_checkpoint(path, save_replay=True)",
}

_ENCODER = "net_config={{'encoder_config': {{'{}': ...}}}}"

# What has its place elsewhere than among the hyper-parameters.
PLACES = {
    **{
        name: _ENCODER.format(name)
        for name in ("hidden_state_size", "num_layers", "cell", "forget_bias", "latent_dim")
    },
    "hidden_size": "net_config={'encoder_config': {'hidden_size': [...]}, "
    "'head_config': {'hidden_size': [...]}}",
    "activation": "net_config={'encoder_config': {'activation': ...}, "
    "'head_config': {'activation': ...}}",
    "net_config": "the agent's arguments",
    "actor_network": "the agent's arguments",
    "num_envs": "make_vect_envs(num_envs=...)",
    "log_dir": "train(log_dir=...)",
    "progress": "train(progress=...)",
    "eval_every": "train(eval_every=...)",
    "eval_episodes": "train(eval_episodes=...)",
    "on_rollout": "train(on_rollout=...)",
}

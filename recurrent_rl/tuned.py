"""Settings found by trying (docs/results.md says how), loaded by environment id.

>>> settings = load_tuned("Pendulum-v1")
>>> settings.num_envs
8
"""

import difflib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TunedSettings:
    """What a training run on one environment starts from.

    Attributes:
        env_id: a Gymnasium id: wrap the environment in ``MaskVelocityWrapper`` (but MiniGrid's in
            its ``OneHotPartialObsWrapper``, and leave the mission out with Gymnasium's
            ``FilterObservation``); or the name of one of PettingZoo's or of mpe2's: with "-early"
            wrap it in ``EarlyMessageWrapper``. With "-observed" it is Gymnasium's environment as it
            is.
        num_envs: E, environments in the vector.
        total_steps: environment steps of the whole training, summed over environments.
        net_config: as ``PPO`` or ``IPPO`` takes it.
        hyperparameters: likewise.
        algo: the name of the agent's class.
        reads_state: a MAPPO's critics read the environment's state; give it
            ``state_space=env.state_space``.
        opponents: arguments of ``OpponentPool``; None: there is none.
        env_kwargs: arguments of what builds the environment.

    """

    env_id: str
    num_envs: int
    total_steps: int
    net_config: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    algo: str = "PPO"
    reads_state: bool = False
    opponents: dict[str, Any] | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)

    def agent_options(self, total_steps: int | None = None) -> dict[str, Any]:
        """Keyword arguments for an agent, with its schedules ending at ``total_steps``."""
        options = {"net_config": self.net_config, **self.hyperparameters}
        if self.algo in ON_POLICY or "lr_schedule" in self.hyperparameters:
            options["total_steps"] = self.total_steps if total_steps is None else total_steps
        return options


ON_POLICY = ("PPO", "IPPO", "MAPPO")

TUNED = {
    (settings.env_id, settings.algo): settings
    for settings in (
        TunedSettings(
            env_id="Pendulum-v1",
            num_envs=8,
            total_steps=100_000,
            net_config={
                "encoder_config": {"hidden_size": [], "hidden_state_size": 64, "max_seq_len": 64},
                "head_config": {"hidden_size": [64]},
            },
            hyperparameters={
                "learn_step": 256,
                "batch_size": 256,
                "update_epochs": 10,
                "lr": 3e-3,
                "lr_schedule": "linear",
                "clip_coef": 0.1,
                "gamma": 0.97,
                "gae_lambda": 0.9,
                "normalize_reward": True,
                "share_encoders": False,
                "squash_output": True,
            },
        ),
        TunedSettings(
            env_id="CartPole-v1",
            num_envs=8,
            total_steps=100_000,
            net_config={
                "encoder_config": {"hidden_size": [], "hidden_state_size": 64, "max_seq_len": 32},
                "head_config": {"hidden_size": [64]},
            },
            hyperparameters={
                "learn_step": 128,
                "batch_size": 256,
                "update_epochs": 10,
                "lr": 3e-3,
                "lr_schedule": "linear",
                "clip_coef": 0.1,
                "gamma": 0.99,
                "normalize_reward": True,
                "share_encoders": False,
            },
        ),
        TunedSettings(
            env_id="MountainCarContinuous-v0",
            num_envs=8,
            total_steps=300_000,
            net_config={
                "encoder_config": {"hidden_size": [], "hidden_state_size": 32, "max_seq_len": 32},
                "head_config": {"hidden_size": [64]},
            },
            hyperparameters={
                "learn_step": 1024,
                "batch_size": 256,
                "update_epochs": 10,
                "lr": 3e-4,
                "lr_schedule": "linear",
                "gamma": 0.999,
                "normalize_obs": True,
                "normalize_reward": True,
                "share_encoders": False,
                "squash_output": False,
                # Wide at first: most actions then push with full force, and some by luck for long
                # enough to see the goal. At 1.0 one of two seeds never does.
                "action_std_init": 3.0,
            },
        ),
        TunedSettings(
            env_id="LunarLander-v3",
            num_envs=16,
            total_steps=2_000_000,
            net_config={
                "encoder_config": {"hidden_size": [], "hidden_state_size": 64, "max_seq_len": 32},
                "head_config": {"hidden_size": [64]},
            },
            hyperparameters={
                "learn_step": 256,
                "batch_size": 1024,
                "update_epochs": 10,
                "lr": 1e-3,
                "lr_schedule": "linear",
                "gamma": 0.99,
                "gae_lambda": 0.95,
                "ent_coef": 0.005,
                "previous_action": True,
                "share_encoders": False,
            },
        ),
        TunedSettings(
            env_id="MiniGrid-MemoryS7-v0",
            num_envs=16,
            total_steps=1_000_000,
            net_config={
                "encoder_config": {
                    "cnn_config": {"channel_size": []},  # 7 x 7 cells: an MLP does better
                    "hidden_size": [64],
                    "hidden_state_size": 64,
                    "max_seq_len": 64,
                },
                "head_config": {"hidden_size": [64]},
            },
            hyperparameters={
                "learn_step": 128,
                "batch_size": 512,
                "update_epochs": 4,
                "lr": 1e-3,
                "lr_schedule": "linear",
                "ent_coef": 0.03,
                "normalize_images": False,
                # Whether there is a key or a ball somewhere is a bit or two among a thousand;
                # standardised, those that never change vanish, and these stand out.
                "normalize_obs": True,
            },
        ),
        TunedSettings(
            env_id="connect_four_v3",
            num_envs=256,
            total_steps=1_500_000,
            net_config={
                "encoder_config": {
                    # Four in a row lie in a square of four.
                    "cnn_config": {"channel_size": [128], "kernel_size": [4], "stride_size": [1]},
                    "latent_dim": 256,
                    "hidden_size": [],
                    "activation": "ReLU",
                },
                "head_config": {"hidden_size": [128]},
            },
            hyperparameters={
                "recurrent": False,  # the board shows everything
                "learn_step": 64,
                "batch_size": 512,
                "update_epochs": 5,
                "lr": 1e-3,
                "lr_schedule": "linear",
                "gamma": 0.95,
                "gae_lambda": 0.9,
                # Without it players soon play the same few games, and learn nothing of others.
                "ent_coef": 0.1,
                "ent_schedule": "linear",
                "normalize_reward": False,
            },
            algo="IPPO",
            opponents={"past": 0.2},
        ),
        *(
            TunedSettings(
                env_id=env_id,
                num_envs=32,
                total_steps=total_steps,
                net_config={
                    "encoder_config": {
                        "hidden_size": [],
                        "hidden_state_size": 64,
                        "max_seq_len": 25,
                        "forget_bias": forget_bias,
                    },
                    "head_config": {"hidden_size": [64]},
                },
                hyperparameters={
                    "learn_step": 100,
                    "batch_size": 800,
                    "update_epochs": update_epochs,
                    "lr": 1e-3,
                    "lr_schedule": "linear",
                    "gamma": 0.95,
                    "ent_coef": 0.01,
                    **({} if algo == "MAPPO" else {"normalize_reward": True}),
                    "share_encoders": False,
                },
                algo=algo,
            )
            for algo, env_id, total_steps, update_epochs, forget_bias in (
                ("IPPO", "simple_speaker_listener_v4", 1_000_000, 10, 0.0),
                ("IPPO", "simple_spread_v3", 1_000_000, 5, 0.0),
                ("MAPPO", "simple_speaker_listener_v4", 600_000, 10, 0.0),
                ("MAPPO", "simple_speaker_listener_v4-early", 800_000, 10, 1.0),
                ("MAPPO", "simple_spread_v3", 3_000_000, 5, 0.0),
            )
        ),
        TunedSettings(
            env_id="Foraging-2s-8x8-2p-2f-coop-v3",
            num_envs=16,
            total_steps=2_000_000,
            net_config={
                "encoder_config": {
                    "hidden_size": [128],
                    "hidden_state_size": 128,
                    "max_seq_len": 50,  # an episode
                },
                "head_config": {"hidden_size": [64]},
            },
            hyperparameters={
                "learn_step": 50,
                "batch_size": 800,
                "update_epochs": 4,
                "lr": 5e-4,
                "lr_schedule": "linear",
                "gamma": 0.99,
                "ent_coef": 0.005,
                "ent_schedule": "linear",
                "share_encoders": False,
                # Alike and sure of themselves, two would block each other's way for ever.
                "agent_id_input": True,
            },
            algo="MAPPO",
        ),
        TunedSettings(
            env_id="Pendulum-v1",
            num_envs=4,
            total_steps=20_000,
            net_config={
                "encoder_config": {"hidden_size": [64], "hidden_state_size": 64},
                "head_config": {"hidden_size": [128]},
            },
            hyperparameters={
                "max_seq_len": 10,
                "overlap": 5,
                "batch_size": 640,
                "learn_step": 4,
                "gradient_steps": 4,
                "learning_starts": 1_000,
                "lr_actor": 3e-4,
                "lr_alpha": 3e-4,
                "lr_critic": 3e-3,
                "lr_schedule": "linear",
                "gamma": 0.98,
                "tau": 0.01,
                "previous_action": True,
            },
            algo="SAC",
        ),
        TunedSettings(
            env_id="Pendulum-v1-observed",
            num_envs=4,
            total_steps=20_000,
            net_config={
                "encoder_config": {"hidden_size": []},
                "head_config": {"hidden_size": [256, 256]},
            },
            hyperparameters={
                "recurrent": False,
                "batch_size": 256,
                "learn_step": 4,
                "gradient_steps": 4,
                "learning_starts": 1_000,
                "lr_actor": 1e-3,
                "lr_critic": 1e-3,
                "gamma": 0.98,
            },
            algo="SAC",
        ),
        TunedSettings(
            env_id="LunarLander-v3-observed",
            num_envs=4,
            total_steps=200_000,
            net_config={
                "encoder_config": {"hidden_size": [256]},
                "head_config": {"hidden_size": [256]},
            },
            hyperparameters={
                "recurrent": False,
                "memory_size": 200_000,
                "batch_size": 128,
                "learn_step": 4,
                "gradient_steps": 4,
                "learning_starts": 1_000,
                "gamma": 0.99,
                "n_step": 3,
                "tau": 0.005,
                "lr": 5e-4,
                "lr_schedule": "linear",
                "max_grad_norm": 10.0,
                # Squared errors of small numbers: what counts linearly gives a median, to which a
                # crash now and then is nothing.
                "huber": None,
                "reward_scale": 0.02,
                "epsilon_end": 0.05,
                "epsilon_steps": 24_000,
            },
            algo="DQN",
        ),
        TunedSettings(
            env_id="CartPole-v1",
            num_envs=8,
            total_steps=100_000,
            net_config={
                "encoder_config": {"hidden_size": [64], "hidden_state_size": 64},
                "head_config": {"hidden_size": [128]},
            },
            hyperparameters={
                # States that older networks have stored are wrong for the first steps of a window.
                "max_seq_len": 50,
                "overlap": 25,
                "batch_size": 800,
                "learn_step": 8,
                "gradient_steps": 4,
                "learning_starts": 1_000,
                "gamma": 0.99,
                "n_step": 5,
                "tau": 0.005,
                "lr": 5e-4,
                "lr_schedule": "linear",
                "max_grad_norm": 10.0,
                "epsilon_start": 0.4,
                "epsilon_per_env": True,
                "previous_action": True,
            },
            algo="DQN",
        ),
        *(
            TunedSettings(
                env_id=env_id,
                num_envs=25,
                total_steps=total_steps,
                net_config=net_config,
                hyperparameters={
                    "recurrent": False,
                    "memory_size": 1_000_000,
                    "batch_size": 256,
                    "learn_step": 25,
                    "learning_starts": 2_500,
                    "tau": 0.01,
                    "lr_actor": 3e-4,
                    "max_grad_norm": 0.5,
                    "o_u_noise": False,
                    "policy_noise": 0.1 if algo == "MATD3" else 0.0,
                    "action_reg": 1e-2,
                    # Beside what others did long ago, little that one does makes sense.
                    "others": "present",
                    "team_reward": "mean",
                    **own,
                },
                algo=algo,
                env_kwargs={"continuous_actions": True},
            )
            for env_id, total_steps, net_config, own in (
                (
                    "simple_speaker_listener_v4",
                    600_000,
                    {
                        "encoder_config": {"hidden_size": [64]},
                        "head_config": {"hidden_size": [64]},
                    },
                    {"gamma": 0.9, "lr_critic": 3e-3, "expl_noise": 0.3},
                ),
                (
                    "simple_spread_v3",
                    400_000,
                    {
                        "encoder_config": {"hidden_size": [128]},
                        # Who is nearest to which landmark is more than 64 units can tell.
                        "head_config": {"hidden_size": [256, 256]},
                    },
                    {"gamma": 0.85, "lr_critic": 1e-3, "expl_noise": 0.5},
                ),
            )
            for algo in ("MADDPG", "MATD3")
        ),
        TunedSettings(
            env_id="simple_speaker_listener_v4-early",
            num_envs=25,
            total_steps=600_000,
            net_config={
                "encoder_config": {"hidden_size": [64], "hidden_state_size": 64},
                "head_config": {"hidden_size": [64]},
            },
            hyperparameters={
                "max_seq_len": 25,  # an episode
                "memory_size": 600_000,
                "batch_size": 800,
                "learn_step": 50,
                "learning_starts": 2_500,
                "gamma": 0.9,
                "tau": 0.01,
                "lr_actor": 3e-4,
                "lr_critic": 3e-3,
                "max_grad_norm": 0.5,
                "expl_noise": 0.3,
                "policy_noise": 0.1,
                "action_reg": 1e-2,
                "others": "present",
                "team_reward": "mean",
            },
            algo="MATD3",
            env_kwargs={"continuous_actions": True},
        ),
    )
}


def load_tuned(env_id: str, algo: str | None = None) -> TunedSettings:
    """Return the settings for an environment.

    Args:
        env_id: see ``TunedSettings``.
        algo: the name of an agent's class, "SAC" for example; None: PPO or IPPO.

    Raises:
        TypeError: no text.
        ValueError: there are none; the message lists what there is.

    """
    if not isinstance(env_id, str):
        raise TypeError(
            f"env_id: expected the name of an environment, got a {type(env_id).__name__}"
        )
    wanted = ON_POLICY if algo is None else (algo,)
    for name in wanted:
        if (env_id, name) in TUNED:
            return TUNED[env_id, name]
    known = [env for env, name in TUNED if name in wanted]
    if not known:
        names = dict.fromkeys(name for _, name in TUNED)
        raise ValueError(f"algo: expected one of {list(names)} or None, got {algo!r}")
    near = difflib.get_close_matches(env_id, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    of = "" if algo is None else f" with {algo}"
    raise ValueError(
        f"load_tuned: no tuned settings for the env_id {env_id!r}{of}{hint}; known: "
        f"{', '.join(known)}"
    )

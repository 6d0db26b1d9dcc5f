"""The same work as one program that XLA compiles whole: recurrent PPO and its environment.

Run by ``xla.py`` in an environment that has JAX. One LSTM for actor and critic, a head each with
one hidden layer, a Gaussian whose deviation is a parameter; masked Pendulum inside the program;
Adam on clipped gradients over minibatches of whole rows. No checks and no options: what could be
had if nothing had to be general.

Letters: T steps, E environments, H units.
"""

import json
import sys
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax, random

GAMMA, LAMBDA, CLIP, HIDDEN = 0.97, 0.9, 0.2, 64
OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-4, eps=1e-5))
Params = dict[str, Any]


class Carry(NamedTuple):
    """What goes on from step to step: angle and speed [E], their time, and the memory [E, H]."""

    angle: Any
    speed: Any
    time: Any
    h: Any
    c: Any


def parameters(key: Any) -> Params:
    """Orthogonal weights, zero biases."""
    shapes = {
        "input": (3, 4 * HIDDEN),
        "recurrent": (HIDDEN, 4 * HIDDEN),
        "actor_1": (HIDDEN, 64),
        "actor_2": (64, 1),
        "critic_1": (HIDDEN, 64),
        "critic_2": (64, 1),
    }
    draw = jax.nn.initializers.orthogonal()
    keys = random.split(key, len(shapes))
    weights = {n: draw(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}
    biases = {f"{n}_bias": jnp.zeros(s[1]) for n, s in shapes.items() if n != "recurrent"}
    return {**weights, **biases, "log_std": jnp.zeros(1)}


def lstm(params: Params, h: Any, c: Any, seen: Any) -> tuple[Any, Any]:
    """One step of the cell."""
    gates = seen @ params["input"] + h @ params["recurrent"] + params["input_bias"]
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def head(params: Params, name: str, h: Any) -> Any:
    """[..., H] -> [...]: the mean of an action, or a value."""
    inner = jnp.tanh(h @ params[f"{name}_1"] + params[f"{name}_1_bias"])
    return (inner @ params[f"{name}_2"] + params[f"{name}_2_bias"])[..., 0]


def log_density(params: Params, mean: Any, action: Any) -> Any:
    """Of a Gaussian, without the constant, which ratios do not have."""
    log_std = params["log_std"][0]
    return -0.5 * jnp.square((action - mean) * jnp.exp(-log_std)) - log_std


def observe(angle: Any) -> Any:
    """Sine and cosine; the speed is masked."""
    return jnp.stack((jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle)), -1)


def fresh(key: Any, envs: int) -> tuple[Any, Any]:
    """Angles and speeds that episodes begin with."""
    angle = random.uniform(key, (envs,), minval=-jnp.pi, maxval=jnp.pi)
    return angle, random.uniform(random.fold_in(key, 1), (envs,), minval=-1.0, maxval=1.0)


def act(params: Params, carry: Carry, key: Any) -> tuple[Carry, dict[str, Any]]:
    """One step of all environments."""
    envs = carry.angle.shape[0]
    noise, reset = random.split(key)
    start = carry.time == 0
    h, c = (jnp.where(start[:, None], 0.0, x) for x in (carry.h, carry.c))
    seen = observe(carry.angle)
    h, c = lstm(params, h, c, seen)
    mean = head(params, "actor", h)
    action = mean + jnp.exp(params["log_std"][0]) * random.normal(noise, (envs,))
    torque = jnp.clip(action, -2.0, 2.0)
    off = (carry.angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
    reward = -(off**2 + 0.1 * carry.speed**2 + 0.001 * torque**2)
    push = 15.0 * jnp.sin(carry.angle) + 3.0 * torque
    speed = jnp.clip(carry.speed + 0.05 * push, -8.0, 8.0)
    over = carry.time == 199
    new_angle, new_speed = fresh(reset, envs)
    after = Carry(
        jnp.where(over, new_angle, carry.angle + 0.05 * speed),
        jnp.where(over, new_speed, speed),
        jnp.where(over, 0, carry.time + 1),
        h,
        c,
    )
    return after, {
        "seen": seen,
        "start": start,
        "action": action,
        "log_prob": log_density(params, mean, action),
        "value": head(params, "critic", h),
        "reward": reward,
        "goes_on": 1.0 - over.astype(jnp.float32),
    }


def advantages(steps: dict[str, Any], last: Any) -> Any:
    """Generalised advantage estimation, [T, E]."""

    def back(following: tuple[Any, Any], step: tuple[Any, ...]) -> tuple[tuple[Any, Any], Any]:
        advantage, value_after = following
        reward, value, goes_on = step
        delta = reward + GAMMA * goes_on * value_after - value
        advantage = delta + GAMMA * LAMBDA * goes_on * advantage
        return (advantage, value), advantage

    fields = (steps["reward"], steps["value"], steps["goes_on"])
    return lax.scan(back, (jnp.zeros_like(last), last), fields, reverse=True)[1]


def loss(params: Params, batch: dict[str, Any]) -> Any:
    """PPO's, of a minibatch of whole rows."""

    def step(memory: tuple[Any, Any], seen_start: tuple[Any, Any]) -> tuple[Any, Any]:
        seen, start = seen_start
        h, c = (jnp.where(start[:, None], 0.0, x) for x in memory)
        memory = lstm(params, h, c, seen)
        return memory, memory[0]

    begin = (batch["h"], batch["c"])
    _, features = lax.scan(step, begin, (batch["seen"], batch["start"]))
    log_prob = log_density(params, head(params, "actor", features), batch["action"])
    ratio = jnp.exp(log_prob - batch["log_prob"])
    gain = batch["advantage"]
    surrogate = jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * gain)
    error = head(params, "critic", features) - batch["returns"]
    return 0.25 * jnp.square(error).mean() - surrogate.mean()


def train(state: Any, _: None, *, steps: int, rows: int, epochs: int) -> tuple[Any, Any]:
    """Collect a rollout and learn from it; ``rows`` environments make a minibatch."""
    params, moments, begin, key = state
    key, collecting, shuffling = random.split(key, 3)
    envs = begin.angle.shape[0]
    keys = random.split(collecting, steps)
    carry, rollout = lax.scan(partial(act, params), begin, keys)
    h, _c = lstm(params, carry.h, carry.c, observe(carry.angle))
    advantage = advantages(rollout, head(params, "critic", h))
    returns = advantage + rollout["value"]
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    fields = {**rollout, "advantage": advantage, "returns": returns}

    def minibatch(learner: Any, which: Any) -> tuple[Any, None]:
        params, moments = learner
        batch = {name: x[:, which] for name, x in fields.items()}
        batch |= {"h": begin.h[which], "c": begin.c[which]}
        updates, moments = OPTIMIZER.update(jax.grad(loss)(params, batch), moments, params)
        return (optax.apply_updates(params, updates), moments), None

    orders = jax.vmap(lambda k: random.permutation(k, envs))(random.split(shuffling, epochs))
    learner, _ = lax.scan(minibatch, (params, moments), orders.reshape(-1, rows))
    return (*learner, carry, key), rollout["reward"].mean()


def main() -> None:
    """Answer each line of work with the processor's seconds for it; compile at the first."""
    programs: dict[str, Any] = {}
    for line in sys.stdin:
        work = json.loads(line)
        name = json.dumps(work)
        if name not in programs:
            envs, steps = work["num_envs"], work["learn_step"]
            key = random.PRNGKey(0)
            params, memory = parameters(key), jnp.zeros((envs, HIDDEN))
            begin = Carry(*fresh(key, envs), jnp.zeros(envs, jnp.int32), memory, memory)
            one = partial(
                train,
                steps=steps,
                rows=work["batch_size"] // steps,
                epochs=work["update_epochs"],
            )
            program = jax.jit(lambda s, one=one, n=work["rollouts"]: lax.scan(one, s, None, n))
            state = (params, OPTIMIZER.init(params), begin, key)
            state, _ = jax.block_until_ready(program(state))
            programs[name] = [program, state]
        program, state = programs[name]
        start = time.process_time()
        programs[name][1], reward = jax.block_until_ready(program(state))
        seconds = time.process_time() - start
        print(json.dumps({"seconds": seconds, "reward": float(reward[-1])}), flush=True)


if __name__ == "__main__":
    main()

"""Time torchrl's recurrent DQN; run by off_policy.py in its own venv.

    python peer_torchrl.py

Reads windows, steps of each and number of updates, as JSON, a line; takes them upon windows that it
samples from its replay, and prints the seconds of the processor that they took. The network, the
loss and the order of things are those of torchrl's tutorial of recurrent DQN.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.data import LazyTensorStorage, OneHot, TensorDictReplayBuffer
from torchrl.modules import MLP, LSTMModule, QValueModule, set_recurrent_mode
from torchrl.objectives import DQNLoss, SoftUpdate

UNITS, OBSERVATION, CHOICES = 64, 4, 2


def replay(count: int, steps: int, length: int, windows: int) -> TensorDictReplayBuffer:
    """Fill a replay with windows such as collection leaves them; the numbers do not matter."""
    storage = LazyTensorStorage(count)
    memory = TensorDictReplayBuffer(storage=storage, batch_size=windows)
    lead = (count, steps)
    state = {
        name: torch.zeros(*lead, 1, UNITS) for name in ("recurrent_state_h", "recurrent_state_c")
    }
    seen = torch.randn(count, steps + 1, OBSERVATION)
    ended = torch.rand(*lead, 1) < 1 / length
    first = torch.zeros_like(ended)
    first[:, 1:] = ended[:, :-1]
    choice = torch.randint(CHOICES, lead)
    memory.extend(
        TensorDict(
            {
                **state,
                "observation": seen[:, :-1],
                "is_init": first,
                "action": torch.nn.functional.one_hot(choice, CHOICES),
                "next": {
                    **{name: x.clone() for name, x in state.items()},
                    "observation": seen[:, 1:],
                    "reward": torch.ones(*lead, 1),
                    "done": ended,
                    "terminated": ended.clone(),
                    "is_init": ended.clone(),
                },
            },
            batch_size=lead,
        )
    )
    return memory


def learner(windows: int, steps: int, length: int) -> Callable[[int], None]:
    """Return what takes a number of updates."""
    lstm = LSTMModule(
        input_size=OBSERVATION, hidden_size=UNITS, in_key="observation", out_key="embed"
    )
    head = MLP(in_features=UNITS, out_features=CHOICES, num_cells=[64])
    spec = OneHot(CHOICES)
    policy = TensorDictSequential(
        lstm,
        TensorDictModule(head, in_keys=["embed"], out_keys=["action_value"]),
        QValueModule(action_space=None, spec=spec),
    )
    loss = DQNLoss(policy, action_space=spec, delay_value=True, double_dqn=True)
    loss.make_value_estimator(gamma=0.99)
    target = SoftUpdate(loss, eps=0.995)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    memory = replay(256, steps, length, windows)

    def update(count: int) -> None:
        with set_recurrent_mode(True):
            for _ in range(count):
                sample = memory.sample()
                loss(sample)["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
                target.step()

    return update


def main() -> None:
    """Take updates whenever asked."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # torchrl logs to the standard output
    torch.set_num_threads(1)
    torch.manual_seed(0)
    learners: dict[tuple[int, int, int], Callable[[int], None]] = {}
    for line in sys.stdin:
        windows, steps, length, count = json.loads(line)
        key = windows, steps, length
        if key not in learners:
            learners[key] = learner(*key)
            learners[key](3)
        begin = time.process_time()
        learners[key](count)
        print(time.process_time() - begin, file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Tests of `recurrent_rl.networks.encoder`: widths, and where extra inputs join."""

import pytest
import torch
from support.helpers import OBSERVATIONS

from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.encoder import Encoder
from recurrent_rl.spaces.codec import ObservationCodec


@pytest.mark.parametrize(
    ("recurrent", "widths"), [(True, None), (True, (7,)), (True, (64, 3)), (False, None)]
)
@pytest.mark.parametrize("extra", [0, 2])
def test_extra_inputs_reach_the_features(
    recurrent: bool, widths: tuple[int, ...] | None, extra: int
) -> None:
    encoder_config = {"hidden_size": widths, "hidden_state_size": 5}
    net = NetConfig.from_dict({"encoder_config": encoder_config})
    codec = ObservationCodec(OBSERVATIONS["vector"])
    encoder = Encoder(codec, extra, net, recurrent)
    x, more = codec(torch.randn(4, 3)), torch.randn(4, extra) if extra else None
    state = tuple(torch.zeros(k, 4, h) for k, h in encoder.shapes)
    y, after = encoder.step(x, more, state)
    assert y.shape == (4, encoder.outputs)
    assert encoder.outputs == (5 if recurrent else 64)
    assert len(after) == len(encoder.shapes) == (2 if recurrent else 0)
    if more is not None:
        assert not torch.equal(encoder.step(x, more + 1, state)[0], y)
    if encoder.core is not None:
        # Behind the MLP, not through it.
        assert encoder.core.rnn.input_size == (widths[-1] if widths else 64) + extra

"""An argument of other libraries' functions, which has nothing to do here."""

import warnings


def warn_of_swap_channels(swap_channels: bool, stacklevel: int = 2) -> None:
    """Say, if images' channels are to be swapped, that they are recognised where they are.

    Args:
        swap_channels: the argument.
        stacklevel: as in ``warnings.warn``, seen from the caller.

    """
    if swap_channels:
        warnings.warn(
            "swap_channels=True has no effect: agents recognise images, and where their channels "
            "are, by the observation space; net_config={'encoder_config': {'cnn_config': "
            "{'channels_last': ...}}} says so where that is not clear",
            stacklevel=stacklevel + 1,
        )

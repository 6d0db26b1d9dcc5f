"""NumPy arrays, as annotations name them."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

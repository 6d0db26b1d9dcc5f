"""``python -m recurrent_rl``: the command line."""

import sys

from recurrent_rl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

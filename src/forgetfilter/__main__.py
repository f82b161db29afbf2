"""``python -m forgetfilter`` is the command line."""

import sys

from forgetfilter.cli import main

sys.exit(main())

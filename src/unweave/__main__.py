"""`python -m unweave`, as torchrun starts it."""

import sys

from unweave.cli import main

sys.exit(main())

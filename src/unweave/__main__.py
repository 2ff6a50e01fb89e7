"""`python -m unweave`, the form in which torchrun starts it."""

import sys

from unweave.cli import main

sys.exit(main())

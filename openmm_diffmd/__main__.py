"""``python -m openmm_diffmd``: the console script."""

import sys

from openmm_diffmd.cli import main

if __name__ == "__main__":
    sys.exit(main())

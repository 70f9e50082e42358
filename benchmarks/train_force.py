"""Train the ML force that `bench_cost.py` compares with."""

import sys

from jsonargparse import auto_cli

from openmm_diffmd.training.force import train_force

if __name__ == "__main__":
    try:
        print(auto_cli(train_force, as_positional=False))
    except (ValueError, OSError) as error:
        sys.exit(f"train_force: {error}")

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real MD17, rMD17 and ISO17 frames; they are not in the project."""
    places = [
        Path(os.environ.get("DIFFMD_TEST_DATA", "")),
        Path(__file__).parents[2] / "shared" / "data",
    ]
    for place in places:
        if (place / "md17").is_dir():
            return place
    pytest.skip("no real MD17 frames here: set DIFFMD_TEST_DATA to a folder of them")

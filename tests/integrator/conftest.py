from pathlib import Path

import pytest

from openmm_diffmd.testing import save_stub_model


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of the harmonic stub."""
    return save_stub_model(tmp_path_factory.mktemp("stub") / "harmonic.pt")

"""The integrator: the C++ class, the same step in Python, and Systems to run it on."""

from openmm_diffmd.integrator.versions import check_versions

# Before the extension is loaded: a library that does not fit would crash it. This also
# imports torch and openmm, whose libraries the extension uses.
check_versions()

from openmm_diffmd.bundled import PRETRAINED  # noqa: E402
from openmm_diffmd.integrator import bindings  # noqa: E402
from openmm_diffmd.integrator.consistency import check_consistency  # noqa: E402
from openmm_diffmd.integrator.diffusion_integrator import (  # noqa: E402
    DiffusionIntegrator,
)
from openmm_diffmd.integrator.diffusion_reporter import (  # noqa: E402
    DiffusionReporter,
)
from openmm_diffmd.integrator.plugins import load_plugins  # noqa: E402
from openmm_diffmd.integrator.replica_dcd_reporter import (  # noqa: E402
    ReplicaDCDReporter,
)
from openmm_diffmd.integrator.systems import (  # noqa: E402
    Replicas,
    create_system,
    replicate,
)

# Before the first Context is made.
load_plugins()
# By XmlSerializer too, which reads in C++, where no metadata are known.
bindings.setDeserializationCheck(check_consistency)
bindings.setModelFolder(str(PRETRAINED))

__all__ = [
    "DiffusionIntegrator",
    "DiffusionReporter",
    "ReplicaDCDReporter",
    "Replicas",
    "create_system",
    "replicate",
]

"""
Molecular dynamics in OpenMM by learned diffusion: whole lags instead of forces.

Names are imported when first used, so that ``import openmm_diffmd`` is quick and
has no side effects.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openmm_diffmd.analysis.analyze import analyze
    from openmm_diffmd.balancing.rollouts import balance_model
    from openmm_diffmd.export.export import export_model
    from openmm_diffmd.export.metadata import ModelMetadata
    from openmm_diffmd.export.torchscript import DiffusionModel, load_model, save_model
    from openmm_diffmd.integrator.checkpoints import load_checkpoint
    from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
    from openmm_diffmd.integrator.diffusion_reporter import DiffusionReporter
    from openmm_diffmd.integrator.replica_dcd_reporter import ReplicaDCDReporter
    from openmm_diffmd.integrator.rollout_reporter import record_rollout
    from openmm_diffmd.integrator.run import run
    from openmm_diffmd.integrator.score_force import score_force
    from openmm_diffmd.integrator.systems import create_system, replicate
    from openmm_diffmd.models.transition import TransitionModel
    from openmm_diffmd.reference.driver import make_reference
    from openmm_diffmd.reference.molecules import load_molecule
    from openmm_diffmd.revisiting.bursts import revisit
    from openmm_diffmd.training.force import train_force
    from openmm_diffmd.training.train import train

_HOMES = {
    "DiffusionIntegrator": "integrator.diffusion_integrator",
    "DiffusionModel": "export.torchscript",
    "DiffusionReporter": "integrator.diffusion_reporter",
    "ModelMetadata": "export.metadata",
    "ReplicaDCDReporter": "integrator.replica_dcd_reporter",
    "TransitionModel": "models.transition",
    "analyze": "analysis.analyze",
    "balance_model": "balancing.rollouts",
    "create_system": "integrator.systems",
    "export_model": "export.export",
    "load_checkpoint": "integrator.checkpoints",
    "load_model": "export.torchscript",
    "load_molecule": "reference.molecules",
    "make_reference": "reference.driver",
    "record_rollout": "integrator.rollout_reporter",
    "replicate": "integrator.systems",
    "revisit": "revisiting.bursts",
    "run": "integrator.run",
    "save_model": "export.torchscript",
    "score_force": "integrator.score_force",
    "train": "training.train",
    "train_force": "training.force",
}

__all__ = [
    "DiffusionIntegrator",
    "DiffusionModel",
    "DiffusionReporter",
    "ModelMetadata",
    "ReplicaDCDReporter",
    "TransitionModel",
    "analyze",
    "balance_model",
    "create_system",
    "export_model",
    "load_checkpoint",
    "load_model",
    "load_molecule",
    "make_reference",
    "record_rollout",
    "replicate",
    "revisit",
    "run",
    "save_model",
    "score_force",
    "train",
    "train_force",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("openmm_diffmd")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

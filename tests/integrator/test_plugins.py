"""What is said of plugins that do not fit, on a machine that has no GPU."""

import pytest
import torch
from openmm import OpenMMException

from openmm_diffmd.integrator import plugins


class Platforms:
    """Stands in for openmm.Platform, with a platform CUDA."""

    def __init__(self, kernels, error=None):
        self.kernels, self.error = kernels, error

    def getPlatformByName(self, name):
        assert name == "CUDA"
        return self

    def supportsKernels(self, names):
        assert names == ["IntegrateDiffusionStep"]
        return self.kernels

    def loadPluginLibrary(self, _):
        if self.error:
            raise OpenMMException(self.error)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Make a machine of these properties, with the plugin for CUDA if it is built."""

    def make(gpu, kernels, graphs=True, built=True, error=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(plugins, "Platform", Platforms(kernels, error))
        monkeypatch.setattr(plugins, "platform_names", lambda: ["CUDA"])
        monkeypatch.setattr(plugins, "LIBRARIES", tmp_path)
        monkeypatch.setattr(plugins, "built_with_cuda_graphs", lambda: graphs)
        path = tmp_path / plugins.PLUGINS["CUDA"]
        if built:
            path.touch()
        return str(path)

    return make


def test_a_plugin_with_kernels_and_graphs_is_loaded_in_silence(machine):
    path = machine(gpu=True, kernels=True)
    assert plugins.load_plugins() == [path]


def test_a_gpu_without_the_plugin_is_warned_of(machine):
    machine(gpu=True, kernels=False, built=False)
    with pytest.warns(
        UserWarning, match=r"network runs on the CPU.*pip install"
    ) as found:
        assert plugins.load_plugins() == []
    assert len(found) == 1


def test_no_plugin_and_no_gpu_is_silent(machine):
    machine(gpu=False, kernels=False, built=False)
    assert plugins.load_plugins() == []


def test_a_plugin_for_another_build_of_torch_is_warned_of(machine):
    machine(gpu=False, kernels=False, error="libtorch_cuda.so: cannot open")
    match = r"cannot be loaded \(libtorch_cuda.so: cannot open\).*pip install"
    with pytest.warns(UserWarning, match=match) as found:
        assert plugins.load_plugins() == []
    assert len(found) == 1


def test_a_plugin_without_graphs_is_warned_of(machine):
    machine(gpu=True, kernels=True, graphs=False)
    with pytest.warns(UserWarning, match="kernel by kernel") as found:
        plugins.load_plugins()
    assert len(found) == 1


def test_what_cannot_be_loaded_is_warned_of_once_where_there_is_a_gpu(machine):
    machine(gpu=True, kernels=False, error="undefined symbol")
    with pytest.warns(UserWarning, match="undefined symbol") as found:
        assert plugins.load_plugins() == []
    assert len(found) == 1

#include "TestDiffusionIntegrator.h"

int main(int, char **arguments) {
    Platform::loadPluginLibrary(arguments[2]);
    // The CPU platform computes forces in single precision.
    return runTests({arguments[1], &Platform::getPlatformByName("CPU"), 1e-6, 1e-5});
}

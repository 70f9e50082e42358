#include "DiffusionKernels.h"
#include "TestDiffusionIntegrator.h"

#include <cstdlib>

/**
 * The contract on a platform with a device, or 77 for ctest where there is none, or a plugin
 * without kernels; that is a failure where DIFFMD_REQUIRE_DEVICE is set.
 *
 * @param name       of the platform
 * @param arguments  models, OpenMM's plugin, precision, and our plugin if its kernels are to be
 *                   used
 */
int runTestsOnDevice(const std::string &name, int numArguments, char **arguments) {
    const std::string precision = arguments[3];
    const bool isRequired = std::getenv("DIFFMD_REQUIRE_DEVICE") != nullptr;
    try {
        Platform::loadPluginLibrary(arguments[2]);
        Platform &platform = Platform::getPlatformByName(name);
        platform.setPropertyDefaultValue("Precision", precision);
        System system;
        system.addParticle(1.0);
        VerletIntegrator verlet(0.001);
        Context(system, verlet, platform);
    } catch (const OpenMMException &error) {
        // None, or one without this precision.
        std::cout << (isRequired ? "failed" : "skipped") << ", no device: " << error.what() << '\n';
        return isRequired ? 1 : 77;
    }
    if (numArguments > 4) {
        Platform::loadPluginLibrary(arguments[4]);
        // It registers none beside a torch that has no such device.
        if (!Platform::getPlatformByName(name).supportsKernels(
                {OpenMMDiffMD::IntegrateDiffusionStepKernel::Name()})) {
            std::cout << (isRequired ? "failed" : "skipped") << ", no kernels of " << arguments[4]
                      << " for " << name << '\n';
            return isRequired ? 1 : 77;
        }
    }
    const bool single = precision == "single";
    return runTests({arguments[1], &Platform::getPlatformByName(name), single ? 1e-5 : 1e-6,
                     single ? 1e-3 : 1e-5, single});
}

#include "TestDiffusionIntegrator.h"

/**
 * The contract on a platform with a device, or 77 for ctest where there is none.
 *
 * @param name       of the platform
 * @param arguments  models, OpenMM's plugin, precision, and our plugin if its kernels are to be
 *                   used
 */
int runTestsOnDevice(const std::string &name, int numArguments, char **arguments) {
    const std::string precision = arguments[3];
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
        std::cout << "skipped, no device: " << error.what() << '\n';
        return 77;
    }
    if (numArguments > 4)
        Platform::loadPluginLibrary(arguments[4]);
    const bool single = precision == "single";
    return runTests({arguments[1], &Platform::getPlatformByName(name), single ? 1e-5 : 1e-6,
                     single ? 1e-3 : 1e-5, single});
}

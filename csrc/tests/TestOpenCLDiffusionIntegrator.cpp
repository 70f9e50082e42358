#include "TestDiffusionIntegrator.h"

/** Arguments: models, OpenMM's plugin, precision, our plugin if its kernels are to be used. */
int main(int count, char **arguments) {
    const std::string precision = arguments[3];
    try {
        Platform::loadPluginLibrary(arguments[2]);
        Platform &platform = Platform::getPlatformByName("OpenCL");
        platform.setPropertyDefaultValue("Precision", precision);
        System system;
        system.addParticle(1.0);
        VerletIntegrator verlet(0.001);
        Context(system, verlet, platform);
    } catch (const OpenMMException &error) {
        // For ctest: no OpenCL here, or a device without this precision.
        std::cout << "skipped: " << error.what() << '\n';
        return 77;
    }
    for (int i = 4; i < count; i++)
        Platform::loadPluginLibrary(arguments[i]);
    const bool single = precision == "single";
    return runTests({arguments[1], &Platform::getPlatformByName("OpenCL"), single ? 1e-5 : 1e-6,
                     single ? 1e-3 : 1e-5, single});
}

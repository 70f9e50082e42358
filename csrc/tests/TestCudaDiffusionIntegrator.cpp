#include "TestDiffusionIntegrator.h"

/** Arguments: models, OpenMM's plugin, precision, our plugin. */
int main(int, char **arguments) {
    const std::string precision = arguments[3];
    try {
        Platform::loadPluginLibrary(arguments[2]);
        Platform &platform = Platform::getPlatformByName("CUDA");
        platform.setPropertyDefaultValue("Precision", precision);
        System system;
        system.addParticle(1.0);
        VerletIntegrator verlet(0.001);
        Context(system, verlet, platform);
    } catch (const OpenMMException &error) {
        // For ctest.
        std::cout << "skipped, no GPU: " << error.what() << '\n';
        return 77;
    }
    Platform::loadPluginLibrary(arguments[4]);
    const bool single = precision == "single";
    return runTests({arguments[1], &Platform::getPlatformByName("CUDA"), single ? 1e-5 : 1e-6,
                     single ? 1e-3 : 1e-5});
}

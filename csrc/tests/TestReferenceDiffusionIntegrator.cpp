#include "TestDiffusionIntegrator.h"

int main(int, char **arguments) {
    return runTests({arguments[1], &Platform::getPlatformByName("Reference"), 1e-6, 1e-5});
}

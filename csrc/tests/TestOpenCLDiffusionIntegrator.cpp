#include "TestGpuPlatform.h"

int main(int count, char **arguments) { return runTestsOnDevice("OpenCL", count, arguments); }

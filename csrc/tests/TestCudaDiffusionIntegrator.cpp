#include "TestGpuPlatform.h"

int main(int count, char **arguments) { return runTestsOnDevice("CUDA", count, arguments); }

// Plain checks: the first that fails ends the program. To be included last.

#pragma once

#include <cstdlib>
#include <iostream>

// Torch has one too.
#undef CHECK
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::cerr << __FILE__ << ":" << __LINE__ << ": " #condition " is false\n";             \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (false)

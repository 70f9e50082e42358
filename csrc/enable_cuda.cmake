# Included before any target is made: enables the language CUDA if it is wanted and can be had,
# and sets DIFFMD_WITH_CUDA. The kernels need the toolkit's compiler and nothing else: no GPU, no
# driver, no CUDA build of torch; the runtime is linked in.
set(DIFFMD_ENABLE_CUDA AUTO CACHE STRING "Build the CUDA kernels and platform: AUTO, ON or OFF")
set_property(CACHE DIFFMD_ENABLE_CUDA PROPERTY STRINGS AUTO ON OFF)
set(DIFFMD_CUDA_ARCHITECTURES 75-virtual 90-real CACHE STRING
    "As CMAKE_CUDA_ARCHITECTURES; 75-virtual is compiled by the driver for any GPU since 2018. \
'release' stands for machine code for each; one number is quickest in development")

set(DIFFMD_WITH_CUDA OFF)
if(DIFFMD_ENABLE_CUDA)
    if(DIFFMD_CUDA_ARCHITECTURES STREQUAL "release")
        set(CMAKE_CUDA_ARCHITECTURES
            75-real 80-real 86-real 89-real 90-real 100-real 103-real 110-real 120)
    else()
        set(CMAKE_CUDA_ARCHITECTURES ${DIFFMD_CUDA_ARCHITECTURES})
    endif()
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
        enable_language(CUDA)
        set(CMAKE_CUDA_STANDARD 17)
        set(CMAKE_CUDA_STANDARD_REQUIRED ON)
        set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
        set(DIFFMD_WITH_CUDA ON)
        message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: ${CMAKE_CUDA_COMPILER}, "
            "architectures ${CMAKE_CUDA_ARCHITECTURES}")
    elseif(NOT DIFFMD_ENABLE_CUDA STREQUAL "AUTO")
        message(FATAL_ERROR "DIFFMD_ENABLE_CUDA=ON, but no CUDA compiler that works: set CUDACXX "
            "to nvcc, or use AUTO")
    endif()
endif()
if(NOT DIFFMD_WITH_CUDA)
    message(STATUS "CUDA left out (DIFFMD_ENABLE_CUDA=${DIFFMD_ENABLE_CUDA}, no nvcc used): "
        "operators run on the CPU, and the generic path through the Context serves every platform")
endif()

# Included before any target is made: enables the language CUDA if it is wanted and can be had,
# and sets DIFFMD_WITH_CUDA. The kernels need the toolkit's compiler and nothing else: no GPU, no
# driver, no CUDA build of torch; the runtime is linked in.
set(DIFFMD_ENABLE_CUDA AUTO CACHE STRING "Build the CUDA kernels and platform: AUTO, ON or OFF")
set_property(CACHE DIFFMD_ENABLE_CUDA PROPERTY STRINGS AUTO ON OFF)
# That which is documented.
set(DIFFMD_OPENMM_CUDA_VERSION 13)

# Sets `result` to code for the GPUs of this machine, as far as nvcc knows them, and for any other
# since 2018 as PTX, which the driver compiles; where there is no GPU, for Hopper and as PTX.
function(diffmd_choose_architectures result)
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
        OUTPUT_VARIABLE gpus RESULT_VARIABLE failed ERROR_QUIET)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-code
        OUTPUT_VARIABLE known ERROR_QUIET)
    set(found)
    if(failed EQUAL 0)
        string(REGEX MATCHALL "[0-9]+\\.[0-9]" gpus "${gpus}")
        foreach(gpu ${gpus})
            string(REPLACE . "" gpu ${gpu})
            if(known MATCHES "sm_${gpu}[^0-9]")
                list(APPEND found ${gpu}-real)
            endif()
        endforeach()
    endif()
    if(NOT found)
        set(found 90-real)
    endif()
    list(REMOVE_DUPLICATES found)
    set(${result} 75-virtual ${found} PARENT_SCOPE)
endfunction()

# Sets `result` to whether there is an nvcc of the CUDA that torch was built with, or, where torch
# has none, that OpenMM's platform is of: the toolkit's headers, which the platform includes, differ
# by version, and older compilers do not know the architectures. A toolkit that nobody named, beside
# a torch without CUDA, is left alone; else another version is an error.
function(diffmd_check_nvcc result)
    set(${result} OFF PARENT_SCOPE)
    if(NOT CMAKE_CUDA_COMPILER)
        return()
    endif()
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE text ERROR_QUIET)
    string(REGEX MATCH "release ([0-9]+)" release "${text}")
    set(nvcc ${CMAKE_MATCH_1})
    string(REGEX MATCH "^[0-9]+" torch "${TORCH_CUDA}")
    set(expected ${torch})
    if(NOT torch)
        set(expected ${DIFFMD_OPENMM_CUDA_VERSION})
    endif()
    if(nvcc EQUAL expected)
        set(${result} ON PARENT_SCOPE)
    elseif(torch OR NOT DIFFMD_ENABLE_CUDA STREQUAL "AUTO")
        message(FATAL_ERROR "found ${CMAKE_CUDA_COMPILER} of CUDA ${nvcc}, expected one of CUDA "
            "${expected}, as torch ${TORCH_VERSION} and OpenMM's CUDA platform need: let CUDACXX "
            "name it, or build with DIFFMD_ENABLE_CUDA=OFF")
    else()
        message(STATUS "CUDA left out: found ${CMAKE_CUDA_COMPILER} of CUDA ${nvcc}, expected one of "
            "CUDA ${expected}")
    endif()
endfunction()

set(DIFFMD_WITH_CUDA OFF)
if(DIFFMD_ENABLE_CUDA)
    # CMake keeps that it found none; one may have been installed since.
    if(NOT CMAKE_CUDA_COMPILER)
        unset(CMAKE_CUDA_COMPILER CACHE)
    endif()
    include(CheckLanguage)
    check_language(CUDA)
    diffmd_check_nvcc(good)
    if(good)
        diffmd_choose_architectures(default)
        set(DIFFMD_CUDA_ARCHITECTURES ${default} CACHE STRING "As CMAKE_CUDA_ARCHITECTURES; \
'release' stands for machine code for each; one number is quickest in development")
        if(DIFFMD_CUDA_ARCHITECTURES STREQUAL "release")
            set(CMAKE_CUDA_ARCHITECTURES
                75-real 80-real 86-real 89-real 90-real 100-real 103-real 110-real 120)
        else()
            set(CMAKE_CUDA_ARCHITECTURES ${DIFFMD_CUDA_ARCHITECTURES})
        endif()
        enable_language(CUDA)
        set(CMAKE_CUDA_STANDARD 17)
        set(CMAKE_CUDA_STANDARD_REQUIRED ON)
        set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
        set(DIFFMD_WITH_CUDA ON)
        message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: ${CMAKE_CUDA_COMPILER}, "
            "architectures ${CMAKE_CUDA_ARCHITECTURES}")
    elseif(NOT CMAKE_CUDA_COMPILER AND NOT DIFFMD_ENABLE_CUDA STREQUAL "AUTO")
        message(FATAL_ERROR "DIFFMD_ENABLE_CUDA=ON, but no CUDA compiler that works: set CUDACXX "
            "to nvcc, or use AUTO")
    endif()
endif()
if(NOT DIFFMD_WITH_CUDA)
    message(STATUS "CUDA left out (DIFFMD_ENABLE_CUDA=${DIFFMD_ENABLE_CUDA}, no nvcc used): "
        "operators run on the CPU, and the generic path through the Context serves every platform")
endif()

# Sets SWIG_EXECUTABLE. Extensions share the types of their classes by the version of SWIG's runtime:
# with another one than openmm's, Context would not take our integrator for an Integrator.
# The pinned one, in the environment, before any on the PATH.
find_program(SWIG_EXECUTABLE swig HINTS ${SCRIPTS} REQUIRED)
set(header ${CMAKE_CURRENT_BINARY_DIR}/swigrun.h)
execute_process(COMMAND ${SWIG_EXECUTABLE} -python -external-runtime ${header}
    COMMAND_ERROR_IS_FATAL ANY)
file(STRINGS ${header} ours REGEX "define SWIG_RUNTIME_VERSION")
string(REGEX MATCH "[0-9]+" ours "${ours}")
file(STRINGS ${OPENMM_EXTENSION} theirs REGEX "swig_runtime_data[0-9]+" LIMIT_COUNT 1)
string(REGEX MATCH "swig_runtime_data([0-9]+)" theirs "${theirs}")
set(theirs ${CMAKE_MATCH_1})
if(NOT ours STREQUAL theirs)
    message(FATAL_ERROR "found ${SWIG_EXECUTABLE} with runtime version ${ours}, expected "
        "${theirs}, as openmm was built with: install another version of swig")
endif()

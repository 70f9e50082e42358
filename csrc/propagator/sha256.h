#pragma once

#include <string>
#include <string_view>

namespace diffmd {

/**
 * SHA-256 of a string of bytes (FIPS 180-4).
 *
 * @param bytes  what to hash
 * @return 64 lower-case hexadecimal digits
 */
std::string sha256(std::string_view bytes);

/**
 * Read a whole file.
 *
 * @param path  the file
 * @return its bytes
 * @throws std::runtime_error if it cannot be read
 */
std::string read_file(const std::string &path);

/**
 * Read a model file and check that it is the one that is meant.
 *
 * @param path             the file
 * @param expected_sha256  its SHA-256, hexadecimal
 * @return its bytes
 * @throws std::runtime_error if it cannot be read or has another SHA-256; says both
 */
std::string read_model_file(const std::string &path, const std::string &expected_sha256);

} // namespace diffmd

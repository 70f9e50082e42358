#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <vector>

namespace diffmd {

/**
 * Unit Gaussian numbers from one generator a molecule, so that a molecule's numbers do not
 * depend on what else is in the batch. A draw is torch.randn((num_rows, num_atoms, 3)).
 */
class NoiseStreams {
public:
    /**
     * @param seed       molecule i is seeded with seed + i
     * @param num_atoms  number of atoms of each molecule
     * @param num_rows   rows of one draw
     */
    NoiseStreams(uint64_t seed, const std::vector<int> &num_atoms, int num_rows);
    ~NoiseStreams();

    /**
     * Draw; in Inference, as the numbers' tensors were made without gradients.
     *
     * @param molecule  which generator
     * @return (num_rows, num_atoms, 3), valid until this molecule's next draw
     */
    const float *draw(int molecule);

    /** Write the state of all generators. */
    void save(std::ostream &stream) const;
    /**
     * Read what save() wrote.
     *
     * @throws std::runtime_error if the stream ends or holds no state of a generator;
     *         nothing is then changed
     */
    void load(std::istream &stream);

private:
    struct Streams;
    std::unique_ptr<Streams> streams;
};

} // namespace diffmd

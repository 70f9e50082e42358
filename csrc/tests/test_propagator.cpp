// The step in C++ without OpenMM or Python: equal to what make_stub_models.py wrote, restartable,
// guarded; and the parts it is made of.

#include "propagator.h"
#include "sha256.h"
#include "stub_molecules.h"

#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <utility>

#include "check.h"

namespace {

using namespace diffmd;

constexpr int NUM_PARTICLES = 9, SIZE = 3 * NUM_PARTICLES, NUM_LAGS = 4;
// As in tests/openmm/test_reference_step.py: rounding to float32 over some lags.
constexpr double POSITION_TOLERANCE = 1e-7, VELOCITY_TOLERANCE = 1e-5;

struct Frame {
    std::vector<double> positions = std::vector<double>(SIZE);
    std::vector<double> velocities = std::vector<double>(SIZE);
};

Molecules ethanol() {
    Molecules molecules = make_molecules("CCOHHHHHH", std::vector<int>(NUM_PARTICLES, 0));
    molecules.bonds = {{0, 1, 0.0, 5.0}, {1, 2, 0.0, 5.0}};
    return molecules;
}

Propagator make(const std::string &folder, const std::string &stub, const Options &options) {
    return {folder + "/" + stub + ".pt", read_file(folder + "/" + stub + ".sha256"), ethanol(),
            options};
}

std::vector<Frame> read_frames(const std::string &path) {
    std::ifstream stream(path);
    CHECK(stream);
    std::vector<Frame> frames(NUM_LAGS + 1);
    for (Frame &frame : frames) {
        for (double &value : frame.positions)
            stream >> value;
        for (double &value : frame.velocities)
            stream >> value;
    }
    CHECK(stream);
    return frames;
}

template <class Action> std::string message_of(Action action) {
    try {
        action();
    } catch (const std::exception &error) {
        return error.what();
    }
    return "nothing thrown";
}

bool contains(const std::string &text, const std::string &part) {
    return text.find(part) != std::string::npos;
}

void test_sha256() {
    // FIPS 180-4 examples, and lengths about the padding's edges.
    CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(sha256(std::string(1000000, 'a')) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

void test_noise_levels() {
    const std::vector<double> levels = karras_noise_levels(4, 0.02, 3.0, 7.0);
    CHECK(levels.size() == 5 && levels[4] == 0.0);
    CHECK(std::abs(levels[0] - 3.0) < 1e-12 && std::abs(levels[3] - 0.02) < 1e-12);
    CHECK(levels[0] > levels[1] && levels[1] > levels[2] && levels[2] > levels[3]);
    CHECK(karras_noise_levels(1, 0.02, 3.0, 7.0) == std::vector<double>({3.0, 0.0}));
    CHECK(karras_noise_levels(0, 0.02, 3.0, 7.0).empty());
}

// For unit Gaussian data every sampler must end where the probability flow does: at the noise
// itself, which the exponential sampler hits exactly and the others for many steps.
void test_samplers_on_a_gaussian() {
    const std::vector<float> noise = {0.5f, -1.25f, 2.0f, 0.0f, -0.1f, 1.0f};
    const int64_t size = noise.size();
    for (const auto &[sampler, num_steps, tolerance] :
         {std::tuple{Sampler::exponential, 2, 1e-5}, std::tuple{Sampler::euler, 400, 2e-2},
          std::tuple{Sampler::heun, 100, 1e-3}}) {
        const auto levels = karras_noise_levels(num_steps, 0.002, 3.0, 7.0);
        std::vector<float> u, denoised(size);
        for (float value : noise)
            u.push_back(float(std::sqrt(1.0 + levels[0] * levels[0])) * value);
        SamplerWork work{
            1, size, u.data(), nullptr, std::vector<float>(size), std::vector<float>(size)};
        const auto denoise = [&](double sigma) {
            for (int64_t i = 0; i < size; i++)
                denoised[i] = float(u[i] / (1.0 + sigma * sigma));
            return denoised.data();
        };
        sample(sampler, levels, denoise, work);
        for (int64_t i = 0; i < size; i++)
            CHECK(std::abs(u[i] - noise[i]) < tolerance);
    }
}

void test_equals_the_python_step(const std::string &folder) {
    for (const std::string stub : {"harmonic", "faulty"})
        for (const std::string name : {"exponential", "euler", "heun", "predictor_corrector"}) {
            const auto frames = read_frames(folder + "/" + stub + "_" + name + ".txt");
            Options options = make_options(true);
            options.sampler = sampler_from_name(name);
            Propagator propagator = make(folder, stub, options);
            Frame frame = frames[0];
            for (int lag = 1; lag <= NUM_LAGS; lag++) {
                propagator.step(frame.positions.data(), frame.velocities.data());
                for (int i = 0; i < SIZE; i++) {
                    CHECK(std::abs(frame.positions[i] - frames[lag].positions[i]) <
                          POSITION_TOLERANCE);
                    CHECK(std::abs(frame.velocities[i] - frames[lag].velocities[i]) <
                          VELOCITY_TOLERANCE);
                }
            }
            CHECK(propagator.get_tally().num_lags == NUM_LAGS);
            CHECK(propagator.get_tally().num_resamples[0] == (stub == "faulty" ? NUM_LAGS : 0));
        }
}

void test_restarts_bit_for_bit(const std::string &folder) {
    Frame frame = read_frames(folder + "/harmonic_exponential.txt")[0];
    Propagator propagator = make(folder, "harmonic", make_options(true));
    propagator.step(frame.positions.data(), frame.velocities.data());
    std::stringstream checkpoint;
    propagator.save(checkpoint);
    Frame again = frame;
    propagator.step(frame.positions.data(), frame.velocities.data());
    Options options = make_options(true);
    options.seed = 99;
    Propagator restarted = make(folder, "harmonic", options);
    restarted.load(checkpoint);
    restarted.step(again.positions.data(), again.velocities.data());
    CHECK(again.positions == frame.positions && again.velocities == frame.velocities);

    const std::string whole = checkpoint.str();
    for (size_t length : {size_t(0), size_t(20), whole.size() / 2, whole.size() - 1}) {
        std::istringstream cut(whole.substr(0, length));
        CHECK(contains(message_of([&] { restarted.load(cut); }), "undamaged checkpoint"));
    }
}

void test_guards_leave_the_state_alone(const std::string &folder) {
    const Frame start = read_frames(folder + "/harmonic_exponential.txt")[0];
    Frame frame = start;
    Propagator propagator = make(folder, "broken", make_options(true));
    const std::string message =
        message_of([&] { propagator.step(frame.positions.data(), frame.velocities.data()); });
    CHECK(contains(message, "lag 0, molecule 0: the bond between atoms 0 and 1 is "));
    CHECK(contains(message, "expected 0 to 5 nm, after 4 draws"));
    CHECK(frame.positions == start.positions && frame.velocities == start.velocities);
    CHECK(propagator.get_tally().num_resamples[0] == 3);
}

// At a bound everything is as it should be, a billionth beyond it is not.
void test_guards_know_their_bounds() {
    // Particle 0 is of another molecule, whatever it does.
    const GuardedMolecule molecule = {{1, 2}, {{1, 2, 0.1, 0.2}}, {}, 10.0};
    const std::vector<double> masses = {1e9, 2.0, 3.0};
    const double nan = std::numeric_limits<double>::quiet_NaN(), below = 1 - 1e-9, above = 1 + 1e-9;
    const double hottest = std::sqrt(2.0 * 10.0 / masses[2]);
    std::vector<double> positions(9), velocities(9);
    const auto refuses = [&](double length, double speed, Refusal &found) {
        positions = {nan, nan, nan, 1.0, 2.0, 3.0, 1.0, 2.0 + 0.6 * length, 3.0 - 0.8 * length};
        velocities = {nan, nan, nan, 0.0, 0.0, 0.0, 0.0, -0.8 * speed, 0.6 * speed};
        return find_fault(molecule, masses, positions.data(), velocities.data(), found);
    };
    Refusal found;
    CHECK(!refuses(0.1 * above, hottest * below, found));
    CHECK(!refuses(0.2 * below, hottest * below, found));
    for (double length : {0.1 * below, 0.2 * above}) {
        CHECK(refuses(length, 1.0, found));
        CHECK(found.quantity == Quantity::bond_length && found.atoms == std::vector<int>({1, 2}));
        CHECK(std::abs(found.values[0] - length) < 1e-12);
        CHECK(found.min_value == 0.1 && found.max_value == 0.2);
    }
    CHECK(refuses(0.15, hottest * above, found));
    CHECK(found.quantity == Quantity::kinetic_energy && found.max_value == 10.0);
    CHECK(std::abs(found.values[0] - 10.0) < 1e-7);
    CHECK(!refuses(0.15, hottest * below, found));
    for (std::vector<double> *values : {&positions, &velocities})
        for (int k = 3; k < 9; k++)
            for (double wrong : {nan, std::numeric_limits<double>::infinity()}) {
                const double before = std::exchange((*values)[k], wrong);
                CHECK(find_fault(molecule, masses, positions.data(), velocities.data(), found));
                CHECK(found.quantity == Quantity::finite);
                CHECK(found.atoms == std::vector<int>({k / 3}));
                (*values)[k] = before;
            }
}

// Atoms of two elements keep a distance in any order, but for bonds and where there is no limit.
void test_atoms_without_a_bond_keep_their_distance() {
    const std::vector<int> species = {7, 0, 1, 0, 2};
    GuardedMolecule molecule = {{1, 2, 3, 4}, {{2, 1, 0.0, 5.0}}, {}, 10.0};
    molecule.contacts = find_contacts(molecule, species, {{1, 0, 0.3}, {0, 0, 0.0}, {0, 2, 0.2}});
    CHECK(molecule.contacts.size() == 3);
    const std::vector<double> masses(5, 1.0), velocities(15);
    const auto refuses = [&](int first, int second, double distance, Refusal &found) {
        std::vector<double> positions(15);
        for (int i = 0; i < 5; i++)
            positions[3 * i] = i;
        for (int k = 0; k < 3; k++)
            positions[3 * second + k] = positions[3 * first + k];
        positions[3 * second] += 0.6 * distance;
        positions[3 * second + 2] -= 0.8 * distance;
        return find_fault(molecule, masses, positions.data(), velocities.data(), found);
    };
    Refusal found;
    const double below = 1 - 1e-9, above = 1 + 1e-9;
    for (const auto &[first, second, limit] :
         {Contact{2, 3, 0.3}, Contact{1, 4, 0.2}, Contact{3, 4, 0.2}}) {
        CHECK(!refuses(first, second, limit * above, found));
        CHECK(refuses(first, second, limit * below, found));
        CHECK(found.quantity == Quantity::contact_distance);
        CHECK(found.atoms == std::vector<int>({first, second}));
        CHECK(std::abs(found.values[0] - limit) < 1e-8);
        CHECK(found.min_value == limit && std::isinf(found.max_value));
        found.lag = found.molecule = 0;
        CHECK(contains(found.describe(), ", which have no bond, are "));
    }
    // A bond, no limit, a limit of nothing.
    CHECK(!refuses(1, 2, 0.01, found));
    CHECK(!refuses(2, 4, 0.0, found));
    CHECK(!refuses(1, 3, 0.0, found));
}

// A rescued lag is history as any other, and a checkpoint knows where there is none.
void test_history_after_a_rescue(const std::string &folder) {
    const Frame relaxed = read_frames(folder + "/harmonic_exponential.txt")[0];
    Molecules molecules = ethanol();
    molecules.bonds = {{0, 1, 0.0, 0.5}};
    // None of the centre of mass, which a lag leaves alone.
    std::array<double, 3> centre{};
    double total_mass = 0.0;
    for (double mass : molecules.masses)
        total_mass += mass;
    for (int i = 0; i < SIZE; i++)
        centre[i % 3] += molecules.masses[i / 3] / total_mass * std::sin(1.0 + i);
    const auto kick = [&](int i) { return std::sin(1.0 + i) - centre[i % 3]; };
    const auto rescue = [&](std::vector<double> &positions, std::vector<double> &velocities) {
        positions = relaxed.positions;
        for (int i = 0; i < SIZE; i++)
            velocities[i] += kick(i);
    };
    const auto make_one = [&] {
        return Propagator(folder + "/remembering.pt", read_file(folder + "/remembering.sha256"),
                          molecules, make_options(true));
    };
    const auto rescue_one = [&](Propagator &propagator) {
        Frame frame = relaxed;
        frame.positions[3] += 1.0;
        propagator.step(frame.positions.data(), frame.velocities.data(), rescue);
        CHECK(propagator.get_tally().num_rescues[0] == 1);
        return frame;
    };
    Propagator keeping = make_one(), forgetting = make_one(), loading = make_one();
    Frame kept = rescue_one(keeping), forgotten = rescue_one(forgetting);
    Frame loaded = rescue_one(loading);
    forgetting.forget_history();
    std::stringstream checkpoint;
    forgetting.save(checkpoint);
    loading.load(checkpoint);
    for (const auto &[propagator, frame] :
         {std::pair{&keeping, &kept}, std::pair{&forgetting, &forgotten},
          std::pair{&loading, &loaded}})
        propagator->step(frame->positions.data(), frame->velocities.data());
    CHECK(loaded.positions == forgotten.positions && loaded.velocities == forgotten.velocities);
    // A hundredth of the kick more, through the damped harmonic flow: omega = 20/ps, 20/ps.
    const double lag = 0.01, damping = std::exp(-10.0 * lag), omega = std::sqrt(300.0);
    const double to_position = damping * std::sin(omega * lag) / omega;
    const double to_velocity =
        damping * (std::cos(omega * lag) - 10.0 / omega * std::sin(omega * lag)) - 1.0;
    for (int i = 0; i < SIZE; i++) {
        CHECK(std::abs(kept.positions[i] - forgotten.positions[i] - 0.01 * kick(i) * to_position) <
              POSITION_TOLERANCE);
        CHECK(std::abs(kept.velocities[i] - forgotten.velocities[i] -
                       0.01 * kick(i) * to_velocity) < VELOCITY_TOLERANCE);
    }
}

void test_wrong_files_are_refused(const std::string &folder) {
    const std::string path = folder + "/harmonic.pt", damaged = folder + "/damaged.pt";
    const std::string content = read_file(path);
    const Molecules molecules = ethanol();
    const Options options = make_options(true);
    CHECK(contains(message_of([&] { Propagator(path, "00", molecules, options); }),
                   "expected 00; put the original file back"));
    CHECK(contains(message_of([&] { Propagator(folder + "/none.pt", "00", molecules, options); }),
                   "found no readable file"));
    for (size_t length : {size_t(0), size_t(100), content.size() / 2}) {
        const std::string cut = content.substr(0, length);
        std::ofstream(damaged, std::ios::binary) << cut;
        CHECK(contains(message_of([&] { Propagator(damaged, sha256(cut), molecules, options); }),
                       "no readable TorchScript file"));
    }
}

} // namespace

int main(int, char **arguments) {
    const std::string folder = arguments[1];
    test_sha256();
    test_noise_levels();
    test_samplers_on_a_gaussian();
    test_equals_the_python_step(folder);
    test_restarts_bit_for_bit(folder);
    test_guards_leave_the_state_alone(folder);
    test_guards_know_their_bounds();
    test_atoms_without_a_bond_keep_their_distance();
    test_history_after_a_rescue(folder);
    test_wrong_files_are_refused(folder);
    return 0;
}

// The step on tensors, on the CPU: equal to Propagator's with the same noise, through redraws,
// rescues, checkpoints and replays of a graph.

#include "device_propagator.h"
#include "recorded_graph.h"
#include "sha256.h"
#include "stub_molecules.h"

#include <cmath>
#include <sstream>

#include "check.h"

namespace {

using namespace diffmd;

constexpr int NUM_LAGS = 4;
// As in test_propagator.cpp: rounding to float32 over some lags.
constexpr double POSITION_TOLERANCE = 1e-7, VELOCITY_TOLERANCE = 1e-5;

struct Frame {
    std::vector<double> positions, velocities;
};

/** Ethanol, water and a lone carbon, so that there is padding; the particles are interleaved. */
Molecules mixed_molecules() {
    Molecules molecules = make_molecules("CCHOHHOHHHCHH", {0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0});
    molecules.bonds = {{0, 1, 0.0, 5.0}, {1, 3, 0.0, 5.0}, {6, 11, 0.0, 5.0}};
    return molecules;
}

Frame make_frame(const Molecules &molecules) {
    Frame frame;
    for (size_t i = 0; i < 3 * molecules.species.size(); i++) {
        frame.positions.push_back(0.1 * std::sin(1.7 * i));
        frame.velocities.push_back(0.8 * std::cos(2.3 * i));
    }
    return frame;
}

class Pair {
public:
    Pair(const std::string &folder, const std::string &stub, const Molecules &molecules,
         const Options &options)
        : plain(folder + "/" + stub + ".pt", read_file(folder + "/" + stub + ".sha256"), molecules,
                options),
          device(folder + "/" + stub + ".pt", read_file(folder + "/" + stub + ".sha256"), molecules,
                 options, "cpu"),
          frame(make_frame(molecules)) {
        plain.set_bath(300.0, 5.0);
        device.set_bath(300.0, 5.0);
        std::ranges::copy(frame.positions, device.get_positions());
        std::ranges::copy(frame.velocities, device.get_velocities());
    }
    void step(const Rescue &rescue = {}) {
        plain.step(frame.positions.data(), frame.velocities.data(), rescue);
        device.step_state(rescue);
    }
    void check_equal() {
        for (size_t i = 0; i < frame.positions.size(); i++) {
            const double dx = device.get_positions()[i] - frame.positions[i];
            const double dv = device.get_velocities()[i] - frame.velocities[i];
            CHECK(std::abs(dx) <= POSITION_TOLERANCE);
            CHECK(std::abs(dv) <= VELOCITY_TOLERANCE);
        }
        CHECK(device.get_tally().num_lags == plain.get_tally().num_lags);
        CHECK(device.get_tally().num_resamples == plain.get_tally().num_resamples);
        CHECK(device.get_tally().num_rescues == plain.get_tally().num_rescues);
        CHECK(device.get_tally().last_refusal.describe().empty() ==
              plain.get_tally().last_refusal.describe().empty());
        CHECK(device.get_num_evaluations() == plain.get_num_evaluations());
    }

    Propagator plain;
    DevicePropagator device;
    Frame frame;
};

void test_equal_to_propagator(const std::string &folder) {
    for (const char *stub : {"harmonic", "faulty", "remembering"})
        for (const Sampler sampler :
             {Sampler::exponential, Sampler::euler, Sampler::heun, Sampler::predictor_corrector})
            for (const int num_steps : {0, 1, 3}) {
                Options options = make_options(false);
                options.sampler = sampler;
                options.num_sampling_steps = num_steps;
                // Two molecules, then the last; and all at once.
                options.molecules_per_batch = num_steps == 3 ? 2 : 0;
                Pair pair(folder, stub, mixed_molecules(), options);
                for (int lag = 0; lag < NUM_LAGS; lag++) {
                    pair.step();
                    pair.check_equal();
                }
                const auto &resamples = pair.device.get_tally().num_resamples;
                CHECK((resamples[0] > 0) == (std::string(stub) == "faulty"));
                // A changed bath and a lost history.
                pair.plain.set_bath(200.0, 1.0);
                pair.device.set_bath(200.0, 1.0);
                pair.plain.forget_history();
                pair.device.forget_history();
                pair.step();
                pair.check_equal();
            }
}

void test_guards_refuse_the_same(const std::string &folder) {
    Molecules hot = mixed_molecules();
    hot.kinetic_energy_quantiles[1] = 1e-6;
    Pair too_hot(folder, "harmonic", hot, make_options(false));
    Molecules close = mixed_molecules();
    // Only the second molecule then has two oxygens, which are not bonded.
    close.species[2] = 2;
    close.contact_limits = {{2, 2, 5.0}};
    Pair too_close(folder, "harmonic", close, make_options(false));
    Pair broken(folder, "broken", mixed_molecules(), make_options(false));
    for (Pair *pair : {&too_hot, &too_close, &broken}) {
        std::string plain_says, device_says;
        const std::vector<double> before(pair->device.get_positions(),
                                         pair->device.get_positions() +
                                             pair->frame.positions.size());
        try {
            pair->plain.step(pair->frame.positions.data(), pair->frame.velocities.data());
        } catch (const std::runtime_error &error) {
            plain_says = error.what();
        }
        try {
            pair->device.step_state();
        } catch (const std::runtime_error &error) {
            device_says = error.what();
        }
        CHECK(!plain_says.empty());
        CHECK(plain_says == device_says);
        CHECK(std::equal(before.begin(), before.end(), pair->device.get_positions()));
    }
}

void test_rescue(const std::string &folder) {
    Pair pair(folder, "broken", mixed_molecules(), make_options(false));
    // A free flight stands for the reference force.
    const Rescue rescue = [](std::vector<double> &positions, std::vector<double> &velocities) {
        for (size_t i = 0; i < positions.size(); i++)
            positions[i] += 0.01 * velocities[i];
        velocities[0] *= 0.5;
    };
    for (int lag = 0; lag < 2; lag++) {
        pair.step(rescue);
        pair.check_equal();
    }
    CHECK(pair.device.get_tally().num_rescues[0] == 2);
}

void test_checkpoint_is_the_same_file(const std::string &folder) {
    Pair pair(folder, "remembering", mixed_molecules(), make_options(false));
    pair.step();
    std::stringstream plain, device;
    pair.plain.save(plain);
    pair.device.save(device);
    CHECK(plain.str().size() == device.str().size());
    // What either wrote is read by the other; then they go on as one.
    pair.device.load(plain);
    pair.plain.load(device);
    pair.step();
    pair.check_equal();
}

/** A DevicePropagator that takes its lags without a graph, whatever the device has. */
std::unique_ptr<DevicePropagator> make_plain(const std::string &path, const std::string &sha256,
                                             const Options &options) {
    setenv("DIFFMD_GRAPHS", "none", 1);
    auto made = std::make_unique<DevicePropagator>(path, sha256, mixed_molecules(), options, "cpu");
    unsetenv("DIFFMD_GRAPHS");
    return made;
}

void test_replays_equal_plain_lags(const std::string &folder) {
    // A batch of all molecules, of one and of two; the last network is a real one.
    for (const char *name : {"harmonic", "faulty", "remembering", "ethanol"})
        for (const int per_batch : {0, 1, 2}) {
            const std::string path = folder + "/" + name + ".pt";
            const std::string sha256 = read_file(folder + "/" + name + ".sha256");
            Options options = make_options(false);
            options.molecules_per_batch = per_batch;
            RecordedGraph::num_captures = RecordedGraph::num_replays = 0;
            const auto made = make_plain(path, sha256, options);
            DevicePropagator &plain = *made;
            DevicePropagator graphed(path, sha256, mixed_molecules(), options, "cpu");
            const Frame frame = make_frame(mixed_molecules());
            const size_t size = frame.positions.size();
            for (DevicePropagator *device : {&plain, &graphed}) {
                std::ranges::copy(frame.positions, device->get_positions());
                std::ranges::copy(frame.velocities, device->get_velocities());
                for (int lag = 0; lag < 8; lag++) {
                    // After the capture: another bath, a lost history.
                    device->set_bath(300.0, lag < 5 ? 5.0 : 1.0);
                    if (lag == 6)
                        device->forget_history();
                    device->step_state();
                }
            }
            CHECK(std::equal(plain.get_positions(), plain.get_positions() + size,
                             graphed.get_positions()));
            CHECK(std::equal(plain.get_velocities(), plain.get_velocities() + size,
                             graphed.get_velocities()));
            CHECK(plain.get_num_evaluations() == graphed.get_num_evaluations());
            CHECK(plain.get_tally().num_resamples == graphed.get_tally().num_resamples);
            const int num_batches = per_batch == 0 ? 1 : 4 - per_batch;
            CHECK(RecordedGraph::num_captures == num_batches);
            CHECK(RecordedGraph::num_replays == 5 * num_batches);
        }
}

void test_lags_are_plain_where_a_capture_fails(const std::string &folder) {
    RecordedGraph::num_captures = RecordedGraph::num_replays = 0;
    RecordedGraph::fails = true;
    Pair pair(folder, "harmonic", mixed_molecules(), make_options(false));
    for (int lag = 0; lag < 6; lag++) {
        pair.step();
        pair.check_equal();
    }
    CHECK(RecordedGraph::num_captures == 0);
    CHECK(RecordedGraph::num_replays == 0);
    // Unless it must not.
    setenv("DIFFMD_GRAPHS", "required", 1);
    Pair strict(folder, "harmonic", mixed_molecules(), make_options(false));
    std::string says;
    try {
        for (int lag = 0; lag < 6; lag++)
            strict.step();
    } catch (const std::runtime_error &error) {
        says = error.what();
    }
    unsetenv("DIFFMD_GRAPHS");
    CHECK(says.find("a call waits for the device") != std::string::npos);
    CHECK(says.find("DIFFMD_GRAPHS=required") != std::string::npos);
    RecordedGraph::fails = false;
}

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 2);
    test_equal_to_propagator(argv[1]);
    test_guards_refuse_the_same(argv[1]);
    test_rescue(argv[1]);
    test_checkpoint_is_the_same_file(argv[1]);
    test_replays_equal_plain_lags(argv[1]);
    test_lags_are_plain_where_a_capture_fails(argv[1]);
    std::cout << "the step on tensors agrees with the plain one\n";
    return 0;
}

// What a DiffusionIntegrator does on every platform. A file for each platform includes this and
// calls runTests(); models are those of make_stub_models.py, whose answers are known.

#include "DiffusionIntegrator.h"
#include "propagator.h"
#include "sha256.h"
#include "stub_molecules.h"

#include "openmm/CMMotionRemover.h"
#include "openmm/CompoundIntegrator.h"
#include "openmm/Context.h"
#include "openmm/CustomExternalForce.h"
#include "openmm/HarmonicBondForce.h"
#include "openmm/MonteCarloBarostat.h"
#include "openmm/NonbondedForce.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/System.h"
#include "openmm/VerletIntegrator.h"
#include "openmm/internal/AssertionUtilities.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/internal/ForceImpl.h"
#include "openmm/serialization/XmlSerializer.h"

#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using namespace OpenMM;
using OpenMMDiffMD::DiffusionIntegrator;

/** Where models are, what runs them, and how well it computes. */
struct Setup {
    std::string folder;
    Platform *platform;
    /** nm and nm/ps, over some lags. */
    double positionTolerance, velocityTolerance;
    /** Whether positions are kept with 7 digits. */
    bool isSinglePrecision = false;
};

constexpr int NUM_PARTICLES = 9;
constexpr double LAG_TIME = 0.01;
/** 1/ps, of the stub models. */
constexpr double ANGULAR_FREQUENCY = 20.0;
const std::string ELEMENTS = "CCOHHHHHH";

double massOf(int particle) { return mass_of(ELEMENTS[particle]); }

int speciesOf(int particle) { return species_of(ELEMENTS[particle]); }

struct Frame {
    std::vector<Vec3> positions, velocities;
    bool operator==(const Frame &) const = default;
};

Frame startFrame() {
    Frame frame;
    for (int i = 0; i < NUM_PARTICLES; i++) {
        frame.positions.push_back(Vec3(std::sin(i), std::cos(2 * i), std::sin(3 * i)) * 0.03);
        frame.velocities.push_back(Vec3(std::cos(i), std::sin(5 * i), std::cos(7 * i)));
    }
    return frame;
}

Frame frameOf(const Context &context) {
    const State state = context.getState(State::Positions | State::Velocities);
    return {state.getPositions(), state.getVelocities()};
}

void setFrame(Context &context, const Frame &frame) {
    context.setPositions(frame.positions);
    context.setVelocities(frame.velocities);
}

System makeSystem() {
    System system;
    for (int i = 0; i < NUM_PARTICLES; i++)
        system.addParticle(massOf(i));
    return system;
}

/** An integrator of one molecule; the thermostatted models have learned 300 K and 20/ps. */
std::unique_ptr<DiffusionIntegrator> makeIntegrator(const Setup &setup, const std::string &model,
                                                    double friction = 0.0) {
    const std::string file = setup.folder + "/" + model + ".pt";
    const bool thermostatted = model != "flow" && model != "hopeless";
    auto integrator = std::make_unique<DiffusionIntegrator>(
        file, diffmd::sha256(diffmd::read_file(file)), LAG_TIME, 300.0,
        thermostatted ? 20.0 : friction, thermostatted);
    integrator->setRandomNumberSeed(11);
    integrator->setNumSamplingSteps(3);
    integrator->setMaxResamples(3);
    integrator->addMolecule(1e6);
    for (int i = 0; i < NUM_PARTICLES; i++)
        integrator->addParticle(speciesOf(i), massOf(i), 0);
    integrator->addBond(0, 1, 0.0, 5.0);
    return integrator;
}

/** What makeIntegrator() tells of its molecule, some times over. */
diffmd::Molecules makeMolecules(int count) {
    std::string symbols;
    std::vector<int> molecules;
    for (int molecule = 0; molecule < count; molecule++) {
        symbols += ELEMENTS;
        molecules.insert(molecules.end(), NUM_PARTICLES, molecule);
    }
    return make_molecules(symbols, molecules);
}

void assertFramesEqual(const Setup &setup, const Frame &expected, const Frame &found) {
    for (size_t i = 0; i < expected.positions.size(); i++) {
        ASSERT_EQUAL_VEC(expected.positions[i], found.positions[i], setup.positionTolerance);
        ASSERT_EQUAL_VEC(expected.velocities[i], found.velocities[i], setup.velocityTolerance);
    }
}

bool differ(const Frame &one, const Frame &other) {
    double largest = 0.0;
    for (int i = 0; i < NUM_PARTICLES; i++) {
        const Vec3 difference = one.positions[i] - other.positions[i];
        largest = std::max(largest, difference.dot(difference));
    }
    return largest > 1e-8;
}

void assertThrows(const std::function<void()> &action, const std::string &part) {
    std::string found = "nothing was thrown";
    try {
        action();
    } catch (const OpenMMException &error) {
        found = error.what();
    }
    if (found.find(part) == std::string::npos)
        throw OpenMMException("Expected '" + part + "' in '" + found + "'");
}

/** Apply one 2 x 2 matrix to (position, velocity) about the centre of mass, another to its own. */
Frame applyMatrices(const Frame &frame, const double (&inner)[2][2], const double (&outer)[2][2]) {
    Vec3 x, v;
    double mass = 0.0;
    for (int i = 0; i < NUM_PARTICLES; i++) {
        mass += massOf(i);
        x += frame.positions[i] * massOf(i);
        v += frame.velocities[i] * massOf(i);
    }
    x /= mass;
    v /= mass;
    Frame result = frame;
    for (int i = 0; i < NUM_PARTICLES; i++) {
        const Vec3 dx = frame.positions[i] - x, dv = frame.velocities[i] - v;
        result.positions[i] =
            dx * inner[0][0] + dv * inner[0][1] + x * outer[0][0] + v * outer[0][1];
        result.velocities[i] =
            dx * inner[1][0] + dv * inner[1][1] + x * outer[1][0] + v * outer[1][1];
    }
    return result;
}

/** The exact flow of the harmonic stub. */
Frame flow(const Frame &frame, double time) {
    const double w = ANGULAR_FREQUENCY, c = std::cos(w * time), s = std::sin(w * time);
    return applyMatrices(frame, {{c, s / w}, {-w * s, c}}, {{1.0, time}, {0.0, 1.0}});
}

void testStepIsALag(const Setup &setup) {
    System system = makeSystem();
    auto integrator = makeIntegrator(setup, "flow");
    Context context(system, *integrator, *setup.platform);
    assertThrows([&] { integrator->step(1); }, "positions have not been set");
    setFrame(context, startFrame());
    integrator->step(7);
    const State state = context.getState(State::Velocities | State::Energy);
    ASSERT_EQUAL_TOL(7 * LAG_TIME, state.getTime(), 1e-10);
    ASSERT_EQUAL(7, state.getStepCount());
    double energy = 0.0;
    for (int i = 0; i < NUM_PARTICLES; i++)
        energy += 0.5 * massOf(i) * state.getVelocities()[i].dot(state.getVelocities()[i]);
    ASSERT_EQUAL_TOL(energy, state.getKineticEnergy(), 1e-5);
    assertFramesEqual(setup, flow(startFrame(), 7 * LAG_TIME), frameOf(context));
}

void testFarFromTheOrigin(const Setup &setup) {
    if (setup.isSinglePrecision)
        return;
    System system = makeSystem();
    auto integrator = makeIntegrator(setup, "flow");
    Context context(system, *integrator, *setup.platform);
    Frame frame = startFrame();
    for (Vec3 &position : frame.positions)
        position += Vec3(500, -300, 700);
    setFrame(context, frame);
    integrator->step(7);
    assertFramesEqual(setup, flow(frame, 7 * LAG_TIME), frameOf(context));
}

void testEqualsThePropagator(const Setup &setup) {
    for (const std::string model : {"harmonic", "faulty"}) {
        System system = makeSystem();
        auto integrator = makeIntegrator(setup, model);
        Context context(system, *integrator, *setup.platform);
        setFrame(context, startFrame());
        integrator->step(4);
        diffmd::Propagator propagator(integrator->getModelFile(), integrator->getModelHash(),
                                      makeMolecules(1), make_options(true));
        Frame frame = startFrame();
        for (int lag = 0; lag < 4; lag++)
            propagator.step(&frame.positions[0][0], &frame.velocities[0][0]);
        assertFramesEqual(setup, frame, frameOf(context));
        ASSERT_EQUAL(model == "faulty" ? 4 : 0, integrator->getNumResamples());
        ASSERT_EQUAL(4 * 3 * (model == "faulty" ? 2 : 1), integrator->getNumEvaluations());
    }
}

void testBathAndAnnealing(const Setup &setup) {
    System system = makeSystem();
    system.addForce(new CMMotionRemover(1));
    auto integrator = makeIntegrator(setup, "flow");
    Context context(system, *integrator, *setup.platform);
    setFrame(context, startFrame());
    integrator->step(2);
    integrator->setFriction(1000.0);
    integrator->setTemperature(0.0);
    integrator->step(20);
    for (const Vec3 &velocity : frameOf(context).velocities)
        ASSERT(std::sqrt(velocity.dot(velocity)) < 0.1);
}

void testImpulses(const Setup &setup) {
    // As stiff as the atoms are heavy, so that the answer is a matrix power.
    const double squaredFrequency = 100.0, kick = 0.5 * LAG_TIME * squaredFrequency;
    System system = makeSystem();
    auto *force = new CustomExternalForce("0.5*scale*k*(x^2+y^2+z^2)");
    force->addGlobalParameter("scale", 1.0);
    force->addPerParticleParameter("k");
    for (int i = 0; i < NUM_PARTICLES; i++)
        force->addParticle(i, {squaredFrequency * massOf(i)});
    force->setForceGroup(2);
    system.addForce(force);
    auto integrator = makeIntegrator(setup, "flow");
    Context context(system, *integrator, *setup.platform);
    setFrame(context, startFrame());
    integrator->step(5);
    context.setParameter("scale", 2.0);
    integrator->step(5);
    const auto impulse = [](const Frame &frame, double k) {
        return applyMatrices(frame, {{1.0, 0.0}, {-k, 1.0}}, {{1.0, 0.0}, {-k, 1.0}});
    };
    Frame expected = startFrame();
    for (double k : {kick, 2 * kick})
        for (int lag = 0; lag < 5; lag++)
            expected = impulse(flow(impulse(expected, k), LAG_TIME), k);
    assertFramesEqual(setup, expected, frameOf(context));
    integrator->setIntegrationForceGroups(1 << 3);
    integrator->step(3);
    assertFramesEqual(setup, flow(expected, 3 * LAG_TIME), frameOf(context));
}

/**
 * Molecules with their own noise leave a small periodic box: GPU platforms sort them by place and
 * put them back into the box, at first and again after some 250 lags.
 */
void testManyMoleculesInABox(const Setup &setup) {
    constexpr int NUM_MOLECULES = 7, NUM_LAGS = 300;
    constexpr double FRICTION = 1.0, SQUARED_FREQUENCY = 100.0;
    double mass = 0.0;
    for (int i = 0; i < NUM_PARTICLES; i++)
        mass += massOf(i);
    System system;
    system.setDefaultPeriodicBoxVectors(Vec3(1.5, 0, 0), Vec3(0.2, 1.5, 0), Vec3(-0.3, 0.1, 1.5));
    // Springs between all pairs of a molecule pull as one towards its centre of mass.
    auto *springs = new HarmonicBondForce();
    // No force, but a reason to keep near atoms near in memory.
    auto *nonbonded = new NonbondedForce();
    nonbonded->setNonbondedMethod(NonbondedForce::CutoffPeriodic);
    nonbonded->setCutoffDistance(0.5);
    system.addForce(springs);
    system.addForce(nonbonded);
    auto integrator = makeIntegrator(setup, "flow", FRICTION);
    Frame frame;
    for (int molecule = 0; molecule < NUM_MOLECULES; molecule++) {
        if (molecule > 0)
            integrator->addMolecule(1e6);
        const Frame one = startFrame();
        // In another order in the box than in the System.
        const Vec3 place = Vec3(5 * molecule % 7, 3 * molecule % 7, 2 * molecule % 7) * 0.9;
        const Vec3 drift(std::sin(molecule), -1.0, std::cos(2 * molecule));
        for (int i = 0; i < NUM_PARTICLES; i++) {
            frame.positions.push_back(one.positions[i] + place);
            frame.velocities.push_back(one.velocities[i] + drift);
            const int particle = system.addParticle(massOf(i));
            nonbonded->addParticle(0.0, 0.1, 0.0);
            for (int j = 1; j <= i; j++)
                springs->addBond(particle, particle - j, 0.0,
                                 SQUARED_FREQUENCY * massOf(i) * massOf(i - j) / mass);
            if (molecule > 0)
                integrator->addParticle(speciesOf(i), massOf(i), molecule);
        }
    }
    Context context(system, *integrator, *setup.platform);
    setFrame(context, frame);
    integrator->step(NUM_LAGS);

    diffmd::Propagator propagator(integrator->getModelFile(), integrator->getModelHash(),
                                  makeMolecules(NUM_MOLECULES), make_options(false));
    propagator.set_bath(300.0, FRICTION);
    const auto addImpulse = [&] {
        for (int first = 0; first < NUM_MOLECULES * NUM_PARTICLES; first += NUM_PARTICLES) {
            Vec3 centre;
            for (int i = 0; i < NUM_PARTICLES; i++)
                centre += frame.positions[first + i] * (massOf(i) / mass);
            for (int i = 0; i < NUM_PARTICLES; i++)
                frame.velocities[first + i] -=
                    (frame.positions[first + i] - centre) * (0.5 * LAG_TIME * SQUARED_FREQUENCY);
        }
    };
    for (int lag = 0; lag < NUM_LAGS; lag++) {
        addImpulse();
        propagator.step(&frame.positions[0][0], &frame.velocities[0][0]);
        addImpulse();
    }
    Setup afterManyLags = setup;
    afterManyLags.positionTolerance *= 20;
    afterManyLags.velocityTolerance *= 20;
    assertFramesEqual(afterManyLags, frame, frameOf(context));
}

/** A force that is 0, counts its evaluations, and may say before a lag that it moved something. */
class CountingForce : public Force {
public:
    CountingForce(int &count, const bool &moves) : count(count), moves(moves) {}

protected:
    ForceImpl *createImpl() const override;

private:
    int &count;
    const bool &moves;
};

class CountingForceImpl : public ForceImpl {
public:
    CountingForceImpl(const CountingForce &owner, int &count, const bool &moves)
        : owner(owner), count(count), moves(moves) {}
    void initialize(ContextImpl &) override {}
    const Force &getOwner() const override { return owner; }
    using ForceImpl::updateContextState;
    void updateContextState(ContextImpl &, bool &forcesInvalid) override { forcesInvalid |= moves; }
    double calcForcesAndEnergy(ContextImpl &, bool, bool, int) override {
        // Whatever its group: it is asked in every evaluation.
        count++;
        return 0.0;
    }
    std::map<std::string, double> getDefaultParameters() override { return {}; }
    std::vector<std::string> getKernelNames() override { return {}; }

private:
    const CountingForce &owner;
    int &count;
    const bool &moves;
};

ForceImpl *CountingForce::createImpl() const { return new CountingForceImpl(*this, count, moves); }

void testForcesAreEvaluatedOnceALag(const Setup &setup) {
    int count = 0;
    bool moves = false;
    System system = makeSystem();
    system.addForce(new CountingForce(count, moves));
    // What changes velocities alone is no force.
    auto *remover = new CMMotionRemover(1);
    remover->setForceGroup(3);
    system.addForce(remover);
    auto integrator = makeIntegrator(setup, "flow");
    integrator->setIntegrationForceGroups(1 << 3);
    Context context(system, *integrator, *setup.platform);
    setFrame(context, startFrame());
    integrator->step(5);
    ASSERT_EQUAL(0, count);
    integrator->setIntegrationForceGroups(1);
    integrator->step(5);
    ASSERT_EQUAL(6, count);
    integrator->step(2);
    ASSERT_EQUAL(8, count);
    context.setPositions(startFrame().positions);
    integrator->step(1);
    ASSERT_EQUAL(10, count);
    context.setPeriodicBoxVectors(Vec3(3, 0, 0), Vec3(0, 3, 0), Vec3(0, 0, 3));
    integrator->step(1);
    ASSERT_EQUAL(12, count);
    moves = true;
    integrator->step(2);
    ASSERT_EQUAL(16, count);
}

void testSeeds(const Setup &setup) {
    const auto run = [&](int seed) {
        System system = makeSystem();
        auto integrator = makeIntegrator(setup, "harmonic");
        integrator->setRandomNumberSeed(seed);
        Context context(system, *integrator, *setup.platform);
        setFrame(context, startFrame());
        integrator->step(3);
        return frameOf(context);
    };
    ASSERT(run(5) == run(5));
    ASSERT(differ(run(5), run(6)));
    ASSERT(differ(run(0), run(0)));
}

void testCheckpoint(const Setup &setup) {
    System system = makeSystem();
    auto integrator = makeIntegrator(setup, "remembering");
    Context context(system, *integrator, *setup.platform);
    setFrame(context, startFrame());
    integrator->step(3);
    std::stringstream checkpoint;
    context.createCheckpoint(checkpoint);
    integrator->step(3);
    const Frame expected = frameOf(context);
    auto other = makeIntegrator(setup, "remembering");
    other->setRandomNumberSeed(99);
    Context otherContext(system, *other, *setup.platform);
    otherContext.loadCheckpoint(checkpoint);
    other->step(3);
    ASSERT(frameOf(otherContext) == expected);
    ASSERT_EQUAL(6, otherContext.getStepCount());

    // Any byte of ours, and any length that cuts it.
    const std::string whole = checkpoint.str();
    for (size_t i = whole.find("diffmd"); i < whole.size(); i += i < 1000 ? 7 : 211) {
        std::string changed = whole;
        changed[i] ^= 4;
        std::istringstream stream(changed), cut(whole.substr(0, i));
        assertThrows([&] { otherContext.loadCheckpoint(stream); }, "heckpoint");
        assertThrows([&] { otherContext.loadCheckpoint(cut); }, "heckpoint");
    }
    std::istringstream ofAnotherModel(whole);
    auto harmonic = makeIntegrator(setup, "harmonic");
    Context harmonicContext(system, *harmonic, *setup.platform);
    assertThrows([&] { harmonicContext.loadCheckpoint(ofAnotherModel); }, "of another model");
    std::istringstream undamaged(whole);
    otherContext.loadCheckpoint(undamaged);
    other->step(3);
    ASSERT(frameOf(otherContext) == expected);
}

void testReinitialize(const Setup &setup) {
    System system = makeSystem();
    auto integrator = makeIntegrator(setup, "remembering");
    auto untouched = makeIntegrator(setup, "remembering");
    Context context(system, *integrator, *setup.platform);
    Context untouchedContext(system, *untouched, *setup.platform);
    setFrame(context, startFrame());
    setFrame(untouchedContext, startFrame());
    integrator->step(3);
    context.reinitialize(true);
    integrator->step(3);
    untouched->step(6);
    ASSERT(frameOf(context) == frameOf(untouchedContext));

    // A force may bring a parameter that the state of before does not have.
    auto *force = new CustomExternalForce("k*x^2");
    force->addGlobalParameter("k", 0.0);
    force->addParticle(0, {});
    const int index = system.addForce(force);
    context.reinitialize(true);
    integrator->step(3);
    untouched->step(3);
    assertFramesEqual(setup, frameOf(context), frameOf(untouchedContext));
    system.removeForce(index);
    context.reinitialize(true);
}

void testHistoryIsVoidAfterAChange(const Setup &setup) {
    const auto run = [&](const std::function<void(Context &)> &change) {
        System system = makeSystem();
        auto integrator = makeIntegrator(setup, "remembering");
        Context context(system, *integrator, *setup.platform);
        setFrame(context, startFrame());
        integrator->step(3);
        change(context);
        integrator->step(3);
        return frameOf(context);
    };
    const Frame kept = run([](Context &context) { context.getState(State::Positions); });
    const Frame positions = run([](Context &c) { c.setPositions(frameOf(c).positions); });
    const Frame velocities = run([](Context &c) { c.setVelocities(frameOf(c).velocities); });
    ASSERT(differ(kept, positions));
    ASSERT(velocities == positions);
}

void testCompoundIntegrator(const Setup &setup) {
    const auto run = [&](bool touchPositions) {
        System system = makeSystem();
        CompoundIntegrator compound;
        compound.addIntegrator(makeIntegrator(setup, "remembering").release());
        compound.addIntegrator(new VerletIntegrator(0.0005));
        Context context(system, compound, *setup.platform);
        setFrame(context, startFrame());
        compound.step(3);
        compound.setCurrentIntegrator(1);
        compound.step(2);
        compound.setCurrentIntegrator(0);
        std::stringstream checkpoint;
        context.createCheckpoint(checkpoint);
        if (touchPositions)
            context.setPositions(frameOf(context).positions);
        compound.step(3);
        ASSERT_EQUAL_TOL(6 * LAG_TIME + 2 * 0.0005, context.getTime(), 1e-6);
        const Frame frame = frameOf(context);
        // A checkpoint knows it.
        context.loadCheckpoint(checkpoint);
        compound.step(3);
        assertFramesEqual(setup, frame, frameOf(context));
        return frame;
    };
    // A step of another integrator voids the history, as setting positions does.
    assertFramesEqual(setup, run(true), run(false));
}

void testSerialization(const Setup &setup) {
    System system = makeSystem();
    auto integrator = makeIntegrator(setup, "harmonic");
    std::stringstream xml;
    XmlSerializer::serialize<Integrator>(integrator.get(), "Integrator", xml);
    std::unique_ptr<Integrator> copy(XmlSerializer::deserialize<Integrator>(xml));
    Context context(system, *integrator, *setup.platform);
    Context copyContext(system, *copy, *setup.platform);
    setFrame(context, startFrame());
    setFrame(copyContext, startFrame());
    integrator->step(3);
    copy->step(3);
    ASSERT(frameOf(context) == frameOf(copyContext));
}

void testGuards(const Setup &setup) {
    System system = makeSystem();
    auto integrator = makeIntegrator(setup, "broken");
    Context context(system, *integrator, *setup.platform);
    setFrame(context, startFrame());
    const Frame before = frameOf(context);
    assertThrows([&] { integrator->step(1); },
                 "lag 0, molecule 0: the bond between atoms 0 and 1 is ");
    ASSERT(frameOf(context) == before);
    ASSERT_EQUAL(3, integrator->getNumResamples(0));
    long long lag;
    int molecule;
    std::string quantity;
    std::vector<int> atoms;
    std::vector<double> values;
    double low, high;
    integrator->getLastRefusalParameters(lag, molecule, quantity, atoms, values, low, high);
    ASSERT_EQUAL("bond_length", quantity);
    ASSERT(lag == 0 && molecule == 0 && low == 0.0 && high == 5.0);
    ASSERT_EQUAL_CONTAINERS(std::vector<int>({0, 1}), atoms);
    ASSERT(values.size() == 1 && values[0] > high);
}

void testRescue(const Setup &setup) {
    // The stub's own force, as springs between all pairs.
    System system = makeSystem(), reference = makeSystem();
    double mass = 0.0;
    for (int i = 0; i < NUM_PARTICLES; i++)
        mass += massOf(i);
    auto *force = new HarmonicBondForce();
    for (int i = 0; i < NUM_PARTICLES; i++)
        for (int j = 0; j < i; j++)
            force->addBond(i, j, 0.0,
                           ANGULAR_FREQUENCY * ANGULAR_FREQUENCY * massOf(i) * massOf(j) / mass);
    reference.addForce(force);
    VerletIntegrator verlet(0.0001);
    Context rescue(reference, verlet, Platform::getPlatformByName("Reference"));
    auto integrator = makeIntegrator(setup, "hopeless");
    integrator->setRescueContext(&rescue);
    Context context(system, *integrator, *setup.platform);
    setFrame(context, startFrame());
    integrator->step(3);
    ASSERT_EQUAL(3, integrator->getNumRescues());
    ASSERT_EQUAL(3, integrator->getNumRescues(0));
    Setup coarse = setup;
    coarse.positionTolerance += 1e-6;
    coarse.velocityTolerance += 1e-4;
    assertFramesEqual(coarse, flow(startFrame(), 3 * LAG_TIME), frameOf(context));
    verlet.setStepSize(0.003);
    assertThrows([&] { integrator->setRescueContext(&rescue); }, "divides the lag time 0.01 ps");
}

void testThreads(const Setup &setup) {
    const auto run = [&](Frame *result) {
        System system = makeSystem();
        auto integrator = makeIntegrator(setup, "harmonic");
        Context context(system, *integrator, *setup.platform);
        setFrame(context, startFrame());
        integrator->step(20);
        *result = frameOf(context);
    };
    std::vector<Frame> results(4);
    run(&results[0]);
    std::vector<std::thread> threads;
    for (int i = 1; i < 4; i++)
        threads.emplace_back(run, &results[i]);
    for (std::thread &thread : threads)
        thread.join();
    for (int i = 1; i < 4; i++)
        ASSERT(results[i] == results[0]);
}

void testRefusals(const Setup &setup) {
    const auto refuse = [&](const std::function<void(System &)> &change, const std::string &part) {
        System system = makeSystem();
        change(system);
        auto integrator = makeIntegrator(setup, "flow");
        assertThrows([&] { Context(system, *integrator, *setup.platform); }, part);
    };
    refuse([](System &s) { s.addParticle(1.0); }, "found 10 particles in the System, expected 9");
    refuse([](System &s) { s.addConstraint(0, 1, 0.1); }, "1 constraints, expected none");
    refuse([](System &s) { s.setParticleMass(3, 0.0); }, "massless particle 3");
    refuse([](System &s) { s.setParticleMass(3, 3.0); }, "mass 3 Da of particle 3");
    refuse(
        [](System &s) {
            auto *periodic = new HarmonicBondForce();
            periodic->setUsesPeriodicBoundaryConditions(true);
            s.addForce(periodic);
            s.addForce(new MonteCarloBarostat(1.0, 300.0));
        },
        "found a barostat");
    auto integrator = makeIntegrator(setup, "flow");
    assertThrows([&] { integrator->step(1); }, "not bound to a context");
    assertThrows([&] { integrator->setStepSize(0.002); }, "step size 0.002 ps, expected 0.01 ps");
    assertThrows([&] { integrator->setFriction(-1.0); }, "found friction -1");
    assertThrows([&] { makeIntegrator(setup, "harmonic")->setTemperature(310.0); },
                 "expected 300 K");
}

/** Run all of them; what is not as it should be ends the program with a message. */
int runTests(const Setup &setup) {
    try {
        testStepIsALag(setup);
        testFarFromTheOrigin(setup);
        testEqualsThePropagator(setup);
        testBathAndAnnealing(setup);
        testImpulses(setup);
        testManyMoleculesInABox(setup);
        testForcesAreEvaluatedOnceALag(setup);
        testSeeds(setup);
        testCheckpoint(setup);
        testReinitialize(setup);
        testHistoryIsVoidAfterAChange(setup);
        testCompoundIntegrator(setup);
        testSerialization(setup);
        testGuards(setup);
        testRescue(setup);
        testThreads(setup);
        testRefusals(setup);
    } catch (const std::exception &error) {
        std::cerr << "exception: " << error.what() << '\n';
        return 1;
    }
    std::cout << "Done\n";
    return 0;
}

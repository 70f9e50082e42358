#ifndef OPENMM_DIFFUSION_KERNELS_H_
#define OPENMM_DIFFUSION_KERNELS_H_

#include "openmm/KernelImpl.h"
#include "openmm/OpenMMException.h"
#include "openmm/Platform.h"
#include "openmm/internal/ContextImpl.h"

#include <iosfwd>
#include <string>

namespace diffmd {
struct Molecules;
struct Options;
struct Tally;
} // namespace diffmd

namespace OpenMMDiffMD {

class DiffusionIntegrator;

/**
 * kJ/mol/nm. GPU platforms keep forces in 64 bits, of which 32 stand behind the point: what is not
 * finite ends near their limit, 2^31.
 */
constexpr double LARGEST_FORCE = 1 << 30;

/**
 * Takes the lags of a DiffusionIntegrator. A platform that registers a kernel of this name works
 * on its own arrays; every other one is served by GenericIntegrateDiffusionStepKernel. What is
 * checked is checked above, in the DiffusionIntegrator.
 */
class IntegrateDiffusionStepKernel : public OpenMM::KernelImpl {
public:
    static std::string Name() { return "IntegrateDiffusionStep"; }
    IntegrateDiffusionStepKernel(const std::string &name, const OpenMM::Platform &platform)
        : OpenMM::KernelImpl(name, platform) {}
    /**
     * Read the model and set up memory; called once.
     *
     * @param integrator  names the model file
     * @param molecules   what to propagate
     * @param options     how
     */
    virtual void initialize(const DiffusionIntegrator &integrator,
                            const diffmd::Molecules &molecules, const diffmd::Options &options) = 0;
    /**
     * Move all particles forward by one lag, with the temperature, friction and rescue that the
     * integrator has now. Where forces act, it begins with an impulse of half a lag,
     * v += F tau/(2m); the kernel keeps the forces it has evaluated last. Neither time nor step
     * count is changed.
     *
     * @param context         where
     * @param integrator      the integrator
     * @param forceGroups     force groups that act, as bit flags; 0 evaluates no force
     * @param forcesAreValid  whether the forces kept are those of the present positions
     * @throws std::exception if the guards give a molecule up; the state is then unchanged
     */
    virtual void execute(OpenMM::ContextImpl &context, const DiffusionIntegrator &integrator,
                         int forceGroups, bool forcesAreValid) = 0;
    /**
     * End a lag on which forces act: evaluate them where and when it ended, keep them, and give
     * the second impulse. Called when time and step count have been advanced.
     *
     * @param context      where
     * @param forceGroups  force groups that act, as bit flags; not 0
     * @throws std::exception if the forces cannot be evaluated or are not finite; the velocities
     *         are then those before the impulse
     */
    virtual void addLastImpulse(OpenMM::ContextImpl &context, int forceGroups) = 0;
    /** Forget the acceleration history: the state was set by someone else. */
    virtual void forgetHistory() = 0;
    /** Get the counts of lags, redraws and rescues; from any thread. */
    virtual diffmd::Tally getTally() const = 0;
    /** Get how often the denoiser was evaluated, each for one batch. */
    virtual long long getNumEvaluations() const = 0;
    /** Get the wall time spent in the network, in seconds. */
    virtual double getNetworkTime() const = 0;
    /** Write generators, acceleration history and counts. */
    virtual void createCheckpoint(std::ostream &stream) const = 0;
    /**
     * Read what createCheckpoint() wrote; its bytes are known to be undamaged.
     *
     * @throws std::exception if they are of something else; nothing is then changed
     */
    virtual void loadCheckpoint(std::istream &stream) = 0;

protected:
    /** Refuse forces that are not finite. */
    [[noreturn]] static void refuseForce(int particle) {
        throw OpenMM::OpenMMException(
            "found a force on particle " + std::to_string(particle) +
            " that is not finite or beyond 1e9 kJ/mol/nm; look at the forces of the System for "
            "these positions");
    }
    /** Refuse forces whose energy is not finite. */
    [[noreturn]] static void refuseEnergy() {
        throw OpenMM::OpenMMException("found forces whose energy is not finite; look at the forces "
                                      "of the System for these positions");
    }
};

} // namespace OpenMMDiffMD

#endif /*OPENMM_DIFFUSION_KERNELS_H_*/

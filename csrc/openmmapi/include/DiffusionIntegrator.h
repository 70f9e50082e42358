#ifndef OPENMM_DIFFUSION_INTEGRATOR_H_
#define OPENMM_DIFFUSION_INTEGRATOR_H_

#include "openmm/Integrator.h"
#include "openmm/Kernel.h"
#include "openmm/Vec3.h"

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace OpenMMDiffMD {

class IntegrateDiffusionStepKernel;

/**
 * An Integrator that moves molecules forward by a whole lag time: it draws the next frame from a
 * learned conditional distribution by denoising diffusion. The model is a TorchScript file. One
 * step is one lag.
 *
 * Forces of the System in the integrator's force groups act on top of what was learned, as an
 * impulse of half a lag at each end, v += F tau/(2m), as in multiple time stepping: restraints and
 * biases, that is, and not the forces that the model has learned. With none, no force is
 * evaluated.
 *
 * The noise of a lag depends on the change of velocities over the lag before. That history is void
 * at first and whenever someone else has set positions, velocities or the step count or taken a
 * step; a checkpoint holds it, a State does not.
 *
 * Molecules, particles and bonds are added in the order of the System's particles, and contact
 * limits in any, before the Context is made. Molecules do not see each other.
 */
class DiffusionIntegrator : public OpenMM::Integrator {
public:
    /**
     * Create a DiffusionIntegrator.
     *
     * @param modelFile      path of the model file
     * @param modelHash      SHA-256 of the model file, hexadecimal
     * @param lagTime        time of one step, as the model was trained for, in ps
     * @param temperature    temperature of the heat bath, in Kelvin
     * @param friction       friction of the heat bath, in 1/ps; 0 leaves the flow alone (NVE)
     * @param thermostatted  whether the model has learned the heat bath too; it then holds for
     *                       this temperature and friction only
     */
    DiffusionIntegrator(const std::string &modelFile, const std::string &modelHash, double lagTime,
                        double temperature, double friction, bool thermostatted);
    ~DiffusionIntegrator();

    /** Get the path of the model file. */
    const std::string &getModelFile() const { return modelFile; }
    /** Get the SHA-256 of the model file, hexadecimal. */
    const std::string &getModelHash() const { return modelHash; }
    /** Get whether the model has learned the heat bath too. */
    bool getThermostatted() const { return thermostatted; }
    /**
     * Add a molecule.
     *
     * @param kineticEnergyQuantile  largest kinetic energy it may have, in units of kT/2 of the
     *                               hotter of the bath and the training data
     * @return index of the molecule
     */
    int addMolecule(double kineticEnergyQuantile);
    /** Get the number of molecules. */
    int getNumMolecules() const { return kineticEnergyQuantiles.size(); }
    /** Get the largest kinetic energy a molecule may have, in units of kT/2. */
    double getKineticEnergyQuantile(int molecule) const;
    /**
     * Add a particle.
     *
     * @param species   index of its element in the model
     * @param mass      mass of that element, in Da; the System's must be the same
     * @param molecule  index of its molecule
     * @return index of the particle
     */
    int addParticle(int species, double mass, int molecule);
    /** Get the number of particles. */
    int getNumParticles() const { return particles.size(); }
    /**
     * Get what was given to addParticle().
     *
     * @param index          index of the particle
     * @param[out] species   index of its element in the model
     * @param[out] mass      mass, in Da
     * @param[out] molecule  index of its molecule
     */
    void getParticleParameters(int index, int &species, double &mass, int &molecule) const;
    /**
     * Add a bond that the guards watch.
     *
     * @param particle1, particle2  particles of one molecule
     * @param minLength, maxLength  lengths it may have, in nm
     * @return index of the bond
     */
    int addBond(int particle1, int particle2, double minLength, double maxLength);
    /** Get the number of bonds. */
    int getNumBonds() const { return bonds.size(); }
    /**
     * Get what was given to addBond().
     *
     * @param index                      index of the bond
     * @param[out] particle1, particle2  its particles
     * @param[out] minLength, maxLength  lengths it may have, in nm
     */
    void getBondParameters(int index, int &particle1, int &particle2, double &minLength,
                           double &maxLength) const;
    /**
     * Add a distance that the guards want atoms of two elements to keep unless they are bonded.
     *
     * @param species1, species2  the elements, by their indices in the model
     * @param minDistance         in nm
     * @return index of the limit
     */
    int addContactLimit(int species1, int species2, double minDistance);
    /** Get the number of limits of elements. */
    int getNumContactLimits() const { return contactLimits.size(); }
    /**
     * Get what was given to addContactLimit().
     *
     * @param index                    index of the limit
     * @param[out] species1, species2  the elements
     * @param[out] minDistance         in nm
     */
    void getContactLimitParameters(int index, int &species1, int &species2,
                                   double &minDistance) const;

    /** Get the temperature of the heat bath, in Kelvin. */
    double getTemperature() const { return temperature; }
    /** Set the temperature of the heat bath, in Kelvin; takes effect at the next step. */
    void setTemperature(double temp);
    /** Get the friction of the heat bath, in 1/ps. */
    double getFriction() const { return friction; }
    /** Set the friction of the heat bath, in 1/ps; takes effect at the next step. */
    void setFriction(double coeff);
    /** Get the random number seed. */
    int getRandomNumberSeed() const { return randomNumberSeed; }
    /**
     * Set the random number seed, before the Context is made. Molecule i has the noise of a
     * molecule alone with seed + i: runs of R molecules whose noise is to be independent need
     * seeds at least R apart. 0 stands for a new seed with each Context.
     */
    void setRandomNumberSeed(int seed);
    /** Refused unless the size, in ps, is the lag time: the model knows no other. */
    void setStepSize(double size) override;

    /** Get the temperature of the hottest training data, in Kelvin. */
    double getMaxTemperature() const { return maxTemperature; }
    /** Set the temperature of the hottest training data, in Kelvin, before the Context is made. */
    void setMaxTemperature(double temp);
    /** Get the name of the sampler. */
    const std::string &getSampler() const { return sampler; }
    /** Set the sampler, before the Context is made: exponential, euler, heun, predictor_corrector.
     */
    void setSampler(const std::string &name);
    /** Get the number of denoising steps. */
    int getNumSamplingSteps() const { return numSamplingSteps; }
    /** Set the number of denoising steps, before the Context is made; 0 takes the mean. */
    void setNumSamplingSteps(int steps);
    /**
     * Get the noise levels.
     *
     * @param[out] sigmaMin, sigmaMax  lowest positive and highest level
     * @param[out] rho                 exponent of Karras et al., arXiv 2206.00364
     */
    void getNoiseLevels(double &sigmaMin, double &sigmaMax, double &rho) const;
    /** Set the noise levels, before the Context is made. */
    void setNoiseLevels(double sigmaMin, double sigmaMax, double rho);
    /** Get how often one molecule's lag is redrawn before it is given up. */
    int getMaxResamples() const { return maxResamples; }
    /** Set how often one molecule's lag is redrawn, before the Context is made. */
    void setMaxResamples(int count);
    /** Get whether molecules keep their angular momentum. */
    bool getConserveAngularMomentum() const { return conserveAngularMomentum; }
    /** Set whether molecules keep their angular momentum, before the Context is made. */
    void setConserveAngularMomentum(bool conserve);
    /** Get how many molecules the network sees at once. */
    int getMoleculesPerBatch() const { return moleculesPerBatch; }
    /**
     * Set how many molecules the network sees at once, before the Context is made; 0 for as many
     * as fit into a CPU's caches, and for all on a GPU. It changes results by rounding only.
     */
    void setMoleculesPerBatch(int count);

    /**
     * Set a Context that runs the lags which cannot be drawn: what the guards would give up is run
     * there with the reference force, and counted. It holds one molecule, the same for all of
     * ours, has no thermostat, barostat or CMMotionRemover, and its integrator's step divides the
     * lag. Not written to XML, and refused while step() has not returned.
     *
     * @param context  the Context, which must live as long as it is set: the integrator neither
     *                 copies nor deletes it; null for none. Its integrator is a VerletIntegrator,
     *                 a LangevinMiddleIntegrator of the bath that the model has learned, or a
     *                 CustomIntegrator that keeps velocities at the time of positions.
     * @param owner    kept as long as the Context is set, for those who share its ownership
     */
    void setRescueContext(OpenMM::Context *context, std::shared_ptr<void> owner = {});
    /**
     * Get what moves one molecule forward by a lag in the rescue Context, for kernels: (n_atoms, 3)
     * positions, nm, and velocities, nm/ps, are replaced. Empty if there is none.
     */
    const std::function<void(std::vector<double> &, std::vector<double> &)> &getRescue() const {
        return rescue;
    }

    /**
     * Get the number of redraws since the Context was made, over all molecules; a lag redrawn three
     * times counts three.
     */
    long long getNumResamples() const;
    /** Get the number of redraws of one molecule since the Context was made. */
    long long getNumResamples(int molecule) const;
    /** Get how many lags were run in the rescue Context since ours was made. */
    long long getNumRescues() const;
    /** Get how many lags of one molecule were run in the rescue Context since ours was made. */
    long long getNumRescues(int molecule) const;
    /**
     * Get how often, since the Context was made, what follows did not continue the trajectory: it
     * is counted each time that someone else has set positions, velocities or the step count or
     * has taken a step, and that a lag was given up.
     */
    long long getNumInterruptions() const;
    /** Get what the guards said about the last draw they refused; empty if there was none. */
    std::string getLastRefusal() const;
    /**
     * Get the numbers of what getLastRefusal() says.
     *
     * @param[out] lag, molecule       lags done before, and index; -1 if nothing was refused
     * @param[out] quantity            what was refused: finite, bond_length, contact_distance or
     *                                 kinetic_energy
     * @param[out] atoms               one particle, two, or all of the molecule
     * @param[out] values              its position (nm) and velocity (nm/ps); the length or
     *                                 distance (nm); or the kinetic energy (kJ/mol)
     * @param[out] minValue, maxValue  what was expected; both 0 for finite
     */
    void getLastRefusalParameters(long long &lag, int &molecule, std::string &quantity,
                                  std::vector<int> &atoms, std::vector<double> &values,
                                  double &minValue, double &maxValue) const;

    /** Get how often the denoiser was evaluated since the Context was made, each for one batch. */
    long long getNumEvaluations() const;
    /**
     * Get the wall time spent in calls of the network since the Context was made, in seconds; a GPU
     * goes on after a call has returned.
     */
    double getNetworkTime() const;

    /**
     * Advance the simulation by lags.
     *
     * @param steps  the number of lags
     */
    void step(int steps) override;

protected:
    void initialize(OpenMM::ContextImpl &context) override;
    void cleanup() override;
    void stateChanged(OpenMM::State::DataType changed) override;
    std::vector<std::string> getKernelNames() override;
    double computeKineticEnergy() override;
    bool kineticEnergyRequiresForce() const override { return false; }
    void createCheckpoint(std::ostream &stream) const override;
    void loadCheckpoint(std::istream &stream) override;

private:
    struct Particle {
        int species;
        double mass;
        int molecule;
    };
    struct Bond {
        int particle1, particle2;
        double minLength, maxLength;
    };
    struct ContactLimit {
        int species1, species2;
        double minDistance;
    };
    /** Refuse what has no effect on a Context that has been made. */
    void requireNoContext(const char *what) const;
    void checkSystem(const OpenMM::System &system) const;
    /** Refuse one that does not fit; says so without the name of the class. */
    void checkRescueContext(OpenMM::Context &rescueContext) const;
    IntegrateDiffusionStepKernel &getKernel();
    const IntegrateDiffusionStepKernel &getKernel() const;
    /** The bytes that tell whose checkpoint it is. */
    std::string describeCheckpoint(size_t payloadSize) const;
    /** What only this integrator and its kernel know of their state, as bytes. */
    std::string writePayload() const;
    /** SHA-256 of what the Context holds of a checkpoint. */
    std::string hashOfState() const;

    std::string modelFile, modelHash;
    double temperature, friction;
    bool thermostatted;
    double maxTemperature;
    int randomNumberSeed = 0;
    std::string sampler = "exponential";
    int numSamplingSteps = 1;
    double sigmaMin = 0.02, sigmaMax = 3.0, rho = 7.0;
    int maxResamples = 10;
    bool conserveAngularMomentum = false;
    int moleculesPerBatch = 0;
    std::vector<double> kineticEnergyQuantiles;
    std::vector<Particle> particles;
    std::vector<Bond> bonds;
    std::vector<ContactLimit> contactLimits;

    std::function<void(std::vector<double> &, std::vector<double> &)> rescue;

    OpenMM::Kernel kernel;
    bool isInitialized = false, hasSetPositions = false;
    /** Whether reports of a changed state are our own. */
    bool isStepping = false;
    /** Whether a call of step() has not returned. */
    std::atomic<bool> isInStep = false;
    /** Reports, as bits of State::DataType, that a loaded checkpoint still makes. */
    int expectedReports = 0;
    /** What hashOfState() was when it was loaded. */
    std::string loadedState;
    /** Whether the forces that the kernel keeps are those of the present positions. */
    bool forcesAreValid = false;
    /** The periodic box of those forces, nm, and their time, ps: no report says when they change.
     */
    std::array<OpenMM::Vec3, 3> lastBox;
    double lastTime = 0.0;
    /** Force groups, as bit flags, that hold forces, and that acted in the last step. */
    int forceGroupsInSystem = 0, lastForceGroups = 0;
    std::atomic<long long> numInterruptions = 0;
    /** The Context's step count after our last lag; -1 if it does not matter. */
    long long stepCountAfterLag = -1;
};

} // namespace OpenMMDiffMD

#endif /*OPENMM_DIFFUSION_INTEGRATOR_H_*/

#include "CommonDiffusionKernels.h"
#include "DiffusionIntegrator.h"

#include "openmm/common/ContextSelector.h"

#include <algorithm>
#include <cmath>

using namespace OpenMM;

namespace OpenMMDiffMD {
namespace {

/** In the language that OpenMM translates for each GPU platform. */
const char *const SOURCE = R"(
KERNEL void gatherState(GLOBAL double* RESTRICT positions, GLOBAL double* RESTRICT velocities,
        GLOBAL const real4* RESTRICT posq, GLOBAL const mixed4* RESTRICT velm,
        GLOBAL const int* RESTRICT atomIndex, GLOBAL const double* RESTRICT forces,
        double impulseTime, GLOBAL const int4* RESTRICT cellOffsets, int isWrapped,
        double ax, double bx, double by, double cx, double cy, double cz, int numAtoms
#ifdef USE_MIXED_PRECISION
        , GLOBAL const real4* RESTRICT posqCorrection
#endif
        ) {
    for (int i = GLOBAL_ID; i < numAtoms; i += GLOBAL_SIZE) {
        int to = 3*atomIndex[i];
        real4 pos = posq[i];
        double x = pos.x, y = pos.y, z = pos.z;
#ifdef USE_MIXED_PRECISION
        real4 correction = posqCorrection[i];
        x += correction.x;
        y += correction.y;
        z += correction.z;
#endif
        if (isWrapped) {
            int4 offset = cellOffsets[i];
            x -= offset.x*ax + offset.y*bx + offset.z*cx;
            y -= offset.y*by + offset.z*cy;
            z -= offset.z*cz;
        }
        positions[to] = x;
        positions[to+1] = y;
        positions[to+2] = z;
        mixed4 vel = velm[i];
        double scale = impulseTime*vel.w;
        velocities[to] = vel.x + (impulseTime != 0 ? scale*forces[to] : 0);
        velocities[to+1] = vel.y + (impulseTime != 0 ? scale*forces[to+1] : 0);
        velocities[to+2] = vel.z + (impulseTime != 0 ? scale*forces[to+2] : 0);
    }
}

KERNEL void scatterState(GLOBAL const double* RESTRICT positions,
        GLOBAL const double* RESTRICT velocities, GLOBAL real4* RESTRICT posq,
        GLOBAL mixed4* RESTRICT velm, GLOBAL const int* RESTRICT atomIndex, int numAtoms
#ifdef USE_MIXED_PRECISION
        , GLOBAL real4* RESTRICT posqCorrection
#endif
        ) {
    for (int i = GLOBAL_ID; i < numAtoms; i += GLOBAL_SIZE) {
        int from = 3*atomIndex[i];
        double x = positions[from], y = positions[from+1], z = positions[from+2];
        real4 pos = posq[i];
        pos.x = (real) x;
        pos.y = (real) y;
        pos.z = (real) z;
        posq[i] = pos;
#ifdef USE_MIXED_PRECISION
        posqCorrection[i] = make_real4((real) (x-pos.x), (real) (y-pos.y), (real) (z-pos.z), 0);
#endif
        mixed4 vel = velm[i];
        vel.x = (mixed) velocities[from];
        vel.y = (mixed) velocities[from+1];
        vel.z = (mixed) velocities[from+2];
        velm[i] = vel;
    }
}

KERNEL void keepForces(GLOBAL const mm_long* RESTRICT forceBuffer,
        GLOBAL const int* RESTRICT atomIndex, GLOBAL double* RESTRICT forces,
        GLOBAL int* RESTRICT refusedAtom, double largestForce, int numAtoms, int paddedNumAtoms) {
    for (int i = GLOBAL_ID; i < numAtoms; i += GLOBAL_SIZE) {
        int to = 3*atomIndex[i];
        double scale = 1.0/4294967296.0;
        for (int axis = 0; axis < 3; axis++) {
            double force = scale*forceBuffer[i+axis*paddedNumAtoms];
            forces[to+axis] = force;
            if (!(fabs(force) < largestForce))
                refusedAtom[0] = atomIndex[i];
        }
    }
}

KERNEL void addImpulse(GLOBAL const double* RESTRICT forces, GLOBAL mixed4* RESTRICT velm,
        GLOBAL const int* RESTRICT atomIndex, double impulseTime, int numAtoms) {
    for (int i = GLOBAL_ID; i < numAtoms; i += GLOBAL_SIZE) {
        int from = 3*atomIndex[i];
        mixed4 vel = velm[i];
        vel.x += (mixed) (impulseTime*vel.w*forces[from]);
        vel.y += (mixed) (impulseTime*vel.w*forces[from+1]);
        vel.z += (mixed) (impulseTime*vel.w*forces[from+2]);
        velm[i] = vel;
    }
}
)";

// Where the arguments stand that change from call to call.
constexpr int GATHER_IMPULSE_TIME = 6, GATHER_IS_WRAPPED = 8, GATHER_BOX = 9;

} // namespace

CommonIntegrateDiffusionStepKernel::~CommonIntegrateDiffusionStepKernel() {
    try {
        {
            const ContextSelector selector(cc);
            exchange->finish();
        }
        exchange->callTorch([this] { propagator.reset(); });
    } catch (const std::exception &) {
        // The device is lost: there is nothing to give back.
    }
}

void CommonIntegrateDiffusionStepKernel::initialize(const DiffusionIntegrator &integrator,
                                                    const diffmd::Molecules &molecules,
                                                    const diffmd::Options &options) {
    // A GPU platform's arrays are made when the integrator asks for them.
    cc.initializeContexts();
    exchange->callTorch([&] {
        propagator = std::make_unique<diffmd::DevicePropagator>(
            integrator.getModelFile(), integrator.getModelHash(), molecules, options,
            exchange->getDevice());
    });
    halfLag = 0.5 * options.lag_time;
    const ContextSelector selector(cc);
    const int numParticles = cc.getNumAtoms();
    exchange->initialize(propagator->get_positions(), propagator->get_velocities(), numParticles);
    forces.initialize<double>(cc, 3 * numParticles, "diffusionForces");
    refusedAtom.initialize<int>(cc, 1, "diffusionRefusedAtom");
    refusedAtom.upload(std::vector<int>{-1});
    cellOffsets.initialize<mm_int4>(cc, cc.getPaddedNumAtoms(), "diffusionCellOffsets");
    compileKernels();
}

void CommonIntegrateDiffusionStepKernel::compileKernels() {
    const ComputeProgram program = cc.compileProgram(SOURCE);
    const int numAtoms = cc.getNumAtoms();
    gatherKernel = program->createKernel("gatherState");
    exchange->addArguments(gatherKernel);
    gatherKernel->addArg(cc.getPosq());
    gatherKernel->addArg(cc.getVelm());
    gatherKernel->addArg(cc.getAtomIndexArray());
    gatherKernel->addArg(forces);
    gatherKernel->addArg(0.0);
    gatherKernel->addArg(cellOffsets);
    gatherKernel->addArg(0);
    for (int i = 0; i < 6; i++)
        gatherKernel->addArg(0.0);
    gatherKernel->addArg(numAtoms);

    scatterKernel = program->createKernel("scatterState");
    exchange->addArguments(scatterKernel);
    scatterKernel->addArg(cc.getPosq());
    scatterKernel->addArg(cc.getVelm());
    scatterKernel->addArg(cc.getAtomIndexArray());
    scatterKernel->addArg(numAtoms);
    if (cc.getUseMixedPrecision()) {
        gatherKernel->addArg(cc.getPosqCorrection());
        scatterKernel->addArg(cc.getPosqCorrection());
    }

    forceKernel = program->createKernel("keepForces");
    forceKernel->addArg(cc.getLongForceBuffer());
    forceKernel->addArg(cc.getAtomIndexArray());
    forceKernel->addArg(forces);
    forceKernel->addArg(refusedAtom);
    forceKernel->addArg(LARGEST_FORCE);
    forceKernel->addArg(numAtoms);
    forceKernel->addArg(cc.getPaddedNumAtoms());

    impulseKernel = program->createKernel("addImpulse");
    impulseKernel->addArg(forces);
    impulseKernel->addArg(cc.getVelm());
    impulseKernel->addArg(cc.getAtomIndexArray());
    impulseKernel->addArg(halfLag);
    impulseKernel->addArg(numAtoms);
}

void CommonIntegrateDiffusionStepKernel::execute(ContextImpl &context,
                                                 const DiffusionIntegrator &integrator,
                                                 int forceGroups, bool forcesAreValid) {
    propagator->set_bath(integrator.getTemperature(), integrator.getFriction());
    // The first impulse is given to the copy: if the guards give up, the Context is unchanged.
    if (forceGroups != 0 && !forcesAreValid)
        evaluateForces(context, forceGroups);
    gather(forceGroups != 0 ? halfLag : 0.0);
    exchange->callTorch([&] { propagator->step_state(integrator.getRescue()); });
    scatter();
}

void CommonIntegrateDiffusionStepKernel::addLastImpulse(ContextImpl &context, int forceGroups) {
    evaluateForces(context, forceGroups);
    const ContextSelector selector(cc);
    impulseKernel->execute(cc.getNumAtoms());
}

void CommonIntegrateDiffusionStepKernel::evaluateForces(ContextImpl &context, int forceGroups) {
    const double energy = context.calcForcesAndEnergy(true, true, forceGroups);
    const ContextSelector selector(cc);
    forceKernel->execute(cc.getNumAtoms());
    std::vector<int> refused(1);
    refusedAtom.download(refused);
    if (refused[0] >= 0) {
        refusedAtom.upload(std::vector<int>{-1});
        refuseForce(refused[0]);
    }
    // Forces that are not finite may cancel in fixed point; their energies do not.
    if (!std::isfinite(energy))
        refuseEnergy();
}

void CommonIntegrateDiffusionStepKernel::gather(double impulseTime) {
    const ContextSelector selector(cc);
    const std::vector<mm_int4> &offsets = cc.getPosCellOffsets();
    const bool isWrapped = std::ranges::any_of(
        offsets, [](const mm_int4 &o) { return o.x != 0 || o.y != 0 || o.z != 0; });
    if (isWrapped) {
        Vec3 a, b, c;
        cc.getPeriodicBoxVectors(a, b, c);
        const double box[6] = {a[0], b[0], b[1], c[0], c[1], c[2]};
        for (int i = 0; i < 6; i++)
            gatherKernel->setArg(GATHER_BOX + i, box[i]);
        cellOffsets.upload(offsets);
    }
    gatherKernel->setArg(GATHER_IMPULSE_TIME, impulseTime);
    gatherKernel->setArg(GATHER_IS_WRAPPED, int(isWrapped));
    gatherKernel->execute(cc.getNumAtoms());
    exchange->toTorch();
}

void CommonIntegrateDiffusionStepKernel::scatter() {
    const ContextSelector selector(cc);
    exchange->toPlatform();
    scatterKernel->execute(cc.getNumAtoms());
    // As after Context::setPositions: atoms are where they are, not wrapped.
    for (mm_int4 &offset : cc.getPosCellOffsets())
        offset = mm_int4(0, 0, 0, 0);
    cc.reorderAtoms();
}

void CommonIntegrateDiffusionStepKernel::createCheckpoint(std::ostream &stream) const {
    exchange->callTorch([&] { propagator->save(stream); });
}

void CommonIntegrateDiffusionStepKernel::loadCheckpoint(std::istream &stream) {
    exchange->callTorch([&] { propagator->load(stream); });
}

} // namespace OpenMMDiffMD

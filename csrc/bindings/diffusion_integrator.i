%module(package="openmm_diffmd.integrator") bindings

%import(module="openmm") "swig/OpenMMSwigHeaders.i"
%include "swig/typemaps.i"
%include <std_string.i>

%{
#include <algorithm>
#include <cmath>
#include <limits>

#include "DiffusionIntegrator.h"
#include "DiffusionIntegratorProxy.h"
#include "OpenMM.h"
#include "OpenMMAmoeba.h"
#include "OpenMMDrude.h"
#include "openmm/RPMDIntegrator.h"
#include "openmm/RPMDMonteCarloBarostat.h"
#include "openmm/serialization/XmlSerializer.h"

#include <memory>
#include <sstream>
#include <vector>
%}

%pythoncode %{
from openmm import unit

from openmm_diffmd.units import to_float
%}

%exception {
    try {
        $action
    } catch (const std::exception& error) {
        PyObject* openmm = PyImport_AddModule("openmm");
        PyObject* exception = PyObject_GetAttrString(openmm, "OpenMMException");
        PyErr_SetString(exception, error.what());
        Py_DECREF(exception);
        SWIG_fail;
    }
}

// Steps take long: other Python threads may run during them, and Ctrl-C is looked for each ten.
%exception OpenMMDiffMD::DiffusionIntegrator::step {
    const int steps = arg2;
    int done = 0;
    do {
        arg2 = std::min(10, steps - done);
        PyThreadState* const threadState = PyEval_SaveThread();
        std::string message;
        bool failed = false;
        try {
            $action
        } catch (const std::exception& error) {
            failed = true;
            message = error.what();
        }
        PyEval_RestoreThread(threadState);
        if (failed) {
            PyObject* openmm = PyImport_AddModule("openmm");
            PyObject* exception = PyObject_GetAttrString(openmm, "OpenMMException");
            PyErr_SetString(exception, message.c_str());
            Py_DECREF(exception);
            SWIG_fail;
        }
        done += arg2;
        if (PyErr_CheckSignals() != 0)
            SWIG_fail;
    } while (done < steps);
}

// Whole numbers as OpenMM takes them: NumPy's, and floats without a fraction.
%typemap(in) int {
    PyObject* const whole = PyFloat_Check($input) && PyFloat_AsDouble($input) == std::floor(PyFloat_AsDouble($input))
                                ? PyLong_FromDouble(PyFloat_AsDouble($input))
                                : PyNumber_Index($input);
    if (whole == nullptr)
        SWIG_fail;
    const long value = PyLong_AsLong(whole);
    Py_DECREF(whole);
    if (PyErr_Occurred())
        SWIG_fail;
    if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()) {
        PyErr_Format(PyExc_OverflowError, "found %ld, expected a number of 32 bits", value);
        SWIG_fail;
    }
    $1 = static_cast<int>(value);
}
%typemap(typecheck, precedence=SWIG_TYPECHECK_INTEGER) int {
    $1 = PyNumber_Check($input);
}
%typemap(in) bool {
    if (!PyNumber_Check($input)) {
        PyErr_SetString(PyExc_TypeError, "found no number, expected True or False");
        SWIG_fail;
    }
    const int truth = PyObject_IsTrue($input);
    if (truth < 0)
        SWIG_fail;
    $1 = truth == 1;
}

%pythonappend OpenMMDiffMD::DiffusionIntegrator::getTemperature() const %{
    val = unit.Quantity(val, unit.kelvin)
%}
%pythonappend OpenMMDiffMD::DiffusionIntegrator::getMaxTemperature() const %{
    val = unit.Quantity(val, unit.kelvin)
%}
%pythonappend OpenMMDiffMD::DiffusionIntegrator::getFriction() const %{
    val = unit.Quantity(val, unit.picosecond**-1)
%}
// Quantities of another dimension are refused, as OpenMM refuses them.
%pythonprepend OpenMMDiffMD::DiffusionIntegrator::addParticle %{
    mass = to_float(mass, unit.dalton)
%}
%pythonprepend OpenMMDiffMD::DiffusionIntegrator::addBond %{
    minLength = to_float(minLength, unit.nanometer)
    maxLength = to_float(maxLength, unit.nanometer)
%}
%pythonprepend OpenMMDiffMD::DiffusionIntegrator::addContactLimit %{
    minDistance = to_float(minDistance, unit.nanometer)
%}
%pythonprepend OpenMMDiffMD::DiffusionIntegrator::setStepSize %{
    size = to_float(size, unit.picosecond)
%}
%pythonprepend OpenMMDiffMD::DiffusionIntegrator::setMaxTemperature %{
    temp = to_float(temp, unit.kelvin)
%}
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getModelFile "Path of the model file."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getModelHash "SHA-256 of the model file, hexadecimal."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getThermostatted "Whether the model has learned the heat bath too."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::addMolecule "Add a molecule with the largest kinetic energy it may have, in kT/2; returns its index."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNumMolecules "Number of molecules."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getKineticEnergyQuantile "Largest kinetic energy that a molecule may have, in kT/2 of the hotter of the bath and the training data."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::addParticle "Add a particle of an element of the model, with its mass in Da, to a molecule; returns its index."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNumParticles "Number of particles."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getParticleParameters "Species, mass in Da and molecule of a particle."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::addBond "Add a bond between two particles with the lengths, in nm, that the guards allow it; returns its index."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNumBonds "Number of bonds that the guards watch."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getBondParameters "The two particles of a bond and the lengths, in nm, that it may have."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::addContactLimit "Add the distance, in nm, that the guards want atoms of two elements of the model to keep unless they are bonded; returns its index."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNumContactLimits "Number of pairs of elements that must keep a distance."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getContactLimitParameters "Two elements of the model, and the distance, in nm, that atoms of them keep unless they are bonded."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getTemperature "Temperature of the heat bath, a Quantity in kelvin."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setTemperature "Set the temperature of the heat bath, in kelvin; takes effect at the next step."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getFriction "Friction of the heat bath, a Quantity in 1/ps."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setFriction "Set the friction of the heat bath, in 1/ps; takes effect at the next step, and 0 is NVE."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getRandomNumberSeed "The random number seed."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setRandomNumberSeed "Set the random number seed, before the Context is made; molecule i has the noise of one alone with seed + i, and 0 stands for a new seed with each Context."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setStepSize "Refused unless the size, in ps, is the lag of the model."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getMaxTemperature "Temperature of the hottest training data, a Quantity in kelvin."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setMaxTemperature "Set the temperature of the hottest training data, in kelvin, before the Context is made."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getSampler "Name of the sampler."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setSampler "Set the sampler, before the Context is made: exponential, euler, heun or predictor_corrector."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNumSamplingSteps "Number of denoising steps; 0 takes the mean."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setNumSamplingSteps "Set the number of denoising steps, before the Context is made; 0 takes the mean."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNoiseLevels "Lowest positive and highest noise level, and the exponent rho between them (Karras et al., arXiv 2206.00364)."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setNoiseLevels "Set the lowest positive and the highest noise level and the exponent rho, before the Context is made."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getMaxResamples "How often one molecule's lag is redrawn before the run stops."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setMaxResamples "Set how often one molecule's lag is redrawn before the run stops, before the Context is made."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getConserveAngularMomentum "Whether molecules keep their angular momentum."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setConserveAngularMomentum "Set whether molecules keep their angular momentum, before the Context is made."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getMoleculesPerBatch "How many molecules the network sees at once; 0 for the default."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::setMoleculesPerBatch "Set how many molecules the network sees at once, before the Context is made; 0 for as many as fit into a CPU's caches, and for all on a GPU."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNumResamples "Redraws since the Context was made, over all molecules or of one; a lag redrawn three times counts three."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNumRescues "Lags run in the rescue Context since ours was made, over all molecules or of one."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNumInterruptions "How often, since the Context was made, what follows did not continue the trajectory: someone else has set positions, velocities or the step count or taken a step, or a lag was given up."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getLastRefusal "What the guards said about the last draw they refused; empty if there was none."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNumEvaluations "Calls of the denoising head since the Context was made, each for one batch."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::getNetworkTime "Wall time, in seconds, spent in calls of the network since the Context was made."
%feature("docstring") OpenMMDiffMD::DiffusionIntegrator::step "Advance the simulation by a number of lags; Ctrl-C ends it after ten."

%apply int& OUTPUT { int& species, int& molecule, int& particle1, int& particle2,
                     int& species1, int& species2 };
%apply double& OUTPUT { double& mass, double& minLength, double& maxLength, double& minDistance,
                        double& sigmaMin, double& sigmaMax, double& rho };
%newobject OpenMMDiffMD::DiffusionIntegrator::_fromXml;

%inline %{
/** Set where XML finds a bundled model whose path is not there. */
void setModelFolder(const std::string& folder) {
    OpenMMDiffMD::DiffusionIntegratorProxy::setModelFolder(folder);
}

/** Have a callable look at each integrator that is read from XML; it raises if it does not fit. */
void setDeserializationCheck(PyObject* check) {
    Py_INCREF(check);
    OpenMMDiffMD::DiffusionIntegratorProxy::setCheck([check](OpenMMDiffMD::DiffusionIntegrator& read) {
        const PyGILState_STATE state = PyGILState_Ensure();
        PyObject* integrator = SWIG_NewPointerObj(&read, SWIGTYPE_p_OpenMMDiffMD__DiffusionIntegrator, 0);
        PyObject* result = PyObject_CallFunctionObjArgs(check, integrator, nullptr);
        std::string message;
        if (result == nullptr) {
            PyObject *type, *error, *traceback;
            PyErr_Fetch(&type, &error, &traceback);
            PyObject* text = PyObject_Str(error);
            const char* bytes = text == nullptr ? nullptr : PyUnicode_AsUTF8(text);
            message = bytes == nullptr ? "the check of the XML failed" : bytes;
            PyErr_Clear();
            Py_XDECREF(text);
            Py_XDECREF(type);
            Py_XDECREF(error);
            Py_XDECREF(traceback);
        }
        Py_XDECREF(result);
        Py_XDECREF(integrator);
        PyGILState_Release(state);
        if (!message.empty())
            throw OpenMM::OpenMMException("DiffusionIntegrator: " + message);
    });
}
%}

namespace OpenMMDiffMD {

class DiffusionIntegrator : public OpenMM::Integrator {
public:
    DiffusionIntegrator(const std::string& modelFile, const std::string& modelHash, double lagTime,
                        double temperature, double friction, bool thermostatted);
    const std::string& getModelFile() const;
    const std::string& getModelHash() const;
    bool getThermostatted() const;
    int addMolecule(double kineticEnergyQuantile);
    int getNumMolecules() const;
    double getKineticEnergyQuantile(int molecule) const;
    int addParticle(int species, double mass, int molecule);
    int getNumParticles() const;
    void getParticleParameters(int index, int& species, double& mass, int& molecule) const;
    int addBond(int particle1, int particle2, double minLength, double maxLength);
    int getNumBonds() const;
    void getBondParameters(int index, int& particle1, int& particle2, double& minLength,
                           double& maxLength) const;
    int addContactLimit(int species1, int species2, double minDistance);
    int getNumContactLimits() const;
    void getContactLimitParameters(int index, int& species1, int& species2,
                                   double& minDistance) const;
    double getTemperature() const;
    void setTemperature(double temp);
    double getFriction() const;
    void setFriction(double coeff);
    int getRandomNumberSeed() const;
    void setRandomNumberSeed(int seed);
    void setStepSize(double size) override;
    double getMaxTemperature() const;
    void setMaxTemperature(double temp);
    const std::string& getSampler() const;
    void setSampler(const std::string& name);
    int getNumSamplingSteps() const;
    void setNumSamplingSteps(int steps);
    void getNoiseLevels(double& sigmaMin, double& sigmaMax, double& rho) const;
    void setNoiseLevels(double sigmaMin, double sigmaMax, double rho);
    int getMaxResamples() const;
    void setMaxResamples(int count);
    bool getConserveAngularMomentum() const;
    void setConserveAngularMomentum(bool conserve);
    int getMoleculesPerBatch() const;
    void setMoleculesPerBatch(int count);
    long long getNumResamples() const;
    long long getNumResamples(int molecule) const;
    long long getNumRescues() const;
    long long getNumRescues(int molecule) const;
    long long getNumInterruptions() const;
    std::string getLastRefusal() const;
    long long getNumEvaluations() const;
    double getNetworkTime() const;
    void step(int steps) override;
};

// What the Python class builds its methods on.
%extend DiffusionIntegrator {
    /** Set the rescue Context and what Python object owns it. */
    void _shareRescueContext(OpenMM::Context* context, PyObject* owner) {
        Py_INCREF(owner);
        $self->setRescueContext(context, std::shared_ptr<void>(owner, [](void* object) {
            const PyGILState_STATE state = PyGILState_Ensure();
            Py_DECREF(static_cast<PyObject*>(object));
            PyGILState_Release(state);
        }));
    }

    /** Read what XmlSerializer wrote, with the type that it had. */
    static OpenMMDiffMD::DiffusionIntegrator* _fromXml(const std::string& xml) {
        std::istringstream stream(xml);
        std::unique_ptr<OpenMM::Integrator> read(
            OpenMM::XmlSerializer::deserialize<OpenMM::Integrator>(stream));
        auto* integrator = dynamic_cast<OpenMMDiffMD::DiffusionIntegrator*>(read.get());
        if (integrator == nullptr)
            throw OpenMM::OpenMMException("found XML of another integrator, expected one of a "
                                          "DiffusionIntegrator; use XmlSerializer.deserialize");
        read.release();
        return integrator;
    }

    /** The integrator as what it is: OpenMM returns those of a CompoundIntegrator as Integrator. */
    static OpenMMDiffMD::DiffusionIntegrator& _castFrom(OpenMM::Integrator& integrator) {
        auto* found = dynamic_cast<OpenMMDiffMD::DiffusionIntegrator*>(&integrator);
        if (found == nullptr)
            throw OpenMM::OpenMMException("found another integrator, expected a DiffusionIntegrator");
        return *found;
    }

    /** lag, molecule, quantity, atoms, values, minValue, maxValue of the last refusal. */
    PyObject* _getLastRefusalTuple() const {
        long long lag;
        int molecule;
        std::string quantity;
        std::vector<int> atoms;
        std::vector<double> values;
        double minValue, maxValue;
        $self->getLastRefusalParameters(lag, molecule, quantity, atoms, values, minValue, maxValue);
        PyObject* atomTuple = PyTuple_New(atoms.size());
        for (size_t i = 0; i < atoms.size(); i++)
            PyTuple_SET_ITEM(atomTuple, i, PyLong_FromLong(atoms[i]));
        PyObject* valueTuple = PyTuple_New(values.size());
        for (size_t i = 0; i < values.size(); i++)
            PyTuple_SET_ITEM(valueTuple, i, PyFloat_FromDouble(values[i]));
        return Py_BuildValue("(LisNNdd)", lag, molecule, quantity.c_str(), atomTuple, valueTuple,
                             minValue, maxValue);
    }
}

} // namespace OpenMMDiffMD

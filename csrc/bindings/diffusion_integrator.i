%module(package="openmm_diffmd.integrator") bindings

%import(module="openmm") "swig/OpenMMSwigHeaders.i"
%include "swig/typemaps.i"
%include <std_string.i>

%{
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

// A step takes long: other Python threads may run during it.
%exception OpenMMDiffMD::DiffusionIntegrator::step {
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
%apply int& OUTPUT { int& species, int& molecule, int& particle1, int& particle2 };
%apply double& OUTPUT { double& mass, double& minLength, double& maxLength, double& sigmaMin,
                        double& sigmaMax, double& rho };
%newobject OpenMMDiffMD::DiffusionIntegrator::fromXml;

%inline %{
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
    std::string getLastRefusal() const;
    long long getNumEvaluations() const;
    double getNetworkTime() const;
    void step(int steps) override;
};

%extend DiffusionIntegrator {
    /** Set the rescue Context and what Python object owns it. */
    void shareRescueContext(OpenMM::Context* context, PyObject* owner) {
        Py_INCREF(owner);
        $self->setRescueContext(context, std::shared_ptr<void>(owner, [](void* object) {
            const PyGILState_STATE state = PyGILState_Ensure();
            Py_DECREF(static_cast<PyObject*>(object));
            PyGILState_Release(state);
        }));
    }

    /** Read what XmlSerializer wrote, with the type that it had. */
    static OpenMMDiffMD::DiffusionIntegrator* fromXml(const std::string& xml) {
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

    /** lag, molecule, quantity, atoms, values, minValue, maxValue of the last refusal. */
    PyObject* getLastRefusalTuple() const {
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

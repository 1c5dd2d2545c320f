// A generator in C as a model of Key4hep's DDML: with
//   ddml::FastMLModel<pidgan::CInference, pidgan::Shower, Geometry, HitMaker>
// in place of a model that runs in ONNX Runtime.
#ifndef DDML_SHOWER_H
#define DDML_SHOWER_H

#include "pions.h"

#include <DDML/DDML.h>
#include <DDML/ModelInterface.h>
#include <G4FastTrack.hh>
#include <Randomize.hh>

#include <cmath>
#include <string>
#include <vector>

namespace pidgan {

// Turns a track into conditions and noise, and cells into space points of each layer.
class Shower {
public:
    template <class Plugin> void declareProperties(Plugin *) {}

    void prepareInput(G4FastTrack const &track, G4ThreeVector const &direction,
                      ddml::InputVecs &inputs, ddml::TensorDimVecs &dimensions,
                      std::vector<float> &output)
    {
        inputs.assign(2, {});
        for (int i = 0; i < pions_n_conditions; ++i) {
            const std::string name = pions_condition_names[i];
            const double phi = direction.phi();
            inputs[0].push_back(static_cast<float>(
                name == "energy"  ? track.GetPrimaryTrack()->GetKineticEnergy() // MeV
                : name == "theta" ? direction.theta()
                : name == "phi"   ? (phi < 0 ? phi + 6.283185307179586 : phi)
                                  : 0.0)); // the origin of space points is the impact
        }
        for (int i = 0; i < pions_n_noise; ++i) // Geant4's engine has the event's seed
            inputs[1].push_back(static_cast<float>(G4RandGauss::shoot(0., 1.)));
        dimensions = {{1, pions_n_conditions}, {1, pions_n_noise}};
        output.assign(pions_n_targets, 0.f);
    }

    void convertOutput(G4FastTrack const &, G4ThreeVector const &,
                       const std::vector<float> &output,
                       std::vector<ddml::SpacePointVec> &points)
    {
        points.resize(pions_cell_layer[pions_n_targets - 1] + 1);
        for (int cell = 0; cell < pions_n_targets; ++cell)
            if (output[cell] > 0.f) {
                const float *at = pions_cell_position[cell]; // DDML knows z by the layer
                points[pions_cell_layer[cell]].emplace_back(at[0], at[1], 0.f, output[cell],
                                                            0.f);
            }
    }
};

// Runs the generator; memory and object belong to one thread, as all of DDML's do.
class CInference {
public:
    template <class Plugin> void declareProperties(Plugin *) {}

    void runInference(const ddml::InputVecs &inputs, const ddml::TensorDimVecs &,
                      std::vector<float> &output)
    {
        scratch_.resize(pions_scratch / sizeof(Line) + 1);
        pions_row_in(output.data(), inputs[0].data(), inputs[1].data(), scratch_.data());
    }

private:
    struct alignas(64) Line {
        char bytes[64];
    };
    std::vector<Line> scratch_;
};

} // namespace pidgan

static_assert(ddml::ModelInterface<pidgan::Shower>);

#endif

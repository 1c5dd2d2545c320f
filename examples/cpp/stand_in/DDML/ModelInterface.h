// Stands for the header of DDML of the same name: what a model has to have.
#pragma once
#include "DDML.h"
#include <G4FastTrack.hh>
#include <concepts>

namespace ddml {
template <class Model>
concept ModelInterface =
    requires(Model model, const G4FastTrack &track, const G4ThreeVector &direction,
             InputVecs &inputs, TensorDimVecs &dimensions, std::vector<float> &output,
             const std::vector<float> &made, std::vector<SpacePointVec> &points) {
        {
            model.prepareInput(track, direction, inputs, dimensions, output)
        } -> std::same_as<void>;
        { model.convertOutput(track, direction, made, points) } -> std::same_as<void>;
    };
} // namespace ddml

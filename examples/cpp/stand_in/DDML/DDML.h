// Stands for the header of DDML of the same name: the types that ddml_shower.h uses.
#pragma once
#include <cstdint>
#include <vector>

namespace ddml {
using InputVecs = std::vector<std::vector<float>>;
using TensorDimVecs = std::vector<std::vector<std::int64_t>>;
struct SpacePoint {
    SpacePoint(float x, float y, float z, float e, float t) : X(x), Y(y), Z(z), E(e), T(t) {}
    float X, Y, Z, E, T;
};
using SpacePointVec = std::vector<SpacePoint>;
} // namespace ddml

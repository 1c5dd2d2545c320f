// Runs the model of ddml_shower.h once as DDML does, on stand-ins for its headers.

#include "ddml_shower.h"

#include <cstdio>

int main()
{
    pidgan::Shower model;
    pidgan::CInference inference;
    ddml::InputVecs inputs;
    ddml::TensorDimVecs dimensions;
    std::vector<float> output;
    std::vector<ddml::SpacePointVec> points;
    const G4Track pion{2e4};
    const G4FastTrack track(pion);
    const G4ThreeVector direction{0.05, -0.02, 0.998};
    model.prepareInput(track, direction, inputs, dimensions, output);
    inference.runInference(inputs, dimensions, output);
    model.convertOutput(track, direction, output, points);
    double made = 0, placed = 0;
    for (float energy : output)
        made += energy;
    for (const auto &layer : points)
        for (const auto &point : layer)
            placed += point.E;
    std::printf("%.1f MeV in %zu layers\n", placed, points.size());
    return !(std::isfinite(made) && made > 0 && std::fabs(made - placed) < 1e-3 * made);
}

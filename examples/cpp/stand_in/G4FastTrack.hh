// Stands for headers of Geant4: the few functions that ddml_shower.h calls.
#pragma once
#include <cmath>

struct G4ThreeVector {
    double x, y, z;
    double theta() const { return std::atan2(std::hypot(x, y), z); }
    double phi() const { return std::atan2(y, x); }
};

struct G4Track {
    double kinetic; // MeV
    double GetKineticEnergy() const { return kinetic; }
};

class G4FastTrack {
public:
    explicit G4FastTrack(const G4Track &track) : track_(&track) {}
    const G4Track *GetPrimaryTrack() const { return track_; }

private:
    const G4Track *track_;
};

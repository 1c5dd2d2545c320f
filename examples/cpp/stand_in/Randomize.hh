// Stands for the header of Geant4 of the same name.
#pragma once
#include <random>

struct G4RandGauss {
    static double shoot(double mean, double sigma)
    {
        static thread_local std::mt19937_64 engine(1);
        return std::normal_distribution<>(mean, sigma)(engine);
    }
};

// A hook for a fast simulation: particles that enter a calorimeter get their showers from
// a generator in C, written by
//   pidgan export pions.onnx --format c -o pions.c
//
// A shower depends on the seed, the event and the number of its particle in the event
// alone: not on the thread, on the order of events, or on how many are made at once.
#ifndef SHOWER_HOOK_H
#define SHOWER_HOOK_H

#include "pions.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

// A particle at the front face, in the frame of the calorimeter; z points into it.
struct Particle {
    double energy;        // MeV
    double dx, dy, dz;    // direction of flight
    double x, y;          // impact point, mm
    double species = 211; // PDG code
};

struct Deposit {
    std::size_t particle; // its number in the event
    int cell;             // its number in the calorimeter
    int layer;
    float x, y, z;        // middle of the cell, mm; z is NaN if the file does not know it
    float energy;         // MeV
};

// Standard normal numbers that are functions of a key (S. Vigna, SplitMix64; Box-Muller),
// the same with every compiler and library.
inline std::uint64_t mixed(std::uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

inline void fill_normal(float *numbers, std::size_t n, std::uint64_t key)
{
    for (std::size_t i = 0; i < n; i += 2) {
        const double u = (mixed(key + i) >> 11) * 0x1p-53, v = mixed(key + i + 1) * 0x1p-64;
        const double r = std::sqrt(-2 * std::log(1 - u)), a = 6.283185307179586 * v;
        numbers[i] = static_cast<float>(r * std::cos(a));
        if (i + 1 < n)
            numbers[i + 1] = static_cast<float>(r * std::sin(a));
    }
}

// One object for each thread: it owns the memory that the generator works in.
class ShowerHook {
public:
    explicit ShowerHook(std::uint64_t seed)
        : seed_(mixed(seed)), scratch_(::operator new(pions_scratch + 64, line))
    {
        for (int i = 0; i < pions_n_conditions; ++i)
            names_.emplace_back(pions_condition_names[i]);
        (void)condition(names_, Particle{1, 0, 0, 1, 0, 0}); // raises before the first event
    }

    // Makes the showers of all particles of an event, and adds their deposits.
    void operator()(std::uint64_t event, const std::vector<Particle> &particles,
                    std::vector<Deposit> &deposits)
    {
        make(event, particles.data(), particles.size(), 0, deposits);
    }

    // The same for some of them, of which the first has this number in the event.
    void make(std::uint64_t event, const Particle *particles, std::size_t rows,
              std::size_t number, std::vector<Deposit> &deposits)
    {
        conditions_.clear();
        noise_.resize(rows * pions_n_noise);
        targets_.resize(rows * pions_n_targets);
        for (std::size_t i = 0; i < rows; ++i) {
            for (double value : condition(names_, particles[i]))
                conditions_.push_back(static_cast<float>(value));
            const std::uint64_t key = mixed(seed_ ^ mixed(event)) + mixed(number + i);
            fill_normal(&noise_[i * pions_n_noise], pions_n_noise, mixed(key));
        }
        pions_batch_in(targets_.data(), conditions_.data(), noise_.data(), rows,
                       scratch_.get());
        for (std::size_t i = 0; i < rows; ++i)
            for (int cell = 0; cell < pions_n_targets; ++cell) {
                const float energy = targets_[i * pions_n_targets + cell];
                const float *at = pions_cell_position[cell];
                if (energy != 0) // NaN, for a condition that is no number, stays visible
                    deposits.push_back({number + i, cell, pions_cell_layer[cell], at[0],
                                        at[1], at[2], energy});
            }
    }

private:
    static constexpr std::align_val_t line{64};
    struct Release {
        void operator()(void *memory) const { ::operator delete(memory, line); }
    };

    // The conditions of a generator, by their names: MeV, mm, rad.
    static std::vector<double> condition(const std::vector<std::string> &names,
                                         const Particle &one)
    {
        std::vector<double> found;
        for (const std::string &name : names)
            if (name == "energy")
                found.push_back(one.energy);
            else if (name == "theta")
                found.push_back(std::atan2(std::hypot(one.dx, one.dy), one.dz));
            else if (name == "phi") // 0 to 2 pi, as the generator was trained
                found.push_back(std::atan2(one.dy, one.dx)
                                + (one.dy < 0 ? 6.283185307179586 : 0.0));
            else if (name == "x0")
                found.push_back(one.x);
            else if (name == "y0")
                found.push_back(one.y);
            else if (name == "species")
                found.push_back(one.species);
            else
                throw std::runtime_error("no value for condition '" + name + "'");
        return found;
    }

    std::uint64_t seed_;
    std::unique_ptr<void, Release> scratch_;
    std::vector<std::string> names_;
    std::vector<float> conditions_, noise_, targets_;
};

#endif

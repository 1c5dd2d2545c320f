// A simulation of events with a few particles each, whose showers come from a generator
// in C. It makes the same events in one thread, in several, and particle by particle,
// and ends with 1 if a single bit differs.
//
//   ./shower_simulation [events] [threads]

#include "shower_hook.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

// This function stands for the event generator and the transport of a real simulation.
static std::vector<Particle> simulate(std::uint64_t event)
{
    std::mt19937_64 engine(event);
    const auto uniform = [&](double low, double high) {
        return low + (high - low) * (engine() >> 11) * 0x1p-53;
    };
    std::vector<Particle> found(1 + engine() % 10);
    for (Particle &one : found) {
        const double theta = uniform(0.0, 0.26), phi = uniform(0.0, 6.283);
        one.energy = std::exp(uniform(std::log(2.1e3), std::log(9.9e4)));
        one.dx = std::sin(theta) * std::cos(phi);
        one.dy = std::sin(theta) * std::sin(phi);
        one.dz = std::cos(theta);
        one.x = uniform(-39.0, 39.0);
        one.y = uniform(-39.0, 39.0);
    }
    return found;
}

using Events = std::vector<std::vector<Deposit>>;

static Events run(std::size_t events, unsigned threads, bool one_by_one)
{
    Events found(events);
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
        ShowerHook hook(1);
        for (std::size_t event; (event = next++) < events;) {
            const auto particles = simulate(event);
            if (one_by_one)
                for (std::size_t i = 0; i < particles.size(); ++i)
                    hook.make(event, &particles[i], 1, i, found[event]);
            else
                hook(event, particles, found[event]);
        }
    };
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads; ++i)
        others.emplace_back(work);
    work();
    for (std::thread &other : others)
        other.join();
    return found;
}

static bool equal(const Events &a, const Events &b)
{
    for (std::size_t event = 0; event < a.size(); ++event) {
        if (a[event].size() != b[event].size())
            return false;
        for (std::size_t i = 0; i < a[event].size(); ++i) {
            const Deposit &x = a[event][i], &y = b[event][i];
            if (x.particle != y.particle || x.cell != y.cell
                || std::memcmp(&x.energy, &y.energy, sizeof x.energy) != 0)
                return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    const std::size_t events = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 50;
    const unsigned threads = argc > 2 ? std::atoi(argv[2]) : 4;
    const auto began = std::chrono::steady_clock::now();
    const Events found = run(events, 1, false);
    const std::chrono::duration<double, std::milli> took =
        std::chrono::steady_clock::now() - began;

    std::size_t showers = 0, deposits = 0, wrong = 0;
    double visible = 0, energy = 0;
    for (std::size_t event = 0; event < events; ++event) {
        for (const Particle &one : simulate(event))
            ++showers, energy += one.energy;
        for (const Deposit &one : found[event]) {
            ++deposits, visible += one.energy;
            wrong += !(std::isfinite(one.energy) && one.energy > 0);
        }
    }
    const bool same = equal(found, run(events, threads, false))
                      && equal(found, run(events, threads, true));
    std::printf("%zu events, %zu showers, %.0f cells and %.1f %% of the energy each, "
                "%.2f ms a shower; in %u threads %s\n",
                events, showers, double(deposits) / showers, 100 * visible / energy,
                took.count() / showers, threads, same ? "the same" : "OTHERS");
    return wrong > 0 || !same;
}

// A hook for a fast simulation: when an event is complete, every kaon in it gets the
// response of the RICH detectors from a generator in C.
//
// The generator here has the conditions P [MeV], ETA and nTracks, like the generators that
// `pidgan train` makes from the sample sim_dstar_k. The card at the top of the C file has
// the names, their order and the units.

#include "kaon.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

struct Track {
    float momentum; // MeV
    float eta;
    std::vector<float> response; // the targets of the card, in its order
};

struct Event {
    std::uint64_t number;
    std::vector<Track> tracks;
};

// The simulation calls this object once for each event. It keeps nothing between events
// but its buffers. Use one object for each thread.
class RichResponse {
public:
    explicit RichResponse(std::uint64_t seed) : seed_(seed) {}

    void operator()(Event &event)
    {
        const std::size_t rows = event.tracks.size();
        conditions_.clear();
        for (const Track &track : event.tracks) {
            conditions_.push_back(track.momentum);
            conditions_.push_back(track.eta);
            conditions_.push_back(static_cast<float>(rows));
        }
        // The noise depends on the event alone: it is the same in any order of events.
        std::seed_seq words{seed_, event.number};
        std::mt19937_64 engine(words);
        std::normal_distribution<float> normal;
        noise_.resize(rows * kaon_n_noise);
        for (float &z : noise_)
            z = normal(engine);
        targets_.resize(rows * kaon_n_targets);
        kaon_batch(targets_.data(), conditions_.data(), noise_.data(), rows);
        for (std::size_t i = 0; i < rows; ++i) {
            const float *first = targets_.data() + i * kaon_n_targets;
            event.tracks[i].response.assign(first, first + kaon_n_targets);
        }
    }

private:
    std::uint64_t seed_;
    std::vector<float> conditions_, noise_, targets_;
};

// This function stands for the event generator and the transport of a real simulation.
static Event simulate(std::uint64_t number)
{
    std::mt19937_64 engine(number);
    std::uniform_int_distribution<int> multiplicity(20, 300);
    std::uniform_real_distribution<float> log_momentum(std::log(3e3f), std::log(1e5f));
    std::uniform_real_distribution<float> eta(2.0f, 4.8f);
    Event event{number, std::vector<Track>(multiplicity(engine))};
    for (Track &track : event.tracks) {
        track.momentum = std::exp(log_momentum(engine));
        track.eta = eta(engine);
    }
    return event;
}

int main(int argc, char **argv)
{
    if (kaon_n_conditions != 3) {
        std::fprintf(stderr, "got %d conditions, expected P, ETA and nTracks\n",
                     kaon_n_conditions);
        return 2;
    }
    const int events = argc > 1 ? std::atoi(argv[1]) : 100;
    RichResponse rich(1);
    std::size_t tracks = 0, missing = 0;
    std::vector<double> sums(kaon_n_targets);
    for (int number = 0; number < events; ++number) {
        Event event = simulate(number);
        rich(event);
        for (const Track &track : event.tracks) {
            ++tracks;
            for (int i = 0; i < kaon_n_targets; ++i) {
                missing += !std::isfinite(track.response[i]);
                sums[i] += track.response[i];
            }
        }
    }
    std::printf("%d events, %zu tracks, means of the targets:", events, tracks);
    for (double sum : sums)
        std::printf(" %.3f", sum / tracks);
    std::printf("\n");
    return missing > 0;
}

"""PID cuts in ROOT's RDataFrame, on the friend tree that `pidgan apply` wrote.

The first two commands make the files. The last one needs ROOT, and not pidgan:

    pidgan simulate analysis -n 50000 -o d2kpi.root
    pidgan apply --track Kplus=demo-kaon d2kpi.root -o friends --mode friend
    python examples/rdataframe.py d2kpi.root friends/d2kpi.root
"""

import argparse
import itertools
from array import array

import ROOT

EDGES = (5, 15, 30, 50, 100, 200)  # GeV


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("ntuple", help="The ntuple, which stays as it is.")
    parser.add_argument("friend", help="The file with its friend tree.")
    parser.add_argument("--tree", default="DecayTree")
    given = parser.parse_args()

    chains = [ROOT.TChain(given.tree) for _ in range(2)]
    for chain, path in zip(chains, (given.ntuple, given.friend), strict=True):
        chain.Add(path)
    tree, friend = chains
    tree.AddFriend(friend, "pid")  # its branches are pid.NAME, beside those of the tree

    # Status 0: the condition values are there, and the bundle was trained for them.
    kaons = (
        ROOT.RDataFrame(tree)
        .Filter("std::abs(Kplus_TRUEID) == 321")
        .Filter("pid.Kplus_pidgan_status == 0")
        .Define("p", "Kplus_P / 1000")
    )
    chosen = kaons.Filter("pid.Kplus_RichDLLk > 0")
    bins = ROOT.RDF.TH1DModel("p", ";p [GeV]", len(EDGES) - 1, array("d", EDGES))
    total, passed = kaons.Histo1D(bins, "p"), chosen.Histo1D(bins, "p")
    n, n_passed = kaons.Count(), chosen.Count()  # all four in one loop over the tree
    efficiency = ROOT.TEfficiency(passed.GetValue(), total.GetValue())
    print("p [GeV]    efficiency of RichDLLk > 0")
    for i, (low, high) in enumerate(itertools.pairwise(EDGES), start=1):
        value, error = efficiency.GetEfficiency(i), efficiency.GetEfficiencyErrorLow(i)
        print(f"{low:3d} - {high:3d}  {100 * value:6.2f} +- {100 * error:.2f} %")
    print(f"{n_passed.GetValue()} of {n.GetValue()} kaons pass")


if __name__ == "__main__":
    main()

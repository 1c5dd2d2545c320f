"""Make counters.root with ROOT: branches that want counters of the same name."""

import array

import ROOT

file = ROOT.TFile("counters.root", "RECREATE", "", 207)
tree = ROOT.TTree("T", "")
p, count, values = (
    array.array("d", [0]),
    array.array("I", [0]),
    array.array("f", [0] * 6),
)
hits, nhits = ROOT.std.vector("float")(), ROOT.std.vector("int")()
more = ROOT.std.vector("double")()
tree.Branch("K_P", p, "K_P/D")
tree.Branch("hits", hits)
tree.Branch("nhits", nhits)
tree.Branch("nMu", count, "nMu/i")
tree.Branch("Mu_x", values, "Mu_x[nMu]/F")
tree.Branch("Mu", more)
for i in range(40):
    p[0], count[0] = 5000 + i, (i * 3) % 5
    for vector, length in ((hits, i % 4), (nhits, (i * 7) % 3), (more, (i * 5) % 4)):
        vector.assign(length, i)
    for j in range(count[0]):
        values[j] = i + j
    tree.Fill()
tree.Write()
file.Close()

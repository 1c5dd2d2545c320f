"""Make kinds_ttree.root and kinds_rntuple.root with ROOT: `python make_kinds.py`."""

import ROOT

ENTRIES = 8

ROOT.gSystem.Load("libPhysics")
ROOT.gInterpreter.ProcessLine(".L kinds.h+")
ROOT.make_trees("kinds_ttree.root", ENTRIES)
ROOT.make_rntuples("kinds_rntuple.root", ENTRIES)

"""What PIDCalib2 says of its calibration samples in code rather than in its list.

Trees of a particle, names of branches of each run, and the species, binning and cuts
that go with them here. Source: `samples.py`, `aliases.py` and the page of PIDCalib2
1.5.9 (gitlab.cern.ch/lhcb-rta/pidcalib2).
"""

import re
from collections.abc import Mapping
from typing import Any

#: Trees of a particle where the list names none, each with /DecayTree.
TREES: dict[str, tuple[str, ...]] = {
    "Pi": ("DSt_PiMTuple", "DSt_PiPTuple"),
    "K": ("DSt_KPTuple", "DSt_KMTuple"),
    "Mu": ("Jpsi_MuPTuple", "Jpsi_MuMTuple"),
    "K_DsPhi": ("DsPhi_KPTuple", "DsPhi_KMTuple"),
    "K_DSt3Pi": ("DSt3Pi_KPTuple", "DSt3Pi_KMTuple"),
    "Pi_DSt3Pi": ("DSt3Pi_PiMTuple", "DSt3Pi_PiPTuple"),
    "K_Phi": ("Phi_KMTuple", "Phi_KPTuple"),
    "K_Omega": ("OmegaL_KPTuple", "OmegaL_KMTuple"),
    "K_DD": ("OmegaDDD_KPTuple", "OmegaDDD_KMTuple"),
    "Pi_KS": ("KSLL_PiPTuple", "KSLL_PiMTuple"),
    "Pi_DD": ("KSDD_PiPTuple", "KSDD_PiMTuple"),
    "P": tuple(
        f"Lam0LL_{pt}{own}Tuple"
        for pt in ("", "HPT_", "VHPT_")
        for own in ("P", "Pbar")
    ),
    "P_DD": tuple(
        f"Lam0DD_{pt}{own}Tuple"
        for pt in ("", "HPT_", "VHPT_")
        for own in ("P", "Pbar")
    ),
    "P_Sigmac0": ("Sigmac0_PbarTuple", "Sigmac0_PTuple"),
    "P_Sigmacpp": ("Sigmacpp_PbarTuple", "Sigmacpp_PTuple"),
    "P_B_Jpsi": ("B_Jpsi_PTuple", "B_Jpsi_PbarTuple"),
    "Mu_B_Jpsi": ("B_Jpsi_MuPTuple", "B_Jpsi_MuMTuple"),
    "e": ("Jpsi_EPTuple", "Jpsi_EMTuple"),
    "P_LcfB": ("LbLcMu_PTuple", "LbLcMu_PbarTuple"),
    "P_IncLc": ("Lc_PTuple", "Lc_PbarTuple"),
    "Mu_nopt": ("Jpsinopt_MuPTuple", "Jpsinopt_MuMTuple"),
}
#: Samples whose files have one tree at the top: Run 1, and electrons of Run 2.
SIMPLE = re.compile(
    r"(13b|15|17|20|20r1|21|21r1|22|23|23Val|26|5TeV)(_MCTun[eE]?[vV]\d)?|Electron1[5-8]"
)
#: Years of the samples that are named after a stripping.
YEARS = {"20": "2012", "20r1": "2011", "21": "2012", "21r1": "2011"}
YEARS |= {"22": "2015", "23": "2015", "5TeV": "2015", "26": "2016"}

#: PDG name, charge and kind of each particle of PIDCalib2, by the beginning of a name.
PARTICLES: dict[str, tuple[str, str, str]] = {
    "Mup": ("mu+", "+", "muons"),
    "Mum": ("mu-", "-", "muons"),
    "Mu": ("mu+", "", "muons"),
    "Pip": ("pi+", "+", "hadrons"),
    "Pim": ("pi-", "-", "hadrons"),
    "Pi": ("pi+", "", "hadrons"),
    "K": ("K+", "", "hadrons"),
    "P": ("p", "", "hadrons"),
    "e": ("e+", "", "electrons"),
}
_LIKELIHOODS = {"K": "K", "p": "P", "mu": "MU", "e": "E"}
_CUTS = {
    "K": "{K} > 0|{K} > 5|{p} - {K} < 0",
    "pi": "{K} < 0|{K} < -5|{p} < 0",
    "p": "{p} > 0|{p} > 5|{p} - {K} > 0",
    "mu": "{mu} > 0|{mu} > 3|{K} < 0",
    "e": "{e} > 0|{e} > 2|{e} > 5",
}
CHARGES = ("{track}_CHARGE", "{track}_trackcharge", "{track}_Q")
BREMS = ("{track}_HASBREM", "{track}_HasBremAdded")
#: Ranges: those of the definitions that ship. -999 and -1000 mean "no measurement".
_P: dict[str, Any] = {"unit": "MeV", "range": [3e3, 200e3], "transform": "log"}
_PT: dict[str, Any] = {"unit": "MeV", "range": [250.0, 50e3], "transform": "log"}
_ETA, _ELECTRON_ETA = {"range": [1.8, 5.5]}, {"range": [1.5, 5.5]}
_TRACKS = {"range": [1, 1000], "integer": True}
_CHARGE = {"categories": [-1, 1], "optional": True, "patterns": list(CHARGES)}
_BREM = {"categories": [0, 1], "optional": True, "patterns": list(BREMS)}
_DLL = {"range": [-300, 300], "sentinels": [-999, -1000]}


def particle_of(name: str) -> tuple[str, str, str] | None:
    """Return PDG name, charge and kind of a particle of PIDCalib2, if it is known."""
    found = [key for key in PARTICLES if re.match(rf"{key}(_|SMOG2|$)", name)]
    return PARTICLES[max(found, key=len)] if found else None


def is_run2(sample: str) -> bool:
    """Return whether a sample that is none of Run 3 is one of Run 2."""
    return re.match(r"(Ap|pA)?Turbo|Electron|(22|23|26|5TeV)(_|$)", sample) is not None


def variables(kind: str, prefix: str | None) -> dict[str, list[dict[str, Any]]]:
    """Return conditions and targets: of Run 3 with a prefix, of Run 1 and 2 without."""
    conditions: dict[str, tuple[str, Mapping[str, Any]]]
    if prefix is None:
        conditions = {
            "P": ("probe_P", {**_P, **_of("P")}),
            "ETA": ("probe_ETA", {**_ETA, **_of("ETA")}),
            "nTracks": ("nTracks", _TRACKS | {"patterns": ["nTracks"]}),
            "trackcharge": ("probe_trackcharge", _CHARGE),
        }
        targets = {f"PID{h}": (f"probe_PID{h}", _DLL) for h in _LIKELIHOODS}
    else:
        is_electron = kind == "electrons"
        size, scale = ("PT", _PT) if is_electron else ("P", _P)
        eta = _ELECTRON_ETA if is_electron else _ETA
        conditions = {
            size: (f"{prefix}_{size}", {**scale, **_of(size)}),
            "ETA": (f"{prefix}_ETA", {**eta, **_of("ETA")}),
            "nLongTracks": ("nLongTracks", _TRACKS | {"patterns": ["nLongTracks"]}),
            "CHARGE": (f"{prefix}_CHARGE", _CHARGE),
            **({"HASBREM": (f"{prefix}_HASBREM", _BREM)} if is_electron else {}),
        }
        targets = {
            f"PID_{h}": (f"{prefix}_PID_{h}", _DLL) for h in _LIKELIHOODS.values()
        }
    return {
        key: [{"name": n, "branch": b, **more} for n, (b, more) in found.items()]
        for key, found in (("conditions", conditions), ("targets", targets))
    }


def settings(species: str, kind: str, run: str) -> dict[str, Any]:
    """Return the binnings and the standard cuts of a species."""
    is_new = run == "3"
    own = "PID_{}" if is_new else "PID{}"
    names = {h: own.format(upper if is_new else h) for h, upper in _LIKELIHOODS.items()}
    cuts = _CUTS[re.sub(r"[+-]", "", species)].format(**names).split("|")
    before = "run3_" if is_new else ""
    if is_new and kind == "electrons":
        return {"binning": "run3_electrons", "cuts": cuts}
    return {
        "binning": f"{before}{kind}",
        "map_binning": f"{before}hadrons_map",
        "cuts": cuts,
    }


def _of(name: str) -> dict[str, list[str]]:
    return {"patterns": [f"{{track}}_{name}"]}

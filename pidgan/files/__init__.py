"""Files of the user: ROOT, Parquet, numpy, HDF5; the only room that knows formats.

`tables` finds and reads trees and writes new files, `copying` writes copies with
branches added, `computing` makes new branches in memory, `trees` has the types of trees
and branches and the protocol of a format, `formats` one file for each format, `frames`
makes rows in memory a tree, `documents` reads JSON, TOML and bytes whole, `writing` is
the writer of whole files, sets of files and folders, `seals` has the hashes by which
files that belong together know one another, `leftovers` what killed runs left, `beats`
gives signs of life, `places` tells what lies at a path, `recognition` what it is, such
as a dataset or a bundle,
`mapped` has arrays that are larger than memory, `in_order` reads in threads,
`fetching` keeps files of addresses in a cache, `xrootd` loads the client of root://
addresses, `machine` has the cores and the memory of this process, `processes` runs
functions side by side, `shower_file` writes showers in the layout of the CaloChallenge,
`wording` puts messages about rows in memory into words of Python.
"""

__all__ = [
    "beats",
    "computing",
    "copying",
    "documents",
    "fetching",
    "frames",
    "in_order",
    "leftovers",
    "machine",
    "mapped",
    "places",
    "processes",
    "recognition",
    "seals",
    "shower_file",
    "tables",
    "trees",
    "wording",
    "writing",
    "xrootd",
]

"""Files of the user: ROOT, Parquet and numpy; the only room that knows formats.

`tables` finds and reads trees and writes new files, `copying` writes copies with
branches added, `trees` has the types of trees and branches and the protocol of a
format, `formats` one file for each format, `writing` the writer of whole files and
folders, `machine` the cores and the memory of this process.
"""

__all__ = ["copying", "machine", "tables", "trees", "writing"]

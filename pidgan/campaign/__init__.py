"""Campaigns: many bundles from one file, as tasks that can be stopped and resumed.

`definition` reads the file of a campaign, `grid` makes its bundles of it, and `checks`
looks at everything that can be wrong before any work. `tasks` has the graph of tasks,
`stages` the work of each, `records` what is on disk of it, `child` the process of one
task and `process` who starts it, `engines` where tasks run: here, or on Dask. `run`
puts all together, `status` shows what is done, and `overview` is the page of all
reports.
"""

__all__ = ["definition", "engines", "run", "status"]

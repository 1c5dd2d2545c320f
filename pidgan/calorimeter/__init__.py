"""Calorimeters as data: geometry, observables and symmetries.

A shower model is a function (conditions, noise) -> energies of cells. What the cells
are is said by a `Geometry`, loaded from a file and never written in Python.
"""

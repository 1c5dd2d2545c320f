"""Efficiencies of PID cuts: real against generated, and their uncertainties."""

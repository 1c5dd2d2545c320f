"""Calibration samples: definitions, selection, cuts, sWeights, datasets."""

"""Columns for an analysis ntuple: bundles evaluated at the conditions of tracks."""

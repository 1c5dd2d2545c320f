"""Figures and pages that judge a generator on rows it was not trained on."""

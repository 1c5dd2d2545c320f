"""Generators learnt from datasets: transforms, families, the loop, the export."""

"""Classical."""

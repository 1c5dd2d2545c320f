"""Classical shower parametrisations, fitted rather than trained."""

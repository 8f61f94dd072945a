"""Linear head refined by learned couplings between the labels."""

"""What every method stands on: data, losses, the fit loop, metrics and run folders."""

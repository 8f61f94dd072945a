"""Load test of the page of `ensemble.serve`."""

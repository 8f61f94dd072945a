"""Hold-out: a CSV divided into one to train on and one of other patients."""

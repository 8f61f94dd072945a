"""Heat maps: computing, drawing, and the pointing game."""

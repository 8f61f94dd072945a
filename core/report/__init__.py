"""Report of a run or an evaluation: HTML page with figures, tables for the terminal."""

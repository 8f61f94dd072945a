"""Report of a run or an evaluation: one page with its pictures, and tables in the terminal."""

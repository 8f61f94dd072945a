"""How often do the 95 % intervals hold the truth?

    python -m benchmarks.studies.coverage

From each scenario 1,000 data sets are drawn whose truth is known, and scored as
`ensemble.evaluate` does. Patients have as many images as those of NIH ChestX-ray14 where their
images resemble each other (rho is what they share of the variance). A cell is ok where 93 to 97 %
of the intervals that are printed hold the truth, within two standard errors of the simulation; one
with fewer than 200 intervals is not judged. Figures of a scenario that is done are kept in
outputs/coverage.
"""

import os

from benchmarks.runner import start


def main() -> None:
    """Run the scenarios that are not done, and print the cells of each."""
    # before NumPy is imported: each of the processes has one core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from benchmarks.studies.coverage_scenarios import run_all, scenarios

    for cells in run_all(list(scenarios())):
        name = cells["scenario"].iloc[0]
        print(f"\n{name}\n{cells.drop(columns='scenario').to_string(index=False)}", flush=True)


if __name__ == "__main__":
    start(main, __doc__)

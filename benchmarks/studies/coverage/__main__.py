"""Coverage of the 95 % intervals.

    python -m benchmarks.studies.coverage

Each scenario draws 1,000 data sets with known truth, and scores them as `ensemble.evaluate` does.
With correlated images (rho: share of the variance within a patient) patients have as many images
as in NIH ChestX-ray14. A cell is ok if 93 to 97 % of the printed intervals contain the truth,
within two standard errors of the simulation; cells with fewer than 200 intervals have no verdict.
Finished scenarios are cached in outputs/coverage.
"""

import os

from benchmarks.runner import start


def main() -> None:
    """Run the missing scenarios, and print the cells of each."""
    # before NumPy is imported: one core a process
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from benchmarks.studies.coverage.scenarios import run_all, scenarios

    for cells in run_all(list(scenarios())):
        name = cells["scenario"].iloc[0]
        print(f"\n{name}\n{cells.drop(columns='scenario').to_string(index=False)}", flush=True)


if __name__ == "__main__":
    start(main, __doc__)

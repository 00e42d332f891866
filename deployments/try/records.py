"""A table for each site, which a hospital has already: the embedded breast cancer records, dealt out.

`python records.py SITE...` writes SITE/records.csv, folders that exist.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from qfed.data import embedded


def main(sites: list[str]) -> None:
    """Every site gets each len(sites)-th record."""
    names = [column.name for column in embedded.COLUMNS["breast_cancer"]]
    target = embedded.TARGETS["breast_cancer"]
    x, y = embedded.raw("breast_cancer")
    for place, site in enumerate(sites):
        with (Path(site) / "records.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow([*names, target.name])
            rows.writerows([*x[n], target.classes[y[n]]] for n in range(place, len(x), len(sites)))


if __name__ == "__main__":
    main(sys.argv[1:])

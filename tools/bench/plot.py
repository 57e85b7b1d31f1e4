#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Let gnuplot draw what a ring costs, by number of queues.

Usage: plot.py FIGURES SVG

FIGURES is what report.py wrote (build/bench.json), or a document with the table
of "queues" (Documentation/benchmarks.rst). The plot has a panel for each
kernel, with logarithmic axes.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

# The colour says what the paths have in common, the point and the dash which of
# them it is: readable without colours, too.
GROUPS = {"ioeventfd": "#b03a2e", "kvm": "#666666", "coalesced": "#666666",
          "doorbell": "#1f618d"}
WIDTH, HEIGHT = 800, 520
SPDX = "<!-- SPDX-License-Identifier: GPL-2.0 -->\n"


def table(text):
    """Return the table of "queues" as report.py's JSON has it."""
    kernel, lines = re.search(
        r"^``queues`` on (\S+), by number of queues:\n\n=.*\n((?:.+\n)+)",
        text, re.MULTILINE).groups()
    head, *rows = (line.split() for line in lines.splitlines()
                   if not line.startswith("="))
    return [{"kernel": kernel, "queues": {
        row[0].strip("`"): {
            n.replace(",", ""):
            None if cost == "none" else float(cost.replace(",", ""))
            for n, cost in zip(head[1:], row[1:], strict=True)}
        for row in rows}}]


def read(name):
    text = Path(name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else table(text)


def script(reports):
    """Yield the commands for gnuplot."""
    # Points lie at the numbers of queues, which the axis names.
    paths = reports[0]["queues"]
    queues = list(next(iter(paths.values())))
    ticks = ", ".join(f'"{int(n):,}" {n}' for n in queues)
    costs = [cost for report in reports for path in report["queues"].values()
             for cost in path.values() if cost]

    yield f"""
set terminal svg size {WIDTH},{HEIGHT * len(reports)} \
font "DejaVu Sans,sans-serif,12" background "white" noenhanced
set multiplot layout {len(reports)},1
set logscale xy
set xrange [0.8:100000]
set yrange [{min(costs) / 1.3}:{max(costs) * 1.3}]
set xtics ({ticks})
set ytics (100, 200, 500, "1,000" 1000, "2,000" 2000, "5,000" 5000)
set grid linecolor "#dddddd" linetype 1
set border 3 linecolor "#222222"
set tics nomirror
set key outside right center reverse Left samplen 3 spacing 1.5
set xlabel "queues"
set ylabel "instructions per ring, above the floor"
"""
    for i, report in enumerate(reports):
        plots, seen = [], {}
        for path, costs in report["queues"].items():
            name = f"$data{i}_{path}"
            rows = (f"{n} {cost}" for n, cost in costs.items() if cost)
            yield f"{name} << EOD\n" + "\n".join(rows) + "\nEOD\n"
            colour = GROUPS[path.split("_")[0]]
            seen[colour] = seen.get(colour, 0) + 1
            plots.append(f'{name} with linespoints title "{path}" '
                         f'linecolor "{colour}" linewidth 1.5 '
                         f"dashtype {seen[colour]} "
                         f"pointtype {2 * seen[colour] + 3} pointsize 0.6")
        yield (f'set title "Linux {report["kernel"]}: one ring at a time, '
               'consumer awake"\n')
        yield "plot " + ", ".join(plots) + "\n"


def main():
    figures, name = sys.argv[1:]
    commands = "".join(script(read(figures)))
    svg = subprocess.run(["gnuplot"], input=commands, check=True, text=True,
                         stdout=subprocess.PIPE).stdout
    first, rest = svg.split("\n", 1)
    Path(name).write_text(f"{first}\n{SPDX}{rest}", encoding="utf-8")
    print(f"written: {name}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Print the results of the benchmark as tables, and write them as JSON.

Usage: report.py JSON RESULTS...

RESULTS are outputs of the bench program, one file per kernel. Each begins with
the lines "kernel RELEASE" and "module FILE".

A figure is the mean of all repetitions. A figure above the floor is that mean
less the mean of the floor in the same measurement. The spread is the largest
repetition less the smallest.
"""
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

PATHS = ["ioeventfd_epoll", "ioeventfd_edge", "ioeventfd_uring",
         "kvm_exit_mmio", "coalesced_mmio",
         "doorbell_read", "doorbell_block", "doorbell_mmap",
         "doorbell_uring", "doorbell_ordered"]
SIDES = {"ioeventfd": "ioeventfd_epoll", "doorbell": "doorbell_mmap"}
# What "kick" and "setup" call the paths that end at an eventfd.
KICKS = {"ioeventfd": "ioeventfd_kick", "doorbell_bound": "doorbell_bound"}
# A VMM's KVM_IOEVENTFD calls, without and with the preload
CALLS = {name: name for name in ("calls_any", "calls_preload")}
SETUP_SIDES = SIDES | CALLS | {"ioeventfd_calls": "ioeventfd_kick",
                               "doorbell_bound": "doorbell_bound"}
# What KVM calls for a ring, and what it may call in turn
HANDLERS = ["write_coalescing", "write_ordered", "write_any"]
SLOWER = ["write_bound", "write_untraced", "doorbell_region_wake"]
QUEUES = [1, 64, 1024, 16384, 65535]
SETUPS = [64, 1024, 4096]


def static_keys(module, function):
    """Count the static keys in a function: one instruction each if off."""
    symbols, relocations = (subprocess.run(
        ["readelf", "-W", option, module], capture_output=True, check=True,
        text=True).stdout for option in ("--syms", "--relocs"))
    start, size = next((int(words[1], 16), int(words[2]))
                       for words in map(str.split, symbols.splitlines())
                       if words[-1:] == [function])
    table = relocations.split("'.rela__jump_table'")[1].split("\n\n")[0]
    # an entry has 16 bytes, and begins with the place of the instruction
    return sum(words[0].endswith("0") and
               start <= int(words[-1], 16) < start + size
               for words in map(str.split, table.splitlines()[2:]))


class Results:
    """The samples of one kernel."""

    def __init__(self, name):
        self.kernel = None
        self.module = None
        self.samples = defaultdict(list)
        for line in Path(name).read_text().splitlines():
            words = line.split()
            if words[:1] == ["kernel"]:
                self.kernel = words[1]
            elif words[:1] == ["module"]:
                self.module = words[1]
            elif words[:1] == ["sample"]:
                what, path, queues, figure = words[1:]
                self.samples[what, path, int(queues)].append(float(figure))

    def mean(self, what, path, queues):
        figures = self.samples.get((what, path, queues))
        return sum(figures) / len(figures) if figures else None

    def spread(self, what, path, queues):
        figures = self.samples[what, path, queues]
        return max(figures) - min(figures)

    def above_floor(self, what, path, queues):
        figure = self.mean(what, path, queues)
        if figure is None:
            return None
        return round(figure - self.mean(what, "floor", queues), 1)

    def batch(self, what):
        return {path: {"above_floor": self.above_floor(what, path, 64),
                       "spread": round(self.spread(what, path, 64), 1)}
                for path in PATHS}

    def costs(self, what, sides):
        return {side: {str(n): round(self.mean(what, path, n))
                       for n in SETUPS}
                for side, path in sides.items()}

    def kicks(self, path):
        figures = {str(n): self.above_floor("queues", path, n)
                   for n in QUEUES}
        return {n: figure for n, figure in figures.items()
                if figure is not None}

    def report(self):
        return {
            "kernel": self.kernel,
            "tracing_off": {name: static_keys(self.module, name)
                            for name in HANDLERS + SLOWER},
            "floor": round(self.mean("batch64", "floor", 64), 1),
            "batch64": self.batch("batch64"),
            "batch1": self.batch("batch1"),
            "queues": {path: {str(n): self.above_floor("queues", path, n)
                              for n in QUEUES} for path in PATHS},
            "kick": {name: self.kicks(path) for name, path in KICKS.items()},
            "setup": self.costs("setup", SETUP_SIDES),
            "remove": self.costs("remove", CALLS),
            "other_ioctl": {
                path: round(self.mean("other_ioctl", path, 4096), 1)
                for path in CALLS},
            "bytes_per_queue": {
                side: round(self.mean("memory", path, 4096) / 4096, 1)
                for side, path in SIDES.items()},
            "fds": self.costs("fds", SIDES),
        }


def number(figure):
    if figure is None:
        return "-"
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.1f}"


def table(head, rows):
    rows = [head] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) if i == 0 else
                               cell.rjust(width)
                               for i, (cell, width) in
                               enumerate(zip(row, widths))))
    print()


def print_tables(results, report):
    print(f"Linux {report['kernel']}: instructions per ring above the floor"
          f" (of {report['floor']:,.0f})")
    print("  batch64: 64 queues per wake-up; batch1: one, consumer asleep;")
    print("  other columns: one at a time, consumer awake, by queues\n")
    rows = []
    for path in PATHS:
        row = [path]
        for batch in ("batch64", "batch1"):
            figures = report[batch][path]
            row += [number(figures["above_floor"]),
                    "±" + number(figures["spread"] / 2)]
        row += [number(report["queues"][path][str(n)]) for n in QUEUES]
        rows.append(row)
    table(["", "batch64", "", "batch1", ""] + [f"{n:,}" for n in QUEUES], rows)

    rows = [[name] + [number(figures.get(str(n))) for n in QUEUES]
            for name, figures in report["kick"].items()]
    table(["to the eventfd"] + [f"{n:,}" for n in QUEUES], rows)

    rows = []
    for side in SIDES:
        row = [side]
        for n in SETUPS:
            row += [number(report["setup"][side][str(n)]),
                    "±" + number(results.spread("setup", SIDES[side], n) / 2)]
        row += [number(report["bytes_per_queue"][side]),
                "±" + number(results.spread("memory", SIDES[side], 4096)
                             / 4096 / 2)]
        row += ["/".join(str(report["fds"][side][str(n)]) for n in SETUPS)]
        rows.append(row)
    for side in ("ioeventfd_calls", "doorbell_bound", *CALLS):
        row = [side]
        for n in SETUPS:
            spread = results.spread("setup", SETUP_SIDES[side], n)
            row += [number(report["setup"][side][str(n)]),
                    "±" + number(spread / 2)]
        rows.append(row + ["", "", ""])
    for side in CALLS:
        row = [f"{side}, removal"]
        for n in SETUPS:
            row += [number(report["remove"][side][str(n)]),
                    "±" + number(results.spread("remove", side, n) / 2)]
        rows.append(row + ["", "", ""])
    head = [""]
    for n in SETUPS:
        head += [f"set up {n:,}", ""]
    table(head + ["bytes/queue", "", "fds"], rows)


def print_ratios(report):
    def above(batch, path):
        return report[batch][path]["above_floor"]

    def best(batch):
        return min(above(batch, path)
                   for path in ("ioeventfd_epoll", "ioeventfd_uring"))

    def row(name, figure, digits, low=None, high=None, below=None):
        aim, reached = "-", True
        if below is not None:
            aim, reached = f"below {below:,}", figure < below
        elif low is not None and high is not None:
            aim, reached = f"{low:,} to {high:,}", low <= figure <= high
        elif low is not None:
            aim, reached = f"at least {low:,}", figure >= low
        elif high is not None:
            aim, reached = f"at most {high:,}", figure <= high
        rows.append([name, f"{figure:,.{digits}f}", aim,
                     "" if reached else "missed"])

    rows = []
    epoll = above("batch64", "ioeventfd_epoll")
    for path, aim in (("doorbell_mmap", 14), ("doorbell_read", 9)):
        cost = above("batch64", path)
        row(f"batch64: ioeventfd_epoll / {path}", epoll / cost, 1, low=aim)
        row(f"batch64: better of epoll, uring / {path}",
            best("batch64") / cost, 1, low=4)
    row("batch64: doorbell_ordered / doorbell_mmap",
        above("batch64", "doorbell_ordered") /
        above("batch64", "doorbell_mmap"), 2, high=1.25)
    for path in ("doorbell_read", "doorbell_block", "doorbell_mmap",
                 "doorbell_uring"):
        row(f"batch1: {path} / better of epoll, uring",
            above("batch1", path) / best("batch1"), 3, below=1)
    for path in PATHS:
        if not path.startswith("doorbell"):
            continue
        queues = report["queues"][path]
        row(f"{path}: 65,535 queues / 1 queue",
            queues["65535"] / queues["1"], 3, low=0.9, high=1.1)
    setup = report["setup"]
    row("set-up of 4,096 queues: ioeventfd / doorbell",
        setup["ioeventfd"]["4096"] / setup["doorbell"]["4096"], 0, low=2000)
    row("set-up of 4,096 bound queues: KVM_IOEVENTFD calls / doorbell",
        setup["ioeventfd_calls"]["4096"] / setup["doorbell_bound"]["4096"], 0,
        low=100)
    for n, aim in (("1024", None), ("4096", 20)):
        row(f"QEMU's calls for {int(n):,} queues: without / with the preload",
            setup["calls_any"][n] / setup["calls_preload"][n], 1, low=aim)
    row("their removal, 4,096 queues: without / with the preload",
        report["remove"]["calls_any"]["4096"] /
        report["remove"]["calls_preload"]["4096"], 2)
    other = report["other_ioctl"]
    row("any other ioctl(): instructions that the preload adds",
        other["calls_preload"] - other["calls_any"], 1, high=25)
    # against the exit alone: a whole ring takes twice that
    for n, high, below in (("1", 1.02, None), ("1024", None, 1),
                           ("16384", None, 1)):
        ours, theirs = (report["floor"] + report["kick"][side][n]
                        for side in ("doorbell_bound", "ioeventfd"))
        row(f"kick, floor included, {int(n):,} queues: doorbell / ioeventfd",
            ours / theirs, 4, high=high, below=below)
    bound = report["kick"]["doorbell_bound"]
    row("kick: 65,535 queues / 1 queue", bound["65535"] / bound["1"], 3,
        low=0.9, high=1.1)
    keys = report["tracing_off"]
    row("any ring: instructions for tracepoints that are off",
        max(keys[name] for name in HANDLERS) +
        sum(keys[name] for name in SLOWER), 0, high=1)
    memory = report["bytes_per_queue"]
    row("bytes per queue: doorbell", memory["doorbell"], 1, high=48)
    row("bytes per queue: ioeventfd / doorbell",
        memory["ioeventfd"] / memory["doorbell"], 1, low=16)
    table(["", "ratio", "aim", ""], rows)


def main():
    json_name, *names = sys.argv[1:]
    all_results = [Results(name) for name in names]
    reports = [results.report() for results in all_results]
    for results, report in zip(all_results, reports):
        print_tables(results, report)
        print_ratios(report)
    Path(json_name).write_text(json.dumps(reports, indent=2) + "\n")
    print(f"written: {json_name}")


if __name__ == "__main__":
    main()

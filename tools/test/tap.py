#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Add up the TAP of check.sh's micro-VMs.

Usage: tap.py FILE.tap...

A program counts as a failure of its own if it ends early, if it prints no
result, or if its exit status contradicts its results. Prints the output of
failed tests.
"""
import os
import re
import sys

RESULT = re.compile(r'( *)(ok|not ok) \d+ ?-? ?(.*)')
PLAN = re.compile(r'( *)1\.\.(\d+)')
# How much output of a failed test, or of a program that ended early, to print
LINES = 60


class Totals:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.shown = set()

    def add(self, ok, where, what):
        skip = re.search(r'# ?SKIP ?(.*)', what, re.I)
        if not ok:
            self.failed += 1
            print(f'FAILED {where}: {what}')
        elif skip:
            self.skipped += 1
            if (where, what) not in self.shown:
                print(f'skipped {where}: {what}')
            self.shown.add((where, what))
        else:
            self.passed += 1


def program(totals, where, lines, status):
    """Count a program's results: those of KUnit are one level inside suites."""
    indent = ' ' * 4 if where.endswith('/kunit') else ''
    planned = results = failures = start = 0
    output = []
    for at, line in enumerate(lines):
        plan = PLAN.match(line)
        if plan and plan[1] == indent:
            planned += int(plan[2])
        result = RESULT.match(line)
        if result and result[1] == indent:
            results += 1
            totals.add(result[2] == 'ok', where, result[3])
            if result[2] != 'ok':
                failures += 1
                output += lines[max(start, at - LINES):at + 1]
            start = at + 1
    if status is None or results < planned:
        output += lines[max(start, len(lines) - LINES):]
    if status is None:
        totals.add(False, where, 'never ended')
    elif results < planned or not results:
        totals.add(False, where,
                   f'{results} of {planned} results, status {status}')
    elif (status != 0) != (failures != 0):
        totals.add(False, where, f'status {status} with {failures} failures')
    if status != 0 or failures:
        print(f'--- {where} printed:')
        print('\n'.join(output or lines[-LINES:]))
        print('---')


def machine(totals, path):
    name = os.path.basename(path).removesuffix('.tap')
    current, lines, clean, ran = None, [], None, False
    with open(path, errors='replace') as tap:
        for line in tap.read().splitlines():
            if line.startswith('# begin '):
                current, lines, ran = line.split()[2], [], True
            elif line.startswith('# end '):
                status = int(line.split()[3])
                if status != 77:
                    program(totals, f'{name}/{current}', lines, status)
                current = None
            elif line.startswith('# verdict '):
                clean = line.removeprefix('# verdict ')
            else:
                lines.append(line)
    if current:
        program(totals, f'{name}/{current}', lines, None)
    if clean and clean.startswith('skip'):
        totals.add(True, name, '# SKIP ' + clean.removeprefix('skip '))
    elif clean == 'clean' and not ran:
        totals.add(False, name, 'no program ran')
    else:
        totals.add(clean == 'clean', name, f'machine and kernel log: {clean}')


def main():
    totals = Totals()
    for path in sys.argv[1:]:
        machine(totals, path)
    skipped = f', {totals.skipped} skipped' if totals.skipped else ''
    print(f'{totals.passed} passed, {totals.failed} failed{skipped}')
    return totals.failed != 0 or totals.passed == 0


if __name__ == '__main__':
    sys.exit(main())

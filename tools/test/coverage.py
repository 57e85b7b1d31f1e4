#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measure which lines and branches of the module the tests run.

Usage: coverage.py PROGRAM...

Runs each program in a machine with the kernel 6.12-gcov, some at a time, and
adds up what gcov counted. build/coverage/ keeps the counts: a program runs
again only if it or the module was built since then. Lists the lines and the
branches that never ran. The last line is "coverage: lines L % branches B %".

Only branches of lines with a decision in the source count, and none of
trace.h: all others come from the kernel's macros.
"""
import base64
import collections
import concurrent.futures
import glob
import io
import json
import os
import re
import subprocess
import sys
import tarfile

TOP = os.path.realpath(os.path.dirname(__file__) + '/../..')
OUT = TOP + '/build/coverage'
KERNEL = '6.12-gcov'
LIMIT = 1800
DECISION = re.compile(r'\b(if|while|for|switch|min|max)\b|[?]|&&|[|][|]')


def run(modules, program):
    """Run a program, unless its counts are newer than what it runs."""
    out = f'{OUT}/{program}.out'
    built = glob.glob(modules + '/*/**/*.gcno', recursive=True)
    built += glob.glob(f'{TOP}/build/selftests/{program}')
    if os.path.exists(out) and \
            os.path.getmtime(out) > max(map(os.path.getmtime, built)):
        return out
    with open(out + '.tmp', 'w') as stdout, \
            open(f'{OUT}/{program}.err', 'w') as stderr:
        status = subprocess.run(
            [TOP + '/tools/test/programs.sh', '-k', KERNEL, '-t', str(LIMIT),
             '-l', f'{OUT}/{program}.log', '-f',
             TOP + '/tools/test/guest.sh:/programs.sh',
             '-g', TOP + '/tools/test/coverage-guest.sh', modules, program],
            stdout=stdout, stderr=stderr).returncode
    print(f'{program}: exit status {status}', flush=True)
    if '# gcda' in open(out + '.tmp', errors='replace').read():
        os.rename(out + '.tmp', out)
    return out


def counts(modules, out):
    """Yield what gcov says of each object that a program used."""
    if not os.path.exists(out):
        print(f'{out}: no counts')
        return
    archive = open(out, errors='replace').read().rpartition('# gcda\n')[2]
    tar = tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive)))
    for member in tar.getmembers():
        name = os.path.basename(member.name).removesuffix('.gcda')
        note = glob.glob(f'{modules}/*/**/{name}.gcno', recursive=True)
        if not member.isfile() or not note:
            continue
        data = note[0].removesuffix('gcno') + 'gcda'
        with open(data, 'wb') as file:
            file.write(tar.extractfile(member).read())
        yield json.loads(subprocess.run(
            ['gcov', '--json-format', '--stdout', '--branch-probabilities',
             data], capture_output=True, check=True, cwd=OUT).stdout)
        os.unlink(data)


def main(programs):
    os.makedirs(OUT, exist_ok=True)
    modules = subprocess.run([TOP + '/tools/testbed/module.sh', KERNEL],
                             stdout=subprocess.PIPE, check=True, text=True
                             ).stdout.strip()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() + 1) as pool:
        outs = list(pool.map(lambda p: run(modules, p), programs))

    lines = collections.Counter()
    # the counts of a line's branches; copies in other objects may have more
    branches = collections.defaultdict(dict)
    for out in outs:
        for obj in counts(modules, out):
            for file in obj['files']:
                path = os.path.relpath(
                    os.path.normpath(file['file']), modules)
                if not path.startswith('drivers/virt/doorbell/'):
                    continue
                for line in file['lines']:
                    where = path, line['line_number']
                    lines[where] += line['count']
                    new = [b['count'] for b in line['branches']]
                    old = branches[where].get(len(new), [0] * len(new))
                    branches[where][len(new)] = [
                        a + b for a, b in zip(old, new)]

    table = collections.defaultdict(lambda: [0] * 4)
    source = {}
    for where, count in sorted(lines.items()):
        path, number = where
        if path not in source:
            source[path] = open(f'{TOP}/{path}').read().split('\n')
        text = source[path][number - 1].strip()
        name = os.path.basename(path)
        table[name][0] += count > 0
        table[name][1] += 1
        if not count:
            print(f'{name}:{number}: never runs: {text}')
        if name == 'trace.h' or not DECISION.search(text):
            continue
        # the object whose copy ran most
        best = max(branches[where].values(), key=lambda b: (
            sum(map(bool, b)) / (len(b) or 1), len(b)))
        table[name][2] += sum(map(bool, best))
        table[name][3] += len(best)
        if count and not all(best):
            print(f'{name}:{number}: {best.count(0)} of {len(best)} branches '
                  f'never run: {text}')

    total = [sum(column) for column in zip(*table.values())]
    for name, row in sorted(table.items()):
        print(f'{name}: lines {row[0]} of {row[1]}, '
              f'branches {row[2]} of {row[3]}')
    print(f'coverage: lines {100 * total[0] / total[1]:.1f} % '
          f'branches {100 * total[2] / total[3]:.1f} %')


if __name__ == '__main__':
    main(sys.argv[1:])

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Break the module and the library in many ways: does a test notice?

Usage: [ONLY=...] mutants.py PROGRAM...
       mutants.py --check

ONLY is a number of mutants, or a part of the names of those to run; by default
all run. One build has all mutants, see mutate.py. Tests are the KUnit suites
and the fixtures of the programs. Each runs once without a mutant, which says
what mutants it reaches: the others it cannot kill. Then, for each mutant, the
tests that reach it run until one fails: the quickest first, and those that have
killed more of the same file; slow ones come after the quick ones of all
mutants. What survives on the first of KERNELS has to survive on the others,
too. mutants.txt lists mutants that a litmus test kills, and equivalent ones.
With --check, only see whether there is a mutant for each of its lines.

build/mutants/results keeps what was found: that a test passed, until the module
or the test changes; that it failed, until the file with the mutant changes.
The last line is "mutants: killed K of N, equivalent E".
"""
import collections
import functools
import glob
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import zlib

import mutate

TOP = os.path.realpath(os.path.dirname(__file__) + '/../..')
OUT = TOP + '/build/mutants'
KERNELS = ['6.12-gcov', '6.12-debug']
LIB = 'tools/lib/doorbell/libdoorbell.c'
TRACE = 'drivers/virt/doorbell/trace.c'
FILES = [f'drivers/virt/doorbell/{name}' for name in (
    'buffer.c buffer.h chardev.c geometry.c geometry.h kvm.c produce.h '
    'region.c region.h').split()] + [TRACE, LIB]
SUITES = ['doorbell_' + suite for suite in
          ('geometry', 'buffer', 'region', 'kvm', 'buffer_threads')]
# Longest times of tests without a mutant, in seconds: those that take longer
# than the first run after the others.
LONGEST = 12, 400
# mutants for each machine
BATCH = 20
# $1 is a kernel
MODULES = '''
kernel=$($testbed/kernel.sh $1) && rsync -a --checksum tree/ $1/ &&
make -C $kernel/build M=$PWD/$1 KCFLAGS="-w -include $test/mutants.h" \
    DOORBELL_KUNIT=y modules &&
ln -sf drivers/virt/doorbell/doorbell.ko kunit/doorbell_kunit.ko $1/
'''
PROGRAMS = '''
source=$($testbed/kernel.sh source-6.12) && rsync -a --checksum tree/ user/ &&
mkdir -p selftests && make -C user/selftests/doorbell OUTPUT=$PWD/selftests \
    KSELFTEST=$source/tools/testing/selftests && ln -sfn ../tools tools
'''
# what trace.c has in addition, for mutants.h
SELECT = '''
#include <linux/kernel.h>
#include <linux/utsname.h>

bool doorbell_mutant(int number)
{
    static bool reached[MUTANTS];
    static int wanted = -1;

    if (wanted < 0 && kstrtoint(init_uts_ns.name.nodename, 10, &wanted))
        wanted = MUTANTS;
    if (!wanted && !reached[number]) {
        reached[number] = true;
        printk(KERN_INFO "mutant %d reached\\n", number);
    }
    return number == wanted;
}
'''


def sha(*paths):
    found = hashlib.sha256()
    for path in paths:
        for name in sorted(glob.glob(f'{TOP}/{path}/**/*', recursive=True) +
                           glob.glob(f'{TOP}/{path}')):
            if os.path.isfile(name):
                found.update(open(name, 'rb').read())
    return found.hexdigest()[:12]


def build(script, *args):
    with open(OUT + '/build.log', 'a') as log:
        subprocess.run(['bash', '-ec', script, 'sh', *args], check=True,
                       cwd=OUT, stdout=log, stderr=log,
                       env=dict(os.environ, testbed=TOP + '/tools/testbed',
                                test=TOP + '/tools/test'))


def make_mutants():
    """Write the code. Return all mutants, in an order that mixes them."""
    files = {path: open(f'{TOP}/{path}').read() for path in FILES}
    found = {path: mutate.mutate(os.path.basename(path), text)
             for path, text in files.items()}
    for path in FILES:
        names = collections.Counter()
        for mutant in found[path]:
            names[mutant.name] += 1
            if names[mutant.name] > 1:
                mutant.what += f' #{names[mutant.name]}'
            mutant.sha = sha(path)
    mutants = sorted(sum(found.values(), []),
                     key=lambda m: zlib.crc32(m.name.encode()))
    for number, mutant in enumerate(mutants):
        mutant.number = number + 1
    subprocess.run(['rm', '-rf', OUT + '/tree'])
    os.makedirs(OUT + '/tree')
    build('cp -r "$test"/../../{Kbuild,drivers,include,kunit,selftests,tools} '
          'tree')
    for path, text in files.items():
        # one copy of each mutant is enough
        text = mutate.schema(text, [(m.number, m) for m in found[path]]
                             ).replace('__always_inline', 'inline')
        head = f'#define MUTANTS {len(mutants) + 1}\n'
        if path == LIB:
            text = f'{head}#include "{TOP}/tools/test/mutants.h"\n{text}'
        elif path == TRACE:
            text = head + text + SELECT
        with open(f'{OUT}/tree/{path}', 'w') as file:
            file.write(text)
    build("sed -i 's/ -Werror//' tree/tools/lib/doorbell/Makefile")
    return mutants


class Results:
    """Whether tests passed or failed, by hash of sources, mutant and test."""
    def __init__(self):
        self.found, self.lock = {}, threading.Lock()
        if os.path.exists(OUT + '/results'):
            for line in open(OUT + '/results'):
                *key, result = line.rstrip('\n').split('\t')
                self.found[tuple(key)] = result

    def add(self, key, result):
        with self.lock, open(OUT + '/results', 'a') as file:
            self.found[key] = result
            print(*key, result, sep='\t', file=file)

    @staticmethod
    @functools.cache
    def key(test):
        """The hash of what a test consists of."""
        test = test.split('/')[1].split(':')[0]
        own = ['kunit'] if test in SUITES else [
            'tools/vmm', 'tools/lib', 'selftests/doorbell/*.h',
            f'selftests/doorbell/{test.removesuffix("_32")}.c']
        return sha('drivers', 'include', 'tools/test/mutate.py', *own)

    def passed(self, mutant, test):
        return self.found.get((self.key(test), mutant.name if mutant else '',
                               test))

    def killer(self, mutant):
        return self.found.get((mutant.sha, mutant.name, 'killer'))

    def note(self, mutant, test, words):
        """A test has passed; without a mutant: it took how long, reached..."""
        self.add((self.key(test), mutant.name if mutant else '', test),
                 ' '.join(words) or 'passed')

    def kill(self, mutant, test):
        if mutant:
            self.add((mutant.sha, mutant.name, 'killer'), test)
            print(f'killed by {test}: {mutant.name}', flush=True)
        else:
            print(f'fails without a mutant: {test}', flush=True)


class Kernel:
    """A kernel, the modules that were built for it, and its machines."""
    machines, stopping = set(), False

    def __init__(self, name, results):
        self.name, self.results = name, results
        self.work, self.lock = collections.deque(), threading.Lock()
        # (mutant, test) whose machine ended without a bug report
        self.ended = set()
        build(MODULES, name)

    def run(self, work):
        """Run tests: a list of (mutant or None, {test: limit})."""
        self.work = collections.deque(work)
        threads = [threading.Thread(target=self.worker, args=(n,))
                   for n in range(os.cpu_count())]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def worker(self, n):
        while True:
            with self.lock:
                batch = [self.work.popleft() for _ in range(
                    min(BATCH, -(-len(self.work) // os.cpu_count())))]
            if not batch:
                return
            left = self.machine(f'{OUT}/{self.name}-{n}', batch)
            with self.lock:
                self.work.extendleft(reversed(left))

    def machine(self, files, batch):
        """Run some in a machine; return those to run in another one."""
        numbers = {m.number if m else 0: m for m, _ in batch}
        limits = {t: limit for _, tests in batch for t, limit in tests.items()}
        with open(files + '.jobs', 'w') as jobs:
            for mutant, tests in batch:
                print(mutant.number if mutant else 0, *(
                    f'{t}:{limit}' for t, limit in tests.items()), file=jobs)
        test = TOP + '/tools/test'
        args = [test + '/programs.sh', '-k', self.name, '-t', '3600',
                '-l', files + '.log', '-b', OUT,
                '-g', test + '/mutants-guest.sh', '-f', files + '.jobs:/jobs',
                '-f', test + '/guest.sh:/programs.sh',
                '-f', TOP + '/tools/testbed/splat.sh:/splat.sh',
                f'{OUT}/{self.name}', 'kunit']
        args += sorted({t.split(':')[0] for t in limits
                        if t not in SUITES and t != 'leak'})
        current, begun = None, 0
        with open(files + '.out', 'w') as out, \
                open(files + '.err', 'w') as err, \
                subprocess.Popen(args, stdout=subprocess.PIPE, stderr=err,
                                 start_new_session=True, text=True,
                                 errors='replace') as vm:
            self.machines.add(vm)
            timer = threading.Timer(60, vm.terminate)
            timer.start()
            for line in vm.stdout:
                out.write(line)
                word, *words = line.split() or ['']
                if word not in ('run', 'passed', 'killed', 'over'):
                    continue
                timer.cancel()
                limit = 60
                if word == 'over':
                    begun += 1
                else:
                    this = numbers[int(words[0])], f'{self.name}/{words[1]}'
                    if word == 'run':
                        current = this
                        limit += limits[words[1]]
                    elif this != current:
                        print(f'what test is that, in {files}.out? {line}')
                        stop()
                    else:
                        current = None
                        if word == 'passed':
                            self.results.note(*this, words[2:])
                        else:
                            self.results.kill(*this)
                timer = threading.Timer(limit, vm.terminate)
                timer.start()
            timer.cancel()
            vm.wait()
            self.machines.discard(vm)
        if self.stopping:
            return []
        if current:
            # The mutant did that if the log has a report, or the second time.
            if current in self.ended or subprocess.run(
                    [TOP + '/tools/testbed/splat.sh', files + '.log'],
                    stdout=subprocess.DEVNULL).returncode == 1:
                self.results.kill(*current)
                begun += 1
            else:
                self.ended.add(current)
        elif not begun:
            print(f'the machine does not work, see {files}.err', flush=True)
            stop()
        return batch[begun:]


def stop(*_):
    Kernel.stopping = True
    for vm in Kernel.machines:
        vm.terminate()
    os._exit(1)


def listed(mutants):
    """Read mutants.txt: return {mutant: why}, which begins with "litmus "."""
    why, found = '', {}
    for line in open(TOP + '/tools/test/mutants.txt'):
        line = line.strip()
        if line.startswith('#'):
            why += line[1:]
        elif line:
            pattern = re.compile(re.escape(line).replace(r'\.\.\.', '.*'))
            matches = [m for m in mutants if pattern.fullmatch(m.name)]
            if not matches:
                raise SystemExit(f'mutants.txt: no such mutant: {line}')
            found.update((m, why.strip()) for m in matches)
        else:
            why = ''
    return found


def fixtures(program):
    """Each fixture of a program is a test, if it has some."""
    shown = subprocess.run([f'{OUT}/selftests/{program}', '-l'], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if 'FIXTURE' not in shown.stdout:
        return [program]
    return [f'{program}:-f{name}' for name in
            re.findall(r'^\w+', shown.stdout, re.M)]


def report(mutants, results, known):
    killed = equivalent = 0
    for mutant in mutants:
        if mutant in known and not known[mutant].startswith('litmus '):
            equivalent += 1
        elif mutant in known or results.killer(mutant):
            killed += 1
        else:
            print(f'survives: {mutant.name}')
    print(f'mutants: killed {killed} of {len(mutants)}, '
          f'equivalent {equivalent}', flush=True)


def main(programs):
    os.makedirs(OUT, exist_ok=True)
    everything = make_mutants()
    known = listed(everything)
    if programs == ['--check']:
        return
    results = Results()
    only = os.environ.get('ONLY', '')
    mutants = everything[:int(only)] if only.isdigit() else [
        m for m in everything if only in m.name]

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    twins = sorted({known[m].split()[1] for m in mutants
                    if known.get(m, '').startswith('litmus ')})
    if twins:
        subprocess.run([TOP + '/tools/test/litmus.sh', *twins], check=True)
    build(PROGRAMS)
    for name in KERNELS:
        kernel = Kernel(name, results)
        tests = SUITES + sum(map(fixtures, programs), [])
        kernel.run([(None, {t: LONGEST[-1]}) for t in tests
                    if not results.passed(None, f'{name}/{t}')])
        reach = {}
        for t in tests:
            if results.passed(None, f'{name}/{t}'):
                seconds, *reached = map(
                    int, results.passed(None, f'{name}/{t}').split())
                reach[t] = seconds, set(reached)
        kills = collections.Counter((m.sha, results.killer(m))
                                    for m in everything)
        for longest in LONGEST:
            work = []
            for mutant in mutants:
                if mutant in known or results.killer(mutant):
                    continue
                # seconds for each mutant of this file that it kills
                todo = sorted(
                    (t for t in reach if mutant.number in reach[t][1]
                     and reach[t][0] <= longest
                     and not results.passed(mutant, f'{name}/{t}')),
                    key=lambda t: (reach[t][0] + 2) /
                    (1 + kills[mutant.sha, f'{name}/{t}']))
                todo = {t: 4 * reach[t][0] + 40 for t in todo}
                if todo and 'debug' in name and longest == LONGEST[-1]:
                    todo['leak'] = 60
                if todo:
                    work.append((mutant, todo))
            kernel.run(work)
    report(mutants, results, known)


if __name__ == '__main__':
    main(sys.argv[1:])

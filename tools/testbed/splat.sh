#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Look for kernel bug reports in a kernel log.
#
# Usage: splat.sh LOGFILE
#
# Prints the reports with some context and exits with 1 if there are any.
#
# It does not count what stock kernels print about flaws of the CPU, what fault
# injection prints when it works, or causes (-ENOMEM), and data races (KCSAN)
# outside of doorbell, as mainline has known ones. The first line of a data race
# report names both functions.
set -eu

if [ $# != 1 ] || [ ! -r "$1" ]; then
	echo "usage: splat.sh LOGFILE" >&2
	exit 2
fi

# extended regular expressions, any number on a line
reports='WARNING:|BUG:|kernel BUG at|KASAN:|UBSAN:|ODEBUG:|KFENCE:
possible (recursive|circular|irq lock|deadlock)|circular locking
suspicious RCU usage|inconsistent lock state|held lock freed
bad unlock balance|lock held when returning
trying to register non-static key|DEBUG_LOCKS_WARN_ON
turning off the locking correctness validator
kmemleak: [0-9]+ new suspected memory leak|kmemleak: unreferenced object
kmemleak: Kernel memory leak detector disabled
INFO: task .* blocked for more than|blocked on .* likely owned by
rcu: INFO:|self-detected stall|detected (expedited )?stalls
soft lockup|hard LOCKUP|general protection fault[,:]|double fault
Oops[:,]|Call [Tt]race:|[Uu]nable to handle|Kernel panic - not syncing
stack-protector:|refcount_t:|sleeping function called
scheduling while atomic|bad: scheduling|Bad page (state|map)
list_(add|del)[a-z_]* corruption|list_add double add
Unknown symbol|disagrees about version of symbol|nobody cared
BUG [^ ]+ [(][NT][^)]*ainted|Object already free
INFO: lockdep is turned off|percpu ref .* after switching to atomic
debugfs: .* already present|cannot create duplicate filename
kobject_add_internal failed|Out of memory: Killed'

harmless='Speculative Return Stack Overflow: WARNING: See https:
Spectre V2 *: WARNING:
RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable'

alternatives() { printf %s "$1" | tr '\n' '|'; }

tr -d '\r' < "$1" | awk -v reports="$(alternatives "$reports")" \
	-v harmless="$(alternatives "$harmless")" '
{ line[NR] = $0 }

/FAULT_INJECTION: forcing a failure/ { injected = trace = NR }
/page allocation failure:|vmalloc error:/ && injected { trace = NR }
/Call [Tt]race:/ && trace && NR - trace < 30 { trace = 0; next }

/kobject_add_internal failed .*error: -12 / && injected { next }

/BUG: KCSAN:/ && !/\[doorbell/ { next }

$0 ~ reports && $0 !~ harmless { hit[++hits] = NR }

END {
	for (i = 1; i <= hits; i++) {
		from = hit[i] - 3
		if (from <= shown)
			from = shown + 1
		else if (shown)
			print "..."
		to = hit[i] + 30 < NR ? hit[i] + 30 : NR
		for (n = from; n <= to && printed < 300; n++) {
			print line[n]
			printed++
			shown = n
		}
	}
	exit hits > 0
}'

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Look for kernel bug reports in a kernel log.
#
# Usage: splat.sh LOGFILE
#
# Prints the reports with some context and exits with 1 if there are any.
#
# Not counted: what stock kernels say about the CPU's own flaws at boot, the traces
# that fault injection prints when it works, and data races (KCSAN) between two
# functions, named in the first line, none of which is doorbell's: mainline has
# known ones.
set -eu

if [ $# != 1 ] || [ ! -r "$1" ]; then
	echo "usage: splat.sh LOGFILE" >&2
	exit 2
fi

tr -d '\r' < "$1" | awk '
function harmless(s)
{
	return s ~ /Speculative Return Stack Overflow: WARNING: See https:/ ||
	       s ~ /Spectre V2 *: WARNING: / ||
	       s ~ /RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable/
}

function splat(s)
{
	return s ~ /WARNING:|BUG:|kernel BUG at|KASAN:|UBSAN:|ODEBUG:|KFENCE:/ ||
	       s ~ /possible (recursive|circular|irq lock|deadlock)|circular locking/ ||
	       s ~ /suspicious RCU usage|inconsistent lock state|held lock freed/ ||
	       s ~ /bad unlock balance|lock held when returning|trying to register non-static key/ ||
	       s ~ /DEBUG_LOCKS_WARN_ON|turning off the locking correctness validator/ ||
	       s ~ /kmemleak: [0-9]+ new suspected memory leak|kmemleak: unreferenced object/ ||
	       s ~ /kmemleak: Kernel memory leak detector disabled/ ||
	       s ~ /INFO: task .* blocked for more than|blocked on .* likely owned by/ ||
	       s ~ /rcu: INFO:|self-detected stall|detected (expedited )?stalls|soft lockup|hard LOCKUP/ ||
	       s ~ /general protection fault[,:]|double fault|Oops[:,]|Call Trace:/ ||
	       s ~ /[Uu]nable to handle|Kernel panic - not syncing|stack-protector:/ ||
	       s ~ /refcount_t:|sleeping function called|scheduling while atomic/ ||
	       s ~ /list_(add|del)[a-z_]* corruption|Bad page (state|map)|bad: scheduling/ ||
	       s ~ /Unknown symbol|disagrees about version of symbol|nobody cared/ ||
	       s ~ /BUG [^ ]+ \([NT][^)]*ainted|Object already free|list_add double add/ ||
	       s ~ /INFO: lockdep is turned off|percpu ref .* after switching to atomic/ ||
	       s ~ /debugfs: .* already present|cannot create duplicate filename/ ||
	       s ~ /kobject_add_internal failed|Out of memory: Killed/
}

{ line[NR] = $0 }

/FAULT_INJECTION: forcing a failure/ { injected = trace = NR }
/page allocation failure:|vmalloc error:/ && injected { trace = NR }
/Call Trace:/ && trace && NR - trace < 30 { trace = 0; next }

/BUG: KCSAN:/ && !/\[doorbell/ { next }

splat($0) && !harmless($0) { hit[++hits] = NR }

END {
	for (i = 1; i <= hits; i++) {
		from = hit[i] - 3
		if (from <= shown)
			from = shown + 1
		else if (shown)
			print "..."
		for (n = from; n <= hit[i] + 30 && n <= NR && printed < 300; n++) {
			print line[n]
			printed++
			shown = n
		}
	}
	exit hits > 0
}'

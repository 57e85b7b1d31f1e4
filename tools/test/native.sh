#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Ring the module's buffer from threads of this machine, for "make native".
#
# Usage: native.sh [RINGS]
#
# Runs tools/native: first under ThreadSanitizer, with a hundredth of RINGS,
# then on the CPUs as they are. Prints TAP, figures, and a last line of the form
# "native: rings N lost N, eventfd/doorbell N". Exit status: 1 if a test fails.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
rings=${1:-20000000}
out=$top/build/native

mkdir -p "$out"
make -s -C "$top/tools/native" OUTPUT="$out" ||
	{ echo "Bail out! tools/native does not build"; exit 1; }
"$out/native-tsan" $((rings / 100)) || failed=1
"$out/native" "$rings" || failed=1
exit "$failed"

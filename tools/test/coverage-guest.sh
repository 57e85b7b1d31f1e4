#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run test programs in a micro-VM as guest.sh does, which is /programs.sh here.
#
# Prints what gcov counted after that: "# gcda", and an archive in base64. The
# files of debugfs have no size, so they are copied first.
/programs.sh "$@"
status=$?
mkdir /tmp/gcda
find /sys/kernel/debug/gcov -name '*.gcda' | while read -r file; do
	cat "$file" >"/tmp/gcda/${file##*/}"
done
echo "# gcda"
tar -cz -C /tmp/gcda . | base64
exit $status

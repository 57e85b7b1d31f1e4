#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run the benchmark inside of the virtual machine. bench.sh puts the program and
# the modules beside this file.
set -e

cd "$(dirname "$0")"
insmod ./doorbell.ko
insmod ./floor.ko
for queues in 64 1024 4096; do
	for _ in 1 2 3; do
		./calls calls_any $queues
		LD_PRELOAD=./preload.so ./calls calls_preload $queues
	done
done
exec ./bench

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run the benchmark inside of the virtual machine. bench.sh puts the program and
# the modules beside this file.
set -e

cd "$(dirname "$0")"
insmod ./doorbell.ko
insmod ./floor.ko
exec ./bench

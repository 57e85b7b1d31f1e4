#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run the benchmark inside of the virtual machine: bench.sh puts all that it
# needs beside this file.
set -e

cd "$(dirname "$0")"
insmod ./doorbell.ko
insmod ./floor.ko
exec ./bench

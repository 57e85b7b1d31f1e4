#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run the two programs of the demo, in the micro-VM or on a host with KVM.
#
# Usage: demo.sh DIR [live]
#
# DIR holds demo-vmm and demo-consumer, and doorbell.ko if this script has to
# load it. With "live" the consumer updates its table in place. Its last line
# and exit status are the verdict.
dir=$1
sock=${TMPDIR:-/tmp}/doorbell-demo.$$

if [ ! -e /dev/doorbell ] && [ -e "$dir/doorbell.ko" ]; then
	insmod "$dir/doorbell.ko" || exit 1
fi
for dev in /dev/doorbell /dev/kvm; do
	if [ ! -r $dev ] || [ ! -w $dev ]; then
		echo "demo: cannot read and write $dev" >&2
		exit 1
	fi
done

"$dir/demo-vmm" "$sock" 5 &
vmm=$!
"$dir/demo-consumer" "$sock" ${2:+"$2"}
status=$?
[ $status -eq 0 ] || kill $vmm 2>/dev/null
wait $vmm || status=1
rm -f "$sock"
exit $status

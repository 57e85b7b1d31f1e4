#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run the two programs of the demo, in the micro-VM or on a host that has KVM.
#
# Usage: demo.sh DIR [live]
#
# DIR holds demo-vmm and demo-consumer, and doorbell.ko if that is to be loaded.
# The consumer's last line and exit status are the verdict.
dir=$1
sock=${TMPDIR:-/tmp}/doorbell-demo.$$

if [ ! -e /dev/doorbell ] && [ -e "$dir/doorbell.ko" ]; then
	insmod "$dir/doorbell.ko" || exit 1
fi
for dev in /dev/doorbell /dev/kvm; do
	if [ ! -r $dev ] || [ ! -w $dev ]; then
		echo "demo: $dev is not there, or not for you" >&2
		exit 1
	fi
done

"$dir/demo-vmm" "$sock" 5 &
vmm=$!
"$dir/demo-consumer" "$sock" $2
status=$?
[ $status -eq 0 ] || kill $vmm 2>/dev/null
wait $vmm || status=1
rm -f "$sock"
exit $status

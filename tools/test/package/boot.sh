#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC2317	# check() calls functions by name
# What package.sh runs in a micro-VM, in the Debian that has the packages: do
# what systemd does at boot, and use the device. Prints TAP.
set -uo pipefail

. "$(dirname "$0")/lib.sh"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export SYSTEMD_IGNORE_CHROOT=1
release=$(uname -r)

# modules.dep, with the module and with those of vm.sh
depmod "$release"
/lib/systemd/systemd-udevd --daemon >/dev/null 2>&1
udevadm trigger --settle
useradd stranger
useradd -G kvm user

loaded()
{
	/lib/systemd/systemd-modules-load && grep '^doorbell ' /proc/modules
}

by_dkms()
{
	local ko

	ko=$(modinfo -n doorbell) && echo "$ko" &&
		[[ $ko = "/lib/modules/$release/updates/dkms/doorbell.ko"* ]] &&
		same "$(modinfo -F srcversion "$ko")" \
			"$(cat /sys/module/doorbell/srcversion)"
}

mode()
{
	udevadm settle
	same "root:kvm 660" "$(stat -c '%U:%G %a' /dev/doorbell)"
}

# udevd's database: are the tags of a device, uaccess included, those of the
# other one?
tags()
{
	udevadm info "$1" | sed -n 's/^E: CURRENT_TAGS=//p' | tr ':' '\n' | sort
}

tags_of_kvm()
{
	tags /dev/kvm | grep uaccess && same "$(tags /dev/kvm)" \
		"$(tags /dev/doorbell)"
}

# refused REDIRECTION: may a user outside of the group not open the device?
refused()
{
	[ -e /dev/doorbell ] &&
		! runuser -u stranger -- sh -c "exec 3$1/dev/doorbell"
}

as_user() { runuser -u user -- timeout 60 "$@"; }

echo "TAP version 13"
check "the module is loaded at boot" loaded
check "it is the one that DKMS built" by_dkms
check "/dev/doorbell belongs to the group kvm" mode
check "/dev/doorbell has the tags of /dev/kvm" tags_of_kvm
check "a user in the group kvm may ring and read" as_user /install/try
check "a static program, too" as_user /install/try-static
check "a consumer returns when the VM ends" as_user /install/consumer
check "other users may not write" refused '>'
check "other users may not read" refused '<'
check "the command doorbell runs" doorbell list
check "the module can be unloaded" modprobe -r doorbell
echo "1..$count"
exit "$failed"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check that README.md's section "On a host" works, word for word.
#
# Boots the stock kernel 6.1 with a minimal Debian that has the packages that
# README.md asks for (debian.sh), and runs the commands there that README.md
# has (host.sh in install/). The checkout is what git knows of this one.
#
# Prints TAP. Exit status: 1 if a test fails, 77 if the kernel or Debian is
# unavailable, or that of run.sh.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"

# get NAME SCRIPT [ARGUMENT]: set path to the output of a script of the testbed.
get() {
	local ret

	path=$("$testbed/$2" "${@:3}")
	ret=$?
	[ $ret -ne 77 ] || { echo "1..0 # SKIP $1 is unavailable"; exit 77; }
	[ $ret -eq 0 ] || { echo "Bail out! $2 failed"; exit 1; }
}

get "Linux 6.1" kernel.sh 6.1
release=$(cat "$path/release")
modules=$path/modules/lib/modules/$release
get "a Debian with the headers of $release" debian.sh
image=$path

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
chmod 755 "$tmp"
cp "$top"/tools/test/install/* "$tmp"
(cd "$top" && git ls-files -z | tar -c --null -T - --ignore-failed-read \
	--transform 's,^,./,') >"$tmp/source.tar" || exit 1

# The modules that vm.sh and KVM need; all of them would make depmod slow.
files=(-f "$tmp:/install")
for path in "$modules"/modules.* "$modules"/kernel/{arch,virt,lib} \
	    "$modules"/kernel/drivers/{virtio,block/virtio_blk.ko} \
	    "$modules"/kernel/fs/{squashfs,overlayfs}; do
	files+=(-f "$path:/lib/modules/$release/${path#"$modules/"}")
done

"$testbed/run.sh" -k 6.1 -t 1200 "${files[@]}" -q -drive \
	-q "file=${image//,/,,},if=virtio,format=raw,readonly=on" \
	-- /install/vm.sh

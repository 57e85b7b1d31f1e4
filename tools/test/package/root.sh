#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC2317	# check() calls functions by name
# One step of package.sh, in its Debian. Prints TAP.
#
# Usage: root.sh STEP [RELEASE]
#
# RELEASE names the kernel that DKMS builds for.
set -uo pipefail

. "$(dirname "$0")/lib.sh"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
step=$1
release=${2-}
cd /install || exit 1
version=$(basename doorbell-*.tar.gz .tar.gz)
version=${version#doorbell-}

apt() { apt-get -qy -o Dpkg::Use-Pty=0 "$@"; }
install()
{
	apt -o Dpkg::Options::=--force-confold install \
		--no-install-recommends "$@"
}

fresh()
{
	! command -v dkms &&
		same "/lib/modules/$release" "$(echo /lib/modules/*)"
}

# Has DKMS built and installed the module?
built()
{
	local ko

	dkms status
	ko=$(modinfo -k "$release" -n doorbell) && echo "$ko" &&
		[[ $ko = "/lib/modules/$release/updates/dkms/doorbell.ko"* ]] ||
		return
	dkms status | grep "^doorbell/$version, $release, .*: installed" &&
		modinfo -F vermagic "$ko" | grep "^$release "
}

compiles()
{
	local flags
	flags=$(pkg-config --cflags --libs libdoorbell) || return

	# shellcheck disable=SC2086	# it is a list
	cc -Wall -o try try.c $flags &&
		cc -Wall -o consumer consumer.c main.c $flags &&
		ldd ./try | grep -E '/lib/[^/]*/libdoorbell\.so\.1 '
}

static()
{
	local flags
	flags=$(pkg-config --static --cflags --libs libdoorbell) || return

	# shellcheck disable=SC2086	# it is a list
	cc -Wall -static -o try-static try.c $flags
}

no_group() { ! getent group kvm; }

# does PACKAGE have the man page FILE?
page() { dpkg -L "$1" | grep "^/usr/share/man/$2\.gz$"; }

pages()
{
	page doorbell-dkms man4/doorbell.4 &&
		page doorbell-tools man1/doorbell.1 &&
		page libdoorbell-dev man3/libdoorbell.3 &&
		page libdoorbell-dev man3/doorbell_take.3
}

# offered WORD...: what does bash offer in place of the last word?
offered()
{
	local COMPREPLY COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))

	# there is no module here; this is in a subshell
	doorbell() { printf '%s\n' "PID FD" "7 3" "7 4" "8 5"; }
	# shellcheck source=/dev/null
	. /usr/share/bash-completion/completions/doorbell && _doorbell &&
		echo "${COMPREPLY[*]}"
}

# the options of a command, as in its help; those of a VMM are its own; and the
# consumers there are
completes()
{
	local command

	for command in list info queues top monitor ring check; do
		same "$({ echo --help; doorbell "$command" --help; } |
				grep -oE -e '--[a-z-]+' | sort -u)" \
			"$(offered doorbell "$command" - | tr ' ' '\n' |
				sort)" || return
	done
	same "7 7 8" "$(offered doorbell queues '')" &&
		same "3 4" "$(offered doorbell queues 7 '')" &&
		same "queues" "$(offered doorbell q)" || return
	same "--stats --help" "$(offered doorbell run -)" &&
		same '' "$(offered doorbell run true -)" &&
		same '' "$(offered doorbell run -- -)"
}

# All files but those that DKMS, apt and dpkg keep books with, and the kernel's
# headers, two of which are named doorbell.h.
files()
{
	find / -xdev -path /install -prune -o -path /proc -prune -o \
		-path /dev -prune -o -path /tmp -prune -o \
		-path /var/log -prune -o -path /var/cache -prune -o \
		-path '/usr/src/linux-*' -prune -o \
		-path /var/lib/apt -prune -o -path /var/lib/dpkg -prune -o \
		-print | sort
}

nothing_named_doorbell()
{
	! files | grep doorbell && ! dpkg -l | grep doorbell &&
		! dkms status | grep . &&
		! grep -IE '(^|[ /])doorbell( |\.ko|$)' /lib/modules/*/modules.*
}

add_tarball()
{
	tar -C /usr/src -xzf /install/doorbell-*.tar.gz &&
		dkms add "doorbell/$version" &&
		dkms install "doorbell/$version" -k "$release"
}

remove_tarball()
{
	dkms remove "doorbell/$version" --all &&
		rm -r "/usr/src/doorbell-$version"
}

# Other packages leave files, too.
unchanged()
{
	local more

	more=$(comm -13 before <(files))
	echo "$more"
	same '' "$(comm -23 before <(files))" &&
		! echo "$more" | grep doorbell
}

echo "TAP version 13"
case $step in
install)
	# here udev has made it
	groupdel kvm
	check "there is no group kvm" no_group
	files >before
	check "there is no DKMS, and one kernel" fresh
	check "apt installs the packages" install ./*.deb
	check "DKMS built the module" built
	check "the group kvm exists" getent group kvm
	check "the packages have man pages" pages
	check "doorbell run finds the library of its package" \
		doorbell run true
	check "bash completes all commands" completes
	check "apt installs a compiler" install gcc libc6-dev pkg-config
	check "programs compile with pkg-config" compiles
	check "a static program compiles with pkg-config" static
	;;
kernel)
	# its image comes along, and nothing here boots from an initramfs
	export INITRD=No
	check "apt installs the headers of another kernel" \
		install "linux-headers-$release"
	check "DKMS built the module for it" built
	;;
purge)
	mapfile -t names < <(dpkg-query -W -f '${Package}\n' |
		grep doorbell)
	check "apt purges the packages" apt purge "${names[@]}"
	check "nothing is left of doorbell" nothing_named_doorbell
	;;
tarball)
	check "DKMS installs the module from a tarball" add_tarball
	check "DKMS built the module" built
	check "DKMS removes it" remove_tarball
	check "nothing is left of doorbell" nothing_named_doorbell
	;;
autoremove)
	check "apt removes the packages that ours needed" apt \
		--purge autoremove
	check "all files from before are there, and none of doorbell" \
		unchanged
	;;
esac
echo "1..$count"
exit "$failed"

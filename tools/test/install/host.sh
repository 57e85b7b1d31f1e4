#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC2317	# root() calls functions by name
# Do what README.md says about a host, in the Debian of vm.sh. Prints TAP.
#
# The checkout is in /install/source.tar. The commands of README.md run as an
# ordinary user, who is in the group kvm and may use sudo without a password.
# This Debian runs udevd, but no init.
set -uo pipefail

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export SYSTEMD_IGNORE_CHROOT=1
home=/home/user
src=/home/user/doorbell
count=0
failed=0
out=$(mktemp)	# of the last command
all=$(mktemp)	# of README.md's commands

# result STATUS NAME: print a line of TAP, and $out before it if the test failed
result()
{
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count $2"
	else
		tail -n 40 "$out" | sed 's/^/# /'
		echo "not ok $count $2"
		failed=1
	fi
}

# as_user COMMAND: run a command line in the user's checkout
as_user() { runuser -l user -c "cd doorbell && $1" </dev/null; }

# user NAME COMMAND: test that as_user() succeeds
user()
{
	as_user "$2" >"$out" 2>&1
	result $? "$1"
}

# root NAME COMMAND [ARGUMENT]...: test that the command succeeds
root()
{
	"${@:2}" >"$out" 2>&1 </dev/null
	result $? "$1"
}

# -- README.md ---------------------------------------------------------------
# Print a section.
section()
{
	awk -v title="## $1" '
	/^## / { inside = $0 == title }
	inside' "$src/README.md"
}

# Print the commands of a section: its indented lines.
commands() { section "$1" | sed -n 's/^    //p'; }

# Print the C code of a section.
code() { section "$1" | awk '/^```/ { inside = $0 == "```c"; next } inside'; }

# says SECTION CODE: does the text of the section have this code?
says() { section "$1" | tr -s '\n ' ' ' | grep -F "\`$2\`" >/dev/null; }

# ends_with LINE: is this the last line of the last command of README.md?
ends_with()
{
	tail -n 1 "$all"
	[ "$(tail -n 1 "$all")" = "$1" ]
}

# readme COMMAND: test a command of README.md, with its comment if it has one
readme()
{
	local command=${1%%#*} last

	as_user "$1" >"$out" 2>&1
	result $? "README.md: ${command%"${command##*[! ]}"}"
	cat "$out" >>"$all"
	case $1 in
	*'# ends with "'*'"')
		last=${1#*'# ends with "'}
		last=${last%'"'}
		root "README.md: it ends with \"$last\"" ends_with "$last"
		;;
	esac
}

# in_text COMMAND: test a command that README.md has in its text
in_text()
{
	root "README.md has $1" says "On a host" "$1"
	readme "$1"
}

# -- checks ------------------------------------------------------------------
# same EXPECTED GOT: compare lists.
same() { diff <(echo "$1") <(echo "$2"); }

files() { find /etc /usr | sort; }
nothing_left() { same "$before" "$(files)"; }

modprobe_finds()
{
	local ko

	ko=$(modinfo -n doorbell) && echo "$ko" || return
	[[ $ko = "/lib/modules/$(uname -r)/"*/doorbell.ko ]] &&
		modprobe --show-depends doorbell | grep '/kvm\.ko'
}

# owner OWNER:GROUP MODE: those of /dev/doorbell, once udevd is idle
owner()
{
	udevadm settle
	ls -l /dev/doorbell
	[ "$(stat -c '%U:%G %a' /dev/doorbell)" = "$1 $2" ]
}

# What belongs to root is in the way of the user's next make.
all_owned() { ! find "$src" ! -user user | grep .; }

# refused REDIRECTION: may a user outside of the group not open the device?
refused()
{
	[ -e /dev/doorbell ] &&
		! runuser -u stranger -- sh -c "exec 3$1/dev/doorbell"
}

# staged FILE...: are these, and no others, in the stage?
staged()
{
	same "$(printf '%s\n' "$@" | sort)" \
		"$(find "$home/stage" ! -type d -printf '/%P\n' | sort)"
}

# Are the files of the checkout the same as in the beginning?
clean()
{
	same "$(tar -tf /install/source.tar | sort)" \
		"$(cd "$src" && find . ! -type d | sort)"
}

# README.md names what make install prints.
explained()
{
	! grep -iwE 'errors?|warnings?|fatal' "$all" |
		grep -vE 'SSL error|System\.map'
}

# -- a host ------------------------------------------------------------------
hostname host
echo '127.0.0.1 localhost host' >/etc/hosts
/lib/systemd/systemd-udevd --daemon >/dev/null 2>&1
udevadm trigger --settle
useradd stranger
useradd -m -s /bin/bash -G kvm user
echo 'user ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/user
before=$(files)
runuser -l user -c 'mkdir doorbell && tar -x -C doorbell' </install/source.tar

echo "TAP version 13"
while IFS= read -r command; do
	[ -n "$command" ] || continue
	readme "$command"
	case $command in
	"sudo insmod "*)
		root "/dev/doorbell belongs to root" owner root:root 660
		;;
	esac
done < <(commands "On a host")
root "README.md explains what looks like an error" explained
root "modprobe finds the module and kvm" modprobe_finds
root "/dev/doorbell belongs to the group kvm" owner root:kvm 660
root "nothing in the checkout belongs to root" all_owned

# shellcheck disable=SC2016	# the user's shell expands it
flags='$(pkg-config --cflags --libs libdoorbell)'
root "README.md has $flags" says "A consumer" "$flags"
user "a program uses the shared library" "cp examples/try.c .. && cd .. &&
	cc -o try try.c $flags && ldd ./try | grep /usr/local/lib/libdoorbell"
user "a user in the group kvm may ring and read" "../try"
root "other users may not write" refused '>'
root "other users may not read" refused '<'
code "A consumer" | runuser -u user -- tee "$home/consumer.c" >"$out"
user "README.md: the consumer returns when the VM ends" "cd .. &&
	cc -Wall -o consumer consumer.c /install/main.c $flags &&
	timeout 60 ./consumer"
in_text "make demo HOST=1"
in_text "make tools"
in_text "sudo make install-tools"
user "the command is there" "doorbell --version"

in_text "sudo rmmod doorbell"
in_text "sudo make uninstall"
in_text "sudo make uninstall-lib"
in_text "sudo make uninstall-tools"
root "nothing is left" nothing_left
root "modprobe does not find the module" eval '! modprobe doorbell'

lib=/usr/lib/x86_64-linux-gnu
where="DESTDIR=../stage UDEVDIR=/usr/lib/udev/rules.d"
where_lib="DESTDIR=../stage PREFIX=/usr LIBDIR=$lib"
user "make install, for a package" "make install $where"
user "make install-lib, for a package" "make install-lib $where_lib"
mapfile -t functions < <(sed -n 's/^\t\(doorbell_.*\);$/\1/p' \
	"$src/tools/lib/doorbell/libdoorbell.map")
functions=("${functions[@]/#//usr/share/man/man3/}")
root "the stage is complete" staged \
	"/lib/modules/$(uname -r)/extra/drivers/virt/doorbell/doorbell.ko" \
	/usr/lib/udev/rules.d/60-doorbell.rules \
	/usr/local/share/man/man4/doorbell.4 \
	/usr/share/man/man3/{libdoorbell,doorbell_notify_fn}.3 \
	"${functions[@]/%/.3}" \
	/usr/include/libdoorbell.h /usr/include/linux/doorbell.h \
	$lib/libdoorbell.{a,so,so.1} $lib/pkgconfig/libdoorbell.pc
user "make uninstall, of a package" "make uninstall $where"
user "make uninstall-lib, of a package" "make uninstall-lib $where_lib"
root "the stage is empty" staged ''
root "the host is unchanged" nothing_left
user "make clean" "make clean"
root "only the sources are left" clean

echo "1..$count"
exit $failed

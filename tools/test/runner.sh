#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check that the test tools notice failures: run.sh, splat.sh and tap.py, on
# which every verdict of "make check" rests, and the checks of "make lint":
# lint-abi.sh, lint-html.py, lint-layers.sh and lint-text.sh. And that setup.sh
# asks for the packages that it lists, and removes none; and what the Makefile
# does in places that install.sh does not have.
# Prints TAP.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
test=$top/tools/test
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
log=$tmp/vm
count=0

# result NAME [WHY]: print a line of TAP, "not ok" if there is a WHY
result() {
	count=$((count + 1))
	if [ -z "${2-}" ]; then
		echo "ok $count $1"
	else
		echo "not ok $count $1: $2"
		failed=1
	fi
}

# status GOT WANT NAME
status() {
	local why="status $1, not $2"

	[ "$1" -ne "$2" ] || why=
	result "$3" "$why"
}

# stubs PACKAGE: on a machine where nothing that doorbell needs is installed,
# and one package that conflicts with PACKAGE is, commands only log
stubs() {
	mkdir -p "$tmp/bin"
	# shellcheck disable=SC2016	# for the stubs
	printf '#!/bin/sh\n%s\n' 'exec "$@"' >"$tmp/bin/sudo"
	printf '#!/bin/sh\nexit 1\n' >"$tmp/bin/dpkg-query"
	cat >"$tmp/bin/apt-cache" <<-\EOF
	#!/bin/sh
	for arg; do
		printf '%s:\n  Candidate: 1\n' "$arg"
	done
	EOF
	cat >"$tmp/bin/apt-get" <<-EOF
	#!/bin/sh
	case " \$* " in
	*" -s "*" $1 "*)
		echo "Remv conflicting [1]"
		exit ;;
	*" -s "*)
		exit ;;
	*" --no-remove "*" $1 "*)
		exit 100 ;;
	*" install "*" $1 "*)
		touch "\$0.removed" ;;
	esac
	printf "%s\n" "\$@" >>"\$0.log"
	EOF
	chmod +x "$tmp/bin"/*
	rm -f "$tmp/bin"/*.*
}

setup() {
	PATH=$tmp/bin:$PATH "$testbed/setup.sh" packages >"$tmp/setup" 2>&1
}

# packages NAME: where nothing is installed, setup.sh installs all that it lists
packages() {
	local why=

	stubs none
	setup || why="status $?"
	# the names in setup.sh, each at the start of a line, except lib32gcc's
	diff <(sed -n '/<<-EOF$/,/^\tEOF$/s/^\t\([^ ]*\)  *[^< ].*/\1/p' \
			"$testbed/setup.sh" | grep -vx cat | sort -u) \
		<(grep -v '^-\|^update$\|^install$\|=\|^lib32gcc-' \
			"$tmp/bin/apt-get.log" | sort -u) >"$tmp/packages" ||
		why="$why $(tr '\n' ' ' <"$tmp/packages")"
	[ "$(wc -l <"$tmp/bin/apt-get.log")" -gt 50 ] || why="few packages"
	result "$1" "$why"
}

# conflict STATUS NAME PACKAGE: setup.sh names what is in the way of a package
# and leaves it alone
conflict() {
	local why=

	stubs "$3"
	setup
	[ $? -eq "$1" ] || why="not status $1"
	grep -q '^setup.sh: .*\<conflicting\>' "$tmp/setup" ||
		why="no message${why:+, $why}"
	[ ! -e "$tmp/bin/apt-get.removed" ] || why="it is removed"
	result "setup.sh: $2" "$why"
}

# installed NAME: what is installed for two architectures is not missing
installed() {
	local why=

	stubs none
	cat >"$tmp/bin/dpkg-query" <<-\EOF
	#!/bin/sh
	# dpkg-query -W -f FORMAT PACKAGE
	line=$(printf '%s.' "$3" | sed 's/${db:Status-Status}/installed/')
	printf "${line%.}${line%.}"
	EOF
	setup || why="status $?"
	[ ! -e "$tmp/bin/apt-get.log" ] || why="packages are installed"
	result "setup.sh: $1" "$why"
}

# expect STATUS NAME RUN-OPTION... -- COMMAND...
expect() {
	local want=$1 name=$2
	shift 2
	"$testbed/run.sh" -l "$log" "$@" >/dev/null 2>&1
	status $? "$want" "$name"
}

# scan STATUS NAME LINE...
scan() {
	printf '[    1.234567] %s\n' "${@:3}" >"$log"
	"$testbed/splat.sh" "$log" >/dev/null 2>&1
	status $? "$1" "splat.sh: $2"
}

# report NAME EXPECTED TAP: compare the output of tap.py
report() {
	local got why
	echo "$3" >"$log"
	got=$("$test/tap.py" "$log")
	why="printed '${got//$'\n'/ / }'"
	[ "$got" != "$2" ] || why=
	result "tap.py: $1" "$why"
}

# object NAME [OTHER]...: make an object that needs the other objects
object() {
	local name=$1 other
	shift

	{
		echo "int $name;"
		for other; do
			echo "extern int $other; int *${name}_$other = &$other;"
		done
	} | gcc -c -x c - -o "$tmp/$name.o"
}

# layers STATUS NAME OBJECT [OTHER]...: one object of a good module is different
layers() {
	local want=$1 name=$2
	shift 2

	echo "doorbell-y := chardev.o kvm.o buffer.o geometry.o $1.o" \
		>"$tmp/Kbuild"
	object chardev kvm buffer geometry
	object kvm buffer geometry
	object buffer
	object geometry
	object "$@"
	"$test/lint-layers.sh" "$tmp" >/dev/null 2>&1
	status $? "$want" "lint-layers.sh: $name"
}

# list LINE...: a list of ioctl numbers that lint-abi.sh reads has these lines
list() {
	printf '%s\n' "$@" >"$tmp/list"
}

# abi STATUS NAME [FILE SED]: lint numbers; one file of a checkout is different
abi() {
	rm -rf "$tmp/checkout"
	mkdir "$tmp/checkout"
	(cd "$top" && cp --parents -t "$tmp/checkout" include/uapi/linux/*.h \
		drivers/virt/doorbell/chardev.c dkms.conf debian/changelog \
		tools/lib/doorbell/{Makefile,*.pc.in} ./*.md tools/syzkaller/* \
		tools/package/doorbell.spec)
	[ $# -lt 3 ] || sed -i "$4" "$tmp/checkout/$3"
	"$test/lint-abi.sh" "$tmp/list" "$tmp/checkout" >/dev/null 2>&1
	status $? "$1" "lint-abi.sh: $2"
}

# text STATUS NAME LINE...: lint a checkout with one document of these lines
text() {
	rm -rf "$tmp/checkout"
	git init -q "$tmp/checkout"
	printf '%s\n' "${@:3}" >"$tmp/checkout/text.rst"
	git -C "$tmp/checkout" add text.rst
	"$test/lint-text.sh" "$tmp/checkout" >/dev/null 2>&1
	status $? "$1" "lint-text.sh: $2"
}

# html STATUS NAME LINK: lint a page with this link, and one beside it
html() {
	rm -rf "$tmp/html"
	mkdir "$tmp/html"
	echo "<a href=\"$3\">link</a>" >"$tmp/html/page.html"
	echo '<h1 id="here">heading</h1>' >"$tmp/html/other.html"
	"$test/lint-html.py" "$tmp/html" >/dev/null 2>&1
	status $? "$1" "lint-html.py: $2"
}

# makes: make, in a checkout of its own
makes() {
	make -s -j1 -C "$tmp/make" RELEASE=none DESTDIR="$tmp/stage" "$@"
}

# private NAME: others may read what is installed with a umask of 077
private() {
	local why

	mkdir -p "$tmp/kbuild"
	cat >"$tmp/kbuild/Makefile" <<-\EOF
	ko := drivers/virt/doorbell/doorbell.ko
	to := $(INSTALL_MOD_PATH)/lib/modules/none/updates/$(ko)
	modules: ; @touch $(M)/$(ko)
	modules_install: ; @mkdir -p $(dir $(to)) && cp $(M)/$(ko) $(to)
	EOF
	(umask 077; makes lib tools preload install-{lib,tools,preload} &&
		makes install KDIR="$tmp/kbuild") \
		>"$tmp/log" 2>&1 || { result "$1" "status $?"; return; }
	why=$(find "$tmp/stage"/* ! -type l ! -perm -005 ! -perm 644 -print)
	find "$tmp/stage" -name doorbell.ko | grep -q . || why="no module"
	result "$1" "${why//$'\n'/ }"
}

# blanks NAME: make uninstall takes no part of a name for a file
blanks() {
	local name why=

	touch "$tmp/part"
	for name in "$tmp/part of" "$tmp/part "; do
		! makes uninstall DESTDIR="$name" >"$tmp/log" 2>&1 ||
			why="status 0"
		grep -q 'DESTDIR has blanks' "$tmp/log" || why="no message"
	done
	[ -e "$tmp/part" ] || why="a file is gone"
	result "$1" "$why"
}

# nowhere NAME: without a module tree, make uninstall removes nothing
nowhere() {
	local file=$tmp/make/updates/drivers/virt/doorbell/doorbell.ko why=

	mkdir -p "${file%/*}"
	touch "$file"
	makes uninstall DESTDIR="$tmp/nowhere" >/dev/null 2>&1 ||
		why="status $?"
	[ -e "$file" ] || why="a file of the checkout is gone"
	result "$1" "$why"
}

# built NAME DIRS [ARGUMENT]...: the folders built for a kernel that has KUnit
built() {
	local got why=

	mkdir -p "$tmp/kernel"
	cat >"$tmp/kernel/Makefile" <<-\EOF
	CONFIG_KUNIT := y
	src := $(M)
	include $(M)/Kbuild
	modules: ; @echo $(obj-m)
	EOF
	got=$(makes KDIR="$tmp/kernel" "${@:3}" 2>&1)
	[ "$got" = "$2" ] || why="builds $got"
	result "$1" "$why"
}

echo 1..58
expect 0 "a command that passes" -- true
expect 3 "a command that fails" -- sh -c 'exit 3'
expect 124 "a command that hangs" -t 20 -- sleep 1000
expect 125 "a kernel that panics" -- \
	sh -c 'echo c >/proc/sysrq-trigger; sleep 1000'
expect 126 "a bug report in the log of a command that passes" -- \
	sh -c 'echo "WARNING: CPU: 0 PID: 1 at x.c:1 f+0x0/0x1" >/dev/kmsg'

scan 1 "a warning" "WARNING: CPU: 1 PID: 77 at virt/kvm/kvm_main.c:1 f+0x1/0x2"
scan 1 "KASAN" "BUG: KASAN: slab-use-after-free in f+0x1/0x2 [doorbell]"
scan 1 "KCSAN" "BUG: KCSAN: data-race in f / g [doorbell_kunit]"
scan 0 "KCSAN elsewhere" "BUG: KCSAN: data-race in f / g"
scan 1 "lockdep" "WARNING: possible circular locking dependency detected"
scan 1 "kmemleak" \
	"kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/f)"
scan 1 "a hung task" "INFO: task cat:99 blocked for more than 120 seconds."
scan 1 "sleeping while atomic" \
	"BUG: sleeping function called from invalid context at f.c:1"
scan 1 "a trace of arm64" "Call trace:"
injected="FAULT_INJECTION: forcing a failure."
kobject="kobject_add_internal failed for f"
scan 0 "the trace of fault injection" "$injected" "Call Trace:"
scan 1 "another trace" "$injected" "Call Trace:" "Call Trace:"
scan 0 "a kobject without memory" "$injected" "$kobject (error: -12 parent: g)"
scan 1 "a kobject without memory, by no fault injection" \
	"$kobject (error: -12 parent: g)"
scan 1 "another kobject" "$injected" "$kobject (error: -2 parent: g)"
scan 0 "an innocent line" "doorbell: loading out-of-tree module taints kernel."

report "passed and skipped tests" "skipped vm/a: two # SKIP why
2 passed, 0 failed, 1 skipped" "# begin a
1..2
ok 1 one
ok 2 two # SKIP why
# end a 0
# verdict clean"

report "a repetition that fails" "skipped vm/a: one # SKIP why
FAILED vm/a: one
--- vm/a printed:
1..1
not ok 1 one
---
1 passed, 1 failed, 2 skipped" "# begin a
1..1
ok 1 one # SKIP why
# end a 0
# begin a
1..1
ok 1 one # SKIP why
# end a 0
# begin a
1..1
not ok 1 one
# end a 1
# verdict clean"

report "the output of the failed test" "FAILED vm/a: two
--- vm/a printed:
# two.c:7: why
not ok 2 two
---
3 passed, 1 failed" "# begin a
1..3
# one.c:5: nothing
ok 1 one
# two.c:7: why
not ok 2 two
ok 3 three
# end a 1
# verdict clean"

report "the last lines of a program that ended early" \
	"FAILED vm/a: 1 of 2 results, status 139
--- vm/a printed:
# its last words
---
2 passed, 1 failed" "# begin a
1..2
ok 1 one
# its last words
# end a 139
# verdict clean"

report "a machine in which no program ran" "FAILED vm: no program ran
0 passed, 1 failed" "# verdict clean"

layers 0 "only calls of lower layers" buffer
layers 1 "a call of a higher layer" buffer kvm
layers 1 "a call within a layer" buffer geometry
layers 1 "an object without a layer" other

packages "setup.sh: the names of packages"
installed "packages of two architectures"
conflict 1 "no package is removed" qemu-system-x86
conflict 0 "no package is removed for arm64" gcc-aarch64-linux-gnu

mkdir "$tmp/make"
(cd "$top" && git ls-files -z | tar -c --null -T - --ignore-failed-read) |
	tar -x -C "$tmp/make"
private "make install and so on with a umask of 077"
nowhere "make uninstall without a module tree"
blanks "make uninstall and names with blanks"
built "make builds no KUnit suites" drivers/virt/doorbell/
built "the testbed builds them" "drivers/virt/doorbell/ kunit/" \
	DOORBELL_KUNIT=y

spdx=".. SPDX-License-Identifier: GPL-2.0"
text 0 "a good document" "$spdx" "$(printf %080d 0)"
text 1 "a line that is too long" "$spdx" "$(printf %081d 0)"
text 1 "a document without a license" "text"
text 1 "a script that is not executable" "#!/bin/sh" "# ${spdx#.. }"
text 1 "a retired word" "$spdx" "the ring_""offset"

html 0 "a link to a heading" "other.html#here"
html 0 "a link to another site" "https://example.org/none.html#none"
html 1 "a link to no heading" "#here"
html 1 "a link to no heading of another page" "other.html#id1"
html 1 "a link to no page" "none.html"

list "0xD7  00-0F  drivers/other.h" "0xDD  00-3F  drivers/zfcp.h"
abi 0 "numbers as they are"
abi 1 "a type of another driver" include/uapi/linux/doorbell.h \
	"/define DOORBELL_IOC/s/0x.*/0xD7/"
abi 1 "no type" include/uapi/linux/doorbell.h "/define DOORBELL_IOC/d"
version='VERSION\|^Version:\|^doorbell (\|^## [0-9]\|today is\|dkms '
for file in drivers/virt/doorbell/chardev.c tools/lib/doorbell/Makefile \
	dkms.conf debian/changelog tools/package/doorbell.spec \
	CHANGELOG.md SECURITY.md README.md; do
	abi 1 "another version in $file" $file \
		"/$version/s/[0-9]\+\.[0-9]\+/77.0/"
done
abi 1 "a version in libdoorbell.pc.in" tools/lib/doorbell/libdoorbell.pc.in \
	"s/@VERSION@/77.0/"
abi 1 "another constant for syzkaller" include/uapi/linux/doorbell.h \
	"/define DOORBELL_DEPTH_MAX/s/20/21/"
abi 1 "another structure for syzkaller" include/uapi/linux/doorbell.h \
	"/^	__u16 queue;/s/16/32/"
list "0xD7  00-0F  drivers/other.h" "0xD8  all    drivers/other.h" \
	"0xDD  00-3F  drivers/zfcp.h"
abi 1 "a driver with the same type"
list "0xD7  00-0F  drivers/other.h"
abi 1 "a list that is not the kernel's"
exit $failed

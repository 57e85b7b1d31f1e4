#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Make a series of patches that puts doorbell into a kernel tree: what
# "make kernel-patch KSRC=..." runs.
#
# Usage: kernel-patch.sh KSRC DIR
#
# Writes the patches to DIR, for git am or patch -p1 in KSRC, which stays as it
# is. Left out is what serves only this project: compat.h, the KUnit suites,
# tools, and the documents about them.
# shellcheck disable=SC2016	# makefiles and documents have $() and ``
set -euo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
[ $# = 2 ] || usage
ksrc=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
[ -e "$ksrc/drivers/virt/Kconfig" ] || die 1 "$1 is not a kernel tree"
[ ! -e "$ksrc/drivers/virt/doorbell" ] || die 1 "$1 has doorbell already"

# who KEY FORMAT: git's configuration, or else the author of the last commit
who() { git -C "$top" config "$1" || git -C "$top" log -1 --format="$2"; }
GIT_AUTHOR_NAME=$(who user.name %an)
GIT_AUTHOR_EMAIL=$(who user.email %ae)
export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL
export GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME
export GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL LC_ALL=C
# The rest of the configuration is about signatures, hooks, forms of patches.
# The user's lists of files that git ignores, or takes for binary, are in HOME.
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_ATTR_NOSYSTEM=1
export HOME=$tmp/home XDG_CONFIG_HOME=$tmp/home
# shellcheck disable=SC2046	# names of variables
unset $(git rev-parse --local-env-vars) GIT_TEMPLATE_DIR GIT_DIFF_OPTS \
	GIT_DEFAULT_HASH GIT_EXTERNAL_DIFF

mkdir "$tmp/tree"
cd "$tmp/tree"
git init -q

# take DIR FILE...: copy files
take() { mkdir -p "$1" && cp -- "${@:2}" "$1"; }

# before REGEX FILE: put standard input before the first line that matches
before()
{
	awk -v regex="$1" '
	NR == FNR { text = text $0 "\n"; next }
	!done && $0 ~ regex { printf "%s", text; done = 1 }
	{ print }
	END { exit !done }' - "$2" >new || die 1 "$2 has no line $1"
	mv new "$2"
}

# patch: commit everything, with the message on standard input
patch() { git add -A && git commit -qsF -; }

changed=(MAINTAINERS drivers/virt/Kconfig drivers/virt/Makefile
	Documentation/virt/index.rst tools/testing/selftests/Makefile
	Documentation/userspace-api/ioctl/ioctl-number.rst)
for file in "${changed[@]}"; do
	install -D -m 644 "$ksrc/$file" "$file"
done
echo base | patch

# -- the driver --------------------------------------------------------------
driver=drivers/virt/doorbell
take $driver "$top"/$driver/{*.c,*.h,Kbuild,Kconfig}
rm $driver/compat.h
sed -i 's/\bdoorbell_eventfd_signal\b/eventfd_signal/' $driver/*.[ch]
take include/uapi/linux "$top"/include/uapi/linux/doorbell.h
sed -i 's|Documentation/\([a-z-]*\.rst\)|Documentation/virt/doorbell/\1|' \
	$driver/*.h include/uapi/linux/doorbell.h
echo "source \"$driver/Kconfig\"
" | before '^endif' drivers/virt/Kconfig
echo 'obj-$(CONFIG_DOORBELL)		+= doorbell/' >>drivers/virt/Makefile
printf '0xD8  00-0F  %-57s KVM guest doorbells\n' linux/doorbell.h |
	before '^0xD[9A-F] ' "${changed[5]}"
# The sections are sorted.
awk -v name="$GIT_AUTHOR_NAME" -v email="$GIT_AUTHOR_EMAIL" '
/^Maintainers List/ { list = 1 }
list && last == "" && /^[A-Z0-9]/ && $0 > "DOORBELL" && !done {
	print "DOORBELL (KVM GUEST DOORBELLS)"
	print "M:\t" name " <" email ">"
	print "L:\tkvm@vger.kernel.org"
	print "S:\tMaintained"
	print "F:\tDocumentation/litmus-tests/doorbell/"
	print "F:\tDocumentation/virt/doorbell/"
	print "F:\tdrivers/virt/doorbell/"
	print "F:\tinclude/uapi/linux/doorbell.h"
	print "F:\ttools/lib/doorbell/"
	print "F:\ttools/testing/selftests/doorbell/"
	print ""
	done = 1
}
{ print; last = $0 }
END { exit !done }' MAINTAINERS >new
mv new MAINTAINERS
patch <<EOF
virt: doorbell: Add doorbells of KVM guests as events

A VMM gives KVM one eventfd per queue today. That is a descriptor, a
registration and a read() for each queue, and the value that the guest
wrote is lost.

Add /dev/doorbell. A VMM or a device back end attaches a guest's notify
region to one descriptor, and reads from it which queue the guest rang,
how often, and the last value written. One descriptor and one ioctl()
serve up to 65,535 queues, and KVM handles the guest's writes without an
exit to user space.
EOF

# -- documents ---------------------------------------------------------------
docs=Documentation/virt/doorbell
take $docs "$top"/Documentation/{debugging,design,recipes,userspace-api}.rst
# The kernel's documents draw such pictures themselves.
take $docs "$top"/Documentation/data-path.dot
sed -i '/make pictures/d' $docs/data-path.dot
# without the sections about the documents that are left out
awk -v RS= -v ORS='\n\n' '
	/^\.\. toctree::/ { exit }
	!/^`(api|testing|benchmarks|qemu|preload)\.rst/' \
	"$top/Documentation/index.rst" | sed '$d' >$docs/index.rst
cat >>$docs/index.rst <<EOF

.. toctree::
   :hidden:

   userspace-api
   recipes
   debugging
   design
EOF
run='make -C tools/testing/selftests TARGETS=doorbell run_tests'
sed -i -e 's|``selftests/doorbell|``tools/testing/selftests/doorbell|' \
	-e "s|make check KERNELS.*|$run|" \
	-e 's|image:: data-path.svg|kernel-figure:: data-path.dot|' \
	-e '/^``compat\.h``/d' -e 's/; ``make lint`` checks the.*/. What/' \
	-e '/^Some recipes have a short program/,+1d' \
	-e '/^Examples\?: ``examples/,+1d' -e '/^``examples\/.*polls\.$/d' \
	-e 's/^machines of ``make check``/machines of the tests/' $docs/*.rst
# links, some of them on two lines
perl -0pi -e 's|`[\w.-]+\s<([\w-]+)\.rst>`__|:doc:`$1`|g;
	s|`[^`<]*\s<litmus-tests/README>`__
	|Documentation/litmus-tests/doorbell/README|xg' $docs/*.rst
# What is built and installed elsewhere, and what stays in doorbell's repository
sed -i -e 's/``make lib``/``make`` there/' \
	-e 's/``make install-lib``/``make install``/' \
	-e 's/cc try\.c/cc program.c/' $docs/userspace-api.rst
perl -0pi -e 's|The udev rule that comes\nwith the module|The udev rule in
its repository|' $docs/userspace-api.rst
before '^The consumer$' $docs/debugging.rst <<EOF
The command \`\`doorbell\`\`, its udev rule and the examples are not part of the
kernel, but of doorbell's own repository.

EOF
litmus=Documentation/litmus-tests/doorbell
take $litmus "$top"/Documentation/litmus-tests/*
before '^    tools/test/litmus.sh ' $litmus/README <<EOF
    cd tools/memory-model
    herd7 -conf linux-kernel.cfg \\
        ../../$litmus/ring-count.litmus
EOF
sed -i -e '/^    tools\/test\/litmus\.sh /d' \
	-e 's/^\(change\.\) litmus\.sh prints the line that differs\./\1/' \
	$litmus/README
echo '   doorbell/index' | before '^   guest-halt-polling' "${changed[3]}"
patch <<EOF
Documentation: virt: Add documents of doorbell

Describe the interface and its guarantees, what to attach for which
device, and the inside of the driver. The litmus tests show that no ring
and no wake-up is lost.
EOF

# -- the library -------------------------------------------------------------
lib=tools/lib/doorbell
take $lib "$top"/$lib/{Makefile,*.c,*.h,*.map,*.pc.in,man.py}
sed -i -e 's/make install-lib/make install/' \
	-e 's/ make lint lets that script check the comments\.//' $lib/man.py
# Programs need the exported headers, of "make headers".
headers='$(or $(KHDR_INCLUDES),-isystem $(TOP)/usr/include)'
sed -i "s|-I\$(TOP)/include/uapi|$headers|" $lib/Makefile
patch <<EOF
tools: lib: doorbell: Add a consumer of /dev/doorbell

The library consumes events from mapped memory, and hides its protocol.
EOF

# -- selftests ---------------------------------------------------------------
tests=tools/testing/selftests/doorbell
take $tests "$top"/selftests/doorbell/{*.c,*.h,Makefile}
take $tests/vmm "$top"/tools/vmm/*
# the tests of the preload library and of the doorbell command
rm $tests/{preload,tool}.c
sed -i '/The example of Documentation\/testing\.rst/d' $tests/stream.c
sed -i -e '/^# tests of what a kernel tree/,/^TEST_GEN_FILES/d' \
	-e '/^# The library is loaded/,/^\$(OUTPUT)\/tool: CFLAGS/d' \
	-e 's/ preload$//; s/ tool\( \|$\)/\1/' \
	$tests/Makefile
sed -i -e "s|-I\$(TOP)/include/uapi|$headers|" \
	-e '/^# The kselftests/,/^KSELFTEST/d' \
	-e '1a # The kselftests of doorbell.\nKSELFTEST := ..' \
	-e 's|^TOP ?= .*|TOP ?= $(abspath ../../../..)|' \
	-e 's|^VMM_DIR := .*|VMM_DIR := $(CURDIR)/vmm|' $tests/Makefile
{
	echo '# SPDX-License-Identifier: GPL-2.0'
	sed -n 's/^ *TEST_GEN_PROGS +\?:\?= *//p' $tests/Makefile | tr ' ' '\n'
} >$tests/.gitignore
# The tests run guests, and some of them for minutes.
cat >$tests/config <<EOF
CONFIG_KVM=y
CONFIG_KVM_AMD=y
CONFIG_KVM_INTEL=y
CONFIG_VIRT_DRIVERS=y
CONFIG_DOORBELL=m
EOF
echo timeout=600 >$tests/settings
echo 'TARGETS += doorbell' | before '^TARGETS \+= drivers/' "${changed[4]}"
patch <<EOF
selftests: doorbell: Add tests of /dev/doorbell

Guests of a small VMM ring, and the tests compare what the consumers read
with what the guests counted.
EOF

# names of doorbell's repository
own='>`__|examples/|litmus\.sh|udev rule that comes|testing\.rst'
own+='|(^|[^_])make (check|lint|lib|install-|tools|preload|html|demo|bench)\>'
own+='|tools/(test|testbed|bench|demo|doorbell|preload|qemu|native)/'
! git grep -nE "$own" -- ':!MAINTAINERS' >&2 ||
	die 1 "the series names what the kernel tree does not have"

rm -f "$out"/*.patch
git format-patch -q -o "$out" HEAD~4
ls "$out"/*.patch

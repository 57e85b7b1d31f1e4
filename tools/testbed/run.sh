#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run a command in a virtual machine with one of kernel.sh's kernels.
#
# Usage: run.sh [OPTION]... -- COMMAND [ARG...]
#
#   -k NAME              kernel, see kernel.sh (default 6.12)
#   -m MB                memory (default 1024)
#   -c CPUS              1 to 4 (default 2)
#   -p                   CPUs run in parallel, as those of 6.12-kcsan do; not
#                        for stock kernels, which patch their code, nor guests
#   -t SECONDS           time limit (default 300)
#   -f PATH[:GUESTPATH]  put this file or directory into the machine (default:
#                        in /)
#   -l LOGFILE           keep the kernel log here (default: in build/, on
#                        failure only)
#   -o                   repeatable figures: one CPU, a TSC that counts
#                        instructions
#   -a CMDLINE           add to the kernel command line
#   -q ARG               add one argument to QEMU's
#
# COMMAND runs as root in / and finds BusyBox and /dev/kvm. Its output comes to
# stdout. Exit status: that of COMMAND, or
#
#   124   the time limit passed
#   125   the kernel panicked, or the machine ended without a verdict
#   126   COMMAND passed, but the kernel log has a bug report
#   77    the kernel is unavailable
set -euo pipefail

. "$(dirname "$0")/lib.sh"

kernel=6.12 mem=1024 cpus=2 limit=300 log='' icount='' append='' thread=single
files=() extra=()
while getopts k:m:c:pt:f:l:oa:q: opt; do
	case $opt in
	k) kernel=$OPTARG ;;
	m) mem=$OPTARG ;;
	c) cpus=$OPTARG ;;
	p) thread=multi ;;
	t) limit=$OPTARG ;;
	f) files+=("$OPTARG") ;;
	l) log=$OPTARG ;;
	o) icount=y cpus=1 ;;
	a) append=$OPTARG ;;
	q) extra+=("$OPTARG") ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || usage
[ -z "$icount" ] || cpus=1

dir=$("$testbed/kernel.sh" "$kernel")
release=$(cat "$dir/release")
arch=amd64
[[ $kernel != *-arm64* ]] || arch=arm64
busybox=$("$testbed/kernel.sh" user-$arch)/bin/busybox

tmp=$(mktemp -d "${TMPDIR:-/tmp}/doorbell-vm.XXXXXX")
qemu='' reader=''
# shellcheck disable=SC2317	# called by trap
cleanup()
{
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || :
	[ -z "$reader" ] || kill "$reader" 2>/dev/null || :
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

keep=y
if [ -z "$log" ]; then
	keep=
	mkdir -p "$top/build"
	log=$(mktemp "$top/build/vm-$kernel.XXXXXX.log")
fi
: > "$log"

# -- initramfs ---------------------------------------------------------------
root=$tmp/root
mkdir -p "$root"/{bin,sbin,dev,proc,sys}
cp "$testbed/init" "$root/init"
chmod 755 "$root/init"
cp "$busybox" "$root/bin/busybox"

for spec in "${files[@]}"; do
	path=${spec%%:*}
	guest=/$(basename "$path")
	[ "$path" = "$spec" ] || guest=/${spec#*:}
	mkdir -p "$root$(dirname "$guest")"
	if [ -d "$path" ]; then
		mkdir -p "$root$guest"
		cp -a "$path/." "$root$guest"
	else
		cp -pL "$path" "$root$guest"
	fi
done

{
	echo '#!/bin/sh'
	printf 'exec'
	for arg in "$@"; do
		printf " '%s'" "${arg//\'/\'\\\'\'}"
	done
	echo
} > "$root/command"
chmod 755 "$root/command"

if [ -d "$dir/modules" ]; then
	for vendor in kvm_amd kvm_intel; do
		mkdir -p "$root/kvm/$vendor"
		n=10
		while read -r ko; do
			to=$root/kvm/$vendor/$n-$(basename "${ko%.xz}")
			case $ko in
			*.xz) xz -dc "$ko" > "$to" ;;
			*) cp "$ko" "$to" ;;
			esac
			n=$((n + 1))
		done < <(PATH=$PATH:/usr/sbin:/sbin modprobe -d "$dir/modules" \
				-S "$release" --show-depends "$vendor" |
				sed -n 's/^insmod \([^ ]*\).*/\1/p')
	done
fi

(cd "$root" && find . | cpio -o -H newc --owner=0:0 --quiet) > "$tmp/initramfs"

# -- the machine -------------------------------------------------------------
[[ $kernel != *-kcsan ]] || thread=multi

cmdline=(loglevel=7 printk.devkmsg=on panic=-1 oops=panic panic_on_warn=0)

amd64_machine()
{
	local khz='' nested=(/sys/module/kvm_{amd,intel}/parameters/nested)
	local cpu=EPYC feature

	# An emulated TSC counts cycles of the host, or instructions. Built
	# kernels have no ACPI timer to calibrate it, and the PIT is too
	# unsteady on a busy host, so pass them the frequency.
	if [ ! -d "$dir/modules" ]; then
		khz=$(sed -n 's/^cpu MHz.*: \([0-9]*\)\.\([0-9]*\)$/\1\2/p' \
			/proc/cpuinfo | sed -n 1p)
		[ -z "$icount" ] || khz=1000000
	fi

	# The guest needs KVM itself: use hardware virtualization only if it can
	# nest.
	if [ -z "$icount" ] && grep -qwE 'vmx|svm' /proc/cpuinfo &&
	   (exec 3<>/dev/kvm) 2>/dev/null && grep -qsE '^(Y|1)$' "${nested[@]}"
	then
		machine=(qemu-system-x86_64 -accel kvm -cpu host)
		khz=
	else
		# KVM on a real-time kernel asks for a constant TSC. The
		# emulated one is, but QEMU only says so when forced to, and
		# then says that it has all other features of this CPU, too.
		case $kernel in
		*-rt*)
			cpu+=,+invtsc,x-force-features=on
			for feature in rdseed sha-ni fxsr-opt misalignsse \
				3dnowprefetch osvw topoext nrip-save xsavec; do
				cpu+=,-$feature
			done
			;;
		esac
		machine=(qemu-system-x86_64 "${tcg[@]}" -cpu "$cpu")
	fi
	machine+=(-smp "$cpus,sockets=$cpus" -serial chardev:log
		-serial chardev:out
		-device "isa-serial,index=2,chardev=verdict")
	cmdline+=(console=ttyS0 tsc=reliable no_timer_check
		${khz:+"tsc_early_khz=$khz"})
}

# The second serial port of this machine is for firmware only.
arm64_machine()
{
	machine=(qemu-system-aarch64 "${tcg[@]}" -cpu neoverse-n1
		-machine "virt,virtualization=on,gic-version=3"
		-smp "$cpus" -serial chardev:log
		-device "pci-serial-2x,chardev1=out,chardev2=verdict")
	cmdline+=(console=ttyAMA0)
}

tcg=(-accel "tcg,thread=$thread")
[ -z "$icount" ] ||
	tcg=(-accel "tcg,thread=single" -icount 'shift=0,sleep=off')
case $arch in
amd64) amd64_machine ;;
arm64) arm64_machine ;;
esac
cmdline+=("$append")

mkfifo "$tmp/out"
: > "$tmp/verdict"
cat "$tmp/out" &
reader=$!
timeout -k 5 "$limit" "${machine[@]}" -m "$mem" -nodefaults \
	-display none -nic none -no-reboot \
	-chardev "file,id=log,path=${log//,/,,},append=on" \
	-chardev "file,id=out,path=$tmp/out" \
	-chardev "file,id=verdict,path=$tmp/verdict" \
	-kernel "$dir/vmlinuz" -initrd "$tmp/initramfs" \
	-append "${cmdline[*]}" "${extra[@]}" </dev/null >"$tmp/qemu" 2>&1 &
qemu=$!
rc=0
wait "$qemu" || rc=$?
qemu=
# If QEMU ended before it opened the pipe, the reader still waits.
kill -0 "$reader" 2>/dev/null && : 1<>"$tmp/out"
wait "$reader" || :
reader=
grep -v "warning: TCG doesn't support requested feature" "$tmp/qemu" >&2 || :

# -- the verdict -------------------------------------------------------------
sed -i 's/\r$//' "$log"
status=$(sed -n 's/^exit status \([0-9]*\)$/\1/p' "$tmp/verdict")
splat=$("$testbed/splat.sh" "$log") && splat=

if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then
	say "time limit of $limit s passed"
	status=124
elif grep -q 'Kernel panic - not syncing' "$log"; then
	say "the kernel panicked"
	status=125
elif [ -z "$status" ]; then
	say "the machine ended with no verdict (QEMU's exit status $rc)"
	status=125
elif [ "$status" != 0 ]; then
	say "exit status $status: $*"
elif [ -n "$splat" ]; then
	say "the command passed, but the kernel log has bug reports"
	status=126
fi

if [ -n "$splat" ]; then
	printf '%s\n' "$splat" >&2
elif [ "$status" = 124 ] || [ "$status" = 125 ]; then
	tail -n 60 "$log" >&2
fi
if [ "$status" != 0 ]; then
	say "kernel log: $log"
elif [ -z "$keep" ]; then
	rm -f "$log"
fi
exit "$status"

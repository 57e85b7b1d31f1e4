#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
# shellcheck disable=SC2317	# try() calls functions
# shellcheck disable=SC2046,SC2086	# numbers, and lists of options
# Run a Linux guest in an unmodified QEMU in a micro-VM, and check it. Prints
# TAP.
#
# Usage: machine.sh SCENARIO...
#
# The scenarios are the functions below whose names begin with "run_". Each of
# them but "exits" runs twice, "plain" and with the preload, /q/preload.so.
# Without that file the second half is skipped.

export PATH=$PATH:/usr/bin
guest=/q/guest.cpio ko=/q/doorbell.ko
preload=/q/preload.so
# seconds until a guest must have answered
patience=300
# requests to each queue, one by one
single=64
echo=
count=0 failed=0

# result NAME [WHY]: print a line of TAP, "not ok" if there is a WHY
result() {
	count=$((count + 1))
	if [ -z "${2-}" ]; then
		echo "ok $count $scenario $mode: $1"
	else
		echo "# $2"
		echo "not ok $count $scenario $mode: $1"
		failed=1
	fi
}

skip() {
	count=$((count + 1))
	echo "ok $count $scenario $mode: $1 # SKIP $2"
}

note() { echo "# $scenario $mode, $(cut -d . -f 1 /proc/uptime) s: $*"; }

# wait_for FILE REGEX: wait until a file has a line
wait_for() {
	tries=0
	while ! grep -qs "$2" "$1"; do
		tries=$((tries + 1))
		[ $tries -lt 600 ] || return 1
		sleep 0.1
	done
}

# -- QEMU --------------------------------------------------------------------
# disk NAME ID: the options of a block device on a file in /tmp
disk() {
	echo "-blockdev driver=file,node-name=$1,filename=/tmp/$1,locking=off"
}

make_disks() {
	dd if=/dev/zero of=/tmp/data bs=1M count=8 2>/dev/null
	dd if=/dev/zero of=/tmp/files bs=1M count=6 2>/dev/null
	mke2fs -F /tmp/files >/dev/null 2>&1
}

# start OPTION...: start QEMU and wait until the guest is up
start() {
	echo 0 >/tmp/count
	rm -f /tmp/console /tmp/*.in /tmp/*.out
	# those of the last guest are no answers
	: >/tmp/answers
	mkfifo /tmp/port.in /tmp/port.out /tmp/monitor.in /tmp/monitor.out
	exec 3<>/tmp/port.in 4<>/tmp/port.out 5<>/tmp/monitor.in \
		6<>/tmp/monitor.out
	use=/q/count.so
	[ "$mode" = plain ] || use=$preload:/q/count.so
	# Debian's kernel takes no virtio-mmio devices from its command line
	kernel=/q/vmlinux
	[ -e $kernel ] && [ "$scenario" != mmio ] || kernel=/q/vmlinux-small
	COUNT=/tmp/count LD_PRELOAD=$use DOORBELL_STATS=1 \
		qemu-system-x86_64 -display none -nodefaults -accel kvm \
		-cpu host,-xsave -m 128 -kernel $kernel -initrd $guest \
		-append "console=ttyS0 panic=-1 tsc=reliable" \
		-serial file:/tmp/console -chardev pipe,id=port,path=/tmp/port \
		-device isa-serial,index=1,chardev=port \
		-chardev pipe,id=monitor,path=/tmp/monitor \
		-monitor chardev:monitor "$@" \
		</dev/null >/tmp/qemu.log 2>&1 3>&- 4>&- 5>&- 6>&- &
	qemu=$!
	cat <&6 >/tmp/monitor.log &
	cats=$!
	# read -t loses the part of a line that it has got when time is up
	cat <&4 >>/tmp/answers &
	cats="$cats $!" seen=0
	answer ready || return 1
	note "the guest is up"
	host hangup $qemu >/tmp/hangup 2>&1 &
	waiter=$!
	wait_for /tmp/hangup attached
}

# answer REGEX: look at the lines that the guest prints, until one matches
answer() {
	end=$(($(date +%s) + patience))
	while [ "$(date +%s)" -lt $end ] && kill -0 $qemu; do
		if [ $seen -eq "$(wc -l </tmp/answers)" ]; then
			sleep 0.1
			continue
		fi
		seen=$((seen + 1))
		line=$(sed -n ${seen}p /tmp/answers)
		case $line in
		"not ok"*) why="the guest: $line"; return 1 ;;
		esac
		echo "$line" | grep -q "^$1" && return 0
	done
	why="the guest does not answer: $1"
	return 1
}

# ask COMMAND: let the guest run a command
ask() {
	echo "$*" >&3
	answer "ok $1"
}

hmp() { echo "$*" >&5; }

# exits: print how often a vCPU exited to QEMU for a memory access
exits() { cat /sys/kernel/debug/kvm/$qemu-*/mmio_exits | head -n 1; }

# regions: print descriptor, bus and rings of each region that QEMU has attached
regions() {
	for fd in "/proc/$qemu/fdinfo"/*; do
		awk -v fd="${fd##*/}" '
			{ of[$1] = $2 }
			END {
				if (of["doorbell-state:"] == "attached")
					print fd, of["doorbell-bus:"],
						of["doorbell-bound-rings:"]
			}' "$fd" 2>/dev/null
	done
}

rings() { regions | awk '{ n += $3 } END { print n + 0 }'; }

# busy FILE N: print the buses of the regions that have had N rings and more
# since FILE
busy() {
	regions | awk -v file="$1" -v n="$2" '
		BEGIN { while ((getline <file) > 0) were[$1] = $3 }
		$3 - were[$1] >= n { print $2 }' | sort | xargs
}

# asked: print how many entries of KVM_IOEVENTFD are on KVM's buses
asked() { awk '{ print $1 }' /tmp/count; }

# entries: print how many devices QEMU has on KVM's buses
entries() { echo $(($(asked) + $(regions | wc -l))); }

# try NAME COMMAND...: the result of a command that sets $why if it fails
try() {
	tried=$1
	shift
	why=
	"$@" || { why=${why:-failed}; tail -n 9 /tmp/console | sed 's/^/# /'; }
	result "$tried" "$why"
	[ -z "$why" ]
}

churn_begins() {
	host churn $qemu >/tmp/churn 2>&1 &
	churn=$!
	wait_for /tmp/churn attached
}

churn_ends() {
	kill $churn
	wait $churn
	why=
	grep -q '^[1-9][0-9]* rounds$' /tmp/churn ||
		why=$(tail -n 1 /tmp/churn)
	note "a second consumer: $(tail -n 1 /tmp/churn)"
	result "a second consumer attaches, moves, detaches" "$why"
}

# listed: the tool shows the regions of QEMU that fdinfo shows
listed() {
	doorbell list >/tmp/list || return 1
	sed 's/^/# /' /tmp/list
	shown=$(grep -c "^ *$qemu .* attached " /tmp/list)
	[ "$shown" -eq "$(regions | wc -l)" ] || why="shows $shown"
}

# work BUS...: have the guest use both disks, and vsock if the host serves it,
# and count. The buses are those of the regions that have to be rung.
work() {
	before=$(exits)
	try "random data come back" ask data 1
	note "the data are compared"
	try "files come back" ask files
	# microvm has no MSI: it exits for each interrupt, and these vary
	[ "$scenario" != mmio ] || before=$(exits)
	regions >/tmp/regions
	rung=$(rings)
	try "requests come back one by one" ask single $single
	[ -z "$echo" ] || try "vsock returns what the guest sends" ask vsock 512
	mmio=$(($(exits) - before)) rung=$(($(rings) - rung))
	note "mmio exits $mmio, rings by regions $rung," \
		"KVM_IOEVENTFD $(asked), regions $(regions | wc -l)"
	echo $mmio >/tmp/exits.$scenario.$mode
	entries >/tmp/entries.$scenario.$mode
	if [ "$mode" = preload ]; then
		# vsock sends a fourth of its 128 packets one by one
		were=$(busy /tmp/regions 20) why=
		[ "$were" = "$*" ] || why="regions that were rung: $were"
		result "the kicks of each device go through its region" "$why"
		try "doorbell list shows the regions" listed
	fi
}

# counted N: the preload has printed N rings and more since the line $mark. Only
# the line of a region begins so; those of its queues say the same again.
counted() {
	tail -n +$((mark + 1)) /tmp/qemu.log | awk -v rung="$1" '
		/^doorbell: vm .* rings/ {
			for (i = 2; i <= NF; i++)
				if ($i ~ /^rings/)
					n += $(i - 1)
		}
		END { exit n < rung }'
}

printed() {
	tail -n +$((mark + 1)) /tmp/qemu.log | sed -n 's/^doorbell/# &/p'
	counted "$1" || { why="fewer rings than the regions' $1"; return 1; }
}

# print_rings: have the preload print, and compare with the regions
print_rings() {
	mark=$(wc -l </tmp/qemu.log) rung=$(rings) tries=0
	kill -USR2 $qemu
	until counted "$rung" || [ $tries -eq 100 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	printed "$rung"
}

# finish: end QEMU and check what it leaves
finish() {
	[ "$mode" = plain ] ||
		try "the preload prints the rings at SIGUSR2" print_rings
	mark=$(wc -l </tmp/qemu.log) rung=$(rings) why=
	hmp quit
	wait $qemu || why="QEMU's exit status is $?"
	result "QEMU ends" "$why"
	[ "$mode" = plain ] ||
		try "the preload prints the rings at the end" printed "$rung"
	wait_for /tmp/hangup hang-up
	why=
	wait $waiter || why="$(tail -n 1 /tmp/hangup)"
	result "a consumer sees the hang-up" "$why"
	kill $cats
	exec 3>&- 4>&- 5>&- 6>&-
	why=
	e2fsck -fn /tmp/files >/tmp/e2fsck 2>&1 || why=$(cat /tmp/e2fsck)
	result "e2fsck finds no error" "$why"
	why=
	rmmod doorbell || why="rmmod fails"
	result "the module unloads" "$why"
	insmod $ko
}

broken() {
	result "the guest starts" "${why:-failed}"
	sed 's/^/# /' /tmp/qemu.log
	tail -n 30 /tmp/console | sed 's/^/# /'
	kill -9 $qemu $cats
	wait $qemu
}

# -- what runs ---------------------------------------------------------------
queues=num-queues=4

# pci IOEVENTFD: a disk that is modern and legacy, and one that is legacy only
pci() {
	blk=virtio-blk-pci,$queues,$1
	start -machine pc -smp 2,sockets=2 $(disk data) $(disk files) \
		-device $blk,drive=data,disable-legacy=off \
		-device $blk,drive=files,disable-modern=on
}

run_pci() {
	pci ioeventfd=on || { broken; return; }
	churn_begins
	work mmio pio
	churn_ends
	finish
}

# That the kicks are seen if they do exit, so that the comparison can fail.
run_exits() {
	[ $mode = plain ] || return
	pci ioeventfd=off || { broken; return; }
	work
	why=
	[ "$mmio" -gt 200 ] || why="$mmio exits"
	result "kicks are counted if they exit to QEMU" "$why"
	finish
}

run_mmio() {
	start -machine microvm,pit=on,rtc=off,isa-serial=on,acpi=off -smp 2 \
		$(disk data) $(disk files) \
		-device virtio-blk-device,drive=data,$queues \
		-device virtio-blk-device,drive=files,$queues ||
		{ broken; return; }
	churn_begins
	work mmio mmio
	churn_ends
	finish
}

# export_disk NAME: the options of a disk that the daemon serves
export_disk() {
	addr=addr.type=unix,addr.path=/tmp/$1.sock
	echo "-$(disk "$1") --export"
	echo "type=vhost-user-blk,id=$1,node-name=$1,writable=on,$queues,$addr"
}

# Both back ends are outside of QEMU: a daemon, and the kernel.
run_vhost() {
	vsock=
	[ -e /dev/vhost-vsock ] &&
		vsock="-device vhost-vsock-pci,guest-cid=3"
	qemu-storage-daemon $(export_disk data) $(export_disk files) \
		>/tmp/daemon.log 2>&1 &
	daemon=$!
	start -machine pc,memory-backend=ram -smp 2,sockets=2 \
		-object memory-backend-memfd,id=ram,size=128M,share=on \
		-chardev socket,id=data,path=/tmp/data.sock \
		-device vhost-user-blk-pci,chardev=data,$queues \
		-chardev socket,id=files,path=/tmp/files.sock \
		-device vhost-user-blk-pci,chardev=files,$queues $vsock ||
		{ broken; kill $daemon; return; }
	churn_begins
	if [ -n "$vsock" ]; then
		host echo >/tmp/echo 2>&1 &
		echo=$!
		wait_for /tmp/echo listening
		work mmio mmio mmio
		why=
		wait $echo
		echo=
		grep -q '^524288 bytes$' /tmp/echo || why=$(cat /tmp/echo)
		result "the host gets all by vsock" "$why"
	else
		skip "vsock" "the kernel has no vhost-vsock"
		work mmio mmio
	fi
	churn_ends
	finish
	kill $daemon
	wait $daemon
}

in_the_middle() {
	echo loop >&3
	answer "pass 2" || return 1
	hmp system_reset
	answer ready
}

run_reset() {
	pci ioeventfd=on || { broken; return; }
	churn_begins
	try "the guest starts again in the middle of its work" in_the_middle
	work mmio pio
	churn_ends
	finish
}

run_unplug() {
	plug="virtio-blk-pci,id=plug,bus=bay,drive=data,$queues"
	start -machine q35 -smp 2,sockets=2 $(disk data) $(disk files) \
		-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off \
		-device pcie-root-port,id=bay,chassis=1,slot=1 \
		-device "$plug" -device "virtio-blk-pci,drive=files,$queues" ||
		{ broken; return; }
	churn_begins
	work mmio mmio
	all=$(entries)
	hmp device_del plug
	try "the disk goes in the middle of its work" ask gone
	sleep 2
	why=
	[ "$(entries)" -lt $all ] || why="still $all entries"
	result "its entries go with it" "$why"
	hmp "device_add $plug"
	try "the disk comes back" ask there
	work mmio mmio
	churn_ends
	finish
}

# -- what the preload changes ------------------------------------------------
# fewer WHAT SCENARIO LIMIT: compare a figure that work() has kept with a limit,
# which says what may be added to the figure without the preload
fewer() {
	were=$(cat /tmp/$1.$2.plain) are=$(cat /tmp/$1.$2.preload) why=
	[ $are -le $((were + $3)) ] || why="$are $1, before $were"
}

# differs SCENARIO
differs() {
	mode=both scenario=$1
	# each device has had $single kicks and more
	fewer exits $1 $((single / 2))
	result "no kick becomes an exit" "$why"
	fewer entries $1 -1
	result "there are fewer entries on KVM's buses" "$why"
	# transitional devices have a page and a port, the others a page
	case $1 in
	mmio) pages=2 ;;
	vhost) pages=$([ -e /dev/vhost-vsock ] && echo 5 || echo 4) ;;
	*) pages=3 ;;
	esac
	[ $are -eq $pages ] || why="$are entries, not $pages"
	result "one for each page and port" "$why"
}

for module in /q/modules/*; do
	[ ! -e "$module" ] || insmod "$module"
done
insmod $ko
for mode in plain preload; do
	if [ $mode = preload ] && [ ! -e $preload ]; then
		scenario=all
		skip "work" "there is no preload"
		break
	fi
	for scenario; do
		make_disks
		case $scenario in
		pci) run_pci ;;
		exits) run_exits ;;
		mmio) run_mmio ;;
		vhost) run_vhost ;;
		reset) run_reset ;;
		unplug) run_unplug ;;
		esac
	done
done
for scenario; do
	[ "$scenario" = exits ] || [ ! -e $preload ] || differs "$scenario"
done
echo "1..$count"
exit $failed

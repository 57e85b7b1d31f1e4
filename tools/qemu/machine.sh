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
	: >/tmp/count
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

# regions: print descriptor, bus, base, len and rings of each region that QEMU
# has attached
regions() {
	for fd in "/proc/$qemu/fdinfo"/*; do
		awk -v fd="${fd##*/}" '
			{ of[$1] = $2 }
			END {
				if (of["doorbell-state:"] == "attached")
					print fd, of["doorbell-bus:"],
						of["doorbell-base:"],
						of["doorbell-len:"],
						of["doorbell-bound-rings:"]
			}' "$fd" 2>/dev/null
	done
}

rings() { regions | awk '{ n += $5 } END { print n + 0 }'; }

# busy FILE N: print the buses of the regions that have had N rings and more
# since FILE
busy() {
	regions | awk -v file="$1" -v n="$2" '
		BEGIN { while ((getline <file) > 0) were[$1] = $5 }
		$5 - were[$1] >= n { print $2 }' | sort | xargs
}

# asked: print how many entries of KVM_IOEVENTFD are on KVM's buses
asked() { wc -l </tmp/count; }

# entries: print how many devices QEMU has on KVM's buses
entries() { echo $(($(asked) + $(regions | wc -l))); }

# expected: print how many it should have
expected() {
	vsock=$([ ! -e /dev/vhost-vsock ] || echo 1)
	case $mode.$scenario in
	# modern and legacy: a page and a port, and two entries for each queue
	plain.pci | plain.unplug) echo $((2 * queues + queues)) ;;
	plain.mmio) echo $((2 * queues)) ;;
	plain.vhost) echo $((4 * queues + 2 * ${vsock:-0})) ;;
	plain.reset) echo $((2 * queues + queues + 2 * ${vsock:-0})) ;;
	preload.pci | preload.unplug) echo 3 ;;
	preload.mmio) echo 2 ;;
	preload.vhost) echo $((4 + ${vsock:-0})) ;;
	preload.reset) echo $((3 + ${vsock:-0})) ;;
	esac
}

# has_entries N: wait until QEMU has so many
has_entries() {
	tries=0
	until [ "$(entries)" -eq "$1" ]; do
		tries=$((tries + 1)) why="$(entries) entries, not $1"
		[ $tries -lt 300 ] || return 1
		sleep 0.1
	done
	why=
}

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
	# as long as anything else goes on
	rounds=$(sed -n 's/^\([0-9]*\) rounds$/\1/p' /tmp/churn)
	[ "${rounds:-0}" -ge 10 ] || why=$(tail -n 1 /tmp/churn)
	note "a second consumer: $(tail -n 1 /tmp/churn)"
	result "a second consumer attaches, moves, detaches" "$why"
}

# listed: the tool shows a region for each address that QEMU gave to KVM when it
# ran without the preload, and the guest's rings
listed() {
	doorbell list >/tmp/list || return 1
	sed 's/^/# /' /tmp/list
	awk -v pid=$qemu '
		NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
		$at["PID"] == pid && $at["STATE"] == "attached" {
			print $at["FD"], $at["BUS"], $at["BASE"], $at["LEN"],
				$at["RINGS"]
		}' /tmp/list >/tmp/shown
	regions >/tmp/regions
	while read -r bus addr value; do
		found=
		while read -r _ of base len _; do
			[ $bus != $of ] || [ $((addr)) -lt $((base)) ] ||
				[ $((addr)) -ge $((base + len)) ] || found=1
		done </tmp/shown
		[ -n "$found" ] || why="no region has $bus $addr $value"
	done <"/tmp/asked.$scenario"
	[ "$(wc -l </tmp/shown)" -eq "$(expected)" ] || why="shows others"
	while read -r fd _; do
		doorbell info $qemu $fd >/tmp/info || why="no info of $fd"
		doorbell queues --rung $qemu $fd >/tmp/queues ||
			why="no queues of $fd"
		sum=$(awk '
			NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
			NR > 1 { n += $at["RINGS"] }
			END { print n + 0 }' /tmp/queues)
		awk -v fd=$fd -v sum="$sum" '
			$1 == fd && $5 == sum { found = 1 }
			END { exit !found }' /tmp/regions ||
			why="the queues of $fd have $sum rings"
	done </tmp/shown
	[ -z "$why" ]
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
	regions >/tmp/before
	rung=$(rings)
	try "requests come back one by one" ask single $single
	rung=$(($(rings) - rung))
	[ -z "$echo" ] || try "vsock returns what the guest sends" ask vsock 512
	mmio=$(($(exits) - before))
	note "mmio exits $mmio, rings by regions $rung," \
		"KVM_IOEVENTFD $(asked), regions $(regions | wc -l)"
	echo $mmio >/tmp/exits.$scenario.$mode
	[ "$scenario" != exits ] || return
	try "KVM's buses have as many entries as they should" \
		has_entries "$(expected)"
	entries >/tmp/entries.$scenario.$mode
	if [ "$mode" = plain ]; then
		cp /tmp/count /tmp/asked.$scenario
		return
	fi
	# both CPUs to both disks: for ports, only this shows that none exits
	why=
	[ $rung -ge $((4 * single)) ] || why="$rung rings"
	result "each request rings a region" "$why"
	# vsock sends a fourth of its 128 packets one by one
	were=$(busy /tmp/before 20) why=
	[ "$were" = "$*" ] || why="regions that were rung: $were"
	result "the kicks of each device go through its region" "$why"
	try "doorbell list, info and queues show them" listed
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
	wait_for /tmp/hangup hang-up || kill $waiter
	why=
	wait $waiter || why="$(tail -n 1 /tmp/hangup)"
	result "the consumers see the hang-up" "$why"
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
queues=4
legacy=disable-modern=on

# pci IOEVENTFD: a disk that is modern and legacy, and one that is legacy only
pci() {
	blk=virtio-blk-pci,num-queues=$queues,$1
	start -machine pc -smp 2,sockets=2 $(disk data) $(disk files) \
		-device $blk,drive=data,disable-legacy=off \
		-device $blk,drive=files,$legacy
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

# in_the_middle: reset the machine while the guest works
in_the_middle() {
	echo loop >&3
	answer "pass 2" || return 1
	hmp system_reset
	answer ready
}

run_mmio() {
	start -machine microvm,pit=on,rtc=off,isa-serial=on,acpi=off -smp 2 \
		$(disk data) $(disk files) \
		-device virtio-blk-device,drive=data,num-queues=$queues \
		-device virtio-blk-device,drive=files,num-queues=$queues ||
		{ broken; return; }
	churn_begins
	try "the guest starts again in the middle of its work" in_the_middle
	work mmio mmio
	churn_ends
	finish
}

# export_disk NAME: the options of a disk that the daemon serves
export_disk() {
	echo "-$(disk "$1") --export"
	echo "type=vhost-user-blk,id=$1,node-name=$1,writable=on" \
		"num-queues=$queues" \
		addr.type=unix "addr.path=/tmp/$1.sock" | tr ' ' ,
}

# serve DISK...: start the daemon. Sets the options of a machine with it, and
# those of vsock, if the kernel has it.
serve() {
	exports=
	for name; do
		exports="$exports $(export_disk $name)"
	done
	qemu-storage-daemon $exports >/tmp/daemon.log 2>&1 &
	daemon=$!
	shared="-machine pc,memory-backend=ram -smp 2,sockets=2
		-object memory-backend-memfd,id=ram,size=128M,share=on"
	vsock=
	[ ! -e /dev/vhost-vsock ] ||
		vsock="-device vhost-vsock-pci,guest-cid=3"
}

# served NAME: the options of a disk that the daemon serves
served() {
	echo "-chardev socket,id=$1,path=/tmp/$1.sock"
	echo "-device vhost-user-blk-pci,chardev=$1,num-queues=$queues"
}

# work_served BUS...: as work, with vsock if the kernel has it
work_served() {
	if [ -z "$vsock" ]; then
		skip "vsock" "the kernel has no vhost-vsock"
		work "$@"
		return
	fi
	host echo >/tmp/echo 2>&1 &
	echo=$!
	wait_for /tmp/echo listening
	work mmio "$@"
	why=
	wait $echo
	echo=
	grep -q '^524288 bytes$' /tmp/echo || why=$(cat /tmp/echo)
	result "the host gets all by vsock" "$why"
}

end_serve() {
	kill $daemon
	wait $daemon
}

# Both back ends are outside of QEMU: a daemon, and the kernel.
run_vhost() {
	serve data files
	start $shared $(served data) $(served files) $vsock ||
		{ broken; end_serve; return; }
	churn_begins
	work_served mmio mmio
	churn_ends
	finish
	end_serve
}

# A reset with all three back ends
run_reset() {
	serve data
	start $shared $(disk files) $(served data) $vsock \
		-device virtio-blk-pci,num-queues=$queues,drive=files,$legacy ||
		{ broken; end_serve; return; }
	churn_begins
	try "the guest starts again in the middle of its work" in_the_middle
	work_served mmio pio
	churn_ends
	finish
	end_serve
}

goes() {
	echo gone >&3
	answer "pass 1" || return 1
	hmp device_del plug
	answer "ok gone"
}

run_unplug() {
	plug="virtio-blk-pci,id=plug,bus=bay,drive=data,num-queues=$queues"
	start -machine q35 -smp 2,sockets=2 $(disk data) $(disk files) \
		-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off \
		-device pcie-root-port,id=bay,chassis=1,slot=1 \
		-device "$plug" \
		-device "virtio-blk-pci,drive=files,num-queues=$queues" ||
		{ broken; return; }
	churn_begins
	work mmio mmio
	try "the disk goes in the middle of its work" goes
	gone=$([ $mode = plain ] && echo $queues || echo 1)
	try "its entries go with it" has_entries $(($(expected) - gone))
	# Linux does not look at the slot for a second
	sleep 2
	hmp "device_add $plug"
	try "the disk comes back" ask there
	work mmio mmio
	churn_ends
	finish
}

# -- what the preload changes ------------------------------------------------
# differs SCENARIO: work() has seen the entries of both
differs() {
	mode=both scenario=$1 why=
	were=$(cat /tmp/exits.$1.plain) are=$(cat /tmp/exits.$1.preload)
	# each device has had $single kicks and more
	[ $are -le $((were + single / 2)) ] || why="$are exits, before $were"
	result "no kick becomes an exit" "$why"
	were=$(cat /tmp/entries.$1.plain) are=$(cat /tmp/entries.$1.preload)
	why=
	[ $are -lt $were ] || why="$are entries, before $were"
	result "there are fewer entries on KVM's buses" "$why"
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

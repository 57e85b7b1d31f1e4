#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run all style and static checks: what "make lint" runs.
#
# checkpatch and kernel-doc come from the packaged kernel source. The modules
# are built with W=1 and sparse against the stock 6.12 kernel, all warnings as
# errors. The Makefiles of user space have -Wall -Wextra -Werror. libdoorbell
# and the preload library must build against musl, too.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
cd "$top" || exit 1
me=lint

source=$(tools/testbed/kernel.sh source-6.12) || exit 1
kernel=$(tools/testbed/kernel.sh 6.12) || exit 1
mapfile -t kernel_code < <(git ls-files -co --exclude-standard 'drivers/*' \
	'include/*' 'kunit/*' '*Kbuild' ':!*/compat.h' ':!*/trace.h')
mapfile -t user_code < <(git ls-files -co --exclude-standard \
	'selftests/*.[ch]' 'tools/*.[ch]' 'examples/*.[ch]')
mapfile -t scripts < <(shell_scripts)

# checkpatch takes most of the time of make lint. It gives the same answer for
# the same file, so the cache names the files that were clean.
use_cache
clean=$cache/checkpatch
mkdir -p "$clean"
find "$clean" -type f -mtime +30 -delete

# checkpatch IGNORE FILE...: a few files at a time on each CPU
checkpatch() {
	local options=(--no-tree --strict --quiet --terse --no-summary
		--max-line-length=80 --ignore "$1") key name sum todo=()

	key=$(echo "${options[@]}" | cat - "$source"/scripts/checkpatch.pl \
		"$source"/scripts/{spelling.txt,const_structs.checkpatch} |
		sha256sum | cut -c 1-16)
	while read -r sum name; do
		sum=$clean/$key-$sum-${name//\//_}
		[ -e "$sum" ] || todo+=("$name" "$sum")
	done < <(sha256sum "${@:2}")
	[ ${#todo[@]} -gt 0 ] || return
	# shellcheck disable=SC2016	# the inner shell expands it
	printf '%s\0' "${todo[@]}" | xargs -0 -n 14 -P "$(nproc)" bash -c '
		files=() stamps=() command=$1
		shift
		while [ $# -gt 0 ]; do
			files+=("$1") stamps+=("$2")
			shift 2
		done
		$command --file "${files[@]}" && touch "${stamps[@]}"
	' sh "$source/scripts/checkpatch.pl ${options[*]}" ||
		fail "checkpatch"
}

# What is no code of the module, meanwhile on another CPU. make html prints a
# warning for each name that the documents do not have.
texts() {
	tools/test/lint-abi.sh \
		"$source/Documentation/userspace-api/ioctl/ioctl-number.rst" ||
		failed=1

	# The scripts find the file that they source by their own directory.
	printf '%s\0' "${scripts[@]}" | xargs -0 -n 8 -P "$(nproc)" \
		shellcheck -x -P SCRIPTDIR -f gcc >&2 || fail "shellcheck"

	shellcheck -f gcc tools/doorbell/completion/doorbell >&2 ||
		fail "completion"

	make -s html >/dev/null || fail "make html"
	tools/test/lint-html.py build/html || fail "links in HTML"

	rm -rf build/man
	make -s man >/dev/null || fail "make man"
	mandoc -T lint -W warning build/man/* >&2 || fail "mandoc"

	# The pictures in the documents are those of their sources.
	make -s pictures PICTURES=build/lint/pictures >/dev/null ||
		fail "pictures"
	for picture in build/lint/pictures/*.svg; do
		cmp "$picture" "Documentation/${picture##*/}" >&2 ||
			fail "${picture##*/} is not of today: make pictures"
	done

	tools/test/mutants.py --check || fail "mutants.txt"

	tools/test/lint-text.sh || failed=1
	return $failed
}
texts &
texts=$!

"$source/scripts/kernel-doc" -none -Werror \
	drivers/virt/doorbell/*.[ch] include/uapi/linux/doorbell.h \
	tools/vmm/*.h tools/lib/doorbell/*.h || fail "kernel-doc"

build=build/lint
link_sources $build Kbuild drivers include kunit
log=$build/build.log
if build_modules "$kernel" "$top/$build" C=2 >$log 2>&1; then
	tools/test/lint-layers.sh $build/drivers/virt/doorbell || failed=1
else
	fail "W=1 build"
fi
if grep -E "$build/.*(warning|error):" $log >&2; then
	fail "sparse"
fi

# It includes kvm.c, and only bench.sh builds it otherwise.
link_sources $build/tools/bench tools/bench/{Kbuild,floor.c,floor.h}
build_modules "$kernel" "$top/$build/tools/bench" >$log 2>&1 ||
	{ grep -E "(warning|error):" $log >&2; fail "the benchmark's module"; }

# musl-gcc does not search /usr/include, which also has the headers of glibc:
# give it those of the kernel only.
musl=$build/musl
mkdir -p $musl/include
ln -sfn /usr/include/linux /usr/include/asm-generic \
	"/usr/include/$(gcc -print-multiarch)/asm" $musl/include/
for dir in tools/lib/doorbell tools/preload; do
	make -s -B -C $dir CC=musl-gcc OUTPUT="$top/$musl" \
		CFLAGS="-O2 -isystem $top/$musl/include" >&2 || fail "musl"
done

# compat.h compares kernel versions, and a trace header has its own style.
checkpatch LINUX_VERSION_CODE,CONSTANT_COMPARISON \
	drivers/virt/doorbell/compat.h
checkpatch OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT \
	drivers/virt/doorbell/trace.h
checkpatch NONE "${kernel_code[@]}"

checkpatch "$user_style" "${user_code[@]}"

wait $texts || failed=1
[ $failed -eq 0 ] && echo "lint: clean"
exit $failed

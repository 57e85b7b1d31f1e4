#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Style and static checks: what "make lint" runs.
#
# checkpatch and kernel-doc come from the packaged kernel source. The modules
# are built with W=1 and sparse against the stock 6.12 kernel, all warnings as
# errors; user space is built with -Wall -Wextra -Werror by its Makefiles.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
cd "$top" || exit 1
failed=0
me=lint
fail() { say "$*"; failed=1; }

source=$(tools/testbed/kernel.sh source-6.12) || exit 1
kernel=$(tools/testbed/kernel.sh 6.12) || exit 1
mapfile -t kernel_code < <(git ls-files -co --exclude-standard 'drivers/*' \
	'include/*' 'kunit/*' '*Kbuild')
mapfile -t user_code < <(git ls-files -co --exclude-standard 'selftests/*.[ch]' \
	'tools/*.[ch]')
mapfile -t scripts < <(git grep -lIE '^#!/bin/(ba)?sh')
mapfile -t all < <(git ls-files)

checkpatch() {
	"$source/scripts/checkpatch.pl" --no-tree --strict --quiet --terse \
		--no-summary --file "$@"
}

# compat.h is where kernel versions are told apart.
checkpatch --ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON "${kernel_code[@]}" ||
	fail "checkpatch"
# User space has no strscpy(), __section, u32, BIT() and so on to prefer, returns
# errno as it likes; the kselftest harness has blocks behind what look like calls.
checkpatch --ignore STRCPY,VOLATILE,PREFER_DEFINED_ATTRIBUTE_MACRO,AVOID_EXTERNS \
	--ignore PREFER_KERNEL_TYPES,BIT_MACRO,USE_NEGATIVE_ERRNO,CAMELCASE \
	--ignore EMBEDDED_FUNCTION_NAME,COMPLEX_MACRO,MACRO_ARG_REUSE,SPACING \
	--ignore MACRO_WITH_FLOW_CONTROL,BRACES,LEADING_SPACE,LINE_SPACING \
	--ignore LONG_LINE_STRING "${user_code[@]}" || fail "checkpatch"

"$source/scripts/kernel-doc" -none -Werror \
	drivers/virt/doorbell/*.[ch] include/uapi/linux/doorbell.h \
	tools/vmm/*.h tools/lib/doorbell/*.h || fail "kernel-doc"

build=build/lint
link_sources $build Kbuild drivers include kunit
log=$build/build.log
build_modules "$kernel" "$top/$build" C=2 >$log 2>&1 || fail "W=1 build"
if grep -E "$build/.*(warning|error):" $log >&2; then
	fail "sparse"
fi

for script in "${scripts[@]}"; do
	case $(head -n 1 "$script") in
	*bash) bash -n "$script" ;;
	*) sh -n "$script" ;;
	esac || fail "$script"
done

for file in "${all[@]}"; do
	[ "$file" = COPYING ] || [ ! -s "$file" ] ||
		head -n 3 "$file" | grep -q SPDX-License-Identifier ||
		case $file in
		*.gitignore) ;;
		*) fail "$file: no SPDX line" ;;
		esac
done

[ $failed -eq 0 ] && echo "lint: clean"
exit $failed

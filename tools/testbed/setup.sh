#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Install the Debian packages that building and testing need, if any is missing.
#
# Usage: setup.sh [packages]
#
# With packages, also what only "make deb" and "make check" need. Lists the
# packages and their purposes before it installs them, with sudo if necessary.
# Removes no package: fails if that is what a conflict asks for.
set -euo pipefail

. "$(dirname "$0")/lib.sh"
export LC_ALL=C

needs()
{
	cat <<-EOF
	gcc               compiler
	g++               examples in C++
	make              builds
	libc6-dev         user-space programs
	libc6-dev-i386    32-bit user-space programs
	musl-tools        libdoorbell against another libc
	liburing-dev      io_uring tests
	libsmartcols-dev  tables and JSON of the doorbell command
	libjansson-dev    tests of its JSON
	liburcu-dev       a queue to compare with
	mandoc            checks of man pages
	python3-sphinx    documents in HTML
	furo              their theme
	python3-myst-parser README.md among them
	qemu-system-x86   the virtual machines
	e2fsprogs         their file systems
	cpio              their initramfs
	kmod              module dependencies
	flex              kernel build
	bison             kernel build
	bc                kernel build
	libelf-dev        kernel build
	libssl-dev        kernel build
	patch             the series for a kernel tree
	rsync             kernel headers for user space
	xz-utils          kernel source and modules
	zstd              stock kernels
	pahole            modules for stock kernels
	mmdebstrap        a Debian to install into
	uidmap            mmdebstrap as an ordinary user
	squashfs-tools    the image of this Debian
	pkg-config        programs with these libraries
	perl              kernel scripts
	python3           kernel scripts
	sparse            static analysis
	shellcheck        static analysis of scripts
	git               lists of files to check
	graphviz          pictures in the documents
	gnuplot-nox       plots of the benchmark
	fonts-dejavu-core their letters
	EOF
	# gcc -m32, of the version that is installed or that apt would install
	local v
	v=$(gcc -dumpversion 2>/dev/null) || v=$(apt-cache depends gcc |
		sed -n 's/^ *Depends: gcc-\([0-9]*\)$/\1/p') || v=
	[ -z "$v" ] || echo "lib32gcc-${v%%.*}-dev gcc -m32"
}

# The tests of arm64 are skipped without these.
needs_arm64()
{
	cat <<-EOF
	gcc-aarch64-linux-gnu programs and kernels of arm64
	libc6-dev-arm64-cross their library
	gcc-arm-linux-gnueabihf 32-bit programs there
	libc6-dev-armhf-cross their library
	qemu-system-arm   virtual machines of arm64
	EOF
}

needs_packages()
{
	cat <<-EOF
	build-essential   Debian packages
	debhelper         Debian packages
	dh-dkms           Debian packages of a module
	lintian           checks of Debian packages
	clang             a kernel that clang builds
	lld               its linker
	llvm              its other tools
	EOF
}

# missing NEEDS: print those lines of a function above that are not installed
missing()
{
	local pkg why
	"$1" | while read -r pkg why; do
		# a line for each architecture
		dpkg-query -W -f '${db:Status-Status}\n' "$pkg" 2>/dev/null |
			grep -qx installed ||
			printf '%-24s %s\n' "$pkg" "$why"
	done
}

# Does apt know all of these packages?
known()
{
	[ "$(apt-cache policy "$@" | grep -c '^  Candidate: [^(]')" -eq $# ]
}

# Print the packages that apt would remove, as they conflict with these ones.
conflicts()
{
	apt-get -qq -s --no-install-recommends install "$@" 2>/dev/null |
		sed -n 's/^Remv \([^ ]*\).*/\1/p' | sort -u
}

# install NEEDS: install what is missing
install()
{
	local list packages conflicts sudo='' apt

	list=$(missing "$1")
	[ -n "$list" ] || return 0
	mapfile -t packages < <(cut -d ' ' -f 1 <<< "$list")
	if ! known "${packages[@]}"; then
		echo "Refreshing apt's package lists."
		as_root apt-get -qq update
		list=$(missing "$1")
		mapfile -t packages < <(cut -d ' ' -f 1 <<< "$list")
	fi

	[ "$(id -u)" = 0 ] || sudo=' (with sudo)'
	echo "Installing Debian packages$sudo:"
	printf '%s\n' "$list" | sed 's/^/  /'
	mapfile -t conflicts < <(conflicts "${packages[@]}")
	if [ ${#conflicts[@]} -gt 0 ]; then
		say "they conflict with ${conflicts[*]}, nothing is installed"
		return 1
	fi
	# -qq does not ask before it removes something
	apt=(env DEBIAN_FRONTEND=noninteractive
		apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends
		--no-remove "${packages[@]}")
	if ! as_root "${apt[@]}"; then
		echo "That failed; once more with fresh package lists."
		as_root apt-get -qq update
		as_root "${apt[@]}"
	fi
}

case ${1-} in
'' | packages) ;;
*) usage ;;
esac
install needs
[ "${1-}" != packages ] || install needs_packages
install needs_arm64 || echo "Without them there are no tests of arm64."

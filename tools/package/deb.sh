#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Build Debian packages: what "make deb" runs.
#
# Usage: deb.sh TARBALL DIR
#
# Leaves the packages in DIR, once lintian finds no error in them, and nothing
# that is built without the flags of hardening. Building is done in a copy, as
# it writes beside the sources.
set -euo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
[ $# = 2 ] || usage
tarball=$(readlink -f "$1")
"$testbed/setup.sh" packages >&2
rm -rf "$2"
mkdir -p "$2/build"
cd "$2/build"

tar -xzf "$tarball"
cd doorbell-*
version=${PWD##*-}
for file in debian/changelog tools/lib/doorbell/Makefile; do
	grep -qE "^(doorbell \($version\) |VERSION := $version$)" $file ||
		die 1 "$file has not the version of dkms.conf, $version"
done
# DEBHELPER's own variables and those of make are not for the package.
env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u MAKEOVERRIDES \
	DEB_BUILD_OPTIONS=noautodbgsym \
	dpkg-buildpackage -b -us -uc >../log 2>&1 ||
	{ tail -n 30 ../log >&2; die 1 "dpkg-buildpackage failed"; }
cd ../..
lintian --display-info --fail-on error build/*.changes >build/lintian ||
	failed=1
grep -v '^I: ' build/lintian >&2 || :
[ "$failed" = 0 ] || die 1 "lintian has found errors"
! grep ' hardening-' build/lintian >&2 ||
	die 1 "the flags of dpkg-buildflags are not used"
mv build/*.deb .
rm -rf build
ls "$PWD"/*.deb

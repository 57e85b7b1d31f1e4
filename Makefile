# SPDX-License-Identifier: GPL-2.0
# doorbell: everything a person runs. README.md and Documentation/ have the
# details.
#
#   make                  build doorbell.ko for the running kernel, or KDIR=...
#   make install          install it, its udev rule and its man page
#   make lib              build libdoorbell
#   make install-lib      install it, its headers and its man pages
#   make tools            build the doorbell command, in build/tools/
#   make install-tools    install it, its man page and bash completion
#   make uninstall        remove what make install, or install-lib, installed;
#   make uninstall-lib    with the same KDIR, PREFIX and so on
#   make preload          build libdoorbell-ioeventfd.so, for LD_PRELOAD
#   make install-preload  install it; make uninstall-preload removes it
#   make deb              build Debian packages in build/deb/
#   make rpm              build an RPM of the module in build/rpm/, by rpmbuild
#   make dist             make build/doorbell-VERSION.tar.gz, also for DKMS
#   make kernel-patch     make patches for a kernel tree, KSRC=...
#   make demo             watch a guest ring, in a micro-VM (KERNEL=6.1, HOST=1)
#   make examples         build the examples (part of make check)
#   make check            run the tests in micro-VMs: N passed, N failed
#   make check-debug      run all programs on the debug kernels, for an hour
#   make check-arm64      run all programs on kernels of arm64
#   make check-kernels    run them on real-time and hardened kernels
#   make check-kvm        run KVM's own selftests, without and with regions
#   make repeat           run programs TIMES=200 times, PROGRAMS="wait kunit"
#   make soak             do everything at random for two hours, SECONDS=...
#   make coverage         count the lines and branches that the tests run
#   make mutants          break the code in many ways: does a test notice?
#   make litmus           run the memory-model proofs (part of make check)
#   make native           ring from threads of this machine, RINGS=... (a part
#                         of make check)
#   make qemu             run Linux guests in Debian's QEMU, in micro-VMs
#   make bench            count instructions per ring, and those of ioeventfd
#   make pictures         draw those of Documentation/
#   make man              leave all man pages in build/man/
#   make html             leave the documents as HTML in build/html/
#   make lint             run checkpatch, sparse, W=1, kernel-doc, shellcheck,
#                         a build against musl, and checks of layers, words and
#                         columns
#   make clean
#
# Kernels are cached outside of the checkout, everything built is in build/.

KDIR ?= /lib/modules/$(shell uname -r)/build
KERNEL ?= 6.12
DESTDIR ?=
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
UDEVDIR ?= /lib/udev/rules.d
MAN4 = $(DESTDIR)$(PREFIX)/share/man/man4

# make takes a blank for the end of a name, and would remove another file
$(foreach v,DESTDIR PREFIX LIBDIR UDEVDIR INSTALL_MOD_PATH,\
	$(if $(word 2,x$($v)x),$(error $v has blanks)))

CFLAGS_USER := -std=gnu11 -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -Iinclude/uapi
BUILD := build
USER := $(BUILD)/user

# A module has to come from the compiler that the kernel comes from.
ifneq ($(shell grep -s '^CONFIG_CC_IS_CLANG=y' \
	$(KDIR)/include/config/auto.conf),)
export LLVM ?= 1
endif

modules:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

MAKE_LIB = $(MAKE) -C tools/lib/doorbell OUTPUT=$(CURDIR)/$(BUILD)/lib \
	MAN=$(CURDIR)/$(BUILD)/man \
	DESTDIR=$(abspath $(DESTDIR)) PREFIX=$(PREFIX) LIBDIR=$(LIBDIR)

lib:
	+$(MAKE_LIB)

install-lib:
	+$(MAKE_LIB) install

uninstall-lib:
	+$(MAKE_LIB) uninstall

MAKE_PRELOAD = $(MAKE) -C tools/preload OUTPUT=$(CURDIR)/$(BUILD)/preload \
	DESTDIR=$(abspath $(DESTDIR)) PREFIX=$(PREFIX) LIBDIR=$(LIBDIR)

preload:
	+$(MAKE_PRELOAD)

install-preload:
	+$(MAKE_PRELOAD) install

uninstall-preload:
	+$(MAKE_PRELOAD) uninstall

MAKE_TOOLS = $(MAKE) -s -C tools/doorbell OUTPUT=$(CURDIR)/$(BUILD)/tools \
	LIB=$(CURDIR)/$(BUILD)/lib/libdoorbell.a \
	DESTDIR=$(abspath $(DESTDIR)) PREFIX=$(PREFIX) LIBDIR=$(LIBDIR)

tools: lib
	+$(MAKE_TOOLS)

install-tools: lib
	+$(MAKE_TOOLS) install

uninstall-tools:
	+$(MAKE_TOOLS) uninstall

# kbuild runs depmod only where the headers have System.map; Debian's have not.
# A tree without the kernel's own modules is staged for a package, which runs
# depmod when it is installed.
INSTALL_MOD_PATH ?= $(DESTDIR)
MODULES_ROOT = $(abspath $(INSTALL_MOD_PATH))
MODULES_DIR = $(MODULES_ROOT)/lib/modules/$(RELEASE)
RELEASE = $(or $(shell sed -n 's/.*UTS_RELEASE "\(.*\)"/\1/p' \
	$(KDIR)/include/generated/utsrelease.h),$(error set KDIR or RELEASE))
DEPMOD = [ ! -e $(MODULES_DIR)/modules.order ] || \
	PATH=$$PATH:/usr/sbin:/sbin depmod -b $(MODULES_ROOT)/ $(RELEASE)

# kbuild and depmod obey the umask, kbuild keeps the mode of the module, and all
# users read what they write.
install: modules
	@chmod 644 $(or $(MO),.)/drivers/virt/doorbell/doorbell.ko
	umask 022; $(MAKE) -C $(KDIR) M=$(CURDIR) \
		INSTALL_MOD_PATH=$(MODULES_ROOT) modules_install
	@umask 022; $(DEPMOD)
	install -D -m 644 tools/udev/60-doorbell.rules \
		$(DESTDIR)$(UDEVDIR)/60-doorbell.rules
	install -D -m 644 Documentation/doorbell.4 $(MAN4)/doorbell.4

# The folder is "extra" in 6.1 and "updates" later; the module may be
# compressed.
uninstall:
	@if cd $(MODULES_DIR) 2>/dev/null; then \
		for dir in $(or $(INSTALL_MOD_DIR),extra updates); do \
			rm -f $$dir/drivers/virt/doorbell/doorbell.ko*; \
			rmdir -p --ignore-fail-on-non-empty \
				$$dir/drivers/virt/doorbell 2>/dev/null || :; \
		done; \
	fi
	@umask 022; $(DEPMOD)
	rm -f $(DESTDIR)$(UDEVDIR)/60-doorbell.rules $(MAN4)/doorbell.4
	@rmdir $(MAN4) 2>/dev/null || :

VERSION := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
DIST := $(BUILD)/doorbell-$(VERSION)

# what git knows of the checkout, with the changes that are not committed
dist:
	@mkdir -p $(BUILD)
	git ls-files -z > $(DIST).files
	tar -czf $(DIST).tar.gz --null -T $(DIST).files --sort=name \
		--owner=0 --group=0 --numeric-owner \
		--transform 's,^,doorbell-$(VERSION)/,'
	@echo $(DIST).tar.gz

deb: dist
	@tools/package/deb.sh $(DIST).tar.gz $(BUILD)/deb

# brp-compress of Debian's rpm asks for sh and needs bash.
rpm: dist
	@command -v rpmbuild >/dev/null || \
		{ echo "make rpm needs rpmbuild (Debian: rpm)" >&2; exit 1; }
	rm -rf $(BUILD)/rpm
	rpmbuild -tb --quiet --define "_topdir $(CURDIR)/$(BUILD)/rpm/build" \
		--define \
		"__brp_compress bash %{_rpmconfigdir}/brp-compress /usr" \
		$(DIST).tar.gz
	@mv $(BUILD)/rpm/build/RPMS/*/*.rpm $(BUILD)/rpm
	@rm -rf $(BUILD)/rpm/build
	@ls $(BUILD)/rpm/*.rpm

kernel-patch:
	@tools/package/kernel-patch.sh $(or $(KSRC),$(error set KSRC)) \
		$(BUILD)/kernel-patch

clean:
	rm -rf $(BUILD)
	[ ! -d $(KDIR) ] || $(MAKE) -C $(KDIR) M=$(CURDIR) clean

setup:
	@tools/testbed/setup.sh $(SETUP)

VMM_DIR := tools/vmm
VMM_OUT := $(USER)
include $(VMM_DIR)/vmm.mk

LIB := $(USER)/libdoorbell.a

$(LIB): $(wildcard tools/lib/doorbell/*.[ch]) include/uapi/linux/doorbell.h
	$(MAKE) -s -C tools/lib/doorbell OUTPUT=$(CURDIR)/$(USER)

$(USER)/demo-vmm: tools/demo/vmm.c
$(USER)/demo-consumer: tools/demo/consumer.c
$(USER)/demo-%: tools/demo/demo.h $(VMM_OBJ) $(VMM_HDRS) $(LIB)
	$(CC) $(CFLAGS_USER) $(VMM_CPPFLAGS) -Itools/lib/doorbell -static \
		-pthread -o $@ $(filter %.c,$^) $(VMM_OBJ) $(LIB)

DEMO := $(USER)/demo-vmm $(USER)/demo-consumer
# For the recipe, as standard output is a pipe in $(shell) and in $$().
DEMO_LIVE := live=; [ ! -t 1 ] || live=live;

ifdef HOST
demo: $(DEMO)
	@$(DEMO_LIVE) tools/demo/demo.sh $(USER) $$live
else
demo: setup
	@$(MAKE) -s $(DEMO)
	@$(DEMO_LIVE) ko=$$(tools/testbed/module.sh $(KERNEL)) && \
	tools/testbed/run.sh -k $(KERNEL) -t 120 \
		-f $$ko/doorbell.ko:/demo/doorbell.ko \
		-f $(USER)/demo-vmm:/demo/demo-vmm \
		-f $(USER)/demo-consumer:/demo/demo-consumer \
		-f tools/demo/demo.sh -- /demo.sh /demo $$live
endif

TESTS := $(BUILD)/selftests
PROGRAMS := $(shell sed -n 's/^TEST_GEN_PROGS +\?:\?= *//p' \
	selftests/doorbell/Makefile)
ALL := kunit demo examples $(PROGRAMS)
KERNELS := 7.2-debug 6.1 6.12-arm64 6.12

# All programs run on the stock kernels, but some that take long on one of them,
# unless the other one is not among KERNELS. The debug kernels are several
# times slower: what takes long there runs only by make check-debug.
# PROGRAM:OPTION... runs a part of one. PROGRAMS on the command line all run.
SLOW := bind crash fault library move orders preload recipes tool
ELSEWHERE_6.1 = $(if $(filter 6.12,$(KERNELS)),crash library tool)
ELSEWHERE_6.12 = $(if $(filter 6.1,$(KERNELS)),fuzz orders preload)
ELSEWHERE_7.2-debug := $(SLOW)
PART_7.2-debug := bind:-vmmio:-fcgroup:-fplain:-ffailure
PART_7.2-debug += fault:-Tload
PART_7.2-debug += move:-vmmio:-fglobal:-fthreads
ifneq ($(origin PROGRAMS),command line)
ELSEWHERE = $(foreach k,$(KERNELS),$(ELSEWHERE_$(k):%=$(k)/%))
PART = $(foreach k,$(KERNELS),$(PART_$(k):%=$(k)/%))
endif

selftests: setup
	@mkdir -p $(TESTS)
	@source=$$(tools/testbed/kernel.sh source-6.12) && \
	$(MAKE) -s -C selftests/doorbell OUTPUT=$(CURDIR)/$(TESTS) \
		KSELFTEST=$$source/tools/testing/selftests \
		$(CROSS_PROGRAMS:%=$(CURDIR)/$(TESTS)/%)

# Programs and demo for arm64. Those left out need libraries at run time.
# Without a cross compiler nothing is built, and check.sh skips these kernels.
NOT_ARM64 := preload tool
ALL_ARM64 := arm64 $(filter-out $(NOT_ARM64),$(PROGRAMS))
SHORT_ARM64 := arm64 attach bus memory mmap stream wait
ifeq ($(origin PROGRAMS),command line)
ALL_ARM64 := $(filter-out $(NOT_ARM64),$(PROGRAMS))
SHORT_ARM64 := $(ALL_ARM64)
endif

arm64: setup
	@user=$$(tools/testbed/kernel.sh user-arm64) || \
		{ ret=$$?; [ $$ret -ne 77 ] || ret=0; exit $$ret; }; \
	$(MAKE) -s BUILD=$(BUILD)/arm64 ARCH=arm64 CC=aarch64-linux-gnu-gcc \
		AR=aarch64-linux-gnu-ar CROSS_PROGRAMS="$(ALL_ARM64)" \
		USERCFLAGS="-idirafter $$user/usr/include" \
		USERLDFLAGS="-L$$user/usr/lib/aarch64-linux-gnu" \
		selftests $(DEMO:$(BUILD)/%=$(BUILD)/arm64/%)

examples: $(LIB)
	@$(MAKE) -s -C examples OUTPUT=$(CURDIR)/$(BUILD)/examples \
		LIB=$(CURDIR)/$(LIB)

# The slowest first. The first and the last are about 6.1 and other kernels.
HOST_TESTS = $(if $(filter 6.1,$(KERNELS)),package) kernel-patch litmus runner \
	native $(if $(filter 6.1,$(KERNELS)),compat)

check: SETUP := packages
check: setup
	@$(MAKE) -s -j$(shell nproc) selftests examples tools $(DEMO) \
		$(if $(filter %-arm64,$(KERNELS)),arm64)
	@ELSEWHERE="$(ELSEWHERE)" PART="$(PART)" \
		PROGRAMS_ARM64="kunit demo $(SHORT_ARM64)" \
		HOST_TESTS="$(HOST_TESTS)" \
		tools/test/check.sh "$(ALL)" $(KERNELS)

check-arm64: setup
	@$(MAKE) -s -j$(shell nproc) arm64
	@LIMIT=7200 PROGRAMS_ARM64="kunit demo $(ALL_ARM64)" \
		tools/test/check.sh "" 6.12-arm64-debug 6.12-arm64

# with all programs on the first two
check-debug: CHECK_KERNELS := 6.12-debug 7.2-debug 6.12-kcsan
check-debug: export LONG := 1
check-debug: export PARALLEL := stream wait owner:-fglobal:-fowner \
	mmap:-fglobal:-fraw:-flib:-ffull:-fcounters:-fhostile
check-kernels: CHECK_KERNELS := 6.12-rt-debug 6.1-rt 6.12-rt 6.12-hardened

check-debug check-kernels: setup
	@$(MAKE) -s -j$(shell nproc) selftests examples tools $(DEMO)
	@LIMIT=7200 tools/test/check.sh "$(ALL)" $(CHECK_KERNELS)

# Finds what fails now and then. PROGRAMS may have kunit, demo and examples.
TIMES ?= 200
REPEATED = $(if $(filter command,$(origin PROGRAMS)),$(PROGRAMS),$(ALL))
repeat: CHECK_KERNELS := 6.12-debug 7.2-debug
repeat: setup
	@$(MAKE) -s -j$(shell nproc) selftests examples tools $(DEMO)
	@DOORBELL_REPEAT=$(TIMES) LIMIT=$$(($(TIMES) * 3600)) \
		tools/test/check.sh "$(REPEATED)" $(CHECK_KERNELS)

# Each machine invents 70 operations per second of SECONDS after the soak: with
# 7200, a million in all. bash counts in a variable of this name.
SECONDS ?= 7200
unexport SECONDS

soak: setup
	@$(MAKE) -s -j$(shell nproc) selftests examples tools $(DEMO)
	@DOORBELL_SOAK=$(SECONDS) \
		DOORBELL_FUZZ_OPS=$$(($(SECONDS) * 70)) \
		LIMIT=$$(($(SECONDS) * 2 + 1800)) \
		tools/test/check.sh "soak fuzz" 6.12-debug 6.12

# KVM_TESTS names some of them
check-kvm: setup
	@tools/test/kvm.sh $(KERNEL) $(KVM_TESTS)

coverage: setup
	@$(MAKE) -s -j$(shell nproc) selftests examples tools $(DEMO)
	@tools/test/coverage.py $(ALL)

# Without crash, whose single steps take too long in code with all mutants.
mutants: setup
	@$(MAKE) -s tools
	@ONLY="$(ONLY)" tools/test/mutants.py \
		$(filter-out crash preload %_32,$(PROGRAMS))

litmus: setup
	@tools/test/litmus.sh

RINGS ?= 1000000000

native: setup
	@tools/test/native.sh $(RINGS)

QEMU_KERNELS := 6.12 6.12-debug

qemu: setup
	@tools/qemu/qemu.sh $(QEMU_KERNELS)

bench: setup
	@tools/bench/bench.sh

PICTURES := Documentation

pictures: setup
	@mkdir -p $(PICTURES)
	dot -Tsvg -o $(PICTURES)/data-path.svg Documentation/data-path.dot
	@sed -i '1a <!-- SPDX-License-Identifier: GPL-2.0 -->' \
		$(PICTURES)/data-path.svg
	tools/bench/plot.py Documentation/benchmarks.rst \
		$(PICTURES)/benchmarks.svg

man:
	@+$(MAKE_LIB) man
	install -m 644 tools/doorbell/doorbell.1 Documentation/doorbell.4 \
		$(BUILD)/man

# Warnings of a page come only when it is read: -E reads all of them.
html: setup
	@source=$$(tools/testbed/kernel.sh source-6.12) && \
	PYTHONPATH=$$source/Documentation/sphinx PYTHONDONTWRITEBYTECODE=1 \
		sphinx-build -q -E -n -W --keep-going -d $(BUILD)/doctrees \
		-D kerneldoc_bin=$$source/scripts/kernel-doc \
		Documentation $(BUILD)/html
	@echo $(BUILD)/html/index.html

lint: setup
	@tools/test/lint.sh

.PHONY: dist deb rpm check-debug check-kernels check-kvm kernel-patch
.PHONY: arm64 check-arm64
.PHONY: modules lib install uninstall install-lib uninstall-lib clean setup
.PHONY: preload install-preload uninstall-preload
.PHONY: demo selftests examples check litmus native qemu bench pictures lint
.PHONY: coverage mutants repeat soak
.PHONY: man html
.PHONY: tools install-tools uninstall-tools

# SPDX-License-Identifier: GPL-2.0
# How to build the VMM's objects, guest program included. Set VMM_DIR (this
# folder) and VMM_OUT (where to build), have a default target, include this,
# then link $(VMM_OBJ) with -pthread, and compile what uses it with
# $(VMM_CPPFLAGS) and after $(VMM_HDRS). CC is a compiler for x86-64 or arm64;
# CFLAGS is honoured.

VMM_ARCH := $(if $(filter aarch64%,$(shell $(CC) -dumpmachine)),arm64,x86)

VMM_OBJ := $(VMM_OUT)/vmm.o $(VMM_OUT)/vmm_$(VMM_ARCH).o
VMM_HDRS := $(VMM_DIR)/vmm.h $(VMM_DIR)/guest.h
VMM_CPPFLAGS := -I$(VMM_DIR)
VMM_CFLAGS := -std=gnu11 -O2 -pthread -Wall -Wextra -Werror

# No library, no interrupts, no vector registers, and nothing but the image.
VMM_GUEST_CFLAGS := -std=gnu11 -O2 -Wall -Wextra -Werror \
	-ffreestanding -nostdlib -nostartfiles -static \
	-fno-pic -mcmodel=small -mgeneral-regs-only \
	-fno-stack-protector -fno-builtin \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing
VMM_GUEST_CFLAGS_x86 := -m64 -mno-red-zone -fcf-protection=none

$(VMM_OUT)/vmm-guest.bin: $(wildcard $(VMM_DIR)/guest*)
	@mkdir -p $(@D)
	$(CC) $(VMM_GUEST_CFLAGS) $(VMM_GUEST_CFLAGS_$(VMM_ARCH)) \
		-DGUEST_ARCH_H='"guest_$(VMM_ARCH).h"' \
		-Wl,-T,$(VMM_DIR)/guest.lds -Wl,--build-id=none -o $@.elf \
		$(VMM_DIR)/guest.c
	$$($(CC) -print-prog-name=objcopy) -O binary $@.elf $@

$(VMM_OUT)/vmm.o: $(VMM_OUT)/vmm-guest.bin
$(VMM_OBJ): $(VMM_OUT)/%.o: $(VMM_DIR)/%.c $(VMM_DIR)/arch.h $(VMM_HDRS)
	@mkdir -p $(@D)
	$(CC) $(VMM_CFLAGS) $(CFLAGS) $(VMM_CPPFLAGS) -Wa,-I,$(VMM_OUT) \
		-c -o $@ $<

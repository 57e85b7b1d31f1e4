# SPDX-License-Identifier: GPL-2.0
# How to build vmm.o, guest program included. Set VMM_DIR (this folder) and
# VMM_OUT (where to build), have a default target, include this, then link
# $(VMM_OBJ) with -pthread, and compile what uses it with $(VMM_CPPFLAGS) and
# after $(VMM_HDRS). x86-64 only; CFLAGS is honoured.

VMM_OBJ := $(VMM_OUT)/vmm.o
VMM_HDRS := $(VMM_DIR)/vmm.h $(VMM_DIR)/guest.h
VMM_CPPFLAGS := -I$(VMM_DIR)
VMM_CFLAGS := -std=gnu11 -O2 -pthread -Wall -Wextra -Werror

# No library, no interrupts, no vector registers, and nothing but the image.
VMM_GUEST_CFLAGS := -std=gnu11 -O2 -Wall -Wextra -Werror -m64 \
	-ffreestanding -nostdlib -nostartfiles -static \
	-fno-pic -mcmodel=small -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fcf-protection=none -fno-builtin \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing

$(VMM_OUT)/vmm-guest.bin: $(VMM_DIR)/guest.c $(VMM_DIR)/guest.h \
		$(VMM_DIR)/guest.lds
	@mkdir -p $(@D)
	$(CC) $(VMM_GUEST_CFLAGS) -Wl,-T,$(VMM_DIR)/guest.lds \
		-Wl,--oformat=binary -Wl,--build-id=none -o $@ \
		$(VMM_DIR)/guest.c

$(VMM_OBJ): $(VMM_DIR)/vmm.c $(VMM_HDRS) $(VMM_OUT)/vmm-guest.bin
	@mkdir -p $(@D)
	$(CC) $(VMM_CFLAGS) $(CFLAGS) $(VMM_CPPFLAGS) -Wa,-I,$(VMM_OUT) \
		-c -o $@ $(VMM_DIR)/vmm.c

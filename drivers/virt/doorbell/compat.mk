# SPDX-License-Identifier: GPL-2.0
# Flags to build out of the kernel tree: compat.h, and what it has to know of
# the kernel's headers. Set doorbell-dir to this folder first.

# $(call doorbell-has,HEADER,REGEX,NAME)
doorbell-has = $(if $(shell grep -s '$(2)' $(srctree)/include/linux/$(1)),\
	-DDOORBELL_HAS_$(3))

# After an #error of compat.h no other errors are of interest.
doorbell-flags := -Wfatal-errors -include $(doorbell-dir)/compat.h
doorbell-flags += $(call doorbell-has,mm.h,\<vm_flags_mod\>,VM_FLAGS_MOD)
doorbell-flags += $(call \
	doorbell-has,eventfd.h,\<eventfd_signal\>.*__u64,EVENTFD_COUNT)

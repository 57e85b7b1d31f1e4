// SPDX-License-Identifier: GPL-2.0
/*
 * Trace: what the suites' copies of the module's files link with. No suite.
 */
#include "../drivers/virt/doorbell/trace.c"

// SPDX-License-Identifier: GPL-2.0
/*
 * Geometry: validation of a region's base, length, stride and queues.
 */
#include <linux/align.h>
#include <linux/errno.h>
#include <linux/log2.h>
#include <linux/overflow.h>
#include <linux/sizes.h>

#include <linux/doorbell.h>

#include "geometry.h"

/**
 * doorbell_geometry_fits() - check whether a region can begin at an address
 * @geo: the region
 * @base: first address; a multiple of the stride
 * @pio: the region is in I/O port space and must end within its 64 KiB
 */
bool doorbell_geometry_fits(const struct doorbell_geometry *geo, u64 base,
			    bool pio)
{
	u64 end;

	return IS_ALIGNED(base, 1ULL << geo->shift) &&
	       !check_add_overflow(base, geo->len, &end) &&
	       !(pio && end > SZ_64K);
}

/**
 * doorbell_geometry_init() - check where a region lies and how it is divided
 * @geo: set on success, untouched on failure
 * @base: first address; a multiple of @stride
 * @len: bytes; a multiple of @stride, 1 to DOORBELL_QUEUES_MAX times as large
 * @stride: bytes per queue, a power of two from DOORBELL_STRIDE_MIN to
 *	DOORBELL_STRIDE_MAX; 0 means DOORBELL_STRIDE_DEFAULT
 * @queues: number of queues if the value written names the queue, else 0
 * @pio: the region is in I/O port space and must end within its 64 KiB
 *
 * The rules of with_registration() in Fuchsia's GuestBellTrap.
 *
 * Return: 0 or -EINVAL.
 */
int doorbell_geometry_init(struct doorbell_geometry *geo, u64 base, u64 len,
			   u32 stride, u32 queues, bool pio)
{
	struct doorbell_geometry new;

	if (!stride)
		stride = DOORBELL_STRIDE_DEFAULT;
	if (!is_power_of_2(stride) || stride < DOORBELL_STRIDE_MIN ||
	    stride > DOORBELL_STRIDE_MAX)
		return -EINVAL;
	if (!IS_ALIGNED(len, stride))
		return -EINVAL;
	if (!len || len >> ilog2(stride) > DOORBELL_QUEUES_MAX)
		return -EINVAL;
	if (queues > DOORBELL_QUEUES_MAX)
		return -EINVAL;

	new.len = len;
	new.shift = ilog2(stride);
	new.queues = queues ?: len >> new.shift;
	if (!doorbell_geometry_fits(&new, base, pio))
		return -EINVAL;
	*geo = new;
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trace: the tracepoints of the module, in /sys/kernel/tracing/events/doorbell.
 *
 * Each event names its consumer by the doorbell-id in /proc/PID/fdinfo/FD.
 * Documentation/debugging.rst explains the events. While none of ring, wake and
 * bounce is on, a ring of a queue pays for them with one instruction, the
 * static key doorbell_tracing.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM doorbell

#if !defined(_DOORBELL_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _DOORBELL_TRACE_H

#include <linux/tracepoint.h>

#include <linux/doorbell.h>

int doorbell_trace_reg(void);
void doorbell_trace_unreg(void);

/* A ring of a queue, by a guest or by write(); DOORBELL_QUEUE_NONE if bad */
DECLARE_EVENT_CLASS(doorbell_ring_class,
	TP_PROTO(u32 id, u16 queue, u16 kind, u64 value),
	TP_ARGS(id, queue, kind, value),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(u16, queue)
		__field(u8, type)
		__field(u8, width)
		__field(u64, value)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->queue = queue;
		__entry->type = (u8)kind;
		__entry->width = kind >> DOORBELL_KIND_WIDTH_SHIFT;
		__entry->value = value;
	),
	TP_printk("id=%u queue=%u type=%u width=%u value=%#llx", __entry->id,
		  __entry->queue, __entry->type, __entry->width,
		  __entry->value)
);

/* One that makes an event, signals an eventfd, or bounces */
DEFINE_EVENT_FN(doorbell_ring_class, ring,
	TP_PROTO(u32 id, u16 queue, u16 kind, u64 value),
	TP_ARGS(id, queue, kind, value),
	doorbell_trace_reg, doorbell_trace_unreg
);

/* One by a guest that found no room */
DEFINE_EVENT_FN(doorbell_ring_class, bounce,
	TP_PROTO(u32 id, u16 queue, u16 kind, u64 value),
	TP_ARGS(id, queue, kind, value),
	doorbell_trace_reg, doorbell_trace_unreg
);

DECLARE_EVENT_CLASS(doorbell_consumer_class,
	TP_PROTO(u32 id),
	TP_ARGS(id),
	TP_STRUCT__entry(
		__field(u32, id)
	),
	TP_fast_assign(
		__entry->id = id;
	),
	TP_printk("id=%u", __entry->id)
);

/* A ring wakes the consumer, which was armed. */
DEFINE_EVENT_FN(doorbell_consumer_class, wake,
	TP_PROTO(u32 id),
	TP_ARGS(id),
	doorbell_trace_reg, doorbell_trace_unreg
);

DEFINE_EVENT(doorbell_consumer_class, detach,
	TP_PROTO(u32 id),
	TP_ARGS(id)
);

/* No guest rings the region any more. */
DEFINE_EVENT(doorbell_consumer_class, hangup,
	TP_PROTO(u32 id),
	TP_ARGS(id)
);

TRACE_EVENT(attach,
	TP_PROTO(u32 id, const struct doorbell_attach *arg, u32 queues),
	TP_ARGS(id, arg, queues),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(u32, flags)
		__field(u64, base)
		__field(u64, len)
		__field(u32, queues)
		__field(u32, depth)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->flags = arg->flags;
		__entry->base = arg->base;
		__entry->len = arg->len;
		__entry->queues = queues;
		__entry->depth = arg->depth;
	),
	TP_printk("id=%u base=%#llx len=%#llx queues=%u flags=%#x depth=%u",
		  __entry->id, __entry->base, __entry->len, __entry->queues,
		  __entry->flags, __entry->depth)
);

TRACE_EVENT(move,
	TP_PROTO(u32 id, u64 from, u64 to),
	TP_ARGS(id, from, to),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(u64, from)
		__field(u64, to)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->from = from;
		__entry->to = to;
	),
	TP_printk("id=%u from=%#llx to=%#llx", __entry->id, __entry->from,
		  __entry->to)
);

/* Queues were bound to eventfds, or unbound. */
TRACE_EVENT(bind,
	TP_PROTO(u32 id, u32 first, u32 count),
	TP_ARGS(id, first, count),
	TP_STRUCT__entry(
		__field(u32, id)
		__field(u32, first)
		__field(u32, count)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->first = first;
		__entry->count = count;
	),
	TP_printk("id=%u first=%u count=%u", __entry->id, __entry->first,
		  __entry->count)
);

#endif /* _DOORBELL_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

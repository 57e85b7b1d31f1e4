// SPDX-License-Identifier: LGPL-2.1 OR MIT
// The same in C++: a consumer of a VM's doorbells, for a program to call, as
// main.c does.
#include <cerrno>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <system_error>

#include <libdoorbell.h>

struct close_doorbell {
	void operator()(doorbell *db) const { doorbell_close(db); }
};

using doorbell_ptr = std::unique_ptr<doorbell, close_doorbell>;

static void check(int ret, const char *what)
{
	if (ret < 0)
		throw std::system_error(-ret, std::generic_category(), what);
}

// 64 queues, one page each from 0xfe000000 on, until the VM is gone
extern "C" void consume(int vm_fd)
{
	doorbell_ptr db(doorbell_open(0));
	doorbell_attach arg{};
	doorbell_info info{};
	unsigned long long rings = 0;

	if (!db)
		throw std::system_error(errno, std::generic_category(),
					"/dev/doorbell");
	arg.vm_fd = vm_fd;
	arg.base = 0xfe000000;
	arg.len = 64 * 4096;
	arg.stride = 4096;
	check(doorbell_attach_region(db.get(), &arg), "DOORBELL_ATTACH");

	auto rung = [](unsigned int queue, const doorbell_event *event,
		       void *ctx) {
		if (event->type == DOORBELL_EVENT_QUEUE) {
			std::printf("queue %u: %u rings, last %#llx\n", queue,
				    event->count, event->value);
			*static_cast<unsigned long long *>(ctx) += event->count;
		}
		return 0;
	};
	check(doorbell_complete(db.get(), rung, &rings), "doorbell_complete");
	check(doorbell_get_info(db.get(), &info), "DOORBELL_INFO");
	std::printf("%llu rings in all\n", rings);
	if (rings != info.rings)
		throw std::runtime_error("not those of the guest");
}

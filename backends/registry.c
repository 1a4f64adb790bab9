/* SPDX-License-Identifier: MIT
 * The drivers compiled in. A table and not constructors, which a linker drops
 * from a static library. */
#include "backends/backend.h"

extern const struct icm_backend_ops icm_backend_consul;
extern const struct icm_backend_ops icm_backend_memory;
extern const struct icm_backend_ops icm_backend_sqlite;

const struct icm_backend_ops *const icm_backends[] = {
	&icm_backend_sqlite,
	&icm_backend_consul,
	&icm_backend_memory,
	NULL,
};

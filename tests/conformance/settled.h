/* SPDX-License-Identifier: MIT
 * An instance over a network that loses requests and answers, made certain: what a
 * user of the interface has to do about unknown outcomes, done once, so that the
 * tests of the contract can be the same. Each writing transaction makes a key of its
 * own besides (below SETTLED_MARKS, left out of what is read). When its outcome is
 * unknown, the proxy (tests/lib/proxy.c) is asked to end what is under way, and
 * the key tells whether it was done. */
#ifndef ICM_TESTS_CONFORMANCE_SETTLED_H
#define ICM_TESTS_CONFORMANCE_SETTLED_H

#include "backends/backend.h"

#define SETTLED_MARKS "~mark/"

/* Takes over `lossy`, which goes through the proxy on this port, and `sure`, which
 * doesn't; closing the result closes both. */
struct icm_backend *settled(struct icm_backend *lossy, struct icm_backend *sure, unsigned proxy);

#endif

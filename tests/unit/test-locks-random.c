/* SPDX-License-Identifier: MIT
 * Random lock calls of six programs on two mounts on one file, against a model:
 * for each program a type per byte, a flock, and what it waits for. The programs
 * take turns, so the model knows every answer; after each call it also knows who
 * has been granted, and the test waits until they have been told. */
#include <stdio.h>

#include "tests/unit/lock-calls.h"
#include "util/digest.h"

#define PROGRAMS 6
#define BYTES	 8
#define STEPS	 20000

struct model {
	int cells[PROGRAMS][BYTES];
	int flocks[PROGRAMS];
	struct {
		bool used, flock;
		int type;
		unsigned from, to;
		uint64_t place;
	} waits[PROGRAMS];
	bool told[PROGRAMS]; /* granted by a call of another program */
	uint64_t last_place;
};

static struct icm_volume *vols[2];
static struct program programs[PROGRAMS];
static struct parked parked[PROGRAMS];
static struct model m;

static bool excl(int a, int b)
{
	return a == F_WRLCK || b == F_WRLCK;
}

/* Programs whose locks are in the way, as bits. */
static unsigned holders(unsigned p, bool flock, int type, unsigned from, unsigned to)
{
	unsigned bits = 0;

	for (unsigned o = 0; o < PROGRAMS; o++) {
		if (o == p)
			continue;
		if (flock && m.flocks[o] != F_UNLCK && excl(m.flocks[o], type))
			bits |= 1U << o;
		for (unsigned i = from; !flock && i <= to; i++)
			if (m.cells[o][i] != F_UNLCK && excl(m.cells[o][i], type))
				bits |= 1U << o;
	}
	return bits;
}

static unsigned holders_for(unsigned p)
{
	return holders(p, m.waits[p].flock, m.waits[p].type, m.waits[p].from, m.waits[p].to);
}

static unsigned ahead(unsigned p)
{
	unsigned bits = 0;

	for (unsigned o = 0; o < PROGRAMS; o++)
		if (o != p && m.waits[o].used && m.waits[o].place < m.waits[p].place &&
		    m.waits[o].flock == m.waits[p].flock &&
		    excl(m.waits[o].type, m.waits[p].type) &&
		    (m.waits[p].flock ||
		     (m.waits[o].from <= m.waits[p].to && m.waits[p].from <= m.waits[o].to)))
			bits |= 1U << o;
	return bits;
}

/* Everyone whom p waits for, over any number of others; records only. */
static unsigned reach(unsigned p, bool queue)
{
	unsigned todo = holders_for(p) | (queue ? ahead(p) : 0), reached = 0;

	while (todo & ~reached) {
		reached |= todo;
		for (unsigned o = 0; o < PROGRAMS; o++)
			if (reached & 1U << o && m.waits[o].used && !m.waits[o].flock)
				todo |= holders_for(o) | (queue ? ahead(o) : 0);
	}
	return reached;
}

static bool is_behind(unsigned p)
{
	unsigned before = ahead(p);

	for (unsigned o = 0; o < PROGRAMS; o++)
		if (before & 1U << o && (m.waits[p].flock || !(reach(o, true) & 1U << p)))
			return true;
	return false;
}

static void apply(unsigned p, bool flock, int type, unsigned from, unsigned to)
{
	if (flock)
		m.flocks[p] = type;
	for (unsigned i = from; !flock && i <= to; i++)
		m.cells[p][i] = type;
}

static void serve(void)
{
	bool again = true;

	while (again) {
		int best = -1;

		again = false;
		for (unsigned p = 0; p < PROGRAMS; p++)
			if (m.waits[p].used && !holders_for(p) && !is_behind(p) &&
			    (best < 0 || m.waits[p].place < m.waits[best].place))
				best = (int)p;
		if (best < 0)
			break;
		apply((unsigned)best, m.waits[best].flock, m.waits[best].type, m.waits[best].from,
		      m.waits[best].to);
		m.waits[best].used = false;
		m.told[best] = again = true;
	}
}

static int expect(unsigned p, bool flock, int type, unsigned from, unsigned to, bool wait)
{
	if (type == F_UNLCK || !holders(p, flock, type, from, to)) {
		apply(p, flock, type, from, to);
		serve();
		return 0;
	}
	if (flock)
		m.flocks[p] = F_UNLCK;
	if (!wait) {
		serve();
		return -EAGAIN;
	}
	m.waits[p].used = true;
	m.waits[p].flock = flock;
	m.waits[p].type = type;
	m.waits[p].from = from;
	m.waits[p].to = to;
	m.waits[p].place = ++m.last_place;
	if (!flock && reach(p, false) & 1U << p) {
		m.waits[p].used = false;
		return -EDEADLK;
	}
	serve();
	if (m.waits[p].used)
		return -EINPROGRESS;
	m.told[p] = false; /* by its own call */
	return 0;
}

static void check_told(unsigned step)
{
	for (unsigned p = 0; p < PROGRAMS; p++) {
		if (m.told[p])
			cr_assert_eq(answer(&parked[p]), 0, "step %u, program %u", step, p);
		else if (m.waits[p].used)
			cr_assert_eq(parked[p].calls, 0, "step %u, program %u", step, p);
		m.told[p] = false;
	}
}

static void check_getlk(unsigned step, unsigned p, int type, unsigned from, unsigned to)
{
	const struct icm_lock_request req = {
		.type = type, .start = from, .end = to, .owner = programs[p].owner
	};
	unsigned bits = holders(p, false, type, from, to);
	struct flock lk;

	cr_assert_eq(icm_fs_getlk(programs[p].h, &no_call, &req, &lk), 0);
	cr_assert_eq(lk.l_type != F_UNLCK, bits != 0, "step %u", step);
	if (lk.l_pid)
		cr_assert(bits & 1U << (lk.l_pid - 1001), "step %u: pid %d", step, lk.l_pid);
}

/* The file is closed and opened anew. */
static void reopen(unsigned p)
{
	apply(p, false, F_UNLCK, 0, BYTES - 1);
	apply(p, true, F_UNLCK, 0, 0);
	serve();
	end(&programs[p]);
	programs[p] = start(vols[p % 2], "file", p + 1);
}

static void one_step(unsigned step, unsigned *seed)
{
	static const int types[] = { F_RDLCK, F_WRLCK, F_WRLCK, F_UNLCK, F_UNLCK };
	unsigned p = (unsigned)rand_r(seed) % PROGRAMS, from = (unsigned)rand_r(seed) % BYTES;
	unsigned to = from + (unsigned)rand_r(seed) % (BYTES - from);
	int type = types[(unsigned)rand_r(seed) % 5], r, want;
	bool flock = rand_r(seed) % 5 == 0, wait = rand_r(seed) % 2 && type != F_UNLCK;
	unsigned other = (unsigned)rand_r(seed) % 40;

	if (m.waits[p].used)
		return;
	if (other == 0) {
		reopen(p);
	} else if (other == 1) {
		apply(p, false, F_UNLCK, 0, BYTES - 1);
		serve();
		cr_assert_eq(icm_fs_flush(programs[p].h, &no_call, programs[p].owner), 0);
	} else if (other < 5) {
		check_getlk(step, p, type == F_UNLCK ? F_WRLCK : type, from, to);
	} else {
		want = expect(p, flock, type, from, to, wait);
		r = call_lock(&programs[p], flock, type, from, to, wait ? &parked[p] : NULL);
		cr_assert_eq(r, want, "step %u: program %u %s %d %u-%u%s: %d, not %d", step, p,
			     flock ? "flock" : "record", type, from, to, wait ? " waits" : "", r,
			     want);
	}
	check_told(step);
}

static void set_up(void)
{
	for (unsigned p = 0; p < PROGRAMS; p++) {
		m.flocks[p] = F_UNLCK;
		for (unsigned i = 0; i < BYTES; i++)
			m.cells[p][i] = F_UNLCK;
	}
}

Test(locks_random, two_mounts_do_what_the_model_says, .init = set_up, .timeout = 600)
{
	const char *given = getenv("ICMFS_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)icm_random_u64();
	struct icm_backend *raw = keep_consul_like("memory:locks-random");
	unsigned at = seed;

	printf("# seed %u\n", seed);
	fflush(stdout);
	for (int i = 0; i < 2; i++)
		vols[i] = mount_store("memory:locks-random");
	cr_assert_eq(save(vols[0], "file", O_TRUNC, "0"), 0);
	for (unsigned p = 0; p < PROGRAMS; p++)
		programs[p] = start(vols[p % 2], "file", p + 1);
	for (unsigned step = 0; step < STEPS; step++)
		one_step(step, &at);
	for (unsigned round = 0; round < PROGRAMS; round++)
		for (unsigned p = 0; p < PROGRAMS; p++)
			if (!m.waits[p].used) {
				reopen(p);
				check_told(STEPS);
			}
	for (unsigned p = 0; p < PROGRAMS; p++)
		end(&programs[p]);
	unmount(vols[1]);
	unmount(vols[0]);
	icm_backend_close(raw);
}

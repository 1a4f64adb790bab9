/* SPDX-License-Identifier: MIT
 * Scope cleanup: an owning local carries one of these attributes and is handed
 * over with ICM_STEAL in the last lines of its function. Cleanup functions
 * accept the empty value and preserve errno. */
#ifndef ICM_UTIL_CLEANUP_H
#define ICM_UTIL_CLEANUP_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/attrs.h"

#define ICM_CLEANUP(fn) __attribute__((cleanup(fn)))

/* Defines fn##p, which takes the address of a variable, for ICM_CLEANUP. */
#define ICM_DEFINE_CLEANUP(type, fn)                                                               \
	static inline ICM_UNUSED void fn##p(type *p)                                               \
	{                                                                                          \
		int saved = errno;                                                                 \
		fn(*p);                                                                            \
		errno = saved;                                                                     \
	}

static inline void icm_freep(void *p)
{
	int saved = errno;

	free(*(void **)p);
	errno = saved;
}

static inline void icm_closep(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void icm_fclosep(FILE **f)
{
	int saved = errno;

	if (*f)
		fclose(*f);
	errno = saved;
}

static inline void icm_unlockp(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *icm_lock_scope(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

#define ICM_AUTOFREE   ICM_CLEANUP(icm_freep)
#define ICM_AUTOCLOSE  ICM_CLEANUP(icm_closep)
#define ICM_AUTOFCLOSE ICM_CLEANUP(icm_fclosep)

/* Holds `m` until the enclosing scope ends. */
#define ICM_LOCK_SCOPE(m)                                                                          \
	pthread_mutex_t *ICM_SCOPE_NAME(icm_scope_, __LINE__) ICM_CLEANUP(icm_unlockp)             \
		ICM_UNUSED = icm_lock_scope(m)
#define ICM_SCOPE_NAME(a, b)  ICM_SCOPE_NAME_(a, b)
#define ICM_SCOPE_NAME_(a, b) a##b

/* Takes the pointer out of *p, which becomes NULL. */
#define ICM_STEAL(p)                                                                               \
	({                                                                                         \
		__typeof__(*(p)) stolen_ = *(p);                                                   \
		*(p) = NULL;                                                                       \
		stolen_;                                                                           \
	})

#endif

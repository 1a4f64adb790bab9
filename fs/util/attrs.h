/* SPDX-License-Identifier: MIT
 * Compiler attributes under short names. No project knowledge. */
#ifndef ICM_UTIL_ATTRS_H
#define ICM_UTIL_ATTRS_H

#define ICM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define ICM_MUST_CHECK	      __attribute__((warn_unused_result))
#define ICM_NORETURN	      __attribute__((noreturn))
#define ICM_UNUSED	      __attribute__((unused))
#define ICM_FALLTHROUGH	      __attribute__((fallthrough))

/* Number of elements of an array (not of a pointer). */
#define ICM_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The structure that embeds `member` at `ptr`. */
#define ICM_CONTAINER(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#endif

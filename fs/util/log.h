/* SPDX-License-Identifier: MIT
 * Log lines: to stderr while the terminal is there, to syslog in a daemon.
 * One line says event, object and cause; never a token, never file contents. */
#ifndef ICM_UTIL_LOG_H
#define ICM_UTIL_LOG_H

#include <stdbool.h>
#include <syslog.h>

#include "util/attrs.h"

/* Starts logging. `name` stands before each line (borrowed for the life of the
 * process); `to_syslog` chooses syslog(3) over stderr; lines above `level`
 * (LOG_ERR … LOG_DEBUG) are dropped. Before this call: stderr, LOG_WARNING. */
void icm_log_init(const char *name, bool to_syslog, int level);

/* Logs one printf line; safe in any thread; keeps errno. */
void icm_log(int level, const char *fmt, ...) ICM_PRINTF(2, 3);

#define icm_log_err(...)     icm_log(LOG_ERR, __VA_ARGS__)
#define icm_log_warning(...) icm_log(LOG_WARNING, __VA_ARGS__)
#define icm_log_info(...)    icm_log(LOG_INFO, __VA_ARGS__)
#define icm_log_debug(...)   icm_log(LOG_DEBUG, __VA_ARGS__)

#endif

/* SPDX-License-Identifier: MIT */
#include "util/log.h"

#include <stdarg.h>
#include <string.h>

#include "util/buf.h"

/* Set before threads start, read-only afterwards. */
static const char *log_name = "icmfs";
static bool log_to_syslog;
static int log_level = LOG_WARNING;

void icm_log_init(const char *name, bool to_syslog, int level)
{
	log_name = name;
	log_to_syslog = to_syslog;
	log_level = level;
	if (to_syslog)
		openlog(name, LOG_PID, LOG_DAEMON);
}

void icm_log(int level, const char *fmt, ...)
{
	ICM_AUTOFREE char *line = NULL;
	int saved = errno;
	va_list ap;
	int n;

	if (level > log_level)
		return;
	va_start(ap, fmt);
	n = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (n < 0) {
		line = NULL;
	} else if (log_to_syslog) {
		syslog(level, "%s", line);
	} else {
		/* one write, so that lines of several processes don't mix */
		ICM_AUTOFREE char *whole = icm_asprintf("%s: %s\n", log_name, line);

		(void)!write(STDERR_FILENO, whole, strlen(whole));
	}
	errno = saved;
}

/* SPDX-License-Identifier: MIT */
#include "mountinfo.h"

#include <string.h>
#include <sys/sysmacros.h>

#include "util/buf.h"

/* "\040" and its like become bytes, in place. */
static void unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
}

/* 36 35 98:0 /root /mnt rw,noatime master:1 - fuse.icmfs source rw,user_id=0
 * (proc(5)); the fields before the hyphen vary in number. */
static bool parse(char *line, const char *path, struct icm_mountinfo *ret)
{
	char *save = NULL, *field[5], *type, *source, *options, *tail = strstr(line, " - ");
	const char *user;
	unsigned maj, min;

	if (!tail)
		return false;
	*tail = '\0';
	for (int i = 0; i < 5; i++) {
		field[i] = strtok_r(i == 0 ? line : NULL, " ", &save);
		if (!field[i])
			return false;
	}
	unescape(field[4]);
	if (strcmp(field[4], path) || sscanf(field[2], "%u:%u", &maj, &min) != 2)
		return false;
	type = strtok_r(tail + 3, " ", &save);
	source = strtok_r(NULL, " ", &save);
	options = strtok_r(NULL, " \n", &save);
	if (!type || !source)
		return false;
	unescape(source);
	user = options ? strstr(options, "user_id=") : NULL;
	icm_mountinfo_clear(ret);
	*ret = (struct icm_mountinfo){
		.dev = makedev(maj, min),
		.type = icm_xstrdup(type),
		.source = icm_xstrdup(source),
		.uid = user ? (uid_t)strtoul(user + 8, NULL, 10) : 0,
	};
	return true;
}

int icm_mountinfo_at(const char *path, struct icm_mountinfo *ret)
{
	ICM_AUTOFCLOSE FILE *f = fopen("/proc/self/mountinfo", "re");
	struct icm_mountinfo found = { 0 };
	ICM_AUTOFREE char *line = NULL;
	bool any = false;
	size_t cap = 0;

	if (!f)
		return -errno;
	/* the last line is the topmost */
	while (getline(&line, &cap, f) > 0)
		any |= parse(line, path, &found);
	if (!any)
		return -ENOENT;
	*ret = found;
	return 0;
}

void icm_mountinfo_clear(struct icm_mountinfo *m)
{
	free(m->type);
	free(m->source);
	*m = (struct icm_mountinfo){ 0 };
}

bool icm_mountinfo_is_ours(const struct icm_mountinfo *m)
{
	return m->type && !strcmp(m->type, "fuse.icmfs");
}

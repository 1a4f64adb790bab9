/* SPDX-License-Identifier: MIT
 * Mount options: what is taken, what is refused and in which words. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fs/settings.h"

static struct icm_settings s;

static void setup(void)
{
	icm_settings_init(&s);
}

static void teardown(void)
{
	icm_settings_clear(&s);
}

TestSuite(settings, .init = setup, .fini = teardown);

static void takes(const char *options)
{
	ICM_AUTOFREE char *error = NULL;

	cr_assert_eq(icm_settings_parse(&s, options, &error), 0, "'%s': %s", options, error);
}

static void refuses(const char *options, const char *word)
{
	ICM_AUTOFREE char *error = NULL;

	cr_assert_eq(icm_settings_parse(&s, options, &error), -EINVAL, "'%s' was taken", options);
	cr_assert(strstr(error, word), "'%s': '%s' doesn't say '%s'", options, error, word);
	cr_assert_not(strchr(error, '\n'));
}

Test(settings, defaults_are_the_cores)
{
	takes("");
	cr_assert_eq(s.timeout_ms, 0);
	cr_assert_eq(s.ttl_ms, 0);
	cr_assert_eq(s.uid, getuid());
	cr_assert_not(s.read_only || s.cached || s.allow_other || s.suid || s.dev);
	cr_assert_null(s.scratch_patterns);
}

Test(settings, values_are_taken)
{
	takes("timeout=2.5,ttl=3600,cached,noscratch,noevents,allow_other,uid=7,gid=8,fsname=x");
	cr_assert_eq(s.timeout_ms, 2500);
	cr_assert_eq(s.ttl_ms, 3600000);
	cr_assert(s.cached && s.no_scratch && s.no_events && s.allow_other);
	cr_assert_eq(s.uid, 7);
	cr_assert_eq(s.gid, 8);
	cr_assert_str_eq(s.fsname, "x");
}

Test(settings, the_later_one_counts)
{
	takes("ro,rw");
	cr_assert_not(s.read_only);
	takes("ro");
	cr_assert(s.read_only);
	takes("statedir=/a,statedir=/b");
	cr_assert_str_eq(s.state_dir, "/b");
}

Test(settings, what_mount_and_fstab_add_is_ignored)
{
	takes("defaults,auto,noauto,nofail,_netdev,user,users,x-systemd.automount,x-gvfs-show,"
	      "comment=a,relatime,subtype=icmfs,,");
	cr_assert_eq(s.kernel.len, 0);
}

Test(settings, flags_for_the_kernel_are_handed_on)
{
	takes("noatime,noexec");
	cr_assert_str_eq(s.kernel.data, "noatime,noexec");
}

Test(settings, a_comma_can_be_escaped)
{
	takes("fsname=consul://a\\,b/p\\\\q,ro");
	cr_assert_str_eq(s.fsname, "consul://a,b/p\\q");
	cr_assert(s.read_only);
}

Test(settings, paths_become_absolute)
{
	takes("scratch=patterns,log=/l");
	cr_assert_eq(s.scratch_patterns[0], '/');
	cr_assert(strstr(s.scratch_patterns, "/patterns"));
	cr_assert_str_eq(s.log_file, "/l");
}

Test(settings, a_local_copy_is_kept_when_asked_for)
{
	takes("offline_copy=5");
	cr_assert_not(s.offline);
	takes("offline,offline_copy=7");
	cr_assert(s.offline);
	cr_assert_eq(s.copy_mib, 7);
}

Test(settings, refusals_are_clear)
{
	refuses("bogus", "unknown mount option 'bogus'");
	refuses("bogus=1", "'bogus'");
	refuses("timeout", "needs a value");
	refuses("timeout=", "needs a value");
	refuses("timeout=0", "from 1 to 3600");
	refuses("timeout=3601", "from 1 to 3600");
	refuses("timeout=nan", "from 1 to 3600");
	refuses("ttl=-1", "'ttl'");
	refuses("ttl=10s", "'10s'");
	refuses("cached=yes", "takes no value");
	refuses("uid=root", "takes a number");
	refuses("uid=-1", "takes a number");
	refuses("gid=4294967295", "takes a number");
	refuses("offline=yes", "takes no value");
	refuses("offline_copy", "needs a value");
	refuses("offline_copy=0", "from 1 to 1048576");
}

Test(settings, set_id_bits_and_devices_are_for_root)
{
	if (geteuid() != 0)
		refuses("suid", "root only");
	else
		takes("suid,dev");
	takes("nosuid,nodev");
	cr_assert_not(s.suid || s.dev);
}

Test(settings, the_state_directory_follows_the_environment)
{
	ICM_AUTOFREE char *dir = NULL;

	takes("statedir=/x/y");
	dir = icm_settings_state_dir(&s);
	cr_assert_str_eq(dir, "/x/y");
	free(dir);
	free(s.state_dir);
	s.state_dir = NULL;
	setenv("XDG_STATE_HOME", "/state", 1);
	dir = icm_settings_state_dir(&s);
	cr_assert_str_eq(dir, geteuid() == 0 ? "/var/lib/icmfs" : "/state/icmfs");
}

Test(settings, help_names_every_option_that_does_something)
{
	ICM_AUTOFREE char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	icm_settings_help(f);
	fclose(f);
	cr_assert(strstr(text, "timeout=SECONDS"));
	cr_assert(strstr(text, "noevents"));
	cr_assert_not(strstr(text, "_netdev"));
	for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
		cr_assert_leq(strcspn(line, "\n"), 80);
}

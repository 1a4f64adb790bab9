/* SPDX-License-Identifier: MIT
 * What could not be committed: descriptions, and the directory that holds them.
 * How items come to be and go back is shown on a mount (tests/mount/recover.sh). */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/unsaved.h"

#define TEXT                                                                                       \
	"{\"id\":\"%s\",\"time\":[%d,0],\"store\":\"sqlite%%3A/s\",\"mountpoint\":\"/m\","         \
	"\"path\":\"a/b c\",\"reason\":\"why\",\"user\":\"mia\",\"mode\":420,\"uid\":1,"           \
	"\"gid\":2,\"size\":%d,\"mtime\":[5,6]%s}"
#define BASE ",\"base\":{\"ino\":9,\"size\":100,\"mtime\":[1,2]}"
#define A    "00000000000000aa"
#define B    "00000000000000bb"

static char dir[] = "/tmp/test-unsaved.XXXXXX";

static void setup(void)
{
	cr_assert(mkdtemp(dir));
}

static void teardown(void)
{
	ICM_AUTOFREE char *rm = icm_asprintf("rm -rf '%s'", dir);

	cr_assert_eq(system(rm), 0);
}

TestSuite(unsaved, .init = setup, .fini = teardown);

static void put(const char *name, const char *text)
{
	ICM_AUTOFREE char *path = icm_asprintf("%s/%s", dir, name);
	ICM_AUTOFCLOSE FILE *f = fopen(path, "w");

	cr_assert(f && fputs(text, f) >= 0);
}

static void put_item(const char *id, int time, const char *data)
{
	ICM_AUTOFREE char *text = icm_asprintf(TEXT, id, time, (int)strlen(data), "");
	ICM_AUTOFREE char *json = icm_asprintf("%s.json", id);
	ICM_AUTOFREE char *bytes = icm_asprintf("%s.data", id);

	put(json, text);
	put(bytes, data);
}

static bool is_there(const char *name)
{
	ICM_AUTOFREE char *path = icm_asprintf("%s/%s", dir, name);

	return access(path, F_OK) == 0;
}

static int decode(const char *more)
{
	ICM_AUTOFREE char *text = icm_asprintf(TEXT, A, 7, 50, more);
	struct icm_unsaved u;
	int r = icm_unsaved_decode(text, strlen(text), &u);

	if (r == 0)
		icm_unsaved_clear(&u);
	return r;
}

Test(unsaved, a_description_comes_back_as_it_was)
{
	ICM_AUTOFREE char *text = icm_asprintf(TEXT, A, 7, 50, BASE ",\"gaps\":[[0,10],[20,30]]");
	ICM_CLEANUP(icm_unsaved_clear) struct icm_unsaved u = { 0 };
	ICM_AUTOFREE char *again = NULL;
	size_t len;

	cr_assert_eq(icm_unsaved_decode(text, strlen(text), &u), 0);
	cr_assert_str_eq(u.path, "a/b c");
	cr_assert(u.has_base && u.base_ino == 9 && u.n_gaps == 2 && u.gaps[1].off == 20);
	again = icm_unsaved_encode(&u, &len);
	cr_assert_str_eq(again, text);
}

Test(unsaved, gaps_lie_in_the_file_and_in_its_base)
{
	cr_assert_eq(decode(BASE ",\"gaps\":[[0,50]]"), 0);
	cr_assert_eq(decode(BASE ",\"gaps\":[[0,51]]"), -EPROTO);
	cr_assert_eq(decode(BASE ",\"gaps\":[[50,1]]"), -EPROTO);
	cr_assert_eq(decode(BASE ",\"gaps\":[[10,5],[12,5]]"), -EPROTO);
	cr_assert_eq(decode(BASE ",\"gaps\":[[10,0]]"), -EPROTO);
	cr_assert_eq(decode(BASE ",\"gaps\":[[9223372036854775807,9223372036854775807]]"), -EPROTO);
	cr_assert_eq(decode(",\"gaps\":[[0,50]]"), -EPROTO, "no base");
}

Test(unsaved, a_directory_that_is_not_there_is_empty)
{
	struct icm_unsaved_list list;

	cr_assert_eq(icm_unsaved_read("/nowhere/at/all", &list), 0);
	cr_assert(list.n == 0 && list.bad == 0);
}

Test(unsaved, items_are_listed_oldest_first_and_bad_ones_counted)
{
	ICM_CLEANUP(icm_unsaved_list_clear) struct icm_unsaved_list list = { 0 };

	put_item(A, 20, "new");
	put_item(B, 10, "old");
	put("00000000000000cc.json", "{}");
	put("00000000000000dd.json", "");
	put("readme.json", "{}");
	cr_assert_eq(icm_unsaved_read(dir, &list), 0);
	cr_assert_eq(list.n, 2);
	cr_assert_str_eq(list.v[0].id, B);
	cr_assert_eq(list.bad, 2);
}

Test(unsaved, a_description_under_another_id_is_bad)
{
	ICM_CLEANUP(icm_unsaved_list_clear) struct icm_unsaved_list list = { 0 };
	ICM_AUTOFREE char *text = icm_asprintf(TEXT, A, 1, 3, "");

	put(B ".json", text);
	cr_assert_eq(icm_unsaved_read(dir, &list), 0);
	cr_assert(list.n == 0 && list.bad == 1);
}

Test(unsaved, data_of_another_size_or_kind_is_refused)
{
	ICM_CLEANUP(icm_unsaved_list_clear) struct icm_unsaved_list list = { 0 };
	int fd;

	put_item(A, 1, "abc");
	cr_assert_eq(icm_unsaved_read(dir, &list), 0);
	fd = icm_unsaved_open(dir, &list.v[0]);
	cr_assert_geq(fd, 0);
	close(fd);
	put(A ".data", "abcd");
	cr_assert_eq(icm_unsaved_open(dir, &list.v[0]), -EPROTO);
	cr_assert_eq(icm_unsaved_drop(dir, A), 0);
	cr_assert_eq(icm_unsaved_open(dir, &list.v[0]), -ENOENT);
	cr_assert_eq(icm_unsaved_drop(dir, A), -ENOENT);
}

Test(unsaved, a_sweep_takes_what_has_no_description)
{
	put_item(A, 1, "abc");
	put(B ".data", "half");
	put(B ".new", "{");
	put("notes.data", "somebody's");
	icm_unsaved_sweep(dir);
	cr_assert(is_there(A ".json") && is_there(A ".data") && is_there("notes.data"));
	cr_assert(!is_there(B ".data") && !is_there(B ".new"));
}

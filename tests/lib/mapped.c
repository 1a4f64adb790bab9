/* SPDX-License-Identifier: MIT
 * Shared mappings, for the mount tests:
 *
 *   mapped watch FILE READY TEXT…     maps FILE, makes the file READY, and waits (10 s
 *                                     each) until the mapping starts with each TEXT in turn
 *   mapped write FILE OFFSET TEXT     writes through a mapping; msync, close
 *   mapped leave FILE OFFSET TEXT     the same without msync and munmap: exits */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int watch(const char *path, const char *ready, char **texts, int n)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	const volatile char *p;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0) {
		perror(path);
		return 2;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	for (int i = 0; i < n; i++) {
		size_t len = strlen(texts[i]);
		char head[200];
		int ms;

		for (ms = 0; ms < 10000; ms++) {
			for (size_t k = 0; k < len && k < sizeof(head) - 1; k++)
				head[k] = p[k];
			head[len < sizeof(head) ? len : sizeof(head) - 1] = 0;
			if (!strcmp(head, texts[i]))
				break;
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		}
		if (ms == 10000) {
			fprintf(stderr, "mapped: the mapping shows '%s', expected '%s'\n", head,
				texts[i]);
			return 1;
		}
		if (i == 0 && close(open(ready, O_WRONLY | O_CREAT, 0644)) < 0)
			return 2;
		printf("%s\n", texts[i]);
		fflush(stdout);
	}
	return 0;
}

static int put(const char *path, size_t at, const char *text, int sync)
{
	int fd = open(path, O_RDWR);
	struct stat st;
	char *p;

	if (fd < 0 || fstat(fd, &st) < 0 || at + strlen(text) > (size_t)st.st_size) {
		perror(path);
		return 2;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	memcpy(p + at, text, strlen(text));
	if (!sync)
		_exit(0);
	if (msync(p, (size_t)st.st_size, MS_SYNC) < 0 || munmap(p, (size_t)st.st_size) < 0 ||
	    close(fd) < 0) {
		perror(path);
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 5 && !strcmp(argv[1], "watch"))
		return watch(argv[2], argv[3], argv + 4, argc - 4);
	if (argc == 5 && (!strcmp(argv[1], "write") || !strcmp(argv[1], "leave")))
		return put(argv[2], strtoul(argv[3], NULL, 0), argv[4], argv[1][0] == 'w');
	fprintf(stderr,
		"usage: mapped watch FILE READY TEXT… | mapped write|leave FILE OFFSET TEXT\n");
	return 2;
}

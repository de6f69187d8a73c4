/*
 * The first process of a namespace: it reaps what is orphaned there, and when
 * it ends the kernel ends everything else in the namespace. It is also what
 * runs in a pod's sandbox container.
 *
 * "init tied" ends when its standard input does, which is a pipe held open by
 * the program that owns the sandbox: however that program ends, the sandbox
 * ends with it.
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int signal)
{
	(void)signal;
	_exit(0);
}

static void reap(int signal)
{
	(void)signal;
	while (waitpid(-1, 0, WNOHANG) > 0) {
	}
}

int main(int argc, char **argv)
{
	int tied = argc > 1 && strcmp(argv[1], "tied") == 0;
	struct sigaction action;
	char buffer[64];

	memset(&action, 0, sizeof action);
	action.sa_handler = stop;
	sigaction(SIGTERM, &action, 0);
	sigaction(SIGINT, &action, 0);
	action.sa_handler = reap;
	action.sa_flags = SA_NOCLDSTOP;
	sigaction(SIGCHLD, &action, 0);

	for (;;) {
		if (!tied)
			pause();
		else if (read(0, buffer, sizeof buffer) == 0)
			return 0;
	}
}

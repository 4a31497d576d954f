// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Load for measuring: small, so that what is measured is the network and not the program.
 *
 *   flow serve PORT                  TCP: sink or echo, as the client's first byte says
 *   flow accept PORT                 TCP: closes every connection at once
 *   flow connects ADDRESS PORT MS    prints connections a second to such a server, one by one
 *   flow stream ADDRESS PORT MS      prints bytes a second, as the other side received them
 *   flow rr ADDRESS PORT MS          prints round trips of one byte a second
 *   flow flood ADDRESS MS FLOWS      UDP to so many flows in random order, prints packets
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 128 << 10, FLOOD_BYTES = 32, FIRST_PORT = 10000, PORTS = 50000 };

static char block[BLOCK];

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* IPv4 in its mapped form: one family of sockets for both. */
static struct sockaddr_in6
address_of(const char *text, int port)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	char mapped[64];

	snprintf(mapped, sizeof(mapped), "%s%s", strchr(text, ':') ? "" : "::ffff:", text);
	if (inet_pton(AF_INET6, mapped, &address.sin6_addr) != 1)
		errx(2, "%s is no address", text);
	return address;
}

static int
socket_of(int type)
{
	int zero = 0, one = 1, made = socket(AF_INET6, type, 0);

	if (made < 0)
		err(1, "socket");
	setsockopt(made, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (type == SOCK_STREAM)
		setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return made;
}

static int
listening(int port)
{
	struct sockaddr_in6 address = address_of("::", port);
	int one = 1, server = socket_of(SOCK_STREAM);

	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(server, (void *)&address, sizeof(address)) || listen(server, 16))
		err(1, "listen on %d", port);
	return server;
}

static void
accept_all(int port)
{
	int peer, server = listening(port);

	while ((peer = accept(server, NULL, NULL)) >= 0)
		close(peer);
}

static void
serve_one(int peer)
{
	long long received = 0;
	ssize_t length;
	char mode;

	if (read(peer, &mode, 1) != 1)
		return;
	while ((length = read(peer, block, sizeof(block))) > 0) {
		received += length;
		if (mode == 'R' && write(peer, block, length) != length)
			return;
	}
	if (mode == 'S' && write(peer, &received, sizeof(received)) < 0)
		warn("the count did not reach the client");
}

static void
serve(int port)
{
	int peer, server = listening(port);

	signal(SIGCHLD, SIG_IGN);
	while ((peer = accept(server, NULL, NULL)) >= 0) {
		if (!fork()) {
			serve_one(peer);
			_exit(0);
		}
		close(peer);
	}
}

static int
connected(const char *text, int port, char mode)
{
	struct sockaddr_in6 address = address_of(text, port);
	int made = socket_of(SOCK_STREAM);

	if (connect(made, (void *)&address, sizeof(address)) || write(made, &mode, 1) != 1)
		err(1, "connect to %s", text);
	return made;
}

/* Each waits for the server's end, so that one is on the way at a time, and ends by a reset, so
 * that no port waits for late packets.
 */
static double
connects(const char *text, int port, double seconds)
{
	struct sockaddr_in6 address = address_of(text, port);
	struct linger at_once = {.l_onoff = 1};
	double began = now();
	long long count = 0;
	int made;

	for (; now() - began < seconds; count++) {
		made = socket_of(SOCK_STREAM);
		setsockopt(made, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		if (connect(made, (void *)&address, sizeof(address)) || read(made, block, 1) != 0)
			err(1, "connect to %s", text);
		close(made);
	}
	return count / (now() - began);
}

static double
stream(const char *text, int port, double seconds)
{
	int server = connected(text, port, 'S');
	long long received;
	double began = now();

	while (now() - began < seconds)
		if (write(server, block, sizeof(block)) < 0)
			err(1, "write");
	shutdown(server, SHUT_WR);
	if (recv(server, &received, sizeof(received), MSG_WAITALL) != sizeof(received))
		errx(1, "the server did not say how much came");
	return received / (now() - began);
}

static double
round_trips(const char *text, int port, double seconds)
{
	int server = connected(text, port, 'R');
	double began = now();
	long long count = 0;

	for (; now() - began < seconds; count++)
		if (write(server, block, 1) != 1 || read(server, block, 1) != 1)
			err(1, "round trip");
	return count / (now() - began);
}

static double
flood(const char *text, double seconds, int flows)
{
	int sockets[8], used = flows > PORTS ? (flows + PORTS - 1) / PORTS : 1;
	struct sockaddr_in6 address = address_of(text, 0);
	double began = now();
	long long sent = 0;
	long flow;

	for (int i = 0; i < used && i < 8; i++)
		sockets[i] = socket_of(SOCK_DGRAM);
	for (; now() - began < seconds; sent++) {
		flow = random() % flows;
		address.sin6_port = htons(FIRST_PORT + flow % PORTS);
		if (sendto(sockets[flow / PORTS], block, FLOOD_BYTES, 0, (void *)&address,
			   sizeof(address)) < 0)
			err(1, "sendto");
	}
	return sent;
}

int
main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	else if (argc == 3 && !strcmp(argv[1], "accept"))
		accept_all(atoi(argv[2]));
	else if (argc == 5 && !strcmp(argv[1], "connects"))
		printf("%.1f\n", connects(argv[2], atoi(argv[3]), atoi(argv[4]) / 1e3));
	else if (argc == 5 && !strcmp(argv[1], "stream"))
		printf("%.0f\n", stream(argv[2], atoi(argv[3]), atoi(argv[4]) / 1e3));
	else if (argc == 5 && !strcmp(argv[1], "rr"))
		printf("%.1f\n", round_trips(argv[2], atoi(argv[3]), atoi(argv[4]) / 1e3));
	else if (argc == 5 && !strcmp(argv[1], "flood") && atoi(argv[4]) <= 8 * PORTS)
		printf("%.0f\n", flood(argv[2], atoi(argv[3]) / 1e3, atoi(argv[4])));
	else
		errx(2, "serve|accept PORT | stream|rr|connects ADDRESS PORT MS | flood ADDRESS MS FLOWS");
	return 0;
}

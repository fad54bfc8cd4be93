/* The service in the lab guest, and its first process: echoes TCP and UDP on port 7 (RFC 862), and can write to
 * memory at a set pace, so that live migration has something to copy. A datagram "ADDRESS PORT" to port 8 has it
 * open a TCP session to there, on which it echoes too.
 *
 *   guest ADDRESS DIRTY_KIB_PER_S DIRTY_SET_KIB
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT 7
#define DIAL_PORT 8
#define PAGE 4096
#define TICK_MS 10
#define BUFFER 16384

struct connection {
    int fd;
    size_t start, end; /* what is read but not yet written back: data[start..end) */
    char data[BUFFER];
};

static void die(const char *what) {
    fprintf(stderr, "followme: guest failed: %s: %s\n", what, strerror(errno));
    for (;;) pause(); /* the first process must not end: the kernel would panic and hide the line above */
}

/* Touches pages one after the other, round and round through the set, `kib_per_s` KiB of pages a second. */
static void dirty(long kib_per_s, long set_kib) {
    size_t pages = (size_t)set_kib * 1024 / PAGE, at = 0;
    if (pages == 0) pages = 1;
    volatile char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) die("memory to dirty");
    double owed = 0, per_tick = (double)kib_per_s * 1024 / PAGE * TICK_MS / 1000;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (;;) {
        for (owed += per_tick; owed >= 1; owed -= 1) {
            memory[at * PAGE]++;
            at = (at + 1) % pages;
        }
        next.tv_nsec += TICK_MS * 1000000L;
        if (next.tv_nsec >= 1000000000L) next.tv_nsec -= 1000000000L, next.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
}

static int bound_socket(int type, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int one = 1, fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind to a port");
    if (type == SOCK_STREAM && listen(fd, 512) < 0) die("listen");
    return fd;
}

static void watch(int poll, int operation, int fd, unsigned events, void *what) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (epoll_ctl(poll, operation, fd, &event) < 0) die("epoll_ctl");
}

static void serve(int poll, int fd) {
    int one = 1;
    struct connection *made = malloc(sizeof *made);
    if (!made) {
        close(fd);
        return;
    }
    made->fd = fd;
    made->start = made->end = 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(poll, EPOLL_CTL_ADD, fd, EPOLLIN, made);
}

static void accept_all(int poll, int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) serve(poll, fd);
}

static void dial(int poll, int orders) {
    char text[64], host[32];
    int port;
    ssize_t got;
    while ((got = recv(orders, text, sizeof text - 1, 0)) >= 0) {
        struct sockaddr_in address = {.sin_family = AF_INET};
        text[got] = 0;
        if (sscanf(text, "%31s %d", host, &port) != 2 || !inet_pton(AF_INET, host, &address.sin_addr)) continue;
        address.sin_port = htons((unsigned short)port);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (fd < 0) continue;
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) close(fd);
        else serve(poll, fd);
    }
}

/* Reads only once all that was read before is written back: TCP's own window holds the sender back. */
static void echo_stream(int poll, struct connection *c) {
    for (;;) {
        if (c->start == c->end) {
            ssize_t got = read(c->fd, c->data, BUFFER);
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
                watch(poll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
                return;
            }
            if (got <= 0) break;
            c->start = 0;
            c->end = (size_t)got;
        }
        ssize_t put = write(c->fd, c->data + c->start, c->end - c->start);
        if (put < 0 && (errno == EAGAIN || errno == EINTR)) {
            watch(poll, EPOLL_CTL_MOD, c->fd, EPOLLOUT, c);
            return;
        }
        if (put <= 0) break;
        c->start += (size_t)put;
    }
    close(c->fd);
    free(c);
}

static void echo_datagrams(int fd) {
    static char data[65536];
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    ssize_t got;
    while ((got = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&peer, &length)) >= 0) {
        sendto(fd, data, (size_t)got, 0, (struct sockaddr *)&peer, length);
        length = sizeof peer;
    }
}

int main(int count, char **argument) {
    if (count != 4) {
        fprintf(stderr, "usage: guest ADDRESS DIRTY_KIB_PER_S DIRTY_SET_KIB\n");
        return 2;
    }
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    if (atol(argument[2]) > 0 && fork() == 0) dirty(atol(argument[2]), atol(argument[3]));

    int stream = bound_socket(SOCK_STREAM, PORT), datagram = bound_socket(SOCK_DGRAM, PORT);
    int orders = bound_socket(SOCK_DGRAM, DIAL_PORT), poll = epoll_create1(0);
    if (poll < 0) die("epoll");
    watch(poll, EPOLL_CTL_ADD, stream, EPOLLIN, &stream);
    watch(poll, EPOLL_CTL_ADD, datagram, EPOLLIN, &datagram);
    watch(poll, EPOLL_CTL_ADD, orders, EPOLLIN, &orders);
    printf("followme: ready %s\n", argument[1]);
    fflush(stdout);

    struct epoll_event ready[64];
    for (;;) {
        int n = epoll_wait(poll, ready, 64, -1);
        for (int i = 0; i < n; i++) {
            if (ready[i].data.ptr == &stream) accept_all(poll, stream);
            else if (ready[i].data.ptr == &datagram) echo_datagrams(datagram);
            else if (ready[i].data.ptr == &orders) dial(poll, orders);
            else echo_stream(poll, ready[i].data.ptr);
        }
    }
}

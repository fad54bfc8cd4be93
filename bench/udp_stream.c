/* A UDP stream with sequence numbers.
 *   udp_stream send ADDRESS PORT PAYLOAD SECONDS RATE    RATE in packets a second, 0: as fast as it goes
 *   udp_stream sink ADDRESS PORT SECONDS                 ends half a second after the last packet
 * send prints: packets seconds cpu_seconds (its own, with all that the kernel does in its calls)
 * sink prints: packets seconds (from the first packet to the last) packets_out_of_order */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 32
#define BYTES 2048

static char buffers[BATCH][BYTES];
static struct mmsghdr headers[BATCH];
static struct iovec vectors[BATCH];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void prepare(size_t length) {
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){buffers[i], length};
        headers[i].msg_hdr.msg_iov = &vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
}

static void sender(int s, double seconds, double rate) {
    unsigned long sent = 0;
    double begin = now(), t;
    while ((t = now() - begin) < seconds) {
        int count = BATCH;
        if (rate > 0) {
            double due = rate * t - sent;
            if (due < 1) continue;
            if (due < count) count = due;
        }
        for (int i = 0; i < count; i++) {
            unsigned long number = sent + i;
            memcpy(buffers[i], &number, sizeof number);
        }
        int done = sendmmsg(s, headers, count, 0);
        if (done > 0) sent += done;
    }
    double end = now();
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("%lu %.6f %.6f\n", sent, end - begin,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6);
}

static void sink(int s, double seconds) {
    unsigned long got = 0, late = 0, highest = 0;
    double end = now() + seconds, first = 0, last = 0;
    struct pollfd waiting = {s, POLLIN, 0};
    while (now() < end) {
        if (poll(&waiting, 1, 100) <= 0) {
            if (got && now() - last > 0.5) break;
            continue;
        }
        int count = recvmmsg(s, headers, BATCH, MSG_DONTWAIT, NULL);
        if (count <= 0) continue;
        last = now();
        if (!got) first = last;
        for (int i = 0; i < count; i++) {
            unsigned long number;
            memcpy(&number, buffers[i], sizeof number);
            if (number < highest) late++;
            else highest = number;
        }
        got += count;
    }
    printf("%lu %.6f %lu\n", got, last - first, late);
}

int main(int argc, char **argv) {
    int sending = argc == 7 && !strcmp(argv[1], "send");
    if (!sending && !(argc == 5 && !strcmp(argv[1], "sink"))) return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
    int s = socket(AF_INET, SOCK_DGRAM, 0), size = 32 << 20;
    if (inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) return 2;
    setsockopt(s, SOL_SOCKET, sending ? SO_SNDBUFFORCE : SO_RCVBUFFORCE, &size, sizeof size);
    if ((sending ? connect : bind)(s, (struct sockaddr *)&address, sizeof address)) {
        perror("udp_stream");
        return 1;
    }
    if (sending) {
        size_t length = atoi(argv[4]);
        if (length < sizeof(unsigned long) || length > BYTES) return 2;
        prepare(length);
        sender(s, atof(argv[5]), atof(argv[6]));
    } else {
        prepare(BYTES);
        sink(s, atof(argv[4]));
    }
    return 0;
}

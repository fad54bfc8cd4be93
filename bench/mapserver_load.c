/* Load for a LISP map server: Map-Requests in ECMs for random EIDs, a window of them outstanding at each of
 * several sockets. Prints: answered a second, answers that were wrong, requests that were never answered.
 *
 * usage: mapserver_load PORT SECONDS SOCKETS WINDOW FIRST_EID EIDS CHECK < template
 * The template is an ECM (IPv4 in it, one IPv4 EID, which ends it); addresses, ports and nonces are filled in. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SOCKETS = 64, MAX_WINDOW = 256, SIZE = 256, ANSWER = 2048, REMEMBERED = 1 << 16 };

static unsigned char template[SIZE], out[MAX_WINDOW][SIZE], in[MAX_WINDOW][ANSWER];
static struct mmsghdr out_head[MAX_WINDOW], in_head[MAX_WINDOW];
static struct iovec out_part[MAX_WINDOW], in_part[MAX_WINDOW];
static uint32_t asked[REMEMBERED];
static uint64_t sequence, state = 88172645463325252ull;
static int size;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static uint32_t random_below(uint32_t bound)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)((state >> 32) * bound >> 32);
}

static void fill(unsigned char *data, uint16_t port, uint32_t eid)
{
    uint32_t sum = 0, big = htonl(eid);
    uint64_t nonce = ++sequence;
    memcpy(data, template, size);
    memcpy(data + 20, &big, 4);
    memcpy(data + size - 4, &big, 4);
    data[14] = data[15] = 0;
    for (int at = 4; at < 24; at += 2)
        sum += data[at] << 8 | data[at + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~((sum & 0xffff) + (sum >> 16));
    data[14] = sum >> 8, data[15] = sum;
    data[24] = port >> 8, data[25] = port;
    data[30] = data[31] = 0;
    memcpy(data + 36, &nonce, 8);
    asked[nonce % REMEMBERED] = big;
}

int main(int count, char **words)
{
    if (count != 8)
        return 2;
    int port = atoi(words[1]), sockets = atoi(words[3]), window = atoi(words[4]), check = atoi(words[7]);
    uint32_t first = strtoul(words[5], NULL, 10), eids = strtoul(words[6], NULL, 10);
    struct pollfd polled[MAX_SOCKETS];
    uint16_t ports[MAX_SOCKETS];
    int outstanding[MAX_SOCKETS] = {0};
    double last[MAX_SOCKETS];
    uint64_t answered = 0, wrong = 0, lost = 0, before = 0;

    size = fread(template, 1, SIZE, stdin);
    if (size < 52 || sockets > MAX_SOCKETS || window > MAX_WINDOW)
        return 2;
    for (int i = 0; i < MAX_WINDOW; i++) {
        out_part[i] = (struct iovec){out[i], size};
        out_head[i].msg_hdr = (struct msghdr){.msg_iov = &out_part[i], .msg_iovlen = 1};
        in_part[i] = (struct iovec){in[i], ANSWER};
        in_head[i].msg_hdr = (struct msghdr){.msg_iov = &in_part[i], .msg_iovlen = 1};
    }
    for (int i = 0; i < sockets; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
        socklen_t length = sizeof address;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int one = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (one < 0 || connect(one, (struct sockaddr *)&address, sizeof address) ||
            getsockname(one, (struct sockaddr *)&address, &length))
            return perror("socket"), 1;
        ports[i] = ntohs(address.sin_port);
        polled[i] = (struct pollfd){.fd = one, .events = POLLIN};
        last[i] = 0;
    }
    double begin = seconds(), warm = begin + atof(words[2]) / 4, end = begin + atof(words[2]), now, counted = begin;
    while ((now = seconds()) < end) {
        if (!before && now > warm)
            before = answered, counted = now;
        for (int i = 0; i < sockets; i++) {
            int free = window - outstanding[i];
            if (outstanding[i] && now - last[i] > 0.2)
                lost += outstanding[i], outstanding[i] = 0, free = window;
            if (free < window / 2)
                continue;
            for (int k = 0; k < free; k++)
                fill(out[k], ports[i], first + random_below(eids));
            int sent = sendmmsg(polled[i].fd, out_head, free, 0);
            if (sent > 0)
                outstanding[i] += sent, last[i] = now;
        }
        if (poll(polled, sockets, 20) <= 0)
            continue;
        for (int i = 0; i < sockets; i++) {
            if (!(polled[i].revents & POLLIN))
                continue;
            int got = recvmmsg(polled[i].fd, in_head, window, 0, NULL);
            for (int k = 0; k < got; k++) {
                uint64_t nonce;
                memcpy(&nonce, in[k] + 4, 8);
                if (check && (in_head[k].msg_len < 28 || in[k][0] != 0x20 || in[k][3] != 1 ||
                              memcmp(in[k] + 24, &asked[nonce % REMEMBERED], 4)))
                    wrong++;
            }
            if (got > 0)
                answered += got, outstanding[i] -= got, last[i] = now;
            if (outstanding[i] < 0)
                outstanding[i] = 0;
        }
    }
    printf("%.0f %llu %llu\n", (answered - before) / (seconds() - counted), (unsigned long long)wrong,
           (unsigned long long)lost);
    return 0;
}

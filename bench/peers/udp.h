/* What both baselines for datagrams have: a socket, and a batch that goes back as it came. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define MOST 2048

static char room[BATCH][MOST];
static struct sockaddr_in peers[BATCH];
static struct iovec pieces[BATCH];
static struct mmsghdr messages[BATCH];

static void fail(const char *call) {
    perror(call);
    exit(1);
}

/* Binds a port, and prints `ready PORT`. */
static int bind_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int port = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (port < 0 || bind(port, (struct sockaddr *)&address, length) < 0 ||
        getsockname(port, (struct sockaddr *)&address, &length) < 0)
        fail("udp");
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return port;
}

/* Sends a batch back. Returns the number of its datagrams, or a negative number if there are none. */
static int echo(int port, int flags) {
    for (int i = 0; i < BATCH; i++) {
        pieces[i] = (struct iovec){.iov_base = room[i], .iov_len = MOST};
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &pieces[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(port, messages, BATCH, flags, NULL);
    for (int i = 0; i < count; i++) pieces[i].iov_len = messages[i].msg_len;
    for (int sent = 0; sent < count;) {
        int more = sendmmsg(port, messages + sent, count - sent, 0);
        if (more < 0) fail("sendmmsg");
        sent += more;
    }
    return count;
}

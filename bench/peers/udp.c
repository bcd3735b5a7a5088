/* The baseline for datagrams: a loop of recvmmsg and sendmmsg, through libc.
 *
 * It sends each batch back as it came. Prints `ready PORT`, and runs until its parent ends it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define MOST 2048

static char room[BATCH][MOST];
static struct sockaddr_in peers[BATCH];
static struct iovec pieces[BATCH];
static struct mmsghdr messages[BATCH];

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket_ < 0 || bind(socket_, (struct sockaddr *)&address, length) < 0 ||
        getsockname(socket_, (struct sockaddr *)&address, &length) < 0) {
        perror("udp");
        return 1;
    }
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            pieces[i] = (struct iovec){.iov_base = room[i], .iov_len = MOST};
            messages[i].msg_hdr = (struct msghdr){
                .msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &pieces[i], .msg_iovlen = 1};
        }
        int count = recvmmsg(socket_, messages, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++) pieces[i].iov_len = messages[i].msg_len;
        for (int sent = 0; sent < count;) {
            int more = sendmmsg(socket_, messages + sent, count - sent, 0);
            if (more < 0) {
                perror("sendmmsg");
                return 1;
            }
            sent += more;
        }
    }
}

/* The loop of `udp.c` as a program has it that serves other sockets too: it waits with epoll, and asks
 * again while there are several datagrams at a time. */
#define _GNU_SOURCE
#include "udp.h"

#include <sys/epoll.h>

int main(void) {
    int port = bind_port(), poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, port, &event) < 0) fail("epoll");
    for (;;) {
        epoll_wait(poller, &event, 1, -1);
        while (echo(port, MSG_DONTWAIT) > 1) {
        }
    }
}

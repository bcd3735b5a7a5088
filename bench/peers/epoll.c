/* The baseline: the smallest server on epoll, through libc.
 *
 * Level-triggered, with one shared buffer: one connection after the other is read and then written.
 * Bytes that a socket does not take are kept, and the connection waits for writability and reads
 * nothing meanwhile. Prints `ready PORT`, and runs until its parent ends it. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    int socket;
    char *rest;
    size_t left;
};

static char buffer[64 << 10];
static int poller;

static void watch(struct connection *connection, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    epoll_ctl(poller, operation, connection->socket, &event);
}

static void end(struct connection *connection) {
    close(connection->socket);
    free(connection->rest);
    free(connection);
}

static void flush(struct connection *connection) {
    ssize_t sent = send(connection->socket, connection->rest, connection->left, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) end(connection);
        return;
    }
    connection->left -= sent;
    memmove(connection->rest, connection->rest + sent, connection->left);
    if (connection->left) return;
    free(connection->rest);
    connection->rest = NULL;
    watch(connection, EPOLL_CTL_MOD, EPOLLIN);
}

static void echo(struct connection *connection) {
    ssize_t count = recv(connection->socket, buffer, sizeof buffer, 0);
    if (count <= 0) {
        if (count == 0 || errno != EAGAIN) end(connection);
        return;
    }
    ssize_t sent = send(connection->socket, buffer, count, MSG_NOSIGNAL);
    if (sent == count) return;
    if (sent < 0 && errno == EAGAIN) sent = 0;
    connection->rest = sent < 0 ? NULL : malloc(count - sent);
    if (!connection->rest) {
        end(connection);
        return;
    }
    connection->left = count - sent;
    memcpy(connection->rest, buffer + sent, connection->left);
    watch(connection, EPOLL_CTL_MOD, EPOLLOUT);
}

static void accept_all(int listener) {
    int socket, one = 1;
    while ((socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection) {
            close(socket);
            continue;
        }
        connection->socket = socket;
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(connection, EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    poller = epoll_create1(EPOLL_CLOEXEC);
    /* A null pointer marks the listener. */
    struct epoll_event events[1024] = {{.events = EPOLLIN, .data.ptr = NULL}};
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 4096) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0 ||
        epoll_ctl(poller, EPOLL_CTL_ADD, listener, &events[0]) < 0) {
        perror("listening");
        return 1;
    }
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poller, events, 1024, -1);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) accept_all(listener);
            else if (events[i].events & EPOLLOUT) flush(connection);
            else echo(connection);
        }
    }
}

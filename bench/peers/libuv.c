/* An echo server on libuv: received bytes are written at once, and the unsent rest is queued.
 *
 * All reads share one buffer. The rest is copied, and the connection is not read meanwhile. Prints
 * `ready PORT`, and runs until its parent ends it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static char buffer[64 << 10];

struct rest {
    uv_write_t request;
    char data[];
};

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
        exit(1);
    }
}

static void on_close(uv_handle_t *handle) { free(handle); }

static void end(uv_stream_t *stream) {
    if (!uv_is_closing((uv_handle_t *)stream)) uv_close((uv_handle_t *)stream, on_close);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *chunk) {
    (void)handle, (void)suggested;
    *chunk = uv_buf_init(buffer, sizeof buffer);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *chunk);

static void on_written(uv_write_t *request, int status) {
    uv_stream_t *stream = request->handle;
    free(request->data);
    if (status < 0 || uv_read_start(stream, on_alloc, on_read) < 0) end(stream);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *chunk) {
    if (count == 0) return;
    if (count < 0) {
        end(stream);
        return;
    }
    uv_buf_t data = uv_buf_init(chunk->base, count);
    int sent = uv_try_write(stream, &data, 1);
    if (sent == UV_EAGAIN) sent = 0;
    if (sent == count) return;
    size_t left = count - sent;
    struct rest *rest = sent < 0 ? NULL : malloc(sizeof *rest + left);
    if (!rest) {
        end(stream);
        return;
    }
    memcpy(rest->data, chunk->base + sent, left);
    rest->request.data = rest;
    data = uv_buf_init(rest->data, left);
    uv_read_stop(stream);
    if (uv_write(&rest->request, stream, &data, 1, on_written) < 0) {
        free(rest);
        end(stream);
    }
}

static void on_connection(uv_stream_t *listener, int status) {
    check(status, "listening");
    uv_tcp_t *client = malloc(sizeof *client);
    if (!client) return;
    check(uv_tcp_init(listener->loop, client), "a handle");
    if (uv_accept(listener, (uv_stream_t *)client) < 0) {
        end((uv_stream_t *)client);
        return;
    }
    uv_tcp_nodelay(client, 1);
    check(uv_read_start((uv_stream_t *)client, on_alloc, on_read), "reading");
}

int main(void) {
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t listener;
    struct sockaddr_in address;
    int length = sizeof address;
    check(uv_tcp_init(loop, &listener), "a handle");
    check(uv_ip4_addr("127.0.0.1", 0, &address), "an address");
    check(uv_tcp_bind(&listener, (const struct sockaddr *)&address, 0), "bind");
    check(uv_listen((uv_stream_t *)&listener, 4096, on_connection), "listen");
    check(uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &length), "a name");
    printf("ready %d %s\n", ntohs(address.sin_port), uv_version_string());
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}

/* The baseline for datagrams: a loop of recvmmsg and sendmmsg, through libc. It blocks in recvmmsg, and
 * so serves this socket alone. Prints `ready PORT`, and runs until its parent ends it. */
#define _GNU_SOURCE
#include "udp.h"

int main(void) {
    for (int port = bind_port();;) echo(port, MSG_WAITFORONE);
}

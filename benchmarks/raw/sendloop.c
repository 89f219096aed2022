/* The limit of one core: accepts DEVICES connections, reads events from stdin, one a line, and send()s each of them, as
 * one server-sent event, to every connection in turn. It stores nothing, checks nothing and knows no HTTP. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int accept_all(int *devices, int count) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) return -1;
    if (getsockname(listener, (struct sockaddr *)&address, &size)) return -1;
    printf("listening on http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (int i = 0; i < count; i++) {
        if ((devices[i] = accept(listener, NULL, NULL)) < 0) return -1;
        setsockopt(devices[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (send(devices[i], head, sizeof head - 1, MSG_NOSIGNAL) < 0) return -1;
    }
    return 0;
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 0;
    int *devices = calloc(count > 0 ? count : 1, sizeof *devices);
    char *line = NULL, *frame = malloc(1 << 20);
    size_t room = 0;
    ssize_t length;
    if (!devices || !frame || accept_all(devices, count)) {
        perror("sendloop");
        return 1;
    }
    while ((length = getline(&line, &room, stdin)) > 0) {
        if (length > (1 << 20) - 16) continue;
        memcpy(frame, "data: ", 6);
        memcpy(frame + 6, line, length);
        memcpy(frame + 6 + length, "\n", 1);
        for (int i = 0; i < count; i++)
            /* Blocking: a full socket holds the loop, so that nothing is ever lost or cut. */
            if (devices[i] >= 0 && send(devices[i], frame, length + 7, MSG_NOSIGNAL) < 0) {
                close(devices[i]);
                devices[i] = -1;
            }
    }
    return 0;
}

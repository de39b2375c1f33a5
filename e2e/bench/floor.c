/* The kernel's limit for fan-out: what it costs to write one frame to each of many sockets, and nothing else.
 *
 * floor CONNECTIONS BYTES ROUNDS
 *
 * The parent writes BYTES once per round to each of CONNECTIONS loopback connections; a child reads them away. The
 * parent's CPU time is the system call and the kernel's TCP path up to the receiver's queue: no server that writes a
 * message at a time can be cheaper per message. Prints one line of JSON.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKLOG = 4096,
    EVENTS_PER_WAIT = 512,
    READ_BYTES = 1 << 20,
    IDLE_TIMEOUT_MS = 10000, /* the child gives up when the parent stopped sending */
    PAUSE_NS = 2000000,      /* between rounds, so that the child keeps up and queues stay short */
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static long parse(const char *text) {
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value <= 0) {
        fprintf(stderr, "not a positive number: %s\n", text);
        exit(2);
    }
    return value;
}

static int listen_anywhere(struct sockaddr_in *address) {
    socklen_t length = sizeof *address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (listener < 0 || bind(listener, (struct sockaddr *)address, length) || listen(listener, BACKLOG) ||
        getsockname(listener, (struct sockaddr *)address, &length))
        die("listen");
    return listener;
}

/* The child: opens all connections, reads `total` bytes from whichever has some. Exit status 0 when all came. */
static int drain(const struct sockaddr_in *address, long connections, long total) {
    static char buffer[READ_BYTES];
    struct epoll_event events[EVENTS_PER_WAIT];
    int epoll = epoll_create1(0);
    for (long i = 0; i < connections; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address))
            die("connect");
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
            die("epoll_ctl");
    }
    while (total > 0) {
        int ready = epoll_wait(epoll, events, EVENTS_PER_WAIT, IDLE_TIMEOUT_MS);
        if (ready <= 0)
            return 1;
        for (int i = 0; i < ready; i++) {
            ssize_t got = read(events[i].data.fd, buffer, sizeof buffer);
            if (got > 0)
                total -= got;
        }
    }
    return 0;
}

static void send_all(int fd, const char *message, long bytes) {
    for (long sent = 0; sent < bytes;) {
        ssize_t n = send(fd, message + sent, (size_t)(bytes - sent), MSG_NOSIGNAL);
        if (n <= 0)
            die("send");
        sent += n;
    }
}

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: floor CONNECTIONS BYTES ROUNDS\n");
        return 2;
    }
    long connections = parse(argv[1]), bytes = parse(argv[2]), rounds = parse(argv[3]);
    struct sockaddr_in address;
    int listener = listen_anywhere(&address);
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        close(listener);
        _exit(drain(&address, connections, connections * bytes * rounds));
    }
    int *fds = calloc((size_t)connections, sizeof *fds);
    char *message = calloc(1, (size_t)bytes);
    if (!fds || !message)
        die("calloc");
    for (long i = 0; i < connections; i++) {
        int on = 1;
        fds[i] = accept(listener, NULL, NULL);
        if (fds[i] < 0 || setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
            die("accept");
    }
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    for (long round = 0; round < rounds; round++) {
        for (long i = 0; i < connections; i++)
            send_all(fds[i], message, bytes);
        nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
    }
    getrusage(RUSAGE_SELF, &after);
    int status = 1;
    waitpid(child, &status, 0);
    double user = seconds(after.ru_utime) - seconds(before.ru_utime);
    double kernel = seconds(after.ru_stime) - seconds(before.ru_stime);
    printf("{\"connections\":%ld,\"bytes\":%ld,\"sends\":%ld,\"cpu_seconds\":%.3f,\"sends_per_cpu_second\":%.0f}\n",
           connections, bytes, connections * rounds, user + kernel, (double)(connections * rounds) / (user + kernel));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
}

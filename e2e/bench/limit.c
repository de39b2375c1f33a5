/* The kernel's limit for latency: a fan-out server that does nothing but write.
 *
 * limit PORT THREADS
 *
 * Speaks as much of Nchan's WebSocket protocol as the load generator uses: GET /pubsub/f<I>/f<J> subscribes to channel I
 * and publishes to channel J, "none" stands for neither. Each thread accepts connections of its own and writes every
 * message to its subscribers as it came, one write each, in order: no queue, no limit, no protocol. A server that does
 * anything else takes longer. A socket that is full ends the process: it would be no measurement.
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 4096,
    THREADS = 64,
    CHANNELS = 128,
    SUBSCRIBERS = 20000, /* of a channel on a thread: more than one process has descriptors */
    MESSAGES = 4096,     /* in flight between the threads */
    MESSAGE_BYTES = 1024,
    EVENTS_PER_WAIT = 256,
    NONE = -1,
    MASK_BYTES = 4,
};

struct message {
    int channel;
    size_t length;
    unsigned char frame[MESSAGE_BYTES];
};

struct thread {
    int epoll, listener, wake;
    unsigned seen; /* of `published` */
    int *subscribers[CHANNELS];
    int subscribed[CHANNELS];
};

/* By descriptor. */
struct client {
    int upgraded, publishes;
};

static struct message messages[MESSAGES];
static atomic_uint published;
static pthread_mutex_t publishing = PTHREAD_MUTEX_INITIALIZER;
static struct thread threads[THREADS];
static int thread_count, port;
static struct client clients[1 << 16];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(struct thread *thread, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(thread->epoll, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

/* To every subscriber of this thread, whatever was published since it last looked. */
static void deliver(struct thread *thread) {
    while (thread->seen != atomic_load(&published)) {
        struct message *message = &messages[thread->seen++ % MESSAGES];
        const int *to = thread->subscribers[message->channel];
        for (int i = 0; i < thread->subscribed[message->channel]; i++) {
            ssize_t sent = send(to[i], message->frame, message->length, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent != (ssize_t)message->length && errno != EPIPE && errno != ECONNRESET)
                die("a subscriber is behind");
        }
    }
}

static void publish(struct thread *from, int channel, const unsigned char *text, size_t length) {
    pthread_mutex_lock(&publishing);
    struct message *message = &messages[atomic_load(&published) % MESSAGES];
    size_t head = length < 126 ? 2 : 4;
    if (head + length > MESSAGE_BYTES)
        die("a message is too long");
    message->channel = channel;
    message->length = head + length;
    message->frame[0] = 0x81;
    message->frame[1] = length < 126 ? (unsigned char)length : 126;
    if (head == 4) {
        message->frame[2] = (unsigned char)(length >> 8);
        message->frame[3] = (unsigned char)length;
    }
    memcpy(message->frame + head, text, length);
    atomic_fetch_add(&published, 1);
    pthread_mutex_unlock(&publishing);
    for (int i = 0; i < thread_count; i++)
        if (&threads[i] != from && eventfd_write(threads[i].wake, 1))
            die("eventfd");
}

/* The I of "f<I>". */
static int channel_of(const char *name) {
    int channel = NONE;
    if (sscanf(name, "f%d", &channel) == 1 && (channel < 0 || channel >= CHANNELS))
        die("no such channel");
    return channel;
}

static void upgrade(struct thread *thread, int fd, const char *request) {
    /* The load generator always sends the same key. */
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    char receives[64] = "none", publishes[64] = "none";
    sscanf(request, "GET /pubsub/%63[^/]/%63[^ ]", receives, publishes);
    clients[fd] = (struct client){.upgraded = 1, .publishes = channel_of(publishes)};
    if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
        die("send");
    int channel = channel_of(receives);
    if (channel == NONE)
        return;
    int **subscribers = &thread->subscribers[channel];
    if (!*subscribers && !(*subscribers = calloc(SUBSCRIBERS, sizeof **subscribers)))
        die("calloc");
    (*subscribers)[thread->subscribed[channel]++] = fd;
}

/* Frames of less than 64 KiB, masked and whole: what the load generator sends in one write comes in one read here. */
static void take_frames(struct thread *thread, int fd, unsigned char *bytes, size_t length) {
    for (size_t at = 0; at + 2 + MASK_BYTES <= length;) {
        size_t payload = bytes[at + 1] & 127, head = 2;
        if (payload == 126) {
            payload = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
            head = 4;
        }
        unsigned char *mask = bytes + at + head, *text = mask + MASK_BYTES;
        if (text + payload > bytes + length)
            die("half a frame");
        for (size_t i = 0; i < payload; i++)
            text[i] ^= mask[i % MASK_BYTES];
        if ((bytes[at] & 15) == 1 && clients[fd].publishes != NONE)
            publish(thread, clients[fd].publishes, text, payload);
        at = (size_t)(text - bytes) + payload;
    }
}

static void receive(struct thread *thread, int fd) {
    unsigned char bytes[1 << 16];
    ssize_t length = recv(fd, bytes, sizeof bytes - 1, 0);
    if (length <= 0) {
        /* Its number must not be given to another while it is among the subscribers. */
        shutdown(fd, SHUT_RDWR);
        epoll_ctl(thread->epoll, EPOLL_CTL_DEL, fd, NULL);
        return;
    }
    bytes[length] = 0;
    if (clients[fd].upgraded)
        take_frames(thread, fd, bytes, (size_t)length);
    else
        upgrade(thread, fd, (const char *)bytes);
}

static void accept_all(struct thread *thread) {
    int on = 1, fd;
    while ((fd = accept4(thread->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(thread, fd);
    }
}

static void *serve(void *argument) {
    struct thread *thread = argument;
    struct epoll_event events[EVENTS_PER_WAIT];
    for (;;) {
        int ready = epoll_wait(thread->epoll, events, EVENTS_PER_WAIT, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            eventfd_t wakes;
            if (fd == thread->listener)
                accept_all(thread);
            else if (fd == thread->wake)
                eventfd_read(fd, &wakes);
            else
                receive(thread, fd);
        }
        deliver(thread);
    }
    return NULL;
}

static void open_thread(struct thread *thread) {
    int on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    thread->epoll = epoll_create1(0);
    thread->wake = eventfd(0, EFD_NONBLOCK);
    thread->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(thread->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(thread->listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(thread->listener, (struct sockaddr *)&address, sizeof address) || listen(thread->listener, BACKLOG))
        die("listen");
    watch(thread, thread->wake);
    watch(thread, thread->listener);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: limit PORT THREADS\n");
        return 2;
    }
    port = atoi(argv[1]);
    thread_count = atoi(argv[2]);
    if (port <= 0 || thread_count <= 0 || thread_count > THREADS) {
        fprintf(stderr, "no such port or number of threads (at most %d)\n", THREADS);
        return 2;
    }
    for (int i = 0; i < thread_count; i++)
        open_thread(&threads[i]);
    for (int i = 1; i < thread_count; i++) {
        pthread_t id;
        if (pthread_create(&id, NULL, serve, &threads[i]))
            die("pthread_create");
    }
    serve(&threads[0]);
}

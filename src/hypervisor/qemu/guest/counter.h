// The counter's server: TCP, port 7. A client sends lines "inc"; each is answered by a line with the counter, which
// is one more than before, or by "BAD" if the counter's memory is not what it was. Anything else is answered "error"
// and ends the connection. A client that does not read is not read from, so that a connection needs no more than its
// one buffer.

enum {
  PORT = 7,
  CONNECTIONS_MAX = 256,
  RECEIVE_BYTES = 256,
  REPLY_BYTES_MAX = 21,                                        // 20 digits, newline
  SEND_BYTES = RECEIVE_BYTES / 4 * REPLY_BYTES_MAX + 8,        // a reply for every "inc\n", and "error\n"
  POLL_CONSOLE = 0,
  POLL_LISTENER = 1,
  POLL_CONNECTIONS = 2,
};

struct connection {
  u32 matched;       // how much of the present line has come
  u32 sent, filled;  // of `replies`
  int ending;        // nothing more is read; closed once all replies are sent
  char replies[SEND_BYTES];
};

static struct pollfd polled[POLL_CONNECTIONS + CONNECTIONS_MAX];
static struct connection connections[CONNECTIONS_MAX];
static u32 connection_count;
static int listener = -1;

static void set_option(int socket, int level, int option, int value) {
  need(CALL5(setsockopt, socket, level, option, &value, sizeof value), "setsockopt");
}

// Gives the first network interface its address.
static void make_network(u32 address, u32 prefix) {
  struct ifreq request = {.ifr_name = "eth0"};
  struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
  int configured = (int)need(CALL3(socket, AF_INET, SOCK_DGRAM, 0), "socket");
  in->sin_family = AF_INET;
  in->sin_addr.s_addr = __builtin_bswap32(address);
  if (CALL3(ioctl, configured, SIOCSIFADDR, &request) == -ENODEV) refuse("an address but no network interface");
  in->sin_addr.s_addr = __builtin_bswap32(prefix == 0 ? 0 : ~0u << (32 - prefix));
  need(CALL3(ioctl, configured, SIOCSIFNETMASK, &request), "netmask");
  need(CALL3(ioctl, configured, SIOCGIFFLAGS, &request), "flags");
  request.ifr_flags |= IFF_UP;
  need(CALL3(ioctl, configured, SIOCSIFFLAGS, &request), "interface up");
  CALL1(close, configured);
}

static void make_listener(void) {
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = __builtin_bswap16(PORT)};
  listener = (int)need(CALL3(socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
  // Connections inherit these. Clients that vanished without a word free their place in the end.
  set_option(listener, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(listener, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(listener, IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set_option(listener, IPPROTO_TCP, TCP_KEEPINTVL, 10);
  need(CALL3(bind, listener, &here, sizeof here), "bind");
  need(CALL2(listen, listener, 128), "listen");
}

static void take_connections(void) {
  while (connection_count < CONNECTIONS_MAX) {
    long socket = CALL4(accept4, listener, 0, 0, SOCK_NONBLOCK);
    if (socket < 0) return;
    connections[connection_count] = (struct connection){0};
    polled[POLL_CONNECTIONS + connection_count] = (struct pollfd){.fd = (int)socket, .events = POLLIN};
    connection_count++;
  }
}

static void end_connection(u32 which) {
  CALL1(close, polled[POLL_CONNECTIONS + which].fd);
  connection_count--;
  connections[which] = connections[connection_count];
  polled[POLL_CONNECTIONS + which] = polled[POLL_CONNECTIONS + connection_count];
}

static void answer(struct connection *client, const char *received, long length) {
  char *to = client->replies;
  for (long k = 0; k < length && !client->ending; k++) {
    if (received[k] != "inc\n"[client->matched]) {
      to = put_text(to, "error\n");
      client->ending = 1;
    } else if (++client->matched == 4) {
      client->matched = 0;
      if (counter_is_bad()) to = put_text(to, "BAD\n");
      else to = put_text(put_number(to, next_count()), "\n");
    }
  }
  client->sent = 0;
  client->filled = (u32)(to - client->replies);
}

// False when the connection is over.
static int serve(struct connection *client, int socket) {
  if (client->filled == 0 && !client->ending) {
    char received[RECEIVE_BYTES];
    long length = CALL6(recvfrom, socket, received, sizeof received, 0, 0, 0);
    if (length == -EAGAIN) return 1;
    if (length < 0) return 0;
    if (length == 0) client->ending = 1;
    answer(client, received, length);
  }
  while (client->sent < client->filled) {
    const char *rest = client->replies + client->sent;
    long length = CALL6(sendto, socket, rest, client->filled - client->sent, MSG_NOSIGNAL, 0, 0);
    if (length == -EAGAIN) return 1;
    if (length < 0) return 0;
    client->sent += (u32)length;
  }
  client->filled = 0;
  return !client->ending;
}

// From the last to the first: the one that fills the place of an ended one has been served.
static void serve_connections(void) {
  for (u32 which = connection_count; which-- > 0;) {
    struct pollfd *place = &polled[POLL_CONNECTIONS + which];
    if (place->revents == 0) continue;
    if (!serve(&connections[which], place->fd)) end_connection(which);
    else place->events = connections[which].filled == 0 ? POLLIN : POLLOUT;
  }
}

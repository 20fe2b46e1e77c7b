// The channel's limits and times: what holds when the configuration says nothing.

import { RECORD_LENGTH_MAX } from '../stream/format.js';

/** Octets of a control message, kind included. Checked before it is unpacked. */
export const CONTROL_BYTES_MAX = 64 * 1024;
/** Octets of any message that the primary takes: it is sent control messages only. */
export const PRIMARY_INBOUND_BYTES_MAX = CONTROL_BYTES_MAX + 1;
/** Octets of the largest message that the secondary takes: the longest record, the two headers, room to spare. */
export const MESSAGE_BYTES_MAX = RECORD_LENGTH_MAX + 64 * 1024;
/** Octets given to the primary's socket and not yet taken by the kernel. */
export const SOCKET_BUFFER_BYTES = 16 * 1024 * 1024;
/** Octets that the secondary has received and the restorer has not read, before the socket is paused. */
export const RECEIVE_BUFFER_BYTES = 64 * 1024 * 1024;
/** Connections of a listener that have not finished their handshake; one more ends the oldest. */
export const HANDSHAKES_MAX = 16;
/** From the TCP connection to the welcome. */
export const HANDSHAKE_TIMEOUT_MS = 5_000;
export const CONNECT_TIMEOUT_MS = 5_000;
/** From our goodbye to the connection being cut if the other side does not close it. */
export const CLOSE_TIMEOUT_MS = 1_000;
/** Checkpoints that the secondary may be told of before it reads up to them. */
export const BOUNDARIES_MAX = 1_024;

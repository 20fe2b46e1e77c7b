// Reads an accepted socket into memory that is always the same. Node allocates 64 KiB for each read of a socket that a
// server accepted, and has to collect it again: at a gigabyte in a second that is half of all the work. A socket of ours
// may be told to read into a buffer (net's onread), but only when it is made; so the connection is taken over by a
// second socket, made around the first one's handle, as Node's own child processes do with a handle that they are sent.
//
// Where Node should have no such handle any more, the socket is read as any other, which is only slower.

import { Socket, type OnReadOpts, type SocketConstructorOpts } from 'node:net';

/** What lies below a socket, and may be put below another one. */
interface WithHandle {
  _handle: object | null;
}

interface HandleOptions extends SocketConstructorOpts {
  readonly handle: object;
  readonly onread: OnReadOpts;
}

/**
 * The socket to use in place of `accepted`, of a server with pauseOnConnect. `take` gets what is read, which is in
 * `memory` until it returns, or until the socket is resumed, if it has paused it.
 */
export function readInto(accepted: Socket, memory: Buffer, take: (octets: Uint8Array) => void): Socket {
  const { _handle: handle } = accepted as Partial<WithHandle>;
  if (typeof handle !== 'object' || handle === null) {
    accepted.on('data', take);
    return accepted;
  }
  (accepted as Partial<WithHandle>)._handle = null;
  const onread: OnReadOpts = {
    buffer: memory,
    callback: (count, octets) => {
      take(octets.subarray(0, count));
      return true;
    },
  };
  const options: HandleOptions = { handle, onread };
  const socket = new Socket(options);
  // The server counts its connections by the sockets that it made.
  socket.once('close', () => accepted.destroy());
  return socket;
}

// The network between the two agents, seen and slowed down: what the secondary says is read, and held for a random time
// whenever it holds an acknowledgement.
//
//   secondary ──▶ | bytes | ack | bytes | ─ read, held ─▶ noted, written ──▶ primary
//             ◀─────────────────────────────────────────────────────────────

import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { decodeControl } from '../../../src/channel/wire/message.js';

const BINARY = 2;

/** Reads the epochs of the acknowledgements in what a WebSocket client sends. */
export class AckReader {
  #bytes = Buffer.alloc(0);
  #upgraded = false;

  /** Those that are whole with this chunk. */
  read(chunk: Buffer): number[] {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    if (!this.#upgraded) {
      const end = this.#bytes.indexOf('\r\n\r\n');
      if (end < 0) return [];
      this.#bytes = this.#bytes.subarray(end + 4);
      this.#upgraded = true;
    }
    const epochs: number[] = [];
    for (let message = this.#next(); message !== null; message = this.#next()) {
      if (message.opcode !== BINARY) continue;
      const control = decodeControl(message.payload);
      if (control.kind === 'ack') epochs.push(control.epoch);
    }
    return epochs;
  }

  /** A whole frame off the front (RFC 6455, section 5.2); null: it is not here yet. */
  #next(): { opcode: number; payload: Buffer } | null {
    const bytes = this.#bytes;
    if (bytes.length < 2) return null;
    const first = bytes.readUInt8(0);
    const second = bytes.readUInt8(1);
    if (second < 128) throw new Error('a client masks what it sends');
    if (first < 128) throw new Error('control messages come in one piece');
    const short = second & 127;
    if (short === 127) throw new Error('so long a message is none of control');
    const maskAt = short === 126 ? 4 : 2;
    if (bytes.length < maskAt + 4) return null;
    const length = short === 126 ? bytes.readUInt16BE(2) : short;
    const end = maskAt + 4 + length;
    if (bytes.length < end) return null;
    const payload = Buffer.from(bytes.subarray(maskAt + 4, end));
    for (let k = 0; k < length; k++) payload[k] = (payload[k] ?? 0) ^ (bytes[maskAt + (k & 3)] ?? 0);
    this.#bytes = bytes.subarray(end);
    return { opcode: first & 15, payload };
  }
}

/** Listens until it is closed; `passing` is called right before an acknowledgement goes on to the primary. */
export async function slowAcknowledgements(
  listen: { readonly host: string; readonly port: number },
  primary: { readonly host: string; readonly port: number },
  delayMs: () => number,
  passing: (epoch: number) => void,
): Promise<Server> {
  const server = createServer((secondary) => {
    const onwards = connect(primary.port, primary.host);
    const reader = new AckReader();
    let last = Promise.resolve();
    join(onwards, secondary, (chunk) => void secondary.write(chunk));
    join(secondary, onwards, (chunk) => {
      const epochs = reader.read(chunk);
      // One behind the other, whatever each is held for.
      last = last.then(async () => {
        if (epochs.length > 0) await sleep(delayMs());
        for (const epoch of epochs) passing(epoch);
        if (onwards.writable) onwards.write(chunk);
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(listen.port, listen.host, resolve));
  return server;
}

function join(from: Socket, to: Socket, passes: (chunk: Buffer) => void): void {
  from.setNoDelay(true);
  from.on('data', passes);
  from.on('error', () => undefined); // 'close' follows
  from.on('close', () => to.destroy());
}

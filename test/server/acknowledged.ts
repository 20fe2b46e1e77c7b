// A client that counts what a server acknowledges to it, run as a program on a host of the lab: one connection, one request
// under way, each number once.
//
//   acknowledged.js sql ADDRESS      INSERT of the next number        acknowledged.number, a primary key
//   acknowledged.js redis ADDRESS    RPUSH of the next number         the list acknowledged, whose length is the reply
//
// Says "N MS" for each that is acknowledged, when it came; ends, with what was wrong, at any reply that is not the
// expected one, a reset, a close. Before its first word it connects anew as long as nobody is there. Whoever runs it ends it.

import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const RETRY_MS = 500;

interface Protocol {
  readonly port: number;
  /** What is said first: its answer is one to the number 0. */
  readonly hello: Buffer;
  request(number: number): Buffer;
  /** How many octets of what was received are a whole answer; 0: it is not whole yet. @throws Error what is wrong */
  answered(received: Buffer, number: number): number;
}

/** One of the frontend's messages: kind, length, body. */
function message(kind: string, body: string): Buffer {
  const bytes = Buffer.from(`${body}\0`);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(4 + bytes.length);
  return Buffer.concat([Buffer.from(kind), length, bytes]);
}

/** PostgreSQL's simple queries, of a server that trusts. */
const SQL: Protocol = {
  port: 5432,
  hello: message('', '\0\x03\0\0user\0postgres\0database\0bench\0'),
  request: (number) =>
    message('Q', `INSERT INTO acknowledged VALUES (${number}, 'said ${number}') RETURNING number`),
  answered(received, number) {
    let done = '';
    for (let at = 0; received.length >= at + 5;) {
      const kind = received.toString('latin1', at, at + 1);
      const end = at + 1 + received.readUInt32BE(at + 1);
      if (end > received.length) return 0;
      const body = received.toString('utf8', at + 5, end);
      if (kind === 'E') throw new Error(`after ${number}: ${body.replaceAll('\0', ' ')}`);
      // One column, as text: count of columns, its length, itself.
      if (kind === 'D') done = body.slice(6);
      if (kind === 'Z') {
        if (number > 0 && done !== String(number))
          throw new Error(`to ${number} it says ${JSON.stringify(done)}`);
        return end;
      }
      at = end;
    }
    return 0;
  },
};

const REDIS: Protocol = {
  port: 6379,
  hello: Buffer.from('PING\r\n'),
  request: (number) => Buffer.from(`RPUSH acknowledged ${number}\r\n`),
  answered(received, number) {
    const line = received.toString('latin1');
    if (!line.endsWith('\r\n')) return 0;
    if (line !== (number === 0 ? '+PONG\r\n' : `:${number}\r\n`))
      throw new Error(`to ${number} it says ${JSON.stringify(line)}`);
    return received.length;
  },
};

/** Resolves when it has taken the hello; null: nobody is there yet. */
async function opened(protocol: Protocol, address: string): Promise<Socket | null> {
  const socket = connect(protocol.port, address);
  socket.setNoDelay(true);
  return new Promise((resolve) => {
    let received = Buffer.alloc(0);
    const none = () => resolve(null);
    const hear = (bytes: Buffer) => {
      received = Buffer.concat([received, bytes]);
      try {
        if (protocol.answered(received, 0) === 0) return;
      } catch {
        socket.destroy(); // it starts up, and says so
        return;
      }
      socket.removeAllListeners();
      resolve(socket);
    };
    socket.once('error', none).once('close', none).on('data', hear);
    socket.once('connect', () => socket.write(protocol.hello));
  });
}

function end(why: string): never {
  process.stderr.write(`${why}\n`);
  process.exit(1);
}

function converse(socket: Socket, protocol: Protocol): void {
  let number = 1;
  let received = Buffer.alloc(0);
  socket.on('error', (error) => end(error.message)).on('close', () => end('closed'));
  socket.on('data', (bytes: Buffer) => {
    received = Buffer.concat([received, bytes]);
    try {
      const length = protocol.answered(received, number);
      if (length === 0) return;
      if (length < received.length) throw new Error(`to ${number} it says more than once`);
    } catch (error) {
      end(error instanceof Error ? error.message : String(error));
    }
    process.stdout.write(`${number} ${Date.now()}\n`);
    number++;
    received = Buffer.alloc(0);
    socket.write(protocol.request(number));
  });
  socket.write(protocol.request(number));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , which = '', address = ''] = process.argv;
  const protocol = which === 'sql' ? SQL : REDIS;
  let socket = await opened(protocol, address);
  for (; socket === null; socket = await opened(protocol, address)) await sleep(RETRY_MS);
  converse(socket, protocol);
}
